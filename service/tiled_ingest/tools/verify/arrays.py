"""Values that have a node of their own (large or ragged arrays): one row for each event that has the key."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from .codes import NULL, Codes, Leaf, nd_codes, value_code, value_codes
from .matching import match
from .metadata import shown
from .report import SENTENCES_MAX, Counts, PartReport
from .rows import Bools, Column
from .tree import Node, Tree, dtype_of

BLOCK_BYTES_MAX = 32_000_000
RAGGED_ROWS_MAX = 2_000  # of one answer


def compare_array(
    tree: Tree, node: Node, column: Column, kept: Bools, optional: Bools, *, open_end: bool
) -> tuple[PartReport, list[str]]:
    """Compare the rows of an array, or of a ragged one, with a column's values.

    Parameters
    ----------
    kept
        Which rows of the column count, shape (rows,).
    optional
        Which of these need not be there, shape (rows that count,).
    """
    kind = _kind(node)
    codes, leaf = value_codes(column, kind)
    present = codes[kept] != NULL
    places, codes, optional = np.flatnonzero(kept)[present], codes[kept][present], optional[present]
    found = _found(tree, node, column, places, codes, leaf)
    counts = Counts(int((~optional).sum()), len(found), dead_letters=int(optional.sum()))
    part = PartReport(node.key, node.family, counts)
    if open_end:
        found = found[: len(codes)]
    if len(found) == len(codes) and not optional.any():
        return part, _by_place(node.key, counts, codes, found)
    matched = match({"value": codes}, {"value": found}, optional, ordered=False)
    counts.missing, counts.duplicated = len(matched.missing), len(matched.duplicated)
    counts.foreign = len(matched.foreign)
    named = {"missing": counts.missing, "doubled": counts.duplicated, "never published": counts.foreign}
    return part, [f"array {shown(node.key)}: {rows} rows are {what}" for what, rows in named.items() if rows]


def _by_place(key: str, counts: Counts, codes: Codes, found: Codes) -> list[str]:
    wrong = np.flatnonzero(codes != found)
    if not len(wrong):
        return []
    swapped = np.array_equal(np.sort(codes[wrong]), np.sort(found[wrong]))
    counts.misplaced, counts.different = (len(wrong), 0) if swapped else (0, len(wrong))
    shown_rows = ", ".join(map(str, wrong[:SENTENCES_MAX]))
    return [f"array {shown(key)}: {len(wrong)} rows {'out of order' if swapped else 'differ'}: {shown_rows}"]


def _kind(node: Node) -> pa.DataType:
    """Return the Arrow type that a row of the node would have."""
    if node.family == "ragged":
        depth, letter = len(node.structure.get("shape") or (None, None)) - 1, "f"
    else:
        depth, letter = len(node.shape) - 1, dtype_of(node).kind
    kinds: dict[str, pa.DataType] = {"f": pa.float64(), "i": pa.int64(), "u": pa.int64(), "b": pa.bool_()}
    kind = kinds.get(letter, pa.string())
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


def _found(tree: Tree, node: Node, column: Column, places: Any, codes: Codes, leaf: Leaf) -> Codes:
    parts = [np.empty(0, np.uint64)]
    for begin, end in _slices(node):
        if node.family == "ragged":
            rows = tree.ragged(node, begin, end)
            depth = len(node.structure.get("shape") or (None, None)) - 1
            parts.append(np.array([value_code(row, depth, leaf) for row in rows], np.uint64))
        else:
            block = tree.array(node, begin, end)
            made = nd_codes(block, leaf)
            _forgive_padding(block, made, column, places[begin:end], codes[begin:end])
            parts.append(made)
    return np.concatenate(parts)


def _slices(node: Node) -> Iterator[tuple[int, int]]:
    rows = node.shape[0] if node.shape else 0
    row_bytes = 1 if node.family == "ragged" else int(np.prod(node.shape[1:])) * dtype_of(node).itemsize
    together = RAGGED_ROWS_MAX if node.family == "ragged" else max(1, BLOCK_BYTES_MAX // max(row_bytes, 1))
    yield from ((begin, min(begin + together, rows)) for begin in range(0, rows, together))


def _forgive_padding(block: np.ndarray[Any, Any], made: Codes, column: Column, places: Any, codes: Codes) -> None:
    """Give rows that only were filled up to the array's shape the codes that they should have."""
    count = min(len(made), len(codes))
    for row in np.flatnonzero(made[:count] != codes[:count]):
        if _is_padded(block[row], column[int(places[row])]):
            made[row] = codes[row]


def _is_padded(there: np.ndarray[Any, Any], value: Any) -> bool:
    if there.dtype.kind not in "biuf":
        return False
    try:
        should = np.asarray(value, there.dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    if should.ndim != there.ndim or any(a > b for a, b in zip(should.shape, there.shape, strict=True)):
        return False
    inside = tuple(map(slice, should.shape))
    outside = np.ones(there.shape, np.bool_)
    outside[inside] = False
    filled = there[outside]
    return np.array_equal(there[inside], should, equal_nan=there.dtype.kind == "f") and bool(
        ((filled == 0) | (filled != filled)).all()  # noqa: PLR0124 - zero or NaN
    )
