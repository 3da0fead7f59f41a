"""Values of unequal length as Tiled stores them: one row of buffers a chunk, in the form that Awkward Array gives them.

A dimension without a size has a column of offsets, the innermost values are one flat column; Tiled names the columns
after the nodes of Awkward's form. What Tiled computes with `awkward.to_buffers` is computed here without it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .columns import numpy_dtype
from .exact import kept_in, rounded_from
from .natural import one_row
from .sizes import DIMENSIONS_MAX, REQUEST_NBYTES_MAX, ROW_NBYTES_MAX

CHUNK = "chunk_index"
PARTS_MAX = 1_024  # of a value whose outer dimensions have fixed sizes
_NUMBER_NBYTES = 8  # of an element, and of an offset
_STORABLE = frozenset(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "f4", "f8"])


@dataclass(frozen=True, slots=True)
class RaggedPlan:
    """The type of the values, and the shape of an event's value: `None` where the size differs."""

    dtype: np.dtype[Any]
    row_shape: tuple[int | None, ...]

    @classmethod
    def begin(cls, spec: Mapping[str, Any], first: Any = None, *, untyped: bool = False) -> "RaggedPlan":
        """Return the plan by the data key; what SQL has no type for is written as 64-bit floats.

        `untyped`: what is declared is a guess, and the first value knows better whether there are integers.
        """
        declared = numpy_dtype(spec.get("dtype_numpy"))
        if untyped and _is_whole(first, tuple(spec["shape"])):
            declared = np.dtype(np.int64)
        storable = declared is not None and declared.str[1:] in _STORABLE
        return cls(declared if declared is not None and storable else np.dtype(np.float64), tuple(spec["shape"]))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table that holds the chunks."""
        offsets = [(f"node{level}-offsets", pa.list_(pa.int64())) for level in self._variable]
        data = (f"node{max(self._variable) + 1}-data", pa.list_(pa.from_numpy_dtype(self.dtype)))
        return pa.schema([(CHUNK, pa.int64()), *offsets, data])

    @property
    def _variable(self) -> list[int]:
        return [level for level, size in enumerate(self.row_shape) if size is None]

    @property
    def parts(self) -> int:
        """How many offsets a value takes at least."""
        return math.prod(size or 1 for size in self.row_shape[: max(self._variable)])

    def joined(self, dtype: np.dtype[Any]) -> "RaggedPlan":
        """Return the plan for values of that type, too."""
        return replace(self, dtype=_storable(np.promote_types(self.dtype, dtype)))


def ragged_in_sql(spec: Mapping[str, Any]) -> bool:
    """Whether SQL has a type for the values: text, truth values and complex numbers stay in the stream's table.

    So do arrays of an absurd shape: of a fixed size before the last free one every missing value takes the offsets.
    """
    declared = numpy_dtype(spec.get("dtype_numpy"))
    return declared is not None and declared.kind in "iuf" and _is_sane(tuple(spec["shape"]))


def _is_sane(shape: tuple[int | None, ...]) -> bool:
    last = max(level for level, size in enumerate(shape) if size is None)
    outer, inner = (math.prod(size or 1 for size in part) for part in (shape[:last], shape[last:]))
    positive = all(size is None or size > 0 for size in shape)
    return positive and len(shape) <= DIMENSIONS_MAX and outer <= PARTS_MAX and inner * _NUMBER_NBYTES <= ROW_NBYTES_MAX


def _is_whole(value: Any, row_shape: tuple[int | None, ...]) -> bool:
    flat = _Flat(RaggedPlan(np.dtype(np.int64), row_shape))
    return not flat.add(value) and bool(flat.leaves) and all(leaf.dtype.kind in "iu" for leaf in flat.leaves)


def _storable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.str[1:] in _STORABLE else np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a ragged array.

    Attributes
    ----------
    columns
        By name, without the index of the chunk.
    size
        The number of elements.
    misfits
        Positions among the values of those that are no such array, and why: they are empty.
    rounded
        Whether integers lost digits as floats.
    """

    plan: RaggedPlan
    rows: int
    columns: Mapping[str, np.ndarray[Any, Any]]
    size: int
    misfits: tuple[tuple[int, str], ...]
    rounded: bool = False

    def table(self, index: int) -> pa.Table:
        """Return the chunk as the row of that index."""
        schema = self.plan.schema
        columns = [pa.array([self.columns[name]], schema.field(name).type) for name in schema.names[1:]]
        return pa.table([pa.array([index], pa.int64()), *columns], schema=schema)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Rows of a ragged array. If `plan` is not the one that was asked for, it is wider: plan anew, then convert again.

    Where there are several chunks, each is made when it is asked for, so that only one of them takes memory.

    Attributes
    ----------
    groups
        The values of each chunk.
    misfits
        Positions among all values of those that are no such array, and why: they are empty.
    rounded
        Whether integers lost digits as floats.
    """

    plan: RaggedPlan
    misfits: tuple[tuple[int, str], ...]
    rounded: bool
    groups: Sequence[Sequence[Any]] = field(default=())
    only: Chunk | None = None

    def each(self) -> Iterator[Chunk]:
        """Yield the chunks."""
        yield from (self.only,) if self.only is not None else (chunk(group, self.plan) for group in self.groups)


def chunks(values: Sequence[Any], plan: RaggedPlan, nbytes_max: int = REQUEST_NBYTES_MAX) -> Chunks:
    """Return the values as chunks of the plan's form, or of a wider type that they ask for."""
    groups = list(_grouped(values, plan, nbytes_max))
    if len(groups) == 1:
        made = chunk(values, plan)
        return Chunks(made.plan, made.misfits, made.rounded, only=made)
    misfits: list[tuple[int, str]] = []
    rows, rounded = 0, False
    for group in groups:
        made = chunk(group, plan)
        plan, rounded = made.plan, rounded or made.rounded
        misfits += [(rows + position, why) for position, why in made.misfits]
        rows += made.rows
    return Chunks(plan, tuple(misfits), rounded, groups)


