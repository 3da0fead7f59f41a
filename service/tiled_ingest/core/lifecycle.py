"""What is done for a run besides its rows: its node is made or adopted, its streams follow, its end is written.

Every function is a procedure (see `steps`): requests in their order, retried where they may be repeated.
"""

from collections.abc import Mapping
from typing import Any

from .datasets import OURS, facts_of
from .documents import access_tags, clipped, run_metadata, specs, stream_metadata
from .errors import TiledRejected
from .letters import belongs, letters_of
from .patience import Bare, create, insist
from .reconcile import rows_at
from .registration import audit
from .run import Chore, Run, Verdict
from .states import State, Trigger
from .steps import Letters, Procedure, Standing, Surroundings, read_log
from .stream import Stream
from .values import Values
from .writes import (
    CloseStreams,
    CreateContainer,
    Done,
    EnsureContainer,
    Exists,
    GetNode,
    Json,
    Missing,
    Path,
    UpdateMetadata,
)

STREAM_SPECS = (("BlueskyEventStream", "3.0"), ("composite", None))
CONFIG_UPDATES = "_config_updates"


# ---------------------------------------------------------------- its node


def open_run(around: Surroundings, run: Run) -> Procedure[None]:
    """Make the run's node, or find out whose the existing one is."""
    if run.inherited:
        yield from _look_up(around, run)
        return
    yield from insist(around, run.uid, EnsureContainer(run.parent))
    request, bare = (_creation(run, metadata) for metadata in (_whole(around, run), _bare(around, run)))
    answer = yield from create(around, run.uid, request, bare)
    if isinstance(answer, Missing):
        raise TiledRejected(f"the node {'/'.join(run.parent)} is gone")
    if isinstance(answer, Exists):
        yield from _look_up(around, run)
        return
    run.meet(Trigger.CREATED)
    if isinstance(answer, Bare):
        yield from _complete(around, run)


def _creation(run: Run, metadata: Json) -> CreateContainer:
    return CreateContainer(run.parent, run.uid, metadata, specs(run.start), access_tags(run.start))


def _whole(around: Surroundings, run: Run) -> Json:
    return {"start": run_metadata(run.start), OURS: run_facts(around, run, "open")}


def _bare(around: Surroundings, run: Run) -> Json:
    """What cannot be at fault when Tiled does not take the node; it says itself that it is not all."""
    start = {key: value for key, value in run_metadata(run.start).items() if key in {"uid", "time"}}
    return {"start": start, OURS: {**run_facts(around, run, "open"), "bare": True}}


def _complete(around: Surroundings, run: Run) -> Procedure[None]:
    """Write into a bare node of ours what it lacks."""
    answer = yield from insist(around, run.uid, UpdateMetadata(run.path, _whole(around, run)))
    if isinstance(answer, Missing):
        raise TiledRejected(f"the node {'/'.join(run.path)} is gone")


def _look_up(around: Surroundings, run: Run) -> Procedure[None]:
    """Read the node that is there already, and decide by its metadata whose it is."""
    answer = yield from insist(around, run.uid, GetNode(run.path))
    if not isinstance(answer, Done):
        raise TiledRejected(f"the node {'/'.join(run.path)} is gone")
    metadata = answer.value.metadata
    if _is_closed(metadata) and not (yield from _is_intact(around, run, metadata[OURS])):
        metadata = {**metadata, OURS: {**metadata[OURS], "state": "open"}}
    _judge(around, run, metadata)
    if run.opened and "bare" in metadata[OURS]:
        yield from _complete(around, run)


def _is_closed(metadata: Mapping[str, Any]) -> bool:
    facts = metadata.get(OURS)
    return isinstance(facts, Mapping) and facts.get("state") in {"complete", "incomplete", "abandoned"}


def _is_intact(around: Surroundings, run: Run, facts: Mapping[str, Any]) -> Procedure[bool]:
    """Whether a run that Tiled calls closed still has the tables that its audit saw.

    The stored state is advice, not proof: a zombie may have closed the run while a later claim, which then died,
    had switched its tables already.
    """
    for name, rows in (facts.get("rows") or {}).items():
        found, epoch = yield from _table_of(around, run, name)
        if epoch > facts.get("epoch", 0) or found != rows:
            return False
    return True


