"""Accepted events on their way into a table: a buffer that grows, and batches that become Arrow tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .cells import Cells, converted, wider
from .columns import Columns
from .events import Event, EventPage
from .pieces import Piece, events, gather, head, keys_of, values_of
from .writes import Keys


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
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._tail: list[Event] = []
        self._pieces: list[Piece] = [self._tail]
        self._offsets: list[int] = []
        self.bytes = 0

    @property
    def rows(self) -> int:
        """The number of events."""
        return len(self._offsets)

    @property
    def first_offset(self) -> int:
        """The offset of the oldest event; there must be one."""
        return self._offsets[0]

    @property
    def first(self) -> Event | None:
        """The oldest event, `None` without any."""
        return next(events(self._pieces), None)

    def append(self, event: Event, offset: int, nbytes: int) -> None:
        """Add an event, the record of which stood at `offset` and had `nbytes` bytes."""
        self._tail.append(event)
        self._offsets.append(offset)
        self.bytes += nbytes

    def append_page(self, page: EventPage, offset: int, nbytes: int) -> None:
        """Add all rows of a page; they share its offset."""
        self._tail = []
        self._pieces += [page, self._tail]
        self._offsets += [offset] * len(page)
        self.bytes += nbytes

    def take(self) -> "Batch":
        """Return everything as a batch, and begin anew."""
        batch = Batch([piece for piece in self._pieces if len(piece)], self._offsets, self.bytes)
        self._clear()
        return batch


class Batch:
    """Rows of one stream that go to Tiled together. Never changed once made."""

    def __init__(self, pieces: list[Piece], offsets: list[int], nbytes: int) -> None:
        self._pieces = pieces
        self._offsets = offsets
        self.bytes = nbytes

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self._offsets)

    @property
    def first_offset(self) -> int:
        """The offset of the first row's record."""
        return self._offsets[0]

    @property
    def last_offset(self) -> int:
        """The offset of the last row's record."""
        return self._offsets[-1]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """For each row the offset of its record, shape (rows,)."""
        return np.array(self._offsets, np.int64)

    @cached_property
    def keys(self) -> Keys:
        """What identifies the rows on read-back."""
        seq_num = np.array(self._heads("seq_num"), np.int64)
        return Keys(seq_num, np.array(self._heads("time"), np.float64))

    def _heads(self, name: str) -> list[Any]:
        return [value for piece in self._pieces for value in head(piece, name)]

    def events(self) -> Iterator[Event]:
        """Yield the rows as events, in order."""
        return events(self._pieces)

    def values(self, key: str, *, external: bool = False) -> list[Any]:
        """Return the values of a data key, one a row; `None` where an event has none, or but a datum's id."""
        return values_of(self._pieces, key, external=external)

    def to_table(self, columns: Columns) -> TableResult:
        """Return the rows as a table of exactly these columns; raises for no value. About 2 us a row."""
        gathered = gather(self._pieces, columns)
        cells = {name: converted(values, columns.types[name]) for name, values in gathered.items()}
        return TableResult(
            pa.table([column.array for column in cells.values()], schema=columns.schema),
            _misfits(cells),
            {name: column.wider for name, column in cells.items() if column.wider is not None},
            frozenset(name for name, column in cells.items() if column.rounded),
            self._unplanned(columns),
        )

    def _unplanned(self, columns: Columns) -> frozenset[str]:
        planned = {*columns.data, *columns.elsewhere}
        return frozenset(key for key in keys_of(self._pieces) - planned if self._has_values(key, columns))

    def _has_values(self, key: str, columns: Columns) -> bool:
        return any(value is not None for value in self.values(key, external=key in columns.external))


def widest(widen: Mapping[str, pa.DataType], more: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Return what several batches of a stream ask for together."""
    return {**widen, **{name: wider(widen.get(name), data_type) for name, data_type in more.items()}}


def _misfits(columns: Mapping[str, Cells]) -> list[Misfit]:
    found = [Misfit(row, name, why) for name, cells in columns.items() for row, why in cells.misfits]
    return sorted(found, key=attrgetter("row_index"))
