"""The rows of one table once more, from Tiled itself: where no log holds the documents they came from.

Tiled sends whole columns, no ranges of rows, and refuses answers above a limit: so columns are read in groups that
stay below it. Groups are put together by (`seq_num`, `time`), since PostgreSQL returns rows in no order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tiled_ingest.core.errors import TiledRejected
from tiled_ingest.core.rows.exact import kept_in
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.steps import Procedure, Surroundings
from tiled_ingest.core.writes import Done, Keys, Missing, Outcome, Path, ReadRows, Rejected

from .patience import READ_WITNESSES_MIN, Patience

KEYS = ("seq_num", "time")
GROUP_BYTES_MAX = 100_000_000  # of one answer; Tiled refuses 300 MB by default, by pandas' reckoning
GROUP_COLUMNS_MAX = 100  # their names stand in the address, which servers limit to 64 kB
_WIDTHS = {pa.int64(): 8, pa.float64(): 8, pa.bool_(): 8}
_WIDTH_OTHER = 200  # text and lists: a guess; where it is too low, the group is halved


@dataclass(frozen=True, slots=True)
class Portion:
    """Some rows as they go into a dataset, what identifies them, and the columns whose integers lost digits."""

    table: pa.Table
    keys: Keys
    rounded: frozenset[str] = frozenset()

    def divided(self, rows: int) -> "tuple[Portion, Portion]":
        """Return the first so many rows, and the others."""
        first = Portion(self.table.slice(0, rows), self.keys.between(0, rows))
        return first, Portion(self.table.slice(rows), self.keys.between(rows))


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The rows that a table must show.

    Attributes
    ----------
    tally
        Of the rows that were confirmed.
    doubtful
        Rows of which nobody knows whether they are there, or will be: they are left out.
    keyed
        Whether the table has `seq_num` and `time`. If not (a later part of a split table), rows can only be counted.
    """

    tally: Tally
    doubtful: Keys | None
    keyed: bool


@dataclass
class Reread:
    """The rows of the table at `path`, which must be those of `expected`; the whole table is held in memory once.

    Attributes
    ----------
    schema
        What the rows become: a column that the table lacks is null, numbers take the wider type.
    columns
        Names and types of the table's columns.
    expected
        What must be there.
    rows_max
        Of one portion.
    """

    around: Surroundings
    lane: str
    path: Path
    schema: pa.Schema
    columns: Mapping[str, pa.DataType]
    expected: Confirmed
    rows_max: int
    _portions: list[Portion] | None = field(default=None, init=False)

    @property
    def done(self) -> bool:
        """Whether every portion was taken."""
        return self._portions == []

    def next(self) -> Procedure[Portion]:
        """Return the next portion.

        Raises
        ------
        TiledRejected
            Tiled does not show the rows that were confirmed, or they cannot be told apart.
        """
        if self._portions is None:
            table = self._checked((yield from self._read()))
            self._portions = list(_portions(_fitted(table, self.schema), self.rows_max, _rounded(table, self.schema)))
        return self._portions.pop(0) if self._portions else Portion(self.schema.empty_table(), NO_KEYS)

    @property
    def _where(self) -> str:
        return "/".join(self.path)

    # ------------------------------------------------------------ reading

    def _read(self) -> Procedure[pa.Table]:
        groups = [names for names in self._groups() if names]
        parts: list[pa.Table] = []
        for names in groups or [()]:
            parts += yield from self._read_group(names)
        return parts[0] if len(parts) == 1 else self._joined(parts)

    def _groups(self) -> Iterator[tuple[str, ...]]:
        if not self.expected.keyed:  # nothing would tell which row of one group belongs to which of another
            yield tuple(name for name in self.columns if name in self.schema.names)
            return
        budget = GROUP_BYTES_MAX // max(self.expected.tally.count, 1)
        names: list[str] = []
        width = 0
        for name in (name for name in self.columns if name not in KEYS and name in self.schema.names):
            more = _WIDTHS.get(self.columns[name], _WIDTH_OTHER)
            if names and (width + more > budget or len(names) >= GROUP_COLUMNS_MAX):
                yield tuple(names)
                names, width = [], 0
            names.append(name)
            width += more
        yield tuple(names)

    def _read_group(self, names: tuple[str, ...]) -> Procedure[list[pa.Table]]:
        patience = Patience(self.around, self.lane, READ_WITNESSES_MIN)
        while True:
            request = ReadRows(self.path, (*KEYS, *names) if self.expected.keyed else names)
            outcome: Outcome = yield request
            if isinstance(outcome, Done):
                return [outcome.value]
            if isinstance(outcome, Missing):
                raise TiledRejected(f"the table {self._where} is gone")
            if isinstance(outcome, Rejected) and outcome.status == 400 and self._may_halve(names):
                middle = len(names) // 2
                first = yield from self._read_group(names[:middle])
                return first + (yield from self._read_group(names[middle:]))
            yield from patience.bear(request, outcome)

    def _may_halve(self, names: Sequence[str]) -> bool:
        return self.expected.keyed and len(names) > 1

    def _joined(self, parts: Sequence[pa.Table]) -> pa.Table:
        """Put groups of columns side by side; the rows come in the order of their times."""
        ordered = [part.sort_by([("time", "ascending"), ("seq_num", "ascending")]) for part in parts]
        first = ordered[0]
        if first.select(KEYS).group_by(list(KEYS)).aggregate([]).num_rows != first.num_rows:
            raise TiledRejected(f"{self._where} is too large to be read at once, and two of its rows have one name")
        for part in ordered[1:]:
            if not part.select(KEYS).equals(first.select(KEYS)):
                raise TiledRejected(f"{self._where} changed while it was read")
            for name in (name for name in part.column_names if name not in KEYS):
                first = first.append_column(name, part.column(name))
        return first

    # ------------------------------------------------------------ are they ours

    def _checked(self, table: pa.Table) -> pa.Table:
        expected, found = self.expected, self._tally(table)
        if expected.keyed and expected.doubtful and found == expected.tally + Tally.of(expected.doubtful):
            table = _without(table, expected.doubtful)
            found = self._tally(table)
        if found != expected.tally:
            raise TiledRejected(
                f"{self._where}: {expected.tally.count} rows were confirmed, Tiled shows {found.count}, or others"
            )
        return table

    def _tally(self, table: pa.Table) -> Tally:
        return Tally.of(_keys(table)) if self.expected.keyed else Tally(table.num_rows)


