"""What is done for a run besides its rows: its node is made or adopted, its streams follow, its end is written.

Every function is a procedure (see `steps`): requests in their order, retried where they may be repeated.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any

from tiled_ingest.core.errors import InvalidDocument, TiledRejected
from tiled_ingest.core.external.registration import audit
from tiled_ingest.core.steps import (
    Announcement,
    Letters,
    Procedure,
    RefusalsOut,
    Sleep,
    Standing,
    Surroundings,
    read_log,
)
from tiled_ingest.core.writes import (
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
from tiled_ingest.core.writing.datasets import OURS, facts_of
from tiled_ingest.core.writing.patience import Bare, create, insist
from tiled_ingest.core.writing.reconcile import rows_at
from tiled_ingest.core.writing.stores import epoch_of
from tiled_ingest.core.writing.values import Values

from .documents import access_tags, clipped, content_hash, named, run_metadata, specs, stream_metadata
from .letters import belongs, letter, letters_of
from .run import Chore, Run, Verdict
from .states import State, Trigger
from .stream import Stream

STREAM_SPECS = (("BlueskyEventStream", "3.0"), ("composite", None))
CONFIG_UPDATES = "_config_updates"
TIMESTAMP_MS_MAX = 253_402_300_800_000  # of the years that have four digits
GAPS_SHOWN = 20  # of a stream, in a note
ANNOUNCE_RETRY_S = 5.0  # a topic that is missing, or that we may not write: somebody has to mend it
FOREIGN = Verdict("InvalidDocument", "foreign_run", "someone else wrote this run", ours=False)
BEGUN_BEFORE = Verdict("InvalidDocument", "beginning_lost", "Tiled has it from a start before this one", ours=True)
CONFLICTING = Verdict("InvalidDocument", "conflicting_run", "another run has this uid", ours=False)


# ---------------------------------------------------------------- its node


def open_run(around: Surroundings, run: Run) -> Procedure[None]:
    """Make the run's node, or find out whose the existing one is."""
    if run.inherited:
        yield from _look_up(around, run)
        return
    answer = yield from _create(around, run)
    if isinstance(answer, Exists):
        yield from _look_up(around, run)
        return
    run.meet(Trigger.CREATED)
    if isinstance(answer, Bare):
        yield from _complete(around, run)


def _create(around: Surroundings, run: Run) -> Procedure[Any]:
    """Make the run's node, and its parent unless we know that it is there."""
    known = run.parent in around.weather.parents
    if not known:
        yield from insist(around, run.uid, EnsureContainer(run.parent))
        around.weather.saw_parent(run.parent)
    request, bare = (_creation(run, metadata) for metadata in (_whole(around, run), _bare(around, run)))
    answer = yield from create(around, run.uid, request, bare)
    if isinstance(answer, Missing) and known:  # somebody has deleted it since
        around.weather.parents.clear()
        return (yield from _create(around, run))
    if isinstance(answer, Missing):
        raise TiledRejected(f"the node {'/'.join(run.parent)} is gone")
    return answer


def _creation(run: Run, metadata: Json) -> CreateContainer:
    return CreateContainer(run.parent, run.uid, metadata, specs(run.start), access_tags(run.start))


def _whole(around: Surroundings, run: Run) -> Json:
    return {"start": run_metadata(run.start), OURS: _first_facts(around, run)}


def _bare(around: Surroundings, run: Run) -> Json:
    """What cannot be at fault when Tiled does not take the node; it says itself that it is not all."""
    start = {key: value for key, value in run_metadata(run.start).items() if key in {"uid", "time"}}
    return {"start": start, OURS: {**_first_facts(around, run), "bare": True}}


def _complete(around: Surroundings, run: Run) -> Procedure[None]:
    """Write into a bare node of ours what it lacks."""
    yield from _update(around, run, _whole(around, run), _bare(around, run)[OURS])


def _update(around: Surroundings, run: Run, metadata: Json, meanwhile: Json) -> Procedure[None]:
    """Write metadata of an open run; a write that only shows whether Tiled takes any says `meanwhile` until then."""
    run.final_facts = meanwhile
    try:
        answer = yield from insist(around, run.uid, UpdateMetadata(run.path, metadata))
    finally:
        run.final_facts = None
    if isinstance(answer, Missing):
        raise TiledRejected(f"the node {'/'.join(run.path)} is gone")


def _look_up(around: Surroundings, run: Run) -> Procedure[None]:
    """Read the node that is there already, and decide by its metadata whose it is."""
    answer = yield from insist(around, run.uid, GetNode(run.path))
    if not isinstance(answer, Done):
        raise TiledRejected(f"the node {'/'.join(run.path)} is gone")
    metadata = answer.value.metadata
    if around.policy.writes_anew:
        yield from _take_up(around, run, metadata)
        return
    is_closed = _objection(around, run, metadata.get(OURS)) is None and _is_closed(metadata)
    if is_closed and not (yield from _is_intact(around, run, metadata[OURS])):
        metadata = {**metadata, OURS: {**metadata[OURS], "state": "open"}}
    _judge(around, run, metadata)
    if run.opened and "bare" in metadata[OURS]:
        yield from _complete(around, run)
    if run.opened and run.reopening:
        yield from _go_on(around, run, answer.value.metadata[OURS])


def _go_on(around: Surroundings, run: Run, facts: Mapping[str, Any]) -> Procedure[None]:
    """Open a run again that an earlier claim was about to open again, if it did not come to it."""
    if facts.get("state") == "abandoned":
        yield from say_open(around, run)
    run.reopening = False


def _first_facts(around: Surroundings, run: Run) -> Json:
    """Return our facts about a run that begins. One that is written anew is not open: nobody shall go on with it."""
    if around.policy.writes_anew:
        return run_facts(around, run, "failed") | _mark(around)
    return run_facts(around, run, "open")


def _mark(around: Surroundings) -> Json:
    """Say that a run is being written anew, and by whom: who comes after a crash takes a later epoch."""
    return {"rebuild": {"epoch": around.epoch, "nonce": around.nonce}}


def _take_up(around: Surroundings, run: Run, metadata: Mapping[str, Any]) -> Procedure[None]:
    """Go on with a run that is to be written anew, however it ended. Its state stays what it was until then."""
    facts = metadata.get(OURS)
    objection = _objection(around, run, facts)
    if objection is not None and objection.code == "foreign_run" and around.policy.adopts:
        same = content_hash(metadata.get("start") or {}) == content_hash(run_metadata(run.start))
        objection = None if same else CONFLICTING
    if objection is not None:
        run.condemn(objection)
        return
    known = facts if isinstance(facts, Mapping) else {}
    run.final_facts = {**known, **_mark(around)}
    update: Json = {OURS: run.final_facts}
    if "bare" in known:
        update["start"] = run_metadata(run.start)
    yield from insist(around, run.uid, UpdateMetadata(run.path, update))
    run.meet(Trigger.CREATED)


def _is_closed(metadata: Mapping[str, Any]) -> bool:
    facts = metadata.get(OURS)
    return isinstance(facts, Mapping) and facts.get("state") in {"complete", "incomplete", "abandoned"}


def _is_intact(around: Surroundings, run: Run, facts: Mapping[str, Any]) -> Procedure[bool]:
    """Whether a run that Tiled calls closed still has the tables and arrays that its audit saw.

    The stored state is advice, not proof: a zombie may have closed the run while a later claim, which then died,
    had switched some of its nodes already, or had made streams that the zombie never heard of.
    """
    closed_by = facts.get("epoch", 0)
    for name, rows in {**dict.fromkeys(run.streams, 0), **(facts.get("rows") or {})}.items():
        found, epoch = yield from _table_of(around, run, name)
        if epoch > closed_by or found != rows:
            return False
    for name, arrays in (facts.get("arrays") or {}).items():
        for key, rows in arrays.items():
            found, epoch = yield from _array_of(around, run, (*run.path, name, key))
            if epoch > closed_by or found != rows:
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


def _array_of(around: Surroundings, run: Run, path: Path) -> Procedure[tuple[int, int]]:
    """Return how many rows an array shows, and the epoch of who wrote them."""
    node = yield from insist(around, run.uid, GetNode(path))
    source = node.value.array if isinstance(node, Done) else None
    if source is None:
        return 0, 0
    return source.shape[0], max(epoch_of(source), int(facts_of(source).get("epoch", 0)))


def _source_of(facts: Any) -> Mapping[str, Any]:
    source = facts.get("source") if isinstance(facts, Mapping) else None
    return source if isinstance(source, Mapping) else {}


