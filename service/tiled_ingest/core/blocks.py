"""Values of one data key as a block of a regular array, without a silent change.

numpy itself would make 0.5 a 0 in an array of integers, and cut text to the length that the first one had. Here
the plan of the array (its type and the shape of a row) is widened when a value asks for it, and what is shorter
than the others is filled up with NaN.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .columns import numpy_dtype

Values = npt.NDArray[Any]
PADDING_MAX = 64  # how much larger than the first a later row may be, if it is large at all
SMALL_ELEMENTS = 4_096
_NUMBERS = "biufc"


@dataclass(frozen=True, slots=True)
class ArrayPlan:
    """What every row of the array is: its type, and its shape (no size is 0, for zarr has no such chunks)."""

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]

    @classmethod
    def begin(cls, spec: Mapping[str, Any], first: Any, *, untyped: bool = False) -> "ArrayPlan":
        """Return the plan by the data key's declared type, and the first value.

        `untyped`: what is declared is a guess, and texts are better known by themselves.
        """
        declared = numpy_dtype(spec.get("dtype_numpy"))
        if untyped and first is not None and (found := _natural(first)) is not None and found.dtype.kind in "US":
            declared = None
        value = None if first is None else _natural(first) if declared is None else _as(first, declared)
        shape = value.shape if value is not None else tuple(size or 1 for size in spec.get("shape") or (1,))
        if declared is None:
            natural = value.dtype if value is not None and value.size else np.dtype(np.float64)
            declared = _at_least_one(natural)
        return cls(_at_least_one(declared), tuple(max(size, 1) for size in shape) or (1,))

    def joined(self, other: "ArrayPlan") -> "ArrayPlan":
        """Return a plan that holds what both hold; this one, where they have nothing in common."""
        if len(self.row_shape) != len(other.row_shape):
            return self
        shape = tuple(map(max, self.row_shape, other.row_shape))
        return ArrayPlan(_promoted(self.dtype, other.dtype) or self.dtype, shape)

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row, uncompressed."""
        return max(1, math.prod(self.row_shape) * self.dtype.itemsize)

    @property
    def missing(self) -> Any:
        """What stands where there is no value."""
        return _MISSING.get(self.dtype.kind, np.zeros((), self.dtype)[()])


_MISSING: dict[str, Any] = {"f": np.nan, "c": complex(np.nan, np.nan), "U": "", "S": b"", "M": "NaT", "m": "NaT"}


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of an array. If `plan` is not the one that was asked for, it is wider: plan anew, then convert again.

    Attributes
    ----------
    array
        Shape (rows, *plan.row_shape).
    misfits
        Positions among the values of those that cannot be a row, and why; there is no value in their rows.
    padded
        The shortest and the longest first dimension of a row, if rows differ in shape, or from earlier ones.
    rounded
        Whether integers lost digits as floats.
    """

    plan: ArrayPlan
    array: Values
    misfits: tuple[tuple[int, str], ...] = ()
    padded: tuple[int, int] | None = None
    rounded: bool = False


def block(values: Sequence[Any], plan: ArrayPlan) -> Block:
    """Return the values as rows of the plan's array, or of a wider one that the values ask for."""
    rows = [_Row.of(value, plan) for value in values]
    wanted = plan
    for row in rows:
        wanted = row.widened(wanted)
    # What has no value, or is shorter, is NaN: integers and truth values have none, so they become floats.
    holes = any(row.array is None or row.array.shape != wanted.row_shape for row in rows)
    if holes and wanted.dtype.kind in "biu":
        wanted = replace(wanted, dtype=np.dtype(np.float64))
    array = np.full((len(rows), *wanted.row_shape), wanted.missing, wanted.dtype)
    for target, row in zip(array, rows, strict=True):
        row.put_into(target)
    return Block(
        wanted,
        array,
        tuple((position, row.why) for position, row in enumerate(rows) if row.why),
        _lengths(rows, wanted),
        any(row.loses(wanted.dtype) for row in rows),
    )


def _lengths(rows: Sequence["_Row"], plan: ArrayPlan) -> tuple[int, int] | None:
    shapes = {row.array.shape for row in rows if row.array is not None}
    if shapes <= {plan.row_shape}:
        return None
    lengths = [shape[0] for shape in (*shapes, plan.row_shape)]  # of rows, and of the longest that came before
    return min(lengths), max(lengths)


