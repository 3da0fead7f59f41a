"""From a record's bytes to a document, for tools: decoded without running or trusting anything.

Written apart from the service's own decoder, which `verify` is to check. An array of Python objects (a pickle) is
refused unread.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

Document = dict[str, Any]

_SINGLE = frozenset({"start", "descriptor", "event", "stop", "resource", "datum", "stream_resource", "stream_datum"})
KINDS = _SINGLE | {"event_page", "datum_page", "bulk_events", "bulk_datum"}
_LEVELS_MAX = 150  # settings may allow more than the default 64; Python's stack bears so much
_FIELDS_MAX = 4_096
_ARRAY_KEYS = frozenset({"nd", "type", "kind", "shape", "data"})
_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
_DTYPE = re.compile(r"[<>|=]?[?biufcSUVmM][0-9]{0,8}(\[[0-9]{0,6}[A-Za-z]{1,3}\])?")
_message = msgspec.msgpack.Decoder(tuple[str, dict[Any, Any]])


class Unreadable(ValueError):
    """The bytes are no document that anybody could write to Tiled; the text says why."""


def opened(value: bytes | None) -> tuple[str, Document]:
    """Return the kind and the document that a message holds, with numpy's values revived.

    Raises
    ------
    Unreadable
        No msgpack, not a pair of a known name and a mapping (that stands for no array or number), nested too deeply,
        with keys that are no text, or with a pickle inside.
    """
    if not value:
        raise Unreadable("no value")
    try:
        name, document = _message.decode(value)
        if name not in KINDS:
            raise Unreadable(f"{name[:40]!a} is no kind of document")
        document = revived(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)[:200]) from error
    if not isinstance(document, dict):
        raise Unreadable(f"a {type(document).__name__} in the place of the document")
    return name, document


def revived(value: Any, level: int = 0) -> Any:
    """Return the value with everything that msgpack-numpy encoded in it as numpy arrays and Python numbers."""
    if type(value) in _PLAIN:
        return value
    if level > _LEVELS_MAX:
        raise Unreadable("nested too deeply")
    if isinstance(value, Mapping):
        if (encoded := _encoding(value)) is not None:
            return _encoded(encoded)
        if not all(isinstance(key, str) for key in value):
            raise Unreadable("a key is no text")
        return {key: revived(item, level + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return value if _PLAIN.issuperset(map(type, value)) else [revived(item, level + 1) for item in value]
    raise Unreadable(f"a {type(value).__name__} is no value of a document")


def _encoding(value: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Return the fields of what msgpack-numpy wrote: under bytes, or text where the publisher's msgpack was old."""
    if b"nd" in value or b"complex" in value:
        return {_text(key): item for key, item in value.items()}
    old = "nd" in value and {"type", "data"} <= value.keys() <= _ARRAY_KEYS and isinstance(value["nd"], bool)
    return dict(value) if old or (value.keys() == {"complex", "data"} and value["complex"] is True) else None


def _encoded(fields: Mapping[str, Any]) -> Any:
    try:
        if "complex" in fields:
            return complex(_text(fields["data"]))
        data = fields["data"].encode() if isinstance(fields["data"], str) else fields["data"]
        array = _array(_dtype(fields["type"], fields.get("kind")), fields.get("shape", ()), data)
        if array.dtype.kind in "mM":
            array = array.astype(str)  # times in units of their own are text in Tiled
        return array.item() if array.ndim == 0 else array
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"an array whose description does not fit it ({type(error).__name__})") from error


def _array(dtype: np.dtype[Any], shape: Any, data: bytes) -> np.ndarray[Any, Any]:
    # Made over the message's own bytes: a shape that promises more than there is, is refused by numpy.
    sizes = tuple(int(size) for size in shape)
    if math.prod(sizes) * dtype.itemsize != len(data) or math.prod(max(size, 1) for size in sizes) > 2**32:
        raise ValueError("shape")
    return np.ndarray(sizes, dtype, data)


def _dtype(described: Any, kind: Any, levels: int = 8) -> np.dtype[Any]:
    if _text(kind) == "O":
        raise ValueError("a pickle is never opened")
    if isinstance(described, list | tuple) and levels and 0 < len(described) <= _FIELDS_MAX:
        fields = [(_text(name), _dtype(inner, None, levels - 1), *more) for name, inner, *more in described]
        structured: np.dtype[Any] = np.dtype(fields)
        return structured
    text = _text(described)
    if not _DTYPE.fullmatch(text):
        raise ValueError("type")
    plain: np.dtype[Any] = np.dtype(text)
    return plain


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
