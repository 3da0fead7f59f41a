"""Whether numbers are the same in another type: conversion itself wraps integers around, and drops digits, unsaid."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]
EXACT_MAX = 2.0**53  # below it every integer is a float
_INTEGERS = "biu"


def kept_in(numbers: Numbers, dtype: np.dtype[Any]) -> bool:
    """Whether every number is exactly the same in that type of numbers; NaN is itself."""
    with np.errstate(all="ignore"):
        there = numbers.astype(dtype)
        if numbers.dtype.kind in _INTEGERS and dtype.kind in _INTEGERS:
            return bool(np.all(there == numbers))  # numpy compares integers exactly, also signed ones with unsigned
        back = there.astype(numbers.dtype)
    same = (back == numbers) | (_is_nan(back) & _is_nan(numbers))
    # There and back is no proof where the conversion is undefined: what comes of it depends on the processor.
    return bool(np.all(same & _in_range(numbers, dtype) & _in_range(there, numbers.dtype)))


def _in_range(numbers: Numbers, dtype: np.dtype[Any]) -> Any:
    """Where floats can be converted to that type of integers at all."""
    if numbers.dtype.kind not in "fc" or dtype.kind not in "iu":
        return np.True_
    limits, real = np.iinfo(dtype), numbers.real
    wide = real.astype(np.promote_types(real.dtype, np.float64))
    return (wide >= float(limits.min)) & (wide < float(limits.max // 2 + 1) * 2)


def _is_nan(numbers: Numbers) -> Any:
    return np.isnan(numbers) if numbers.dtype.kind in "fc" else np.False_


def rounded_from(value: Any, numbers: Numbers) -> bool:
    """Whether the floats that numpy made of a value (nested lists of numbers) lack digits that its integers had."""
    if isinstance(value, np.ndarray) or numbers.dtype.kind != "f" or not numbers.size:
        return False
    with np.errstate(all="ignore"):
        if not np.any(np.abs(numbers) >= EXACT_MAX):
            return False
    return any(isinstance(number, int) and loses_digits(number) for number in leaves(value))


def leaves(value: Any) -> Iterator[Any]:
    """Yield what is in nested lists and arrays, numpy's numbers as plain ones."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def loses_digits(number: int) -> bool:
    """Whether a float of 64 bits, if it can hold the integer at all, is another number."""
    if number.bit_length() <= 53 or math.isinf(_nearest(number)):
        return False
    return int(_nearest(number)) != number


def _nearest(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf
