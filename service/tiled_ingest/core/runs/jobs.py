"""What to do next for a run: its automaton and its queues looked at, one job chosen.

A job is a procedure that ends with something settled: it releases the holds of what Tiled (or the dead-letter topic)
confirmed. A job that ends by `TiledRejected` condemns the run; what it had in hand waits for the dead letters then.
"""

from collections.abc import Mapping

from tiled_ingest.core.errors import TiledRejected
from tiled_ingest.core.external.key import External
from tiled_ingest.core.external.registration import register
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.steps import Procedure
from tiled_ingest.core.writing.values import Values

from .desk import Desk
from .letters import fail_if_backed_up
from .lifecycle import (
    announce,
    close_run,
    decide_failure,
    do_chore,
    emit_misfits,
    emit_run,
    mark_failed,
    open_run,
)
from .reopening import reopen, take_again
from .run import Run, Verdict
from .states import State, Trigger
from .stream import Stream


def next_job(desk: Desk, run: Run, now_s: float, force: str | None) -> Procedure[None] | None:
    """Return the next job of a run; `None` when nothing is due. `force` is why even young batches are due."""
    if run.state is State.CONDEMNED:
        return _condemned(desk, run) if run.holds or run.emitted_to <= run.last_offset else None
    if run.state is State.REDELIVERED:
        return _redelivered(desk, run)
    if run.state is State.DORMANT:
        return reopen(desk, run) if run.deferred else None
    return _next_write(desk, run, now_s, force)


def _next_write(desk: Desk, run: Run, now_s: float, force: str | None) -> Procedure[None] | None:
    reason = "stop" if run.ending else force
    due = _due(desk, run, now_s, reason)
    if not run.opened:
        needed = not run.inherited or due is not None or run.chores or run.early or run.ending
        return _open(desk, run) if needed else None
    if run.chores:
        return _chore(desk, run)
    if due is not None:
        return _write(desk, run, due, now_s, reason)
    return _close(desk, run) if run.ending else None


def _due(desk: Desk, run: Run, now_s: float, force: str | None) -> Stream | External | None:
    """Return the stream, or external data key, whose oldest waiting document came first, of those that are due."""
    waiting: list[Stream | External] = [*run.waiting_streams, *run.waiting_externals]
    due = [each for each in waiting if each.is_due(now_s, desk.policy, force)]
    return min(due, key=lambda each: each.first_offset, default=None)


def _open(desk: Desk, run: Run) -> Procedure[None]:
    yield from open_run(desk, run)
    if run.opened and run.start_hold is not None:
        _written(desk, run.start_hold, {"start": 1})
        run.start_hold = None
        desk.tell("run_opened", run=run.uid, path="/".join(run.path))
    while run.opened and run.early:
        desk.release(run.early.pop())


def _chore(desk: Desk, run: Run) -> Procedure[None]:
    chore = run.chores[0]
    yield from do_chore(desk, run, chore)
    run.chores.popleft()
    _written(desk, chore.hold, {"descriptor": 1})


def _write(desk: Desk, run: Run, due: Stream | External, now_s: float, force: str | None) -> Procedure[None]:
    if isinstance(due, External):
        return _register(desk, run, due, force)
    return _append(desk, run, due, now_s, force)


def _append(desk: Desk, run: Run, stream: Stream, now_s: float, force: str | None) -> Procedure[None]:
    sealed = stream.take_due(now_s, desk.policy, force)
    if sealed is None:
        return
    run.in_hand.append(sealed.hold)
    stream.under_way = sealed.nbytes
    misfits = yield from Values(desk, run, stream).append(sealed.batch)
    stream.under_way = 0
    if misfits:
        fail_if_backed_up(desk, f"{len(misfits)} events of stream '{stream.name}' have values that fit no column")
        yield from emit_misfits(desk, run, stream, {int(sealed.batch.offsets[row]) for row in misfits})
    run.in_hand.remove(sealed.hold)
    _written(desk, sealed.hold, {"event": sealed.batch.rows})
    desk.tell(
        "flush",
        reason=sealed.reason,
        rows=sealed.batch.rows,
        run=run.uid,
        stream=stream.name,
        timestamp_ms=sealed.timestamp_ms,
    )


