"""Values of one data key as a block of a regular array, without a silent change.

numpy itself would make 0.5 a 0 in an array of integers, and cut text to the length that the first one had. Here
the plan of the array (its type and the shape of a row) is widened when a value asks for it, and what is shorter
than the others is filled up with NaN. How far, the array's beginning says: one value must not make all others huge.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .columns import numpy_dtype
from .exact import kept_in, rounded_from
from .natural import Values, natural, of_type
from .sizes import DIMENSIONS_MAX, REQUEST_NBYTES_MAX, ROW_NBYTES_MAX, is_padding_bearable, row_limit

_NUMBERS = "biufc"
_NO_GAPS = "biu"  # they have no NaN


@dataclass(frozen=True, slots=True)
class ArrayPlan:
    """What every row of the array is: its type, and its shape (no size is 0, for zarr has no such chunks).

    `limit` is what a row may weigh at most (bytes), however it is widened. It is `proven` by the first value that has
    elements, which may raise it.
    """

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    limit: int = ROW_NBYTES_MAX
    proven: bool = True

    @classmethod
    def begin(cls, spec: Mapping[str, Any], first: Any, *, untyped: bool = False) -> "ArrayPlan":
        """Return the plan by the data key's declared type, and the first value.

        `untyped`: what is declared is a guess, and texts are better known by themselves.
        """
        declared = numpy_dtype(spec.get("dtype_numpy"))
        if untyped and first is not None and (found := natural(first)) is not None and found.dtype.kind in "US":
            declared = None
        value = None if first is None else natural(first) if declared is None else of_type(first, declared)
        if declared is None:
            dtype = value.dtype if value is not None and value.size else np.dtype(np.float64)
        else:
            dtype = _believed(declared, value)
        sizes = tuple(max(size, 1) for size in spec.get("shape") or ())
        claimed = math.prod(sizes) * dtype.itemsize
        plan = cls(_at_least_one(dtype), _row_shape(value, sizes, claimed))
        limit = row_limit(plan.row_nbytes, claimed if claimed <= ROW_NBYTES_MAX else 0)
        return replace(plan, limit=limit, proven=value is not None and value.size > 0)

    def joined(self, other: "ArrayPlan") -> "ArrayPlan":
        """Return a plan that holds what both hold; this one, where they have nothing in common, or it would be huge."""
        if len(self.row_shape) != len(other.row_shape):
            return self
        shape = tuple(map(max, self.row_shape, other.row_shape))
        known = self if self.proven else replace(self, limit=max(self.limit, other.limit), proven=other.proven)
        wider = replace(known, dtype=_promoted(self.dtype, other.dtype) or self.dtype, row_shape=shape)
        return wider if wider.row_nbytes <= known.limit else known

    def proven_by(self, array: Values | None) -> "ArrayPlan":
        """Return the plan with the limit that the first value sets which has elements."""
        if self.proven or array is None or not array.size:
            return self
        return replace(self, limit=max(self.limit, row_limit(array.nbytes)), proven=True)

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row, uncompressed."""
        return max(1, math.prod(self.row_shape) * self.dtype.itemsize)

    def as_floats(self) -> "ArrayPlan":
        """Return the plan for the same numbers with gaps among them."""
        return replace(self, dtype=np.dtype(np.float64)) if self.dtype.kind in _NO_GAPS else self

    @property
    def missing(self) -> Any:
        """What stands where there is no value."""
        return _MISSING.get(self.dtype.kind, np.zeros((), self.dtype)[()])


def _believed(declared: np.dtype[Any], value: Values | None) -> np.dtype[Any]:
    """Return the declared type; of text that is declared to be absurdly long, one that its values may lengthen."""
    number, proven = (max(value.size, 1), value.nbytes) if value is not None else (1, 0)
    bearable = is_padding_bearable(number * declared.itemsize, proven)
    return declared if bearable or declared.kind not in "US" else np.dtype(f"{declared.kind}1")


def _row_shape(value: Values | None, declared: tuple[int, ...], claimed: int) -> tuple[int, ...]:
    """Return the shape of the first row: its own, or what is declared, unless that is large and nothing proves it."""
    if value is not None:
        return tuple(size if value.size else 1 for size in value.shape) or (1,)
    if len(declared) > DIMENSIONS_MAX:
        return (1,)
    return (declared if is_padding_bearable(claimed, 0) else (1,) * len(declared)) or (1,)