def _grouped(values: Sequence[Any], plan: RaggedPlan, nbytes_max: int) -> Iterator[Sequence[Any]]:
    """Yield the values in groups that are bearable when they are laid out."""
    begin, nbytes = 0, 0
    for position, value in enumerate(values):
        more = _NUMBER_NBYTES * (_elements(value) + plan.parts)
        if position > begin and nbytes + more > nbytes_max:
            yield values[begin:position]
            begin, nbytes = position, 0
        nbytes += more
    yield values[begin:]


def _elements(value: Any) -> int:
    """Return how many numbers and lists there are at most."""
    if isinstance(value, np.ndarray):
        elements: int = value.size + math.prod(value.shape[:-1])
        return elements
    if not isinstance(value, list | tuple):
        return 1
    if {list, tuple, np.ndarray}.isdisjoint(map(type, value)):
        return len(value)
    return len(value) + sum(map(_elements, value))


def chunk(values: Sequence[Any], plan: RaggedPlan) -> Chunk:
    """Return the values as a chunk of the plan's form, or of a wider type that they ask for."""
    flat = _Flat(plan)
    misfits = tuple((position, why) for position, value in enumerate(values) if (why := flat.add(value)))
    wanted = flat.plan
    columns = {f"node{level}-offsets": np.array(offsets, np.int64) for level, offsets in flat.offsets.items()}
    # One by one: numpy's own type for signed and unsigned integers together would be a float.
    parts = [np.zeros(0, wanted.dtype), *(leaf.astype(wanted.dtype) for leaf in flat.leaves)]
    columns[wanted.schema.names[-1]] = data = np.concatenate(parts)
    rounded = flat.rounded or any(_loses(leaf, wanted.dtype) for leaf in flat.leaves)
    return Chunk(wanted, len(values), columns, data.size, misfits, rounded)


