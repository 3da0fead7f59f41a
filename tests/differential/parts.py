"""A table that is whole in one tree and in parts in the other: the whole one is cut where the other is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .tree import Node, Path

Tree = Mapping[Path, Node]


def tables_in_parts(whole: Tree, parted: Tree) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each table of `whole` that `parted` has in parts instead (`internal_0`, `internal_1`, ...), and these."""
    for path in whole:
        name = re.compile(re.escape(path[-1] if path else "") + r"_\d+")
        parts = [other for other in parted if other[:-1] == path[:-1] and other and name.fullmatch(other[-1])]
        if parts and path not in parted and whole[path].family == "table":
            yield path, parts


def columns_of(table: Node) -> dict[str, str]:
    """Return a table's columns and their types."""
    columns: dict[str, str] = table.structure["columns"]
    return columns


def cut(whole: Tree, path: Path, parts: Mapping[Path, Node]) -> Tree:
    """Return the tree with the table's columns in the same parts; what no part has is in the last."""
    table, left = whole[path], set(columns_of(whole[path]))
    divided = {}
    for part, like in parts.items():
        names = left & set(columns_of(like)) if part != list(parts)[-1] else set(left)
        divided[part] = _only(table, names)
        left -= names
    return {**{other: node for other, node in whole.items() if other != path}, **divided}


def _only(table: Node, names: Collection[str]) -> Node:
    rows: Counter[Any] = Counter()
    for row, count in table.values.items():
        rows[tuple(cell for cell in row if cell[0] in names)] += count
    columns = {name: kind for name, kind in columns_of(table).items() if name in names}
    metadata = {name: said for name, said in table.metadata.items() if name in names}
    structure = {**table.structure, "columns": columns, "order": sorted(columns)}  # parts are sorted
    return replace(table, metadata=metadata, structure=structure, values=rows)
