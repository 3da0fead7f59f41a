"""Values as numbers that are equal when the values are: whole columns compared at once, whatever they hold.

Two numbers are the same value when they are equal as numbers (1, 1.0 and true); null and NaN are the same (Tiled's
server turns one into the other); a value in a column of text is the same as its JSON. Numbers are compared as Tiled
holds them, whatever else was published beside them: integers to the last digit (nanoseconds need all 64 bits), floats
bit by bit, where an integer among the published ones is the nearest float. Text and lists are compared by a hash of
64 bits.
"""

import json
import math
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .rows import Chunk, Column, innermost

Codes = np.ndarray[Any, np.dtype[np.uint64]]
Leaf = Literal["int", "float", "text"]

NULL = np.uint64(0x9E3779B97F4A7C15)
FLOAT_EXACT_MAX = 2**53
MISFIT = np.uint64(0xD1B54A32D192ED03)  # a value that its column cannot hold: equal to nothing in Tiled
_ODD = np.uint64(0xBF58476D1CE4E5B9)
_MORE = np.uint64(0x94D049BB133111EB)
_INT64_MAX = np.uint64(2**63 - 1)
_NUMBERS = frozenset({int, float, bool, type(None)})
_ARRAY_KINDS = {"int": "biu", "float": "biuf", "text": ""}  # of arrays that have codes as a whole


def mixed(codes: Codes) -> Codes:
    """Return the codes scrambled (splitmix64), so that sums of them tell them apart."""
    codes = (codes ^ (codes >> np.uint64(30))) * _ODD
    codes = (codes ^ (codes >> np.uint64(27))) * _MORE
    return codes ^ (codes >> np.uint64(31))


def codes_of(expected: Column, found: "pa.ChunkedArray[Any]") -> tuple[Codes, Codes]:
    """Return codes of the published values and of Tiled's, shapes (rows expected,) and (rows found,)."""
    kind = found.type
    leaf = _leaf(kind)
    there = _joined([arrow_codes(chunk, leaf) for chunk in found.chunks])
    return _joined([_chunk_codes(chunk, kind, leaf) for chunk in expected.chunks]), there


def value_codes(expected: Column, kind: pa.DataType) -> tuple[Codes, Leaf]:
    """Return codes of published values, compared as values of a type, and how its innermost values are compared."""
    leaf = _leaf(kind)
    return _joined([_chunk_codes(chunk, kind, leaf) for chunk in expected.chunks]), leaf


def _joined(parts: list[Codes]) -> Codes:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def has_long_integers(values: Column) -> bool:
    """Whether integers are among the published values, lists included, that a float may not tell from others."""
    return any(_longest(chunk) > FLOAT_EXACT_MAX for chunk in values.chunks)


def _longest(chunk: Chunk) -> int:
    if not isinstance(chunk, pa.Array):
        return max(map(_size, chunk), default=0)
    while pa.types.is_list(chunk.type):
        chunk = pc.list_flatten(chunk)
    if not pa.types.is_integer(chunk.type):
        return 0
    limits: Any = pc.min_max(chunk).as_py()
    return max(abs(int(limits[each] or 0)) for each in ("min", "max"))


def _size(value: Any) -> int:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return max(map(_size, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _leaf(kind: pa.DataType) -> Leaf:
    """Return how values are compared with a column of Tiled's: by what that one can hold."""
    inner = innermost(kind)
    if pa.types.is_string(inner) or pa.types.is_large_string(inner):
        return "text"
    return "float" if pa.types.is_floating(inner) else "int"


def _depth(kind: pa.DataType) -> int:
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth


# ---------------------------------------------------------------- Arrow arrays


def arrow_codes(values: "pa.Array[Any]", leaf: Leaf) -> Codes:
    """Return the codes of an Arrow array's values."""
    kind = values.type
    if pa.types.is_null(kind):
        return np.full(len(values), NULL)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0)).astype(np.int64)
        codes = listed(arrow_codes(pc.list_flatten(values), leaf), lengths)
    elif leaf == "text":
        codes = _text_codes(values)
    else:
        codes = _number_codes(values, leaf)
    if values.null_count:
        codes = np.where(np.asarray(pc.is_null(values)), NULL, codes)
    return codes


def _number_codes(values: "pa.Array[Any]", leaf: Leaf) -> Codes:
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return np.full(len(values), MISFIT)  # text in a column of numbers
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    if values.null_count:
        values = pc.fill_null(values, pa.scalar(0, values.type))
    plain = values.to_numpy(zero_copy_only=False)
    return number_codes(plain, leaf)


def number_codes(values: np.ndarray[Any, Any], leaf: Leaf) -> Codes:
    """Return the codes of numpy numbers; complex numbers are text elsewhere."""
    if leaf == "int":
        return _whole_codes(values) if values.dtype.kind == "f" else _integer_codes(values)
    floats = values.astype(np.float64)
    floats = floats + 0.0  # -0.0 is 0.0
    return np.where(np.isnan(floats), NULL, floats.view(np.uint64))


def _integer_codes(values: np.ndarray[Any, Any]) -> Codes:
    codes = values.astype(np.int64).view(np.uint64)
    if values.dtype != np.uint64:
        return codes
    return np.where(values > _INT64_MAX, mixed(codes + _MORE), codes)  # not the codes of negative numbers


