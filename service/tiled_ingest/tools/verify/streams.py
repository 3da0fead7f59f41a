"""One stream in Tiled against its documents: its metadata, its tables, and the nodes beside them."""

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from .arrays import compare_array
from .codes import MISFIT, NULL, Codes, codes_of, has_long_integers, has_nul
from .expected import Partition, Stream
from .external import compare_files
from .matching import KEYS, Matched, match
from .metadata import plain, shown, stream_differences
from .report import SENTENCES_MAX, PartReport, StreamReport
from .rows import Column, Rows, innermost
from .tree import Node, TiledUnreadable, Tree
from .typed import STAMP

TABLE_BYTES_MAX = 128_000_000  # of one answer, about; Tiled refuses more than 300 MB
_FAMILIES = frozenset({"array", "ragged", "bytes"})


class StreamComparison:
    """One stream, its table's columns and nodes.

    Parameters
    ----------
    renames
        Under which names its data keys are in Tiled.
    open_end
        Whether Tiled may hold more than was published in the range.
    """

    def __init__(
        self, tree: Tree, stream: Stream, renames: Mapping[str, str], report: StreamReport, *, open_end: bool
    ) -> None:
        self._tree = tree
        self._stream = stream
        self._report = report
        self._open_end = open_end
        self._names = self._renames = _reserved(stream.data_keys) | dict(renames)
        self._seen: set[str] = set()  # columns of tables
        self._loose: set[str] = set()  # external keys of which Tiled may have more
        rows = stream.rows
        rows.flush()
        self._kept, optional, misfit = rows.kept()
        self._optional, self._misfit = optional[self._kept], misfit[self._kept]
        self._columns = {self._column_of(name): column for name, column in rows.columns.items()} | _heads(rows)
        report.counts.expected = int((~self._optional).sum())
        report.counts.dead_letters = int(self._optional.sum())

    def _column_of(self, name: str) -> str:
        """Return what Tiled calls a column of the rows."""
        key = name.removeprefix(STAMP)
        return ("" if key == name else "ts_") + self._names.get(key, key)

    def compare(self, node: Node | None, partition: Partition) -> None:
        """Compare the stream with its node."""
        files = partition.files(self._stream)
        if node is None:
            self._report.counts.missing = self._report.counts.expected
            if not self._stream.optional or self._report.counts.expected:
                self._say("the stream is missing")
            return
        if not self._stream.optional:
            differences = stream_differences(node.metadata, self._descriptors(node), self._renames)
            self._say(*differences[:SENTENCES_MAX])
        if "BlueskyEventStream" not in node.specs:
            self._say("the node has no spec BlueskyEventStream")
        children = {child.key: child for child in self._tree.children(node.path)}
        tables = [child for child in children.values() if child.family == "table"]
        self._compare_tables(tables)
        nodes = {key: child for key, child in children.items() if child.family in _FAMILIES}
        self._loose = {self._names.get(key, key) for key in partition.spared(self._stream)}
        self._compare_nodes(nodes, {self._names.get(key, key): held for key, held in files.items()})

    def _descriptors(self, node: Node) -> list[dict[str, Any]]:
        """Return the descriptors that the node must know; of dead letters those that it does know (a redrive)."""
        updates = node.metadata.get("_config_updates") or []
        there = {node.metadata.get("uid"), *(update.get("uid") for update in updates)}
        refused = {uid for uid in self._stream.refused if plain(uid) not in there}
        return [descriptor for descriptor in self._stream.descriptors if descriptor["uid"] not in refused]

    # ------------------------------------------------------------ tables

    def _compare_tables(self, tables: Sequence[Node]) -> None:
        if not tables:
            if self._report.counts.expected:
                self._report.counts.missing = self._report.counts.expected
                self._say("the table is missing")
            return
        for table in tables:
            with self._reading(table):
                self._report.counts.found = max(self._report.counts.found, self._compare_table(table))

    @contextmanager
    def _reading(self, node: Node) -> Iterator[None]:
        """Take a node whose data cannot be read for a difference, as long as Tiled answers at all."""
        try:
            yield
        except TiledUnreadable as error:
            self._tree.node(node.path)  # raises if nothing at all can be read
            self._seen |= set(node.columns)
            self._say(f"{node.family} {shown(node.key)} cannot be read: {shown(str(error))}")

    def _compare_table(self, table: Node) -> int:
        """Compare all columns of a table, some at a time; returns its rows."""
        rows = 0
        for names in _groups(table.columns, int(self._kept.sum())):
            there = self._tree.table(table, names)
            rows = there.num_rows
            self._compare_columns(table, there)
        return rows

    def _compare_columns(self, table: Node, there: pa.Table) -> None:
        found: dict[str, Codes] = {}
        expected: dict[str, Codes] = {}
        stored = table.schema
        for name in there.column_names:
            column = self._columns.get(name)
            if column is None:
                self._unplanned(name, there.column(name))
                continue
            self._seen.add(name)
            if _is_rounded(stored, there.schema, name) and has_long_integers(column):
                self._report.rounded.append(name)
            codes, found[name] = codes_of(column, there.column(name))
            expected[name] = self._spared(column, codes[self._kept])
        if expected:
            matched = match(expected, found, self._optional, ordered=table.keeps_order)
            self._tell(matched, expected, found, there)

    def _spared(self, column: Column, codes: Codes) -> Codes:
        """A value that its column cannot hold is null there, if its document is a dead letter, too."""
        places = np.flatnonzero(self._kept)
        for row in np.flatnonzero(self._misfit):
            if codes[row] == MISFIT or has_nul(column[int(places[row])]):
                codes[row] = NULL
        return codes

    def _unplanned(self, name: str, values: "pa.ChunkedArray[Any]") -> None:
        if values.null_count < len(values) and not self._open_end:  # events beyond the range may have it
            self._say(f"column {shown(name)} was not published")

    def _tell(
        self, matched: Matched, expected: Mapping[str, Codes], found: Mapping[str, Codes], there: pa.Table
    ) -> None:
        counts, extra = self._report.counts, 0 if self._open_end else len(matched.foreign)
        counts.missing = max(counts.missing, len(matched.missing))
        counts.different = max(counts.different, len(matched.changed))
        counts.duplicated = max(counts.duplicated, len(matched.duplicated))
        counts.foreign = max(counts.foreign, extra)
        counts.misplaced = max(counts.misplaced, len(matched.misplaced))
        places = np.flatnonzero(self._kept)
        for kind, rows in (("missing", matched.missing), ("out of order", matched.misplaced)):
            self._say(*_sentences(kind, [self._called(places[row]) for row in rows[:SENTENCES_MAX]], len(rows)))
        for kind, rows in (("doubled", matched.duplicated), ("never published", matched.foreign[:extra])):
            self._say(*_sentences(kind, [_called(there, row) for row in rows[:SENTENCES_MAX]], len(rows)))
        for wanted, row in matched.changed[:SENTENCES_MAX]:
            self._say(*self._changes(expected, found, there, wanted, row))

    def _changes(
        self, expected: Mapping[str, Codes], found: Mapping[str, Codes], there: pa.Table, wanted: int, row: int
    ) -> Iterator[str]:
        place = int(np.flatnonzero(self._kept)[wanted])
        for name in expected:
            if expected[name][wanted] != found[name][row]:
                value = there.column(name)[row].as_py()
                should = shown(self._columns[name][place])
                yield f"{self._called(place)}, {shown(name)}: {shown(value)} instead of {should}"

    def _called(self, place: Any) -> str:
        return f"row {place} (seq_num {self._columns['seq_num'][int(place)]})"

    def _say(self, *sentences: str) -> None:
        self._report.differences += [each for each in sentences if each not in self._report.differences]

    # ------------------------------------------------------------ arrays and files

    def _compare_nodes(self, nodes: Mapping[str, Node], files: Mapping[str, Any]) -> None:
        external = {self._names.get(key, key) for key in self._stream.rows.external}
        described = {self._names.get(key, key): spec for key, spec in self._stream.data_keys.items()}
        for key, held in files.items():
            spec, moved = described.get(key) or {}, self._tree.files_moved
            open_end = self._open_end or key in self._loose
            self._add(*compare_files(nodes.get(key), key, held, spec, open_end=open_end, moved=moved))
        for key, node in nodes.items():
            if key in files or (key in self._loose and key in external):
                continue
            column = self._columns.get(key)
            if column is None or (key in external and column.is_empty):
                self._say(*([] if self._open_end else [f"node {shown(key)} was not published"]))
                continue
            with self._reading(node):
                self._add(*compare_array(self._tree, node, column, self._kept, self._optional, open_end=self._open_end))
        self._miss_columns(nodes.keys() | files.keys())

    def _is_wanted(self, column: Column) -> bool:
        """Whether a value of it must be in Tiled: not one of a row that, or of which a value, is a dead letter."""
        if column.is_empty:
            return False
        there = np.fromiter((value is not None for value in column), np.bool_, column.rows)
        return bool((there[self._kept] & ~(self._optional | self._misfit)).any())

    def _add(self, part: PartReport, differences: list[str]) -> None:
        self._report.parts.append(part)
        self._say(*differences)

    def _miss_columns(self, elsewhere: Set[str]) -> None:
        if not self._report.counts.found:
            return
        for name, column in self._columns.items():
            if name not in self._seen and name not in elsewhere and self._is_wanted(column):
                self._report.counts.different = self._report.counts.expected
                self._say(f"no column or node {shown(name)}")