NO_KEYS = Keys(np.array([], np.int64), np.array([], np.float64))


def _keys(table: pa.Table) -> Keys:
    """Return what identifies rows; where only their number counts, as many zeros."""
    if not set(KEYS) <= set(table.column_names):
        return Keys(np.zeros(table.num_rows, np.int64), np.zeros(table.num_rows))
    return Keys(
        np.asarray(table.column("seq_num").cast(pa.int64()), np.int64),
        np.asarray(table.column("time").cast(pa.float64()), np.float64),
    )


def _without(table: pa.Table, keys: Keys) -> pa.Table:
    out = set(zip(keys.seq_num.tolist(), keys.time.tolist(), strict=True))
    there = _keys(table)
    rows = zip(there.seq_num.tolist(), there.time.tolist(), strict=True)
    return table.filter(pa.array([row not in out for row in rows], pa.bool_()))


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows in other columns; casts that Tiled's own detour through pandas made necessary lose nothing."""
    columns = []
    for column in schema:
        if column.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, column.type))
        else:
            columns.append(_cast(table.column(column.name), column.type))
    return pa.table(columns, schema=schema)


def _cast(column: "pa.ChunkedArray[Any]", data_type: pa.DataType) -> Any:
    if not pa.types.is_list(data_type) or pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.cast(column, data_type, safe=False)
    values = pc.cast(column, data_type.value_type, safe=False).to_pylist()
    return pa.array([None if value is None else [value] for value in values], data_type)


def _rounded(table: pa.Table, schema: pa.Schema) -> frozenset[str]:
    both = [column for column in schema if column.name in table.column_names]
    return frozenset(column.name for column in both if _loses_digits(table.column(column.name), column.type))


def _loses_digits(column: "pa.ChunkedArray[Any]", data_type: pa.DataType) -> bool:
    values: Any = column
    wanted = data_type
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_flatten(values)
    while pa.types.is_list(wanted):
        wanted = wanted.value_type
    if not pa.types.is_integer(values.type) or wanted != pa.float64():
        return False
    return not kept_in(values.drop_null().to_numpy(), np.dtype(np.float64))


def _portions(table: pa.Table, rows_max: int, rounded: frozenset[str]) -> Iterator[Portion]:
    for start in range(0, table.num_rows, rows_max):
        rows = table.slice(start, rows_max)
        yield Portion(rows, _keys(rows), rounded)
