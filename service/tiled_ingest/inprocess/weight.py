"""About how many bytes a document takes: a bound on what is buffered, not an account."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_NUMBER = 8


def weight_of(value: Any) -> int:
    """Return the bytes that the values in `value` take, roughly what they would take in a log."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(len(str(key)) + weight_of(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(map(weight_of, value))
    return _NUMBER
