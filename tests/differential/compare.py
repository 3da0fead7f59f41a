"""Two trees, compared: every difference as a place, a field and the two values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from .parts import Tree, columns_of, cut, tables_in_parts
from .tree import Node, Path


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes
    ----------
    node
        The path of the node below the run.
    field
        Where in its description, from the outside inwards: `("metadata", "start", "uid")`.
    """

    node: Path
    field: tuple[Any, ...]
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        where = "/".join(self.node) or "the run"
        return (
            f"{where}: {'.'.join(map(str, self.field))}: {_short(self.theirs)} in theirs, {_short(self.ours)} in ours"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def differences(theirs: Tree, ours: Tree) -> list[Difference]:
    """Return all differences between two trees of one run.

    A table that only ours has in parts is one difference, `("parts",)`: the types of its columns, and of each part's.
    What the parts hold is then compared with the same columns of the whole one.
    """
    found: list[Difference] = []
    for whole, parts in list(tables_in_parts(theirs, ours)):
        columns = [columns_of(ours[part]) for part in parts]
        found.append(Difference(whole, ("parts",), columns_of(theirs[whole]), columns))
        theirs = cut(theirs, whole, {part: ours[part] for part in parts})
    for path in dict.fromkeys([*theirs, *ours]):
        one, other = theirs.get(path), ours.get(path)
        if one is None or other is None:
            found.append(Difference(path, (), one or ABSENT, other or ABSENT))
        else:
            found += _of_nodes(path, one, other)
    return found


def of_values(theirs: Any, ours: Any) -> list[Difference]:
    """Return all differences between two plain values."""
    return list(_of_values((), (), theirs, ours))


def _of_nodes(path: Path, theirs: Node, ours: Node) -> Iterator[Difference]:
    for field in fields(Node):
        yield from _of_values(path, (field.name,), getattr(theirs, field.name), getattr(ours, field.name))


def _of_values(path: Path, field: tuple[Any, ...], theirs: Any, ours: Any) -> Iterator[Difference]:
    if isinstance(theirs, Counter):
        if theirs != ours:
            yield Difference(path, field, _sorted(theirs - ours), _sorted(ours - theirs))
    elif isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in dict.fromkeys([*theirs, *ours]):
            yield from _of_values(path, (*field, key), theirs.get(key, ABSENT), ours.get(key, ABSENT))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            yield from _of_values(path, (*field, index), one, other)
    elif theirs != ours or type(theirs) is not type(ours):
        yield Difference(path, field, theirs, ours)


def _sorted(rows: Counter[Any]) -> list[Any]:
    return sorted(rows.elements(), key=repr)
