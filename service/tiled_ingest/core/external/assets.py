"""External data as values: resources, datums, and what the log says that a node of an external data key must hold."""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Json = dict[str, Any]


class Span(NamedTuple):
    """A half-open range, `start <= n < stop`."""

    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many numbers are in it."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource or stream_resource document, as it came (after patches)."""

    kind: Literal["resource", "stream_resource"]
    doc: Json
    offset: int

    @property
    def uid(self) -> str:
        """By which datums name it."""
        uid: str = self.doc["uid"]
        return uid

    @property
    def run(self) -> str:
        """The run that it names; empty for old ones, which do not say."""
        return str(self.doc.get("run_start") or "")


@dataclass(frozen=True, slots=True)
class Datum:
    """A datum document: what an event that holds its id refers to."""

    id: str
    resource: str
    kwargs: Json
    offset: int


@dataclass(frozen=True, slots=True)
class Use:
    """A resource as one data key uses it.

    Attributes
    ----------
    descriptor
        Uid of the descriptor of the first event or stream_datum that used it.
    datum
        The first datum through which the key refers to it; `None` for a stream_resource, which names the key itself.
    """

    resource: Resource
    descriptor: str
    datum: Datum | None = None


class Part(NamedTuple):
    """Rows of a data key that stand together in one resource."""

    use: int  # index into the plan's `uses`
    indices: Span
    seq_nums: Span


_PART = 5  # integers in a row of `AssetPlan.parts`
_FAR = 2**62  # beyond it ranges do not fit there


@dataclass(slots=True)
class AssetPlan:
    """Which rows of which resources make up a data key, in the order of the log. 40 bytes for rows that stand together.

    Attributes
    ----------
    parts
        Flat: index of the use, start and stop of the indices, start and stop of the seq_nums; and so on.
    rows
        How many rows in all.
    last_seq_num
        The highest number of an event that has rows here.
    """

    uses: list[Use] = field(default_factory=list)
    parts: "array[int]" = field(default_factory=lambda: array("q"))
    rows: int = 0
    last_seq_num: int = 0

    def add(self, use: Use, indices: Span, seq_nums: Span) -> bool:
        """Add rows; those that follow directly on the last ones, in the same resource, are merged with them.

        Returns whether the resource is new here.
        """
        known = len(self.uses)
        number = self._number(use)
        self.rows += indices.rows
        self.last_seq_num = max(self.last_seq_num, seq_nums.stop - 1)
        last = self.parts[-_PART:]
        if last and (last[0], last[2], last[4]) == (number, indices.start, seq_nums.start):
            self.parts[-3], self.parts[-1] = indices.stop, seq_nums.stop
        else:
            self.parts.extend((number, *indices, *seq_nums))
        return len(self.uses) > known

    def _number(self, use: Use) -> int:
        # Nearly always the last one; a key has few.
        for number in range(len(self.uses) - 1, -1, -1):
            if self.uses[number].resource.uid == use.resource.uid:
                return number
        self.uses.append(use)
        return len(self.uses) - 1

    def __iter__(self) -> Iterator[Part]:
        for at in range(0, len(self.parts), _PART):
            number, start, stop, first, last = self.parts[at : at + _PART]
            yield Part(number, Span(start, stop), Span(first, last))

    def copy(self) -> "AssetPlan":
        """Return the plan as it is now."""
        return AssetPlan(list(self.uses), self.parts[:], self.rows, self.last_seq_num)


def whole(value: Any) -> int | None:
    """Return a number that a publisher gave as an integer, whatever its type; `None` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def span(value: Any) -> Span | None:
    """Return a document's range; `None` if it is none: not integers, negative, or backwards."""
    if not isinstance(value, Mapping):
        return None
    start, stop = whole(value.get("start")), whole(value.get("stop"))
    return Span(start, stop) if start is not None and stop is not None and 0 <= start <= stop < _FAR else None


class Indexer:
    """Which rows of its resource a datum stands for: the rules of bluesky-tiled-plugins' RunNormalizer.

    `indices` in the datum's arguments says it; else `point_number`; else `frame`, the last frame of the datum, counted
    on where a new resource begins at 0 again; else the event's own number.
    """

    def __init__(self) -> None:
        self._carry = self._index = 0

    def __call__(self, kwargs: Mapping[str, Any], seq_num: int) -> Span | None:
        """Return the rows, none where a frame repeats the one before; `None` for numbers that no detector has."""
        rows = self._rows(kwargs, seq_num)
        return rows if -_FAR < rows.start <= rows.stop < _FAR else None

    def _rows(self, kwargs: Mapping[str, Any], seq_num: int) -> Span:
        if (given := span(kwargs.get("indices"))) is not None:
            return given
        if (point := whole(kwargs.get("point_number"))) is not None:
            return Span(point, point + 1)
        if (frame := whole(kwargs.get("frame"))) is not None:
            return self._frames(frame)
        return Span(seq_num - 1, seq_num)

    def _frames(self, last: int) -> Span:
        start = self._carry + self._index
        self._index = last + 1
        if self._carry + self._index < start:  # the next resource: its frames begin at 0, the rows go on
            self._carry = start
        return Span(start, self._carry + self._index)
