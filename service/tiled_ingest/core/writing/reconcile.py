"""Did it arrive? Presence on read-back is proof; absence means "not yet".

A table that answers no read while Tiled takes writes holds, for all that we can know, nothing of ours: whoever asked
writes its rows again elsewhere, by a switch. DuckDB in Tiled loses tables that it has confirmed, when another client's
read ends in the middle of their creation; a database may have lost one on its own.
"""

from collections.abc import Callable

from tiled_ingest.core.errors import ServerErrors, TiledRejected
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.steps import Procedure, Sleep, Surroundings
from tiled_ingest.core.writes import (
    Append,
    CountRows,
    Done,
    Exists,
    Missing,
    Outcome,
    PatchArray,
    Path,
    ReadKeys,
    Unknown,
)

from .patience import READ_WITNESSES_MIN, WITNESSES_MIN, Patience, insist

LOOK_S_MIN, LOOK_S_MAX = 0.05, 2.0  # how often a late append is looked for


def tally_at(
    around: Surroundings, lane: str, path: Path, column: str | None = None, *, witnesses_min: int = READ_WITNESSES_MIN
) -> Procedure[Tally | None]:
    """Read back what identifies the rows of a table; nothing, where there is no table.

    With `column`, for a table without `seq_num` and `time`, only count them by it. `None`, if the table cannot be read
    though Tiled takes writes.
    """
    request = ReadKeys(path) if column is None else CountRows(path, column)
    try:
        answer = yield from insist(around, lane, request, Patience(around, lane, witnesses_min))
    except ServerErrors as error:
        around.tell("unreadable", path="/".join(path), error=str(error))
        return None
    if not isinstance(answer, Done):
        return Tally()
    return Tally.of(answer.value) if column is None else Tally(int(answer.value))


def rows_at(around: Surroundings, lane: str, path: Path, column: str) -> Procedure[int]:
    """Count the rows of a table; none, where there is no table."""
    answer = yield from insist(around, lane, CountRows(path, column))
    return int(answer.value) if isinstance(answer, Done) else 0


def look_for(
    around: Surroundings, lane: str, path: Path, expected: Tally, column: str | None = None
) -> Procedure[bool]:
    """Look again and again, up to `late_write_s_max`, whether the table holds exactly what it should.

    If it cannot be read, not so long: rows that land in it later hurt nobody once they stand elsewhere.
    """

    def is_there() -> Procedure[bool | None]:
        found = yield from tally_at(around, lane, path, column, witnesses_min=WITNESSES_MIN)
        return None if found is None else found == expected

    return (yield from look_until(around, is_there))


def look_until(around: Surroundings, is_there: Callable[[], Procedure[bool | None]]) -> Procedure[bool]:
    """Look again and again, less and less often, up to `late_write_s_max`; `None` ends it: it can never be seen."""
    waited, pause = 0.0, LOOK_S_MIN
    while True:
        seen = yield from is_there()
        if seen:
            return True
        if seen is None or waited >= around.policy.late_write_s_max:
            return False
        yield Sleep(pause, down=False)
        waited, pause = waited + pause, min(pause * 2, LOOK_S_MAX)


def once(
    request: Append | PatchArray, patience: Patience, has_arrived: Callable[[Unknown], Procedure[bool]], node: str
) -> Procedure[bool]:
    """Perform what may not be repeated; `False` if nobody knows whether it was performed, or will be.

    Then what it was to be written to is of no use any more.

    Parameters
    ----------
    has_arrived
        Looks for it after a reply was lost.
    node
        Names what it writes to.

    Raises
    ------
    TiledRejected
        Tiled refuses it, or there is nothing to write to any more.
    """
    while True:
        outcome: Outcome = yield request
        if isinstance(outcome, Done):
            return True
        if isinstance(outcome, Exists | Missing):
            raise TiledRejected(f"{node} is gone")
        if isinstance(outcome, Unknown) and (yield from has_arrived(outcome)):
            return True
        yield from patience.bear(request, outcome)
        if isinstance(outcome, Unknown):
            return False