def _whole_codes(values: np.ndarray[Any, Any]) -> Codes:
    """Return the codes that floats have as integers: those with a fraction, or too large, are no such value."""
    whole = (np.floor(values) == values) & (values >= -(2.0**63)) & (values < 2.0**63)
    codes = np.where(whole, values, 0.0).astype(np.int64).view(np.uint64)
    return np.where(np.isnan(values), NULL, np.where(whole, codes, MISFIT))


def _text_codes(values: "pa.Array[Any]") -> Codes:
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return _joined_few(values.to_pylist(), None, "text")
    encoded = values.dictionary_encode()
    words = np.array([text_code(str(word)) for word in encoded.dictionary.to_pylist()], np.uint64)
    at = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    return words[at] if len(words) else np.full(len(values), NULL)


def text_code(text: str) -> int:
    """Return the code of a text."""
    return hash(text) & 0xFFFF_FFFF_FFFF_FFFF


def listed(inner: Codes, lengths: np.ndarray[Any, np.dtype[np.int64]]) -> Codes:
    """Return the codes of lists of these lengths, the values of which follow each other in `inner`."""
    ends = np.cumsum(lengths)
    position = np.arange(len(inner), dtype=np.int64) - np.repeat(ends - lengths, lengths)
    scrambled = mixed(inner + mixed(position.astype(np.uint64)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(scrambled, dtype=np.uint64)])
    return mixed(sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64) * _ODD + np.uint64(1))


# ---------------------------------------------------------------- whatever Arrow would change


def _chunk_codes(chunk: Chunk, kind: pa.DataType, leaf: Leaf) -> Codes:
    if isinstance(chunk, pa.Array) and (_depth(chunk.type) == _depth(kind) or pa.types.is_null(chunk.type)):
        return arrow_codes(chunk, leaf)
    return _joined_few(chunk.to_pylist() if isinstance(chunk, pa.Array) else chunk, kind, leaf)


def _joined_few(values: list[Any], kind: pa.DataType | None, leaf: Leaf) -> Codes:
    depth = _depth(kind) if kind is not None else 0
    if leaf == "float" and depth == 0 and _NUMBERS.issuperset(map(type, values)):
        return number_codes(np.array(values, np.float64), leaf)  # None becomes NaN
    return np.array([value_code(value, depth, leaf) for value in values], np.uint64)


def nd_codes(values: np.ndarray[Any, Any], leaf: Leaf) -> Codes:
    """Return the codes of the rows of an array, shape (rows, ...): the same as those of nested lists."""
    if values.dtype.kind in "mM":
        values = values.astype(str)
    if leaf == "text":
        codes = np.array([text_code(as_text(value) or "") for value in values.ravel().tolist()], np.uint64)
    else:
        codes = number_codes(values.ravel(), leaf)
    for axis in range(values.ndim - 1, 0, -1):
        codes = listed(codes, np.full(int(np.prod(values.shape[:axis])), values.shape[axis], np.int64))
    return codes


def value_code(value: Any, depth: int, leaf: Leaf) -> int:
    """Return the code of one value in a column of lists `depth` deep."""
    if isinstance(value, np.ndarray) and value.ndim == depth and value.dtype.kind in _ARRAY_KINDS[leaf]:
        return int(nd_codes(value[np.newaxis], leaf)[0])
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or (isinstance(value, float) and math.isnan(value) and depth == 0):
        return int(NULL)
    if depth:
        return _list_code(value, depth, leaf)
    if leaf == "text":
        return _written_code(value)
    return _number_code(value, leaf)


def _written_code(value: Any) -> int:
    text = as_text(value)
    return int(MISFIT) if text is None else text_code(text)


def _number_code(value: Any, leaf: Leaf) -> int:
    if not isinstance(value, int | float):
        return int(MISFIT)
    try:
        return int(number_codes(_as_array(value, leaf), leaf)[0])
    except OverflowError:
        return int(MISFIT)


def _as_array(value: float, leaf: Leaf) -> np.ndarray[Any, Any]:
    """Return one number as numpy's, with every digit that can count."""
    if leaf == "float" or isinstance(value, float):
        return np.array([value], np.float64)
    return np.array([value], np.int64 if value < 2**63 else np.uint64)


def _list_code(value: Any, depth: int, leaf: Leaf) -> int:
    if not isinstance(value, list | tuple):
        if depth > 1:
            return int(MISFIT)
        value = [value]  # EPICS gives an array of one element as a number
    inner = np.array([value_code(item, depth - 1, leaf) for item in value], np.uint64)
    if (inner == MISFIT).any():
        return int(MISFIT)
    return int(listed(inner, np.array([len(value)]))[0])


def has_nul(value: Any) -> bool:
    """Tell whether a value holds text with a NUL character, which no column can (PostgreSQL)."""
    if isinstance(value, list | tuple):
        return any(map(has_nul, value))
    return isinstance(value, str) and "\0" in value


def as_text(value: Any) -> str | None:
    """Return how a value stands in a column of text, as it is or as JSON; `None` for bytes that are no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return json.dumps(value, default=_in_json)


def _in_json(value: Any) -> Any:
    """Return what JSON has no words for: all of an array, the text of anything else."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