def _is_rounded(stored: pa.Schema, sent: pa.Schema, name: str) -> bool:
    """Whether Tiled holds integers and sends floats: it does so where a column has a null (pandas)."""
    held = innermost(stored.field(name).type) if name in stored.names else pa.null()
    return pa.types.is_integer(held) and pa.types.is_floating(innermost(sent.field(name).type))


def _heads(rows: Rows) -> dict[str, Column]:
    columns = {name: Column() for name in KEYS}
    for name, values in rows.heads.items():
        columns[name].add(values)
    return columns


def _reserved(data_keys: Collection[str]) -> dict[str, str]:
    """Return what data keys are called that have the names of columns of ours; an open run's notes do not tell yet."""
    taken = {name.lower() for key in data_keys for name in (key, f"ts_{key}")}
    free: dict[str, str] = {}
    for key in KEYS:
        if key in data_keys:
            names = (f"{key}{'_' * length}" for length in range(1, len(taken) + 2))
            free[key] = next(name for name in names if not taken & {name, f"ts_{name}"})
    return free


def _groups(columns: Sequence[str], rows: int) -> Iterator[list[str]]:
    """Yield columns that are read together: `seq_num` and `time` with each, for rows may come in another order then."""
    keys = [name for name in KEYS if name in columns]
    others = [name for name in columns if name not in keys]
    together = max(1, TABLE_BYTES_MAX // (8 * max(rows, 1)) - len(keys))
    for begin in range(0, max(len(others), 1), together):
        yield keys + others[begin : begin + together]


def _sentences(kind: str, names: list[str], count: int) -> list[str]:
    more = [f"... and {count - len(names)} more rows {kind}"] if count > len(names) else []
    return [f"{name} is {kind}" for name in names] + more


def _called(there: pa.Table, row: Any) -> str:
    number = there.column("seq_num")[int(row)].as_py() if "seq_num" in there.column_names else "unknown"
    return f"a row with seq_num {number}"
