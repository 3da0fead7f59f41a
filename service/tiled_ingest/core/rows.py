"""Accepted events on their way into a table: a buffer that grows, and batches that become Arrow tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .cells import Cells, converted
from .columns import Columns
from .events import Event
from .pieces import gather, head, keys_of, values_of
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
        self._events: list[Event] = []
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

    def append(self, event: Event, offset: int, nbytes: int) -> None:
        """Add an event, the record of which stood at `offset` and had `nbytes` bytes."""
        self._events.append(event)
        self._offsets.append(offset)
        self.bytes += nbytes

    def take(self) -> "Batch":
        """Return everything as a batch, and begin anew."""
        batch = Batch(self._events, self._offsets, self.bytes)
        self._clear()
        return batch


class Batch:
    """Rows of one stream that go to Tiled together. Never changed once made."""

    def __init__(self, events: list[Event], offsets: list[int], nbytes: int) -> None:
        self._events = events
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
        seq_num = np.array(head(self._events, "seq_num"), np.int64)
        return Keys(seq_num, np.array(head(self._events, "time"), np.float64))

    def events(self) -> Iterator[Event]:
        """Yield the rows as events, in order."""
        return iter(self._events)

    def values(self, key: str, *, external: bool = False) -> list[Any]:
        """Return the values of a data key, one a row; `None` where an event has none, or but a datum's id."""
        return values_of(self._events, key, external=external)

    def present(self, key: str) -> tuple[list[int], list[Any]]:
        """Return which rows have the data key, and its values there (`None` among them, where an event says so)."""
        found = [(row, event.data[key]) for row, event in enumerate(self.events()) if key in event.data]
        return [row for row, _ in found], [value for _, value in found]

    def to_table(self, columns: Columns) -> TableResult:
        """Return the rows as a table of exactly these columns; raises for no value. About 2 us a row."""
        gathered = gather(self._events, columns)
        cells = {
            name: converted(values, columns.types[name], untyped=name in columns.untyped)
            for name, values in gathered.items()
        }
        return TableResult(
            pa.table([column.array for column in cells.values()], schema=columns.schema),
            _misfits(cells),
            {name: column.wider for name, column in cells.items() if column.wider is not None},
            frozenset(name for name, column in cells.items() if column.rounded),
            self._unplanned(columns),
        )

    def _unplanned(self, columns: Columns) -> frozenset[str]:
        planned = {*columns.data, *columns.elsewhere}
        return frozenset(key for key in keys_of(self._events) - planned if self._has_values(key, columns))

    def _has_values(self, key: str, columns: Columns) -> bool:
        return any(value is not None for value in self.values(key, external=key in columns.external))


def _misfits(columns: Mapping[str, Cells]) -> list[Misfit]:
    found = [Misfit(row, name, why) for name, cells in columns.items() for row, why in cells.misfits]
    return sorted(found, key=attrgetter("row_index"))
