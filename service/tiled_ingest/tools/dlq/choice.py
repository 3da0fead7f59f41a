"""Which dead letters are meant, and what they are, each once."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tiled_ingest.tools.letters import Letter, Torn

Position = tuple[str, int, int]


TOLD_MAX = 1_000  # letters whose headers make no sense, one by one


class WrongPosition(ValueError):
    """The text names no position; it should be `topic:partition:offset`."""


def position(text: str) -> Position:
    """Return the position that a text names.

    Raises
    ------
    WrongPosition
        It names none.
    """
    topic, _, rest = text.partition(":")
    partition, _, offset = rest.partition(":")
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        raise WrongPosition(f"{text!a} is no position: TOPIC:PARTITION:OFFSET is needed")
    return topic, int(partition), int(offset)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant; all if nothing is said. What is said in several ways must all hold."""

    runs: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    positions: frozenset[Position] = frozenset()

    def __contains__(self, letter: Letter) -> bool:
        return (
            (not self.runs or letter.run in self.runs)
            and (not self.codes or letter.code in self.codes)
            and (not self.positions or letter.position in self.positions)
        )

    def unmet(self, runs: Iterable[str], codes: Iterable[str], positions: Iterable[Position] = ()) -> list[str]:
        """Return what was asked for by name and is not among what was found, in words."""
        places = self.positions.difference(positions)
        return [
            *(f"run {uid}" for uid in sorted(self.runs.difference(runs))),
            *(f"code {code}" for code in sorted(self.codes.difference(codes))),
            *(f"position {topic}:{partition}:{offset}" for topic, partition, offset in sorted(places)),
        ]


@dataclass(slots=True)
class Group:
    """Letters of one code, reason and run.

    Attributes
    ----------
    first, last
        Positions, in the order of the dead-letter topic.
    first_ms, last_ms
        The broker's timestamps of the first and the last record; -1 where unknown.
    error
        Of the first letter.
    """

    reason: str
    code: str
    run: str
    documents: int
    first: Position
    last: Position
    first_ms: int
    last_ms: int
    error: str


@dataclass
class Collected:
    """What the topic holds of a choice.

    Attributes
    ----------
    letters
        The first ones, as many as were asked for.
    repeated
        Letters that only repeat another.
    torn
        Letters that were sent in parts some of which are missing; they count nowhere else.
    odd
        Letters with headers that make no sense, the first of them; they count like others.
    unmet
        What was asked for by name, and no letter has.
    """

    groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    repeated: int = 0
    torn: list[Torn] = field(default_factory=list)
    odd: list[Letter] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)

    @property
    def documents(self) -> int:
        """How many documents are dead letters."""
        return sum(group.documents for group in self.groups.values())

    def count(self, name: str) -> dict[str, int]:
        """Return how many documents there are by `reason` or by `code`, the most frequent first."""
        counts: Counter[str] = Counter()
        for group in self.groups.values():
            counts[getattr(group, name)] += group.documents
        return dict(counts.most_common())


def collect(letters: Iterable[Letter], torn: list[Torn], choice: Choice, keep_max: int = 0) -> Collected:
    """Count the letters that are meant, each position and code once, and keep the first `keep_max` of them.

    Parameters
    ----------
    torn
        As for `read_letters`: complete when the letters have ended.
    """
    found = Collected()
    seen: set[tuple[Position, str]] = set()
    for letter in letters:
        if letter not in choice:
            continue
        # Without a position nothing tells repetitions apart.
        if letter.is_placed and (letter.position, letter.code) in seen:
            found.repeated += 1
            continue
        seen.add((letter.position, letter.code))
        _add(found, letter)
        if letter.wrong and len(found.odd) < TOLD_MAX:
            found.odd.append(replace(letter, key=None, value=None))
        if len(found.letters) < keep_max:
            found.letters.append(letter)
    found.torn = [each for each in torn if each.letter in choice]
    torn_ones = [each.letter for each in found.torn]
    found.unmet = choice.unmet(
        {*(group.run for group in found.groups.values()), *(each.run for each in torn_ones)},
        {*(group.code for group in found.groups.values()), *(each.code for each in torn_ones)},
        {*(place for place, _ in seen), *(each.position for each in torn_ones)},
    )
    return found


def _add(found: Collected, letter: Letter) -> None:
    key = letter.reason, letter.code, letter.run
    group = found.groups.get(key)
    if group is None:
        when = letter.timestamp_ms
        found.groups[key] = Group(*key, 1, letter.position, letter.position, when, when, letter.error)
        return
    group.documents += 1
    group.last, group.last_ms = letter.position, letter.timestamp_ms
