"""Did it arrive? Presence on read-back is proof; absence means "not yet"."""

from .steps import Procedure, Sleep, Surroundings, insist
from .tally import Tally
from .writes import Done, Path, ReadKeys

LOOK_S_MIN, LOOK_S_MAX = 0.05, 2.0  # how often a late append is looked for


def tally_at(around: Surroundings, lane: str, path: Path) -> Procedure[Tally]:
    """Read back what identifies the rows of a table; nothing, where there is no table."""
    answer = yield from insist(around, lane, ReadKeys(path))
    return Tally.of(answer.value) if isinstance(answer, Done) else Tally()


def look_for(around: Surroundings, lane: str, path: Path, expected: Tally) -> Procedure[bool]:
    """Look again and again, up to `late_write_s_max`, whether the table holds exactly what it should."""
    waited, pause = 0.0, LOOK_S_MIN
    while True:
        if (yield from tally_at(around, lane, path)) == expected:
            return True
        if waited >= around.policy.late_write_s_max:
            return False
        yield Sleep(pause, down=False)
        waited, pause = waited + pause, min(pause * 2, LOOK_S_MAX)