@dataclass(frozen=True, slots=True)
class _Row:
    """One value, as an array of the plan's kind; `why` it is none, or `None` for both where there is no value."""

    array: Values | None
    why: str = ""

    @classmethod
    def of(cls, value: Any, plan: ArrayPlan) -> "_Row":
        if value is None:
            return cls(None)
        found = _as(value, plan.dtype)
        if found is None:
            return cls(None, "nested lists that are no array of this type")
        if found.ndim == 0:
            found = found.reshape((1,) * len(plan.row_shape))  # EPICS gives an array of one element as a number
        if found.ndim != len(plan.row_shape):
            return cls(None, f"{found.ndim} dimensions where there were {len(plan.row_shape)}")
        if _is_too_large(found.size, plan):
            return cls(None, f"{found.size} elements where there were {math.prod(plan.row_shape)}")
        return cls._of_kind(found, plan.dtype)

    @classmethod
    def _of_kind(cls, found: Values, dtype: np.dtype[Any]) -> "_Row":
        if found.size == 0:
            return cls(np.zeros(found.shape, dtype))
        if _promoted(dtype, found.dtype) is not None:
            return cls(found)
        converted = _converted(found, dtype)
        return cls(converted) if converted is not None else cls(None, f"{found.dtype.name} in an array of {dtype.name}")

    def widened(self, plan: ArrayPlan) -> ArrayPlan:
        if self.array is None:
            return plan
        shape = tuple(map(max, plan.row_shape, self.array.shape))
        dtype = plan.dtype if self._fits(plan.dtype) else _promoted(plan.dtype, self.array.dtype)
        return ArrayPlan(dtype or plan.dtype, shape)

    def _fits(self, dtype: np.dtype[Any]) -> bool:
        """Whether every element is the same in that type, whatever type it came in."""
        if self.array is None or self.array.size == 0 or np.can_cast(self.array.dtype, dtype, "safe"):
            return True
        if dtype.kind not in _NUMBERS or self.array.dtype.kind not in _NUMBERS:
            return False
        return self._is_kept_by(dtype)

    def _is_kept_by(self, dtype: np.dtype[Any]) -> bool:
        array = self.array
        if array is None:
            return True
        with np.errstate(all="ignore"):
            back = array.astype(dtype).astype(array.dtype)
        return bool(np.all((back == array) | (_is_nan(back) & _is_nan(array))))

    def loses(self, dtype: np.dtype[Any]) -> bool:
        """Whether integers lose digits as floats of that type."""
        return self.array is not None and self.array.dtype.kind in "iu" and not self._is_kept_by(dtype)

    def put_into(self, target: Values) -> None:
        if self.array is not None:
            target[tuple(map(slice, self.array.shape))] = self.array


def _is_too_large(size: int, plan: ArrayPlan) -> bool:
    return size > max(SMALL_ELEMENTS, PADDING_MAX * math.prod(plan.row_shape))


def _is_nan(array: Values) -> Any:
    return np.isnan(array) if array.dtype.kind in "fc" else np.False_


def _natural(value: Any) -> Values | None:
    """Return the value as an array of the type that it has by itself; `None` if it is none."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.array(_listed(value))
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind == "O":
        return _of_objects(value)
    # Beside text numpy makes text of numbers, too: then it was no array of one type.
    return array if array.dtype.kind not in "US" or _are_texts(value) else None


def _listed(value: Any) -> Any:
    return list(map(_listed, value)) if isinstance(value, list | tuple) else value


def _of_objects(value: Any) -> Values | None:
    """Return an array of floats for numbers with gaps, or of any size; `None` for anything else."""
    try:
        array = np.array(_listed(value), dtype=object)
        flat = [math.nan if item is None else item for item in array.ravel()]
        if not all(isinstance(item, int | float) for item in flat):
            return None
        return np.array(flat, np.float64).reshape(array.shape)
    except (ValueError, OverflowError, TypeError):
        return None


def _are_texts(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_are_texts, value))
    # numpy cuts what ends with NUL.
    return (isinstance(value, str) and value[-1:] != "\0") or (isinstance(value, bytes) and value[-1:] != b"\0")


def _as(value: Any, dtype: np.dtype[Any]) -> Values | None:
    return _records(value, dtype) if dtype.names else _natural(value)


def _records(value: Any, dtype: np.dtype[Any]) -> Values | None:
    """Return nested lists, whose innermost are records, as an array of a structured type."""
    if isinstance(value, np.ndarray) and value.dtype == dtype:
        return value
    try:
        return np.array(_tuples(value), dtype)
    except (ValueError, TypeError, OverflowError):
        return None


def _tuples(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return list(map(_tuples, value)) if value and isinstance(value[0], list | tuple) else tuple(value)


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


def one_row(value: Any, inner_shape: tuple[int | None, ...]) -> Values | None:
    """Return an array of numbers of shape (any, *inner_shape), gaps as NaN; `None` for anything else."""
    found = _natural(value) if value is not None else None
    if found is not None and found.ndim == 0:
        found = found.reshape((1,) * (1 + len(inner_shape)))
    if found is not None and found.size == 0:
        return np.zeros((0, *(size or 0 for size in inner_shape)))
    wrong = found is None or found.dtype.kind not in "biuf" or found.shape[1:] != inner_shape
    return None if wrong else found
