"""Did it arrive? Presence on read-back is proof; absence means "not yet"."""

from .patience import insist
from .steps import Procedure, Sleep, Surroundings
from .tally import Tally
from .writes import CountRows, Done, Path, ReadKeys

LOOK_S_MIN, LOOK_S_MAX = 0.05, 2.0  # how often a late append is looked for


def tally_at(around: Surroundings, lane: str, path: Path, column: str | None = None) -> Procedure[Tally]:
    """Read back what identifies the rows of a table; nothing, where there is no table.

    With `column`, for a table without `seq_num` and `time`, only count them by it.
    """
    if column is not None:
        return Tally((yield from rows_at(around, lane, path, column)))
    answer = yield from insist(around, lane, ReadKeys(path))
    return Tally.of(answer.value) if isinstance(answer, Done) else Tally()


def rows_at(around: Surroundings, lane: str, path: Path, column: str) -> Procedure[int]:
    """Count the rows of a table; none, where there is no table."""
    answer = yield from insist(around, lane, CountRows(path, column))
    return int(answer.value) if isinstance(answer, Done) else 0


def look_for(
    around: Surroundings, lane: str, path: Path, expected: Tally, column: str | None = None
) -> Procedure[bool]:
    """Look again and again, up to `late_write_s_max`, whether the table holds exactly what it should."""
    waited, pause = 0.0, LOOK_S_MIN
    while True:
        if (yield from tally_at(around, lane, path, column)) == expected:
            return True
        if waited >= around.policy.late_write_s_max:
            return False
        yield Sleep(pause, down=False)
        waited, pause = waited + pause, min(pause * 2, LOOK_S_MAX)
