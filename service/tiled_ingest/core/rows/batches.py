"""Accepted events on their way into a table: a buffer that grows, and batches that become Arrow tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.decoding.layouts import Layout
from tiled_ingest.core.writes import Keys

from .cells import Cells, combined
from .columns import Columns
from .packed import Packed
from .pieces import Loose, Piece

Offsets = npt.NDArray[np.int64]
T = TypeVar("T")
_ABSENT = object()
PIECE_ROWS = 1_024  # of packed events that become columns together


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that cannot be a value of its column: null there, and its document must go elsewhere, too."""

    row_index: int
    column: str
    why: str


@dataclass(frozen=True, slots=True)
class TableResult:
    """A batch as a table, and what did not go smoothly.

    Attributes
    ----------
    table
        In the order and types of the columns' schema. Provisional if `widen` is not empty.
    misfits
        Values that became null though they were not.
    widen
        Columns whose values prove the type too narrow, with a type that holds them. These values are null in
        `table`: widen the columns, then convert the batch again.
    rounded
        Columns in which an integer lost digits (beyond 2**53, in a column of floats).
    unplanned
        Data keys with values of their own for which the columns have no place: the descriptor does not know
        them, or it calls them external and they came filled.
    """

    table: pa.Table
    misfits: list[Misfit] = field(default_factory=list)
    widen: dict[str, pa.DataType] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()
    unplanned: frozenset[str] = frozenset()