def _objection(around: Surroundings, run: Run, facts: Any) -> Verdict | None:
    """Why a node is not that of this run, if it is not."""
    source = _source_of(facts)
    if (source.get("topic_id"), source.get("partition")) != (around.topic_id, around.home.partition):
        return FOREIGN
    return None if facts.get("start_hash") == run.start_hash else CONFLICTING


def _judge(around: Surroundings, run: Run, metadata: Mapping[str, Any]) -> None:
    facts: Mapping[str, Any] = metadata.get(OURS) or {}
    objection = _objection(around, run, facts)
    if objection is not None:
        run.condemn(objection)
    elif "failing" in facts or facts.get("state") == "failed":
        failing = facts.get("failing") or {}
        run.condemn(Verdict("TiledRejected", "run_failed", str(failing.get("error", "failed earlier")), ours=True))
    elif facts.get("state") == "open" or (facts.get("state") == "abandoned" and run.reopening):
        if _begins_later(run, facts):
            run.condemn(BEGUN_BEFORE)
            return
        told = facts.get("reopened")
        run.reopened = told if isinstance(told, Mapping) and told.keys() >= {"times", "timestamp_ms"} else None
        run.meet(Trigger.CREATED)
    else:
        run.known_to = int(_source_of(facts).get("last_offset", -1))
        run.known = facts
        run.meet(Trigger.FOUND_FINISHED)


def _begins_later(run: Run, facts: Mapping[str, Any]) -> bool:
    """Whether the start that we met is a repetition, and what the node has comes from before it.

    We did not read that: whatever we write would replace it, and hide rows that were committed.
    """
    first_offset = _source_of(facts).get("first_offset")
    return isinstance(first_offset, int) and first_offset < run.first_offset


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
        "notes": list(dict.fromkeys([*run.notes, *_reopened_note(run)])),
        "epoch": around.epoch,
        "start_hash": run.start_hash,
    }
    if run.reopened:
        facts["reopened"] = dict(run.reopened)
    if state != "open" and (arrays := run.array_rows):
        facts["arrays"] = arrays
    return clipped(facts | _failing(run))  # type: ignore[no-any-return]


def _failing(run: Run) -> Json:
    """The decision that a run fails: once made, it stands in all that we write of the run."""
    verdict = run.verdict
    return {"failing": {"code": verdict.code, "error": verdict.detail}} if verdict and verdict.ours else {}


def standing_of(around: Surroundings, run: Run) -> Standing | None:
    """Return where a write of our own can show whether Tiled takes any; `None` as long as no node is known as ours.

    One that an earlier claim saw failing is not opened again, but has been written to before its stop is.
    """
    if not run.opened and run.final_facts is None:
        return None
    return Standing(run.path, run.final_facts or _first_facts(around, run), access_tags(run.start))


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
        values = Values(around, run, stream)
        if around.policy.writes_anew:
            yield from emit_misfits(around, run, stream, (yield from values.write_anew(run.last_offset + 1)))
        yield from values.audit(run.last_offset + 1)
        yield from _audit_configurations(around, run, stream)
    for external in run.externals.values():
        yield from audit(around, run, external)
    # Who finds the run closed takes all of it up to here for settled: what was refused of it must be out before.
    yield RefusalsOut(run.first_offset, run.last_offset)
    state = final_state(run)
    lasting = list(run.notes)
    note_gaps(run)
    facts = run_facts(around, run, state)
    if state == "abandoned":
        run.notes = lasting  # it may go on, and have no gap then
    dead = run.refused.items()
    facts["notes"] += [f"{number} documents of this run are dead letters: {code}." for code, number in dead]
    metadata: Json = {OURS: facts}
    if run.stop is not None:
        metadata["stop"] = clipped(run.stop)
    if facts["notes"]:
        metadata["notes"] = facts["notes"]
    answer = yield from insist(around, run.uid, UpdateMetadata(run.path, metadata))
    if isinstance(answer, Missing):
        raise TiledRejected(f"the run {'/'.join(run.path)} is gone")
    run.final_facts = facts
    yield from insist(around, run.uid, CloseStreams(tuple(_streams_to_close(run))))
    yield from announce(around, run, facts)
    run.meet(Trigger.CLOSED)
    known = named(run.start)
    around.tell("run_closed", run=run.uid, **known, state=state, rows=sum(run.rows.values()), since_s=run.opened_s)


