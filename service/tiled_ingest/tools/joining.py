"""Dead letters that were sent in parts, put together again. Parts of several letters may be mixed, in any order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from tiled_ingest.kafka.parts import Label

from .letter import Letter

HELD_BYTES_MAX = 1 << 30  # of parts that wait for others: then the oldest letter is given up


@dataclass(frozen=True, slots=True)
class Torn:
    """A letter of which some parts are not there: an attempt to send it was cut off, or retention took them.

    Attributes
    ----------
    letter
        The first part that is there, without its value.
    there, parts
        How many parts are there, of how many; `parts` is 0 where its headers make no sense.
    """

    letter: Letter
    there: int
    parts: int

    @property
    def why(self) -> str:
        """What is wrong with it, in a few words."""
        if not self.parts:
            return "the headers of its parts make no sense"
        if self.there == self.parts:
            return f"its {self.parts} parts are not what was cut"
        return f"{self.there} of its {self.parts} parts are there"


@dataclass(slots=True)
class _Set:
    """The parts of one attempt to send one letter."""

    first: Letter
    label: Label
    pieces: dict[int, bytes] = field(default_factory=dict)
    nbytes: int = 0

    def add(self, number: int, piece: bytes) -> int:
        """Take a part; returns by how many bytes more is held."""
        more = len(piece) - len(self.pieces.get(number, b""))
        self.pieces[number] = piece
        self.nbytes += more
        return more

    def joined(self) -> Letter | None:
        """Return the letter, if all parts are there and fit."""
        if len(self.pieces) != self.label.parts:
            return None
        found = self.label.joined(self.first.key, [self.pieces[number] for number in sorted(self.pieces)])
        if found is None:
            return None
        return replace(self.first, key=found[0], value=found[1], parts=self.label.parts)

    def torn(self) -> Torn:
        return Torn(replace(self.first, value=None), len(self.pieces), self.label.parts)


class Joiner:
    """Takes messages of the topic, gives letters."""

    def __init__(self, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._held_bytes_max = held_bytes_max
        self._held_bytes = 0
        self._sets: dict[object, _Set] = {}  # the oldest first
        self._torn: list[Torn] = []
        self._parted: set[object] = set()  # letters of which a part was seen
        self._whole: set[object] = set()  # those of them that came whole in the end

    def take(self, pairs: Iterable[tuple[Letter, Label | None]]) -> Iterator[Letter]:
        """Yield each letter when all of it is there."""
        for letter, label in pairs:
            whole = letter if label is None else self._add(letter, label)
            if whole is not None:
                self._whole |= {_identity(whole)} & self._parted
                yield whole

    def torn(self) -> list[Torn]:
        """Return the letters of which parts are missing; not those that came whole in another attempt."""
        found = [*self._torn, *(each.torn() for each in self._sets.values())]
        return [each for each in found if _identity(each.letter) not in self._whole]

    def _add(self, letter: Letter, label: Label) -> Letter | None:
        self._parted.add(_identity(letter))
        name = label.whole, _identity(letter)
        held = self._sets.setdefault(name, _Set(letter, label))
        self._held_bytes += held.add(label.number, letter.value or b"")
        whole = held.joined()
        if whole is not None:
            self._held_bytes -= self._sets.pop(name).nbytes
        self._make_room()
        return whole

    def _make_room(self) -> None:
        while self._held_bytes > self._held_bytes_max:
            oldest = self._sets.pop(next(iter(self._sets)))
            self._held_bytes -= oldest.nbytes
            self._torn.append(oldest.torn())


def _identity(letter: Letter) -> object:
    return letter.position, letter.code
