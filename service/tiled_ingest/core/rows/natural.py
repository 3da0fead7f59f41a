"""Values as numpy arrays of the type that they have by themselves, and of no more than they weigh themselves."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .sizes import DIMENSIONS_MAX, VALUE_NBYTES_SMALL, is_padding_bearable

Values = npt.NDArray[Any]
_NO_TEXT = frozenset({float, int, bool, complex, type(None)})
_TEXT = frozenset({str, bytes})
_CHARACTER_NBYTES = 4  # of text in numpy


def natural(value: Any) -> Values | None:
    """Return the value as an array of the type that it has by itself; `None` if it is none."""
    if isinstance(value, np.ndarray):
        return value if value.ndim <= DIMENSIONS_MAX else None
    texts = _Texts()
    texts.look_at((value,))
    if not texts.make_an_array:
        return None
    try:
        array = np.array(_listed(value))
    except (ValueError, OverflowError):
        return None
    if array.ndim > DIMENSIONS_MAX:
        return None
    return _of_objects(value) if array.dtype.kind == "O" else array


class _Texts:
    """What numpy would make of the texts in nested lists: each as long as the longest."""

    def __init__(self) -> None:
        self._number = 0
        self._longest = 0
        self._total = 0  # with one for each, as in the message
        self._others = False
        self._cut = False

    def look_at(self, values: Iterable[Any]) -> None:
        values = list(values)
        kinds = set(map(type, values))
        if kinds <= _NO_TEXT:
            self._others = self._others or bool(values)
        elif kinds <= _TEXT:
            self._add(len(values), max(map(len, values)), sum(map(len, values)))
            self._cut = self._cut or any(value[-1:] in {"\0", b"\0"} for value in values)
        else:
            for value in values:
                self._look_at_one(value)

    def _look_at_one(self, value: Any) -> None:
        if isinstance(value, list | tuple):
            self.look_at(value)
        elif isinstance(value, np.ndarray):
            if value.dtype.kind in "US":
                self._add(value.size, value.dtype.itemsize, value.nbytes)
            self._others = self._others or value.dtype.kind not in "US"
        elif type(value) in _TEXT:
            self.look_at((value,))
        else:
            self._others = True

    def _add(self, number: int, longest: int, total: int) -> None:
        self._number += number
        self._longest = max(self._longest, longest)
        self._total += total + number

    @property
    def make_an_array(self) -> bool:
        """Whether an array of them holds them, and does not weigh absurdly much more than they do.

        Beside text numpy makes text of numbers, too: then it was no array of one type. And it cuts what ends with NUL.
        """
        if not self._number:
            return True
        padded = self._number * self._longest * _CHARACTER_NBYTES
        bearable = is_padding_bearable(padded, self._total * _CHARACTER_NBYTES, VALUE_NBYTES_SMALL)
        return bearable and not self._others and not self._cut


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    nested = not {list, tuple}.isdisjoint(map(type, value))
    return list(map(_listed, value)) if nested else list(value)


def _of_objects(value: Any) -> Values | None:
    """Return an array of floats for numbers with gaps, or of any size; `None` for anything else."""
    try:
        array = np.array(_listed(value), dtype=object)
        plain = (item.item() if isinstance(item, np.generic) else item for item in array.ravel())
        flat = [math.nan if item is None else item for item in plain]
        if not all(isinstance(item, int | float) for item in flat):
            return None
        return np.array(flat, np.float64).reshape(array.shape)
    except (ValueError, OverflowError, TypeError):
        return None


def of_type(value: Any, dtype: np.dtype[Any]) -> Values | None:
    """Return the value as an array: of records, if the type is structured, else of the type that it has by itself."""
    return _records(value, dtype) if dtype.names else natural(value)


def _records(value: Any, dtype: np.dtype[Any]) -> Values | None:
    """Return nested lists, whose innermost are records, as an array of a structured type."""
    if isinstance(value, np.ndarray) and (value.dtype == dtype or not value.size):
        return value
    records, leaves = _counted(value)
    # A field that is an array takes a single number for all its elements.
    if not is_padding_bearable(records * dtype.itemsize, leaves * 8, VALUE_NBYTES_SMALL):
        return None
    try:
        return np.array(_tuples(value), dtype)
    except (ValueError, TypeError, OverflowError):
        return None


def _counted(value: Any) -> tuple[int, int]:
    """Return the number of innermost lists, or of elements where there are none, and of what is in them."""
    if isinstance(value, np.ndarray):
        return value.size, value.size
    if not isinstance(value, list | tuple):
        return 1, 1
    if not any(isinstance(item, list | tuple | np.ndarray) for item in value):
        return len(value) + 1, len(value)
    inner = [_counted(item) for item in value]
    return sum(records for records, _ in inner), sum(leaves for _, leaves in inner)


def _tuples(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return list(map(_tuples, value)) if value and isinstance(value[0], list | tuple) else tuple(value)


def one_row(value: Any, inner_shape: tuple[int | None, ...]) -> Values | None:
    """Return an array of numbers of shape (any, *inner_shape), gaps as NaN; `None` for anything else."""
    found = natural(value) if value is not None else None
    if found is not None and found.ndim == 0:
        found = found.reshape((1,) * (1 + len(inner_shape)))
    if found is not None and found.size == 0:
        return np.zeros((0, *(size or 0 for size in inner_shape)))
    wrong = found is None or found.dtype.kind not in "biuf" or found.shape[1:] != inner_shape
    return None if wrong else found