def announce(around: Surroundings, run: Run, facts: Mapping[str, Any]) -> Procedure[None]:
    """Tell the topic of completed runs what the run's metadata say; returns only after it has confirmed.

    The stop is settled after this: a crash in between has the run announced once more, never too seldom.
    """
    step = Announcement(run.uid, run.path, facts["state"], facts["rows"])
    while around.policy.announces and (refusal := (yield step)):
        around.tell("announcement_refused", run=run.uid, detail=refusal)
        yield Sleep(ANNOUNCE_RETRY_S, down=False)


def stands_as_left(around: Surroundings, run: Run) -> Procedure[bool]:
    """Whether the node of a run that this claim gave up says what we wrote: a redrive may have replaced the run."""
    answer = yield from insist(around, run.uid, GetNode(run.path))
    facts = answer.value.metadata.get(OURS) if isinstance(answer, Done) else None
    if not isinstance(facts, Mapping) or "rebuild" in facts:
        return False
    return facts.get("state") in {"open", "abandoned"} and facts.get("epoch") == around.epoch


def say_open(around: Surroundings, run: Run) -> Procedure[None]:
    """Write into the node of a run that was given up that it is open again, and since when; it is durable then."""
    times = run.reopened["times"] if run.reopened else 0
    run.reopened = {"times": times + 1, "timestamp_ms": run.heard_ms}
    facts = run_facts(around, run, "open")
    yield from _update(around, run, {OURS: facts}, facts)


def _reopened_note(run: Run) -> list[str]:
    if not run.reopened:
        return []
    times, when = run.reopened["times"], _date(run.reopened["timestamp_ms"])
    return [f"Given up as abandoned, and opened again as its documents went on: {times} times, last {when}."]


def _date(timestamp_ms: int) -> str:
    """Spell a timestamp that a publisher may have chosen."""
    if not 0 < timestamp_ms < TIMESTAMP_MS_MAX:
        return "at a time that the log does not tell"
    return f"on {dt.datetime.fromtimestamp(timestamp_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


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


def note_gaps(run: Run) -> None:
    """Note which events never came, whatever a stop document counts: one who publishes with `acks=0` loses some."""
    for name in run.streams:
        gaps = run.acceptance.gaps(name)
        spelled = [str(first) if first == last else f"{first}-{last}" for first, last in gaps[:GAPS_SHOWN]]
        rest = sum(last - first + 1 for first, last in gaps[GAPS_SHOWN:])
        if gaps:
            more = f", and {rest} more" if rest else ""
            run.notes.append(f"Stream '{name}': no event has seq_num {', '.join(spelled)}{more}.")


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
    yield from _write_facts(around, run, run_facts(around, run, "open"))


def _write_facts(around: Surroundings, run: Run, facts: Json) -> Procedure[None]:
    """Write what became of the run into its node; if somebody has deleted that, make it again.

    Else a successor would know nothing of it, and begin the run anew.
    """
    while isinstance((yield from insist(around, run.uid, UpdateMetadata(run.path, {OURS: facts}))), Missing):
        yield from _create(around, run)


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


def emit_misfits(around: Surroundings, run: Run, stream: Stream, offsets: Collection[int]) -> Procedure[None]:
    """Events with values that became null: the documents at these offsets go to the dead letters, whole."""
    error = InvalidDocument("value_misfit", "a value is none of its column; the row is in Tiled with null there")
    for offset in sorted(offsets):
        chunk = yield from read_log(offset, offset + 1)
        yield Letters(tuple(letter(record, error, run.uid) for record in chunk.records if record.offset == offset))
    if offsets:
        whither = "their events are in the dead letters" if around.policy.log_holds_runs else "they were reported"
        run.notes.append(f"Stream '{stream.name}': values that fit no column are null; {whither}.")


def mark_failed(around: Surroundings, run: Run) -> Procedure[None]:
    """Write that the run failed, after its dead letters are out, and close what live readers see of it.

    First without its stop document: that may be what Tiled does not take.
    """
    facts = run_facts(around, run, "failed")
    yield from _write_facts(around, run, facts)
    run.final_facts = facts
    yield from insist(around, run.uid, CloseStreams(tuple(_streams_to_close(run))))
    if run.stop is not None and not around.policy.backed_up:
        yield from insist(around, run.uid, UpdateMetadata(run.path, {"stop": clipped(run.stop)}))