class RowBuffer:
    """The accepted events of one stream that are not under way yet.

    Attributes
    ----------
    bytes
        The sum of the sizes that the records had in the log.
    rows
        The number of events.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._events: list[Event] = []
        self._offsets: list[int] = []  # of these
        self._packed: dict[Layout, list[tuple[Packed, Offsets]]] = {}
        self._first_offset = 0
        self.bytes = 0
        self.rows = 0

    @property
    def first_offset(self) -> int:
        """The offset of the oldest event; there must be one."""
        return self._first_offset

    def append(self, event: Event, offset: int, nbytes: int) -> None:
        """Add an event, the record of which stood at `offset` and had `nbytes` bytes."""
        if not self.rows:
            self._first_offset = offset
        self._events.append(event)
        self._offsets.append(offset)
        self.bytes += nbytes
        self.rows += 1

    def extend(self, parts: Iterable[tuple[Packed, Offsets]], nbytes: int) -> None:
        """Add packed events with the offsets of their records, which together had `nbytes` bytes.

        All come after those that are here; the parts themselves may be interleaved.
        """
        parts = list(parts)
        if not self.rows:
            self._first_offset = min(int(offsets[0]) for _, offsets in parts)
        for packed, offsets in parts:
            self._packed.setdefault(packed.layout, []).append((packed, offsets))
            self.rows += len(packed)
        self.bytes += nbytes

    def take(self) -> "Batch":
        """Return everything as a batch, and begin anew."""
        pieces: list[Piece] = []
        offsets: list[Offsets] = []
        if self._events or not self._packed:
            pieces.append(Loose(self._events))
            offsets.append(np.array(self._offsets, np.int64))
        for parts in self._packed.values():
            pieces.extend(_merged([packed for packed, _ in parts]))
            offsets.extend(part for _, part in parts)
        batch = Batch(pieces, np.concatenate(offsets), self.bytes)
        self._clear()
        return batch


def _merged(parts: Iterable[Packed]) -> Iterator[Packed]:
    """Yield the rows in pieces that are worth the work on each, and small enough to be near when they are needed."""
    gathered: list[Packed] = []
    rows = 0
    for packed in parts:
        gathered.append(packed)
        rows += len(packed)
        if rows >= PIECE_ROWS:
            yield Packed.concat(gathered)
            gathered, rows = [], 0
    if gathered:
        yield Packed.concat(gathered)


@dataclass(frozen=True, slots=True)
class Share:
    """Rows of a batch that go to Tiled in one request: from `start` up to `stop`, all those of a record together.

    Attributes
    ----------
    first_offset
        Of the record of the first of them.
    divisible
        Whether they are those of more than one record.
    """

    start: int
    stop: int
    first_offset: int
    keys: Keys
    divisible: bool


class Batch:
    """Rows of one stream that go to Tiled together, in the order of the log. Never changed once made.

    Parameters
    ----------
    pieces
        The rows, by how they are kept.
    offsets
        Of their records, in the order of the pieces: rows of different pieces may be interleaved in the log.
    """

    def __init__(self, pieces: Sequence[Piece], offsets: Offsets, nbytes: int) -> None:
        self._pieces = pieces
        self.bytes = nbytes
        in_order = len(pieces) == 1 or bool(np.all(offsets[1:] >= offsets[:-1]))
        self._order = None if in_order else np.argsort(offsets, kind="stable")  # rows of one record stay together
        self.offsets = offsets if self._order is None else offsets[self._order]
        self._built: dict[int, tuple[Columns, TableResult]] = {}

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """What it takes in memory: the rows as they came, and the tables that were made of them."""
        return self.bytes + sum(built.table.nbytes for _, built in self._built.values())

    @property
    def first_offset(self) -> int:
        """The offset of the first row's record."""
        return int(self.offsets[0])

    @property
    def last_offset(self) -> int:
        """The offset of the last row's record."""
        return int(self.offsets[-1])

    @cached_property
    def keys(self) -> Keys:
        """What identifies the rows on read-back."""
        seq_num = np.concatenate([piece.seq_num for piece in self._pieces])
        time = np.concatenate([piece.time for piece in self._pieces])
        return Keys(seq_num, time) if self._order is None else Keys(seq_num[self._order], time[self._order])

    def share(self, start: int, rows_max: int) -> Share:
        """Return the next rows from `start` on: at most so many, but at least those of one record."""
        last = self.offsets[min(start + rows_max, self.rows) - 1]
        stop = int(np.searchsorted(self.offsets, last, "right"))
        if stop - start > rows_max and last != self.offsets[start]:
            stop = int(np.searchsorted(self.offsets, last, "left"))
        first = int(self.offsets[start])
        return Share(start, stop, first, self.keys.between(start, stop), divisible=first != self.offsets[stop - 1])

    def events(self) -> Iterator[Event]:
        """Yield the rows as events, in order."""
        return iter(self._ordered(event for piece in self._pieces for event in piece.events()))

    def values(self, key: str, *, external: bool = False) -> list[Any]:
        """Return the values of a data key, one a row; `None` where an event has none, or but a datum's id."""
        return self._ordered(value for piece in self._pieces for value in piece.values(key, external=external))

    def present(self, key: str, *, external: bool = False) -> tuple[list[int], list[Any]]:
        """Return which rows have the data key, and its values there (`None` among them, where an event says so).

        Of an external key only values that are filled in count.
        """
        if external:
            found, absent = self.values(key, external=True), None
        else:
            found, absent = self._ordered(value for piece in self._pieces for value in piece.raw(key, _ABSENT)), _ABSENT
        rows = [row for row, value in enumerate(found) if value is not absent]
        return rows, [found[row] for row in rows]

    def _ordered(self, values: Iterable[T]) -> list[T]:
        listed = list(values)
        return listed if self._order is None else [listed[row] for row in self._order]

    def to_table(self, columns: Columns) -> TableResult:
        """Return the rows as a table of exactly these columns; raises for no value. It is made once."""
        if id(columns) not in self._built:
            self._built[id(columns)] = columns, self._converted(columns)
        return self._built[id(columns)][1]

    def _converted(self, columns: Columns) -> TableResult:
        pieces = [piece.cells(columns) for piece in self._pieces]
        cells = {name: combined([piece[name] for piece in pieces], self._order) for name in columns.types}
        return TableResult(
            pa.table([column.array for column in cells.values()], schema=columns.schema),
            _misfits(cells),
            {name: column.wider for name, column in cells.items() if column.wider is not None},
            frozenset(name for name, column in cells.items() if column.rounded),
            self._unplanned(columns),
        )

    def _unplanned(self, columns: Columns) -> frozenset[str]:
        planned = {*columns.data, *columns.elsewhere}
        keys = set[str]().union(*(piece.keys for piece in self._pieces))
        return frozenset(key for key in keys - planned if self._has_values(key, columns))

    def _has_values(self, key: str, columns: Columns) -> bool:
        return any(value is not None for value in self.values(key, external=key in columns.external))


def _misfits(columns: Mapping[str, Cells]) -> list[Misfit]:
    found = [Misfit(row, name, why) for name, cells in columns.items() for row, why in cells.misfits]
    return sorted(found, key=attrgetter("row_index"))
