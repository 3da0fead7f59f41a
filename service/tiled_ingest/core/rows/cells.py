"""Values of one column as an Arrow array, without a silent change.

Arrow itself would make 0.5 a 0 in a column of integers, and true a 1.0 in one of floats.
Whole columns take one call; only where a value is not of the column's own kind each value is looked at.
"""

import datetime as dt
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .exact import leaves, loses_digits

_NONE = type(None)
_EXACT: dict[pa.DataType, frozenset[type]] = {
    pa.int64(): frozenset({int, _NONE}),
    pa.float64(): frozenset({float, int, _NONE}),  # Arrow itself refuses integers that would lose digits
    pa.bool_(): frozenset({bool, _NONE}),
    pa.string(): frozenset({str, _NONE}),
}
_BREADTH = {pa.bool_(): 0, pa.int64(): 1, pa.float64(): 2, pa.string(): 3}


@dataclass(frozen=True, slots=True)
class Cells:
    """A column: its array, misfits as (row, why), the type that some values need, if integers lost digits."""

    array: "pa.Array[Any] | pa.ChunkedArray[Any]"
    misfits: tuple[tuple[int, str], ...] = ()
    wider: pa.DataType | None = None
    rounded: bool = False


class _MisfitError(Exception):
    """The value cannot be one of the column's."""


class _NarrowError(Exception):
    """The value needs a wider column: of a broader type, or of lists."""

    def __init__(self, needed: pa.DataType) -> None:
        super().__init__()
        self.needed = needed


class _TextError(_MisfitError):
    """The value is text, in a column of something else."""


def converted(values: list[Any], data_type: pa.DataType, *, untyped: bool = False) -> Cells:
    """Return the values as an array of `data_type`; raises for no value.

    In a column that is `untyped` text is no misfit: the column becomes one of text, or of lists of text.
    The whole column is converted at once if all values are of its kind: the result is the same as one by one.
    """
    if _fits(values, data_type):
        try:
            array = pa.array(values, data_type)
        except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
            array = None  # integers beyond 64 bits, or that a float cannot hold; text with lone surrogates
        if array is not None and not _has_nul(array):
            return Cells(array)
    return one_by_one(values, data_type, untyped=untyped)


def _has_nul(array: "pa.Array[Any]") -> bool:
    """Whether any text has a NUL character: PostgreSQL can hold none, and what is stored must not depend on it."""
    while pa.types.is_list(array.type):
        array = pc.list_flatten(array)
    return pa.types.is_string(array.type) and bool(pc.any(pc.match_substring(array, "\0")).as_py())


def _fits(values: list[Any], data_type: pa.DataType) -> bool:
    while pa.types.is_list(data_type):
        if not {list, _NONE}.issuperset(map(type, values)):
            return False
        values = list(itertools.chain.from_iterable(value for value in values if value is not None))
        data_type = data_type.value_type
    return _EXACT[data_type].issuperset(map(type, values))


def one_by_one(values: list[Any], data_type: pa.DataType, *, untyped: bool = False) -> Cells:
    """Return the values as an array of `data_type`, after a look at each."""
    cells: list[Any] = []
    misfits: list[tuple[int, str]] = []
    needed: pa.DataType | None = None
    for row, value in enumerate(values):
        cells.append(None)
        try:
            cells[row] = _cell(value, data_type)
        except _MisfitError as misfit:
            if untyped and isinstance(misfit, _TextError):
                needed = wider(needed, _of_text(value, data_type))
            else:
                misfits.append((row, str(misfit)))
        except _NarrowError as narrow:
            needed = wider(needed, narrow.needed)
    return Cells(pa.array(cells, data_type), tuple(misfits), needed, _rounded(values, data_type))


def combined(parts: Sequence[Cells], order: npt.NDArray[np.intp] | None = None) -> Cells:
    """Return columns one after the other as one; with `order`, its rows are then sorted so."""
    if len(parts) == 1:
        return parts[0]
    starts = itertools.accumulate((len(part.array) for part in parts[:-1]), initial=0)
    misfits = [(start + row, why) for start, part in zip(starts, parts, strict=True) for row, why in part.misfits]
    arrays: list[Any] = [part.array for part in parts]
    array = pa.chunked_array(arrays)
    if order is not None:
        array = array.take(order)
        places = np.argsort(order) if misfits else order
        misfits = sorted((int(places[row]), why) for row, why in misfits)
    needed: pa.DataType | None = None
    for part in parts:
        needed = needed if part.wider is None else wider(needed, part.wider)
    return Cells(array, tuple(misfits), needed, any(part.rounded for part in parts))