_MISSING: dict[str, Any] = {"f": np.nan, "c": complex(np.nan, np.nan), "U": "", "S": b"", "M": "NaT", "m": "NaT"}


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of an array. If `plan` is not the one that was asked for, it is wider: plan anew, then convert again.

    They are laid out only when they are asked for, some at a time: all together may weigh far more than their values.

    Attributes
    ----------
    misfits
        Positions among the values of those that cannot be a row, and why; there is no value in their rows.
    padded
        The shortest and the longest first dimension of a row, if rows differ in shape, or from earlier ones.
    rounded
        Whether integers lost digits as floats.
    """

    plan: ArrayPlan
    misfits: tuple[tuple[int, str], ...]
    padded: tuple[int, int] | None
    rounded: bool
    _rows: "_Rows"

    def __len__(self) -> int:
        return len(self._rows)

    def laid(self, begin: int, end: int) -> Values:
        """Return rows as an array of shape (end - begin, *plan.row_shape)."""
        array = np.full((end - begin, *self.plan.row_shape), self.plan.missing, self.plan.dtype)
        for target, row in zip(array, self._rows.between(begin, end), strict=True):
            row.put_into(target)
        return array


def block(values: Sequence[Any], plan: ArrayPlan) -> Block:
    """Return the values as rows of the plan's array, or of a wider one that the values ask for."""
    rows = _Rows(values, plan)
    wanted = rows.gathered()
    # What has no value, or is shorter, is NaN: integers and truth values have none, so they become floats.
    if wanted.dtype.kind in _NO_GAPS and not rows.shapes <= {wanted.row_shape}:
        floats = wanted.as_floats()
        if floats.row_nbytes <= wanted.limit:
            wanted = floats
        else:
            rows.refuse_gaps(wanted.row_shape)
    misfits = tuple(sorted(rows.refused.items()))
    return Block(wanted, misfits, _lengths(rows.shapes, wanted), rows.lose(wanted.dtype), rows)


def _lengths(shapes: set[tuple[int, ...] | None], plan: ArrayPlan) -> tuple[int, int] | None:
    sized = {shape for shape in shapes if shape is not None}
    if sized <= {plan.row_shape}:
        return None
    lengths = [shape[0] for shape in (*sized, plan.row_shape)]  # of rows, and of the longest that came before
    return min(lengths), max(lengths)


class _Rows:
    """Values on their way to be rows.

    Attributes
    ----------
    refused
        Why they are none, by position.
    shapes
        Of the rows; `None` where there is no value.
    """

    def __init__(self, values: Sequence[Any], plan: ArrayPlan) -> None:
        self._values = values
        self._plan = plan
        self._kept: list[_Row] | None = []  # `None`: they are too many to be kept, and made again when they are needed
        self._kept_nbytes = 0
        self.refused: dict[int, str] = {}
        self.shapes: set[tuple[int, ...] | None] = set()

    def __len__(self) -> int:
        return len(self._values)

    def gathered(self) -> ArrayPlan:
        """Look at every value; return a plan that is wide enough for those that are rows."""
        wanted = self._plan
        for position, value in enumerate(self._values):
            row = _Row.of(value, self._plan)
            wanted = wanted.proven_by(row.array)
            wider = row.widened(wanted)
            # Where rows differ in length there are gaps, which integers have not: such become floats.
            longer = wider.row_shape != wanted.row_shape
            nbytes = (wider.as_floats() if longer else wider).row_nbytes
            if wider is not wanted and nbytes > wanted.limit:
                row = _Row(None, f"it would make every row {nbytes} bytes long, here {wanted.limit} at most")
            else:
                wanted = wider
            self._take(position, value, row)
        return wanted

    def _take(self, position: int, value: Any, row: "_Row") -> None:
        self.shapes.add(None if row.array is None else row.array.shape)
        if row.why:
            self.refused[position] = row.why
        if self._kept is None:
            return
        if row.array is not None and row.array is not value:
            self._kept_nbytes += row.array.nbytes
        self._kept.append(row)
        if self._kept_nbytes > REQUEST_NBYTES_MAX:
            self._kept = None

    def between(self, begin: int, end: int) -> "Iterator[_Row]":
        """Yield rows; those that are refused have no value."""
        for position in range(begin, end):
            if position in self.refused:
                yield _Row(None, self.refused[position])
            else:
                yield _Row.of(self._values[position], self._plan) if self._kept is None else self._kept[position]

    def refuse_gaps(self, row_shape: tuple[int, ...]) -> None:
        """Refuse values that would leave a gap in a row that has none."""
        why = "no value, or a shorter one, in an array of integers that is too large to become one of floats"
        for position, row in enumerate(self.between(0, len(self))):
            if row.array is None or row.array.shape != row_shape:
                self.refused.setdefault(position, why)

    def lose(self, dtype: np.dtype[Any]) -> bool:
        """Whether integers lose digits as elements of that type."""
        return dtype.kind in "fc" and any(row.loses(dtype) for row in self.between(0, len(self)))