def _table_of(around: Surroundings, run: Run, stream: str) -> Procedure[tuple[int, int]]:
    """Return how many rows a stream's table has, or the first of its parts, and the epoch of who made its dataset."""
    for key in ("internal", "internal_0"):
        path = (*run.path, stream, key)
        node = yield from insist(around, run.uid, GetNode(path))
        source = node.value.source if isinstance(node, Done) else None
        if source is not None:
            rows = yield from rows_at(around, run.uid, path, source.schema.names[0])
            return rows, int(facts_of(source).get("epoch", 0))
    return 0, 0


def _judge(around: Surroundings, run: Run, metadata: Mapping[str, Any]) -> None:
    facts = metadata.get(OURS)
    source = facts.get("source") if isinstance(facts, Mapping) else None
    source = source if isinstance(source, Mapping) else {}
    if not isinstance(facts, Mapping) or (source.get("topic_id"), source.get("partition")) != (
        around.topic_id,
        around.home.partition,
    ):
        run.condemn(Verdict("InvalidDocument", "foreign_run", "someone else wrote this run", ours=False))
    elif facts.get("start_hash") != run.start_hash:
        run.condemn(Verdict("InvalidDocument", "conflicting_run", "another run has this uid", ours=False))
    elif "failing" in facts or facts.get("state") == "failed":
        failing = facts.get("failing") or {}
        run.condemn(Verdict("TiledRejected", "run_failed", str(failing.get("error", "failed earlier")), ours=True))
    elif facts.get("state") == "open":
        run.meet(Trigger.CREATED)
    else:
        run.known_to = int(source.get("last_offset", -1))
        run.meet(Trigger.FOUND_FINISHED)


def run_facts(around: Surroundings, run: Run, state: str) -> Json:
    """Return our own facts about a run, as they stand in its metadata under `tiled_ingest`."""
    source = {
        "topic": run.home.topic,
        "topic_id": around.topic_id,
        "partition": run.home.partition,
        "first_offset": run.first_offset,
    }
    if state != "open":
        source["last_offset"] = run.last_offset
    facts = {
        "version": around.policy.version,
        "state": state,
        "rows": run.rows,
        "source": source,
        "notes": list(dict.fromkeys(run.notes)),
        "epoch": around.epoch,
        "start_hash": run.start_hash,
    }
    return clipped(facts | _failing(run))  # type: ignore[no-any-return]


def _failing(run: Run) -> Json:
    """The decision that a run fails: once made, it stands in all that we write of the run."""
    verdict = run.verdict
    return {"failing": {"code": verdict.code, "error": verdict.detail}} if verdict and verdict.ours else {}


def standing_of(around: Surroundings, run: Run) -> Standing | None:
    """Return where a write of our own can show whether Tiled takes any; `None` as long as the node is not there."""
    if not run.opened:
        return None
    return Standing(run.path, run.final_facts or run_facts(around, run, "open"), access_tags(run.start))


# ---------------------------------------------------------------- its streams


def do_chore(around: Surroundings, run: Run, chore: Chore) -> Procedure[None]:
    """Make a stream's node, or note a later descriptor of the stream in it."""
    if chore.is_update:
        yield from _write_configurations(around, run, chore.stream)
        return
    path = chore.stream.path
    metadata = stream_metadata(chore.descriptor)
    request = CreateContainer(path[:-1], path[-1], metadata, STREAM_SPECS, access_tags(run.start))
    answer = yield from insist(around, run.uid, request)
    if isinstance(answer, Missing):
        raise TiledRejected(f"the run {'/'.join(run.path)} is gone")
    if isinstance(answer, Exists):
        chore.stream.fresh = False  # an earlier claim made it, perhaps its table too


def _write_configurations(around: Surroundings, run: Run, stream: Stream) -> Procedure[None]:
    """Write all later descriptors of a stream that the log has so far; repeating it changes nothing."""
    request = UpdateMetadata(stream.path, {CONFIG_UPDATES: list(stream.updates)})
    if isinstance((yield from insist(around, run.uid, request)), Missing):
        raise TiledRejected(f"the stream {'/'.join(stream.path)} is gone")


