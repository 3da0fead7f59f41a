"""A run that was given up goes on: what came of it counts as if it had come before.

A successor must know of the run before anything of it is in Tiled: else it would take the same documents for ones that
belong to nothing, and they were dead letters, too. So, each durable before the next: the commit covers the run and
names it as one that is being opened again; its node says that it is open; then what waited is taken. Of what cannot be
taken nothing is in Tiled, and no successor opens the run again: it is named nowhere.
"""

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.steps import Letters, Naming, Procedure, Retaking, Sleep, read_log

from .desk import Desk
from .letters import letter
from .lifecycle import say_open, stands_as_left
from .run import Run
from .states import Trigger

NAMED_MAX = 50  # at once, of a partition: each takes up to 20 bytes of a commit's metadata
PLACE_RETRY_S = 0.5


def reopen(desk: Desk, run: Run) -> Procedure[None]:
    """Let a dormant run go on, or bring what came of it to the dead letters."""
    if not (yield from _can_go_on(desk, run)):
        yield from _refuse(desk, run)
        return
    while len(desk.reopening) >= NAMED_MAX:
        yield Sleep(PLACE_RETRY_S, down=False)
    run.meet(Trigger.LOGGED)
    yield Naming(run.first_offset)
    yield from say_open(desk, run)
    run.meet(Trigger.REOPENED)
    desk.tell("run_reopened", run=run.uid)
    yield from take_again(desk, run)


def take_again(desk: Desk, run: Run) -> Procedure[None]:
    """Let the run meet what has waited, in order: what it does depends on the state that the run has now."""
    waiting = run.take_deferred()
    yield Retaking(tuple(each.record for each in waiting))
    for each in waiting:
        desk.release(each.hold)


def _can_go_on(desk: Desk, run: Run) -> Procedure[bool]:
    """Whether the log still holds all that the run needs, and its node is what this claim has left there."""
    if not desk.policy.log_holds_runs:
        return False
    chunk = yield from read_log(run.needs_from, run.needs_from + 1)
    return chunk.low <= run.needs_from and (yield from stands_as_left(desk, run))


def _refuse(desk: Desk, run: Run) -> Procedure[None]:
    """Bring what waits to the dead letters, and what comes meanwhile; then forget the run."""
    error = InvalidDocument("late", "its run was given up before it came, and the log or Tiled has lost it")
    while run.deferred:
        waiting = tuple(run.deferred)  # and it stays: a dormant run of which nothing waits may be forgotten meanwhile
        yield Letters(tuple(letter(each.record, error, run.uid) for each in waiting))
        for each in run.take_deferred(len(waiting)):
            desk.release(each.hold)
    run.meet(Trigger.EMITTED)
    desk.forget(run)