@dataclass(frozen=True, slots=True)
class _Row:
    """One value, as an array of the plan's kind; `why` it is none, or `None` for both where there is no value."""

    array: Values | None
    why: str = ""
    rounded: bool = False  # whether it has floats, and some of its integers lost digits as such

    @classmethod
    def of(cls, value: Any, plan: ArrayPlan) -> "_Row":
        if value is None:
            return cls(None)
        found = of_type(value, plan.dtype)
        if found is None:
            return cls(None, "nested lists that are no array of this type")
        if found.ndim == 0:
            found = found.reshape((1,) * len(plan.row_shape))  # EPICS gives an array of one element as a number
        if found.ndim != len(plan.row_shape):
            return cls(None, f"{found.ndim} dimensions where there were {len(plan.row_shape)}")
        return cls._of_kind(found, plan.dtype, rounded=rounded_from(value, found))

    @classmethod
    def _of_kind(cls, found: Values, dtype: np.dtype[Any], *, rounded: bool) -> "_Row":
        if found.size == 0:
            return cls(np.zeros(found.shape, dtype))
        if _promoted(dtype, found.dtype) is not None:
            return cls(found, rounded=rounded)
        converted = _converted(found, dtype)
        return cls(converted) if converted is not None else cls(None, f"{found.dtype.name} in an array of {dtype.name}")

    def widened(self, plan: ArrayPlan) -> ArrayPlan:
        """Return the plan that holds this row, too; the very same, if that does. No value proves no size."""
        array = self.array
        if array is None or not array.size or (array.dtype == plan.dtype and array.shape == plan.row_shape):
            return plan
        shape = tuple(map(max, plan.row_shape, array.shape))
        dtype = plan.dtype if self._fits(plan.dtype) else _promoted(plan.dtype, array.dtype) or plan.dtype
        if dtype == plan.dtype and shape == plan.row_shape:
            return plan
        return replace(plan, dtype=dtype, row_shape=shape)

    def _fits(self, dtype: np.dtype[Any]) -> bool:
        """Whether every element is the same in that type, whatever type it came in."""
        if self.array is None or self.array.size == 0 or np.can_cast(self.array.dtype, dtype, "safe"):
            return True
        if dtype.kind not in _NUMBERS or self.array.dtype.kind not in _NUMBERS:
            return False
        return kept_in(self.array, dtype)

    def loses(self, dtype: np.dtype[Any]) -> bool:
        """Whether integers lose digits as floats of that type."""
        if self.array is None or self.array.dtype.kind not in "iu":
            return self.rounded
        return not kept_in(self.array, dtype)

    def put_into(self, target: Values) -> None:
        if self.array is not None and self.array.size:
            target[tuple(map(slice, self.array.shape))] = self.array


def _promoted(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the type that holds the values of both; `None` if they are of different kinds."""
    numbers = one.kind in _NUMBERS and other.kind in _NUMBERS
    if one.kind in "US" and one.kind == other.kind:
        return one if one.itemsize >= other.itemsize else _rounded_up(other)
    if numbers:
        return np.promote_types(one, other)
    return one if one == other else None


def _rounded_up(text: np.dtype[Any]) -> np.dtype[Any]:
    """Return a type of text of the next power of two, so that growing text is written anew but a few times."""
    length = text.itemsize // (4 if text.kind == "U" else 1)
    return np.dtype(f"{text.kind}{1 << max(0, length - 1).bit_length()}")


def _at_least_one(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.itemsize else np.dtype(f"{dtype.kind}1")


def _converted(found: Values, dtype: np.dtype[Any]) -> Values | None:
    """Return text as times, and bytes as text or text as bytes; `None` for what that type cannot hold."""
    try:
        if dtype.kind in "mM" and found.dtype.kind == "U":
            return found.astype(dtype)
        if dtype.kind == "U" and found.dtype.kind == "S":
            return np.char.decode(found, "utf-8")
        if dtype.kind == "S" and found.dtype.kind == "U":
            return np.char.encode(found, "utf-8")
    except (ValueError, UnicodeError):
        pass
    return None