def _loses(leaf: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    return leaf.dtype.kind in "iu" and not kept_in(leaf, dtype)


def chunk_of(rows: int, found: pa.Table, plan: RaggedPlan) -> Chunks:
    """Return a chunk as the row of a table of another type holds it, in the plan's type, which is at least as wide."""
    *offsets, data = plan.schema.names[1:]
    arrays = {name: _flat_column(found, name).astype(np.int64) for name in offsets}
    held = _flat_column(found, data)
    rounded = _loses(held, plan.dtype)
    only = Chunk(plan, rows, {**arrays, data: held.astype(plan.dtype)}, held.size, (), rounded)
    return Chunks(plan, (), rounded, only=only)


def _flat_column(found: pa.Table, name: str) -> np.ndarray[Any, Any]:
    flat = pc.list_flatten(found.column(name).combine_chunks())
    return np.asarray(flat.to_numpy(zero_copy_only=False))


class _Flat:
    """Values taken apart: offsets by level, and leaves."""

    def __init__(self, plan: RaggedPlan) -> None:
        self.plan = plan
        self.offsets: dict[int, list[int]] = {level: [0] for level, n in enumerate(plan.row_shape) if n is None}
        self.leaves: list[np.ndarray[Any, Any]] = []
        self.rounded = False
        self._innermost = max(self.offsets)

    def add(self, value: Any) -> str:
        """Take a value; say why it is none. No value at all is an empty one."""
        if value is None:
            self._take([], self._empty(0))
            return ""
        parts = self._parts(value, 0)
        if parts is None:
            self._take([], self._empty(0))
            return "no array of the declared shape, or not of numbers"
        leaves = [leaf for leaf in parts[1] if leaf.size]
        if sum(leaf.size for leaf in leaves) * _NUMBER_NBYTES > ROW_NBYTES_MAX:
            self._take([], self._empty(0))
            return f"more than {ROW_NBYTES_MAX} bytes"
        for leaf in leaves:
            self.plan = self.plan if kept_in(leaf, self.plan.dtype) else self.plan.joined(leaf.dtype)
        self._take(leaves, parts[0])
        return ""

    def _take(self, leaves: list[np.ndarray[Any, Any]], lengths: dict[int, list[int]]) -> None:
        self.leaves += [leaf.ravel() for leaf in leaves]
        for level, each in lengths.items():
            for length in each:
                self.offsets[level].append(self.offsets[level][-1] + length)

    def _empty(self, level: int) -> dict[int, list[int]]:
        """Lengths of a value without elements; a dimension of a fixed size has its number of (empty) parts."""
        lengths: dict[int, list[int]] = {}
        number = 1
        for deeper in range(level, self._innermost + 1):
            size = self.plan.row_shape[deeper]
            if size is None:
                lengths[deeper] = [0] * number
                number = 0
            else:
                number *= size
        return lengths

    def _parts(self, value: Any, level: int) -> tuple[dict[int, list[int]], list[np.ndarray[Any, Any]]] | None:
        """Return lengths by level, and the leaves in order; `None` if the value has another form."""
        if level == self._innermost:
            leaf = one_row(value, self.plan.row_shape[level + 1 :])
            self.rounded = self.rounded or (leaf is not None and rounded_from(value, leaf))
            return None if leaf is None else ({level: [len(leaf)]}, [leaf])
        if value is None or not isinstance(value, list | tuple | np.ndarray):
            return None
        size, lengths, leaves = self.plan.row_shape[level], dict[int, list[int]](), list[np.ndarray[Any, Any]]()
        if size is None:
            lengths[level] = [len(value)]
        elif size != len(value):
            return None
        for item in value:
            inner = self._parts(item, level + 1)
            if inner is None:
                return None
            leaves += inner[1]
            for deeper, each in inner[0].items():
                lengths.setdefault(deeper, []).extend(each)
        return lengths, leaves