def _audit_configurations(around: Surroundings, run: Run, stream: Stream) -> Procedure[None]:
    """At stop: an update whose reply was lost may have landed late, over a longer list."""
    if not stream.updates:
        return
    answer = yield from insist(around, run.uid, GetNode(stream.path))
    held = answer.value.metadata.get(CONFIG_UPDATES) or [] if isinstance(answer, Done) else []
    if [update.get("uid") for update in held] != [update["uid"] for update in stream.updates]:
        yield from _write_configurations(around, run, stream)


# ---------------------------------------------------------------- its end


def close_run(around: Surroundings, run: Run) -> Procedure[None]:
    """Audit every table, write the stop document and the outcome, close the live streams. Repeatable as a whole."""
    for stream in run.streams.values():
        yield from Values(around, run, stream).audit(run.last_offset + 1)
        yield from _audit_configurations(around, run, stream)
    for external in run.externals.values():
        yield from audit(around, run, external)
    state = final_state(run)
    for code, number in run.refused.items():
        run.notes.append(f"{number} documents of this run are dead letters: {code}.")
    facts = run_facts(around, run, state)
    metadata: Json = {OURS: facts}
    if run.stop is not None:
        metadata["stop"] = clipped(run.stop)
    if run.notes:
        metadata["notes"] = facts["notes"]
    answer = yield from insist(around, run.uid, UpdateMetadata(run.path, metadata))
    if isinstance(answer, Missing):
        raise TiledRejected(f"the run {'/'.join(run.path)} is gone")
    run.final_facts = facts
    yield from insist(around, run.uid, CloseStreams(tuple(_streams_to_close(run))))
    run.meet(Trigger.CLOSED)
    around.tell("run_closed", run=run.uid, state=state, rows=sum(run.rows.values()), since_s=run.opened_s)


def final_state(run: Run) -> str:
    """Return `complete`, `incomplete` (events that the stop counts, or external data, are not there) or `abandoned`."""
    if run.state is State.ABANDONING or run.stop is None:
        return "abandoned"
    counted = run.stop.get("num_events") or {}
    missing = {name: n for name, n in counted.items() if isinstance(n, int) and run.events_of(name) < n}
    for name, n in missing.items():
        run.notes.append(f"Stream '{name}': the stop document counts {n} events, {run.events_of(name)} came.")
    lacking = [external for external in run.externals.values() if external.unmet or external.refusal]
    return "incomplete" if missing or lacking else "complete"


def _streams_to_close(run: Run) -> list[Path]:
    values = [path for stream in run.streams.values() for path in stream.value_paths]
    externals = [external.path for external in run.externals.values() if external.known is not None]
    return [*values, *externals, *(stream.path for stream in run.streams.values()), run.path]


# ---------------------------------------------------------------- a run that may not be written


def decide_failure(around: Surroundings, run: Run) -> Procedure[None]:
    """Make the decision durable, before anything of the run is emitted. Nothing to do for a node that is not ours."""
    verdict = run.verdict
    if verdict is None or not verdict.ours:
        return
    yield from insist(around, run.uid, UpdateMetadata(run.path, {OURS: run_facts(around, run, "open")}))


def emit_run(around: Surroundings, run: Run, verdict: Verdict) -> Procedure[None]:
    """Send what has arrived of the run to the dead letters, from its start, in order, each confirmed."""
    members = belongs(run, around.decode)
    offset = run.first_offset
    while offset <= run.last_offset:
        stop = run.last_offset + 1
        chunk = yield from read_log(offset, stop)
        letters = letters_of(chunk.records, members, run, verdict, stop)
        if letters:
            yield Letters(letters)
        offset = chunk.next_offset
        run.emitted_to = max(run.emitted_to, offset)


def mark_failed(around: Surroundings, run: Run) -> Procedure[None]:
    """Write that the run failed, after its dead letters are out, and close what live readers see of it.

    First without its stop document: that may be what Tiled does not take.
    """
    facts = run_facts(around, run, "failed")
    yield from insist(around, run.uid, UpdateMetadata(run.path, {OURS: facts}))
    run.final_facts = facts
    yield from insist(around, run.uid, CloseStreams(tuple(_streams_to_close(run))))
    if run.stop is not None:
        yield from insist(around, run.uid, UpdateMetadata(run.path, {"stop": clipped(run.stop)}))