def _register(desk: Desk, run: Run, external: External, force: str | None) -> Procedure[None]:
    waiting = external.take(force)
    run.in_hand.append(waiting.hold)
    written = yield from register(desk, run, external, waiting)
    run.in_hand.remove(waiting.hold)
    _written(desk, waiting.hold, waiting.kinds if written else {})
    desk.tell(
        "registered",
        reason=waiting.reason,
        rows=waiting.rows,
        run=run.uid,
        path="/".join(external.path),
        timestamp_ms=waiting.timestamp_ms,
    )


def _close(desk: Desk, run: Run) -> Procedure[None]:
    yield from close_run(desk, run)
    if run.stop_hold is not None:
        _written(desk, run.stop_hold, {"stop": 1})
        run.stop_hold = None
    if run.is_dormant:
        yield from take_again(desk, run)
        desk.keep_dormant(run)
    else:
        desk.forget(run)


def _written(desk: Desk, hold: Hold, kinds: Mapping[str, int]) -> None:
    """Settle what Tiled has confirmed; of its documents, tell how many and since when the oldest was in Kafka."""
    timestamp_ms = desk.release(hold)
    for kind, number in kinds.items():
        desk.count(kind, "written", number)
    if kinds:
        desk.tell("latency", timestamp_ms=timestamp_ms, count=sum(kinds.values()))


# ---------------------------------------------------------------- runs that are not written


def _condemned(desk: Desk, run: Run) -> Procedure[None]:
    """Bring what has arrived of a refused run to the dead letters; at its end, forget it."""
    verdict = run.verdict
    if verdict is None:
        raise AssertionError(f"{run.uid} was condemned without a verdict")
    if desk.policy.foreign_skip and verdict.code == "foreign_run":
        run.emitted_to = run.last_offset + 1
    else:
        yield from _emit(desk, run, verdict)
    _release_emitted(desk, run)
    if run.stop is not None and not run.holds:
        run.meet(Trigger.EMITTED)
        desk.forget(run)


def _emit(desk: Desk, run: Run, verdict: Verdict) -> Procedure[None]:
    if not run.decided:
        yield from _if_tiled_takes_it(desk, run, decide_failure(desk, run))
        run.decided = True
    yield from emit_run(desk, run, verdict)
    if verdict.ours:
        yield from _if_tiled_takes_it(desk, run, mark_failed(desk, run))


def _if_tiled_takes_it(desk: Desk, run: Run, procedure: Procedure[None]) -> Procedure[None]:
    """A node that refuses even its failure is left as it is: the dead letters say the same."""
    try:
        yield from procedure
    except TiledRejected as error:
        desk.tell("failure_not_marked", run=run.uid, error=str(error))


def _release_emitted(desk: Desk, run: Run) -> None:
    out = [hold for hold in run.holds if hold.offset < run.emitted_to]
    run.holds = [hold for hold in run.holds if hold.offset >= run.emitted_to]
    for hold in out:
        desk.release(hold)


def _redelivered(desk: Desk, run: Run) -> Procedure[None] | None:
    """Tiled holds the run complete: what waits of it is a repetition, or late."""
    if desk.policy.announces and run.unannounced:
        return _announce_again(desk, run)
    holds = run.let_go()
    # A batch is held at its first row: what waits may be late though each hold stands before the end.
    if holds and run.last_offset > run.known_to:
        return _emit_late(desk, run, holds)
    for hold in holds:
        desk.release(hold)
        desk.count("event", "duplicate")
    if run.stop is not None:
        run.meet(Trigger.CLOSED)
        desk.forget(run)
    return None


def _announce_again(desk: Desk, run: Run) -> Procedure[None]:
    """Its end was not settled: whether the earlier claim has announced it nobody knows."""
    yield from announce(desk, run, run.known)
    run.announced = True
    if run.stop_hold is not None and run.stop_hold.offset <= run.known_to:
        desk.release(run.stop_hold)
        run.stop_hold = None
        desk.count("stop", "duplicate")


def _emit_late(desk: Desk, run: Run, holds: list[Hold]) -> Procedure[None]:
    """Bring what came after the run's end to the dead letters; the rest of what waits is a repetition."""
    run.emitted_to = run.known_to + 1
    verdict = Verdict("InvalidDocument", "late", "the run was closed before this document", ours=False)
    yield from emit_run(desk, run, verdict)
    for hold in holds:
        desk.release(hold)
