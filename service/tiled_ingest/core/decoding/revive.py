"""From what msgpack-numpy wrote to numpy arrays and Python values, without running or trusting anything.

msgpack-numpy writes an array as a mapping with the keys `nd`, `type`, `kind`, `shape`, `data`. Its own
decoder unpickles object arrays, so that a message can run code; it also believes declared shapes. Here every
array is checked against the bytes that are there, and an object array is refused.
"""

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.rows.sizes import ITEM_NBYTES_MAX

SCALARS = frozenset({str, int, float, bool, type(None), bytes})
_ARRAY_KEYS = frozenset({"nd", "type", "kind", "shape", "data"})
_DTYPE = re.compile(r"[<>|=]?[?biufcSUVmM][0-9]{0,8}(\[[0-9]{0,6}[A-Za-z]{1,3}\])?")
_FIELDS_MAX = 4_096  # of a structured type; numpy itself needs a moment for each
_FIELD_LEVELS_MAX = 8
_DIMENSIONS_MAX = 32
EMPTY_LISTS_MAX = 1_024  # that an array without elements, which costs its publisher nothing, may become


class Reviver:
    """Revives the values of one document, within the policy's limits.

    Parameters
    ----------
    policy
        `nesting_max` and `elements_max` are obeyed: the latter counts what arrays become when they turn into
        lists.
    plain
        Whether arrays become lists (for documents that end up as JSON) or stay arrays (for the values of
        events).
    """

    def __init__(self, policy: Policy, *, plain: bool) -> None:
        self._nesting_max = policy.nesting_max
        self._elements_max = policy.elements_max
        self._elements = 0
        self._plain = plain

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """Return `value` with every encoded number and array inside it revived.

        Raises
        ------
        InvalidDocument
            `object_array`, `bad_array`, `too_nested`, `too_many_elements`, `schema` (keys that are no text,
            values that no document may hold).
        """
        kind = type(value)
        if kind in SCALARS:
            return value
        if depth >= self._nesting_max:
            raise InvalidDocument("too_nested", f"more than {self._nesting_max} levels")
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple):
            return self._sequence(value, depth)
        return self._rare(value, depth)

    def _sequence(self, items: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        self._spend(len(items))
        if type(items) is list and SCALARS.issuperset(map(type, items)):
            return items
        return [self(item, depth + 1) for item in items]

    def _mapping(self, fields: Mapping[Any, Any], depth: int) -> Any:
        if (encoded := _encoded(fields)) is not None:
            return self._encoded(encoded, depth)
        self._spend(len(fields))
        return {_text_key(key): self(value, depth + 1) for key, value in fields.items()}

    def _encoded(self, fields: dict[str, Any], depth: int) -> Any:
        if "complex" in fields:
            return self._complex(fields["data"])
        array = _array(fields, self._elements_max)
        if fields["nd"] is False and array.shape != ():
            raise InvalidDocument("bad_array", "a number with a shape")
        return self._array(array, depth)

    def _rare(self, value: Any, depth: int) -> Any:
        """Revive what msgpack seldom holds, and what documents that never were msgpack may hold."""
        if isinstance(value, np.ndarray):
            return self._array(value, depth)
        if isinstance(value, np.generic):
            return self._array(np.asarray(value), depth)
        if isinstance(value, complex):
            return self._complex(value)
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            return value.timestamp()
        if isinstance(value, str):  # an enumeration, say: its value is the text itself
            return str.__str__(value)
        for plain in (int, float):
            if isinstance(value, plain):
                return plain(value)
        if isinstance(value, msgspec.msgpack.Ext):
            raise InvalidDocument("schema", f"a msgpack extension (code {value.code})")
        raise InvalidDocument("schema", f"a {type(value).__name__} is no value of a document")

    def _complex(self, value: Any) -> complex | str:
        try:
            number = complex(_text(value))
        except (TypeError, ValueError) as error:
            raise InvalidDocument("bad_array", "not a complex number") from error
        return str(number) if self._plain else number

    def _array(self, array: np.ndarray[Any, Any], depth: int) -> Any:
        if array.dtype.kind in "mM":
            array = array.astype(str)  # times in units of their own: readable, and nothing lost
        if self._plain or array.ndim == 0 or array.dtype.kind in "OV":
            self._spend(math.prod(max(1, size) for size in array.shape) * _leaves(array.dtype))
            return self._listed(array, depth)
        return array.astype(_native(array.dtype), copy=False)

    def _listed(self, array: np.ndarray[Any, Any], depth: int) -> Any:
        values = array.astype(_native(array.dtype), copy=False).tolist()
        if array.dtype.kind == "V":
            values = _lists(values)
        return self(values, depth) if array.dtype.kind in "OVSc" else values

    def _spend(self, count: int) -> None:
        self._elements += count
        if self._elements > self._elements_max:
            raise InvalidDocument("too_many_elements", f"more than {self._elements_max} elements")


def _lists(value: Any) -> Any:
    """Return records, as numpy hands them out, as nothing but lists: their fields may be arrays again."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in this machine's byte order, and no wider than Python's own float."""
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    if dtype.kind == "c" and dtype.itemsize > 16:
        return np.dtype(np.complex128)
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native


def _encoded(fields: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Return the fields under text keys if they are msgpack-numpy's, else `None`.

    Its keys are bytes; text where the publisher's msgpack was old. Only then may `nd` be a word of the
    user's.
    """
    if b"nd" in fields or b"complex" in fields:
        named = {_text(key): value for key, value in fields.items()}
        missing = {"type", "data"} - named.keys() if "nd" in named else {"data"} - named.keys()
        if missing:
            raise InvalidDocument("bad_array", "fields are missing")
        return named
    if "nd" in fields and {"type", "data"} <= fields.keys() <= _ARRAY_KEYS and isinstance(fields["nd"], bool):
        return dict(fields)
    return dict(fields) if fields.keys() == {"complex", "data"} and fields["complex"] is True else None


def _array(fields: Mapping[str, Any], elements_max: int) -> np.ndarray[Any, Any]:
    """Return the array that `fields` describe: a view of the message's own bytes.

    Raises
    ------
    InvalidDocument
        `object_array`; `bad_array` if the declared type, shape and length do not agree.
    """
    if _text(fields.get("kind", "")) == "O":
        raise InvalidDocument("object_array", "an array of Python objects (a pickle) is never opened")
    data, shape = _buffer(fields["data"]), _shape(fields.get("shape", []), elements_max)
    try:
        dtype = _dtype(fields["type"])
        if math.prod(shape) * dtype.itemsize != len(data):
            raise InvalidDocument("bad_array", f"{len(data)} bytes for shape {shape} of {dtype.itemsize} bytes each")
        if not data and dtype.itemsize > ITEM_NBYTES_MAX:  # numpy needs room for one element even so
            raise InvalidDocument("bad_array", "an absurd type for no data")
        return np.ndarray(shape, dtype, data)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidDocument("bad_array", "numpy refuses the declared type or shape") from error


def _buffer(data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):  # old msgpack: bytes that happened to be valid text
        return data.encode()
    raise InvalidDocument("bad_array", "its data are no bytes")


def _shape(shape: Any, elements_max: int) -> tuple[int, ...]:
    if not isinstance(shape, list | tuple) or len(shape) > _DIMENSIONS_MAX:
        raise InvalidDocument("bad_array", "the shape is no short list")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidDocument("bad_array", "a size is no natural number")
    if 0 in shape:
        # As lists it is as many as the sizes before the first 0 say.
        lists = math.prod(shape[: shape.index(0)])
        if lists > EMPTY_LISTS_MAX or math.prod(max(1, size) for size in shape) > elements_max:
            raise InvalidDocument("bad_array", "an absurd shape for no data")
    return tuple(shape)


def _dtype(described: Any, levels: int = _FIELD_LEVELS_MAX) -> np.dtype[Any]:
    if isinstance(described, list | tuple) and levels:
        return np.dtype([_field(field, levels - 1) for field in _few(described)])
    text = str(_text(described))
    if text.lstrip("<>|=")[:1] == "O":
        raise InvalidDocument("object_array", "an array of Python objects (a pickle) is never opened")
    dtype: np.dtype[Any] = np.dtype(text if _DTYPE.fullmatch(text) else "V0")
    if dtype.itemsize == 0:
        raise InvalidDocument("bad_array", "not the type of an array")
    return dtype


def _leaves(dtype: np.dtype[Any]) -> int:
    """Return how many Python values an element becomes."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return math.prod(shape) * _leaves(base)
    return sum(_leaves(dtype[name]) for name in dtype.names) if dtype.names else 1


def _few(fields: list[Any] | tuple[Any, ...]) -> list[Any] | tuple[Any, ...]:
    if not 0 < len(fields) <= _FIELDS_MAX:
        raise InvalidDocument("bad_array", f"no fields, or more than {_FIELDS_MAX}")
    return fields


def _field(field: Any, levels: int) -> tuple[Any, ...]:
    if not isinstance(field, list | tuple) or len(field) not in {2, 3}:
        raise InvalidDocument("bad_array", "a field is no pair of name and type")
    name = tuple(map(_text, field[0])) if isinstance(field[0], list | tuple) else _text(field[0])
    shape = field[2:] and (_shape(field[2], 0),)
    return (name, _dtype(field[1], levels), *shape)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _text_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise InvalidDocument("schema", f"a key is {type(key).__name__}, not text")