def wider(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    """Return the narrowest type that holds what both hold: lists before single values, text before numbers."""
    if one is None:
        return other
    inner = max(_innermost(one), _innermost(other), key=_BREADTH.__getitem__)
    return _nested(inner, max(_depth(one), _depth(other)))


def is_ours(data_type: pa.DataType, *, text: bool) -> bool:
    """Whether we make columns of that type out of narrower ones; of text only where nobody said what values are."""
    inner = _innermost(data_type)
    return inner in _BREADTH and _depth(data_type) <= 1 and (text or inner != pa.string())


def _innermost(data_type: pa.DataType) -> pa.DataType:
    while pa.types.is_list(data_type):
        data_type = data_type.value_type
    return data_type


def _depth(data_type: pa.DataType) -> int:
    return 1 + _depth(data_type.value_type) if pa.types.is_list(data_type) else 0


def _nested(data_type: pa.DataType, depth: int) -> pa.DataType:
    return pa.list_(_nested(data_type, depth - 1)) if depth else data_type


def _of_text(value: Any, data_type: pa.DataType) -> pa.DataType:
    lists = pa.types.is_list(data_type) or isinstance(value, list | tuple | np.ndarray)
    return pa.list_(pa.string()) if lists else pa.string()


def _cell(value: Any, data_type: pa.DataType) -> Any:
    value = _plain(value)
    if value is None:
        return None
    if pa.types.is_list(data_type):
        return _list(value, data_type.value_type)
    if isinstance(value, list | tuple) and data_type != pa.string():
        _list(value, data_type)
        raise _NarrowError(pa.list_(data_type))
    return _BY_TYPE[data_type](value)


def _plain(value: Any) -> Any:
    """Return what numpy holds as Python has it: lists, or a plain value for a number or an array without dimensions.

    Times as text in numpy's spelling, which their own type gives only for some units.
    """
    if not isinstance(value, np.ndarray | np.generic):
        return value
    return value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist()


def _list(value: Any, data_type: pa.DataType) -> list[Any]:
    if not isinstance(value, list | tuple):
        if pa.types.is_list(data_type):
            raise _MisfitError(f"{_called(value)} in a column of nested lists")
        value = [value]  # EPICS gives an array of one element as a number
    cells: list[Any] = []
    needed: pa.DataType | None = None
    for item in value:  # all of them: a misfit among them counts, wherever it is
        try:
            cells.append(_item(item, data_type))
        except _NarrowError as narrow:
            needed = wider(needed, narrow.needed)
    if needed is not None:
        raise _NarrowError(pa.list_(needed))
    return cells


def _item(value: Any, data_type: pa.DataType) -> Any:
    """Return what stands in a list; lists in it, where the column has none, are no values: SQL has no type for them."""
    value = _plain(value)
    if isinstance(value, list | tuple) and not pa.types.is_list(data_type) and data_type != pa.string():
        raise _MisfitError("nested lists")
    return _cell(value, data_type)


def _integer(value: Any) -> int:
    if isinstance(value, float):
        if value.is_integer() and -(2.0**63) <= value < 2.0**63:
            return int(value)
        raise _NarrowError(pa.float64())
    if not isinstance(value, int):
        raise _misfit(value, "integers")
    if not -(2**63) <= value < 2**63:
        _float_if_exact(value)
        raise _NarrowError(pa.float64())
    return int(value)


def _float_if_exact(value: int) -> None:
    """Refuse an integer beyond 64 bits that would lose digits as a float: widening would spoil it."""
    if value.bit_length() > 1024 or int(float(value)) != value:
        raise _MisfitError("an integer beyond 64 bits")


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise _misfit(value, "numbers")
    try:
        return float(value)
    except OverflowError as error:
        raise _MisfitError("an integer beyond any float") from error


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float):
        raise _misfit(value, "truth values")
    integer = isinstance(value, int) and -(2**63) <= value < 2**63
    if not integer and isinstance(value, int):
        _float_if_exact(value)
    raise _NarrowError(pa.int64() if integer else pa.float64())


def _string(value: Any) -> str:
    """Return text as it is, bytes if they are UTF-8, anything else written out as JSON: nothing is lost in text."""
    try:
        value = value.decode() if isinstance(value, bytes) else value
        text = value if isinstance(value, str) else json.dumps(value, default=_jsonable)
        text.encode()
    except (UnicodeError, TypeError, ValueError) as error:
        raise _MisfitError(f"{_called(value)} that is no UTF-8 text") from error
    if "\0" in text:
        raise _MisfitError("text with a NUL character")
    return text


def _jsonable(value: Any) -> Any:
    """Return what JSON has no words for in words that lose nothing.

    Raises
    ------
    TypeError
        There are none.
    """
    if isinstance(value, np.ndarray | np.generic):
        plain = _plain(value)
        return str(plain) if isinstance(plain, np.generic) else plain  # more than 64 bits
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, _SPELLED):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


_SPELLED = (complex, dt.date, dt.time, Decimal, Fraction, PurePath, UUID)
_BY_TYPE = {pa.int64(): _integer, pa.float64(): _number, pa.bool_(): _truth, pa.string(): _string}


def _misfit(value: Any, column: str) -> _MisfitError:
    return (_TextError if isinstance(value, str) else _MisfitError)(f"{_called(value)} in a column of {column}")


def _called(value: Any) -> str:
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list | tuple) else type(value).__name__


def _rounded(values: Any, data_type: pa.DataType) -> bool:
    """Whether an integer among the values has more digits than a float of the column keeps."""
    if _innermost(data_type) != pa.float64():
        return False
    return any(isinstance(number, int) and loses_digits(number) for value in values for number in leaves(value))
