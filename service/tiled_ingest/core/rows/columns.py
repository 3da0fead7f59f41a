"""The plan of a stream's table: which columns, in which order, of which types.

Names and order are TiledWriter's. Types come from the descriptor, never from the first values, so that a
run's table does not depend on what happened to be measured first, or on how its events were cut into batches.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tiled_ingest.core.decoding.events import Event

from .sizes import CELL_NBYTES, ITEM_NBYTES_MAX

Store = Literal["table", "zarr", "ragged", "external"]
ARRAY_SIZE_MAX = 16  # elements; TiledWriter puts longer arrays into zarr
TABLE_COLUMNS_MAX = 1_024  # as in TiledWriter, which splits larger tables
LATE_COLUMNS_MAX = 1_500  # with those that come later; PostgreSQL takes 1 600
# A row of PostgreSQL is at most 8 160 bytes, of which its head and our two columns take 160. Text and lists that are
# stored elsewhere leave 18 bytes, and gaps for alignment.
ROW_BYTES_MAX = 8_000
_FIXED_BYTES, _OTHER_BYTES = 8, 24
PERMUTATIONS_MAX = 2**62
DESCRIBED_MAX = 4_096  # characters, or fields, of a type: numpy needs a moment for each
_KEYS: dict[str, pa.DataType] = {"seq_num": pa.int64(), "time": pa.float64()}
_SCALARS: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
}
_FIXED = frozenset([pa.int64(), pa.float64(), pa.bool_()])
# Times, complex numbers, fields and objects have no column type of their own: text keeps them whole.
_VALUES: dict[str, pa.DataType] = {
    "i": pa.int64(),
    "u": pa.int64(),
    "b": pa.bool_(),
    **dict.fromkeys("USVcOmM", pa.string()),
}
_KIND = re.compile(r"[<>|=]?([?biufcSUVOmM])[0-9]*(\[.*\])?")
_KIND_WORDS = {"int": "i", "uint": "u", "float": "f", "bool": "b", "str": "U", "complex": "c", "object": "O"}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one table, in order, beginning with `seq_num` and `time`.

    Attributes
    ----------
    types
        By column name, in order.
    external
        Data keys that the descriptor calls external: their values count only in events that say `filled`.
    elsewhere
        Data keys whose values are not in the table (arrays that have a node of their own, or another part of a
        split table has them); `ts_` columns they may have.
    untyped
        Arrays of which the descriptor does not say what they are arrays of: they may prove to be of text.
    """

    types: Mapping[str, pa.DataType]
    external: frozenset[str] = field(default=frozenset())
    elsewhere: frozenset[str] = field(default=frozenset())
    untyped: frozenset[str] = field(default=frozenset())

    @classmethod
    def plan(
        cls, descriptor: Mapping[str, Any], first: Event, elsewhere: Collection[str] = (), untyped: Collection[str] = ()
    ) -> "Columns":
        """Return the columns for a stream, from its normalised descriptor and the first accepted event.

        The event decides the order (as in TiledWriter), and which external keys come filled. Keys that it
        lacks follow in the descriptor's order.
        """
        data_keys: Mapping[str, Any] = descriptor["data_keys"]
        external = frozenset(key for key, spec in data_keys.items() if "external" in spec)
        internal = [*(key for key in data_keys if key not in external), *_filled(data_keys, first)]
        ordered = [key for key in _ordered(internal, first.data) if key not in elsewhere]
        data = {key: column_type(data_keys[key], first.data.get(key)) for key in ordered}
        stamps = {f"ts_{key}": pa.float64() for key in _ordered(internal, first.timestamps)}
        return cls({**_KEYS, **data, **stamps}, external, frozenset(elsewhere), frozenset(untyped))

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, in the columns' order."""
        return pa.schema(list(self.types.items()))

    @property
    def data(self) -> tuple[str, ...]:
        """The columns that hold values of data keys."""
        return tuple(name for name in self.types if name not in _KEYS and not self.is_stamp(name))

    @property
    def stamps(self) -> tuple[str, ...]:
        """The data keys that have a `ts_` column, in its order."""
        return tuple(name[3:] for name in self.types if self.is_stamp(name))

    def is_stamp(self, name: str) -> bool:
        """Whether the column holds timestamps of a data key."""
        # The descriptor's normaliser sees to it that no data key is called like another's timestamps.
        key = name[3:] if name.startswith("ts_") else ""
        return key not in _KEYS and (key in self.types or key in self.elsewhere)

    @property
    def permutations(self) -> int:
        """How many different orders the columns have (at most 2**62 are counted)."""
        count = len(self.types)
        return math.factorial(count) if count <= 20 else PERMUTATIONS_MAX

    def permuted(self, k: int) -> pa.Schema:
        """Return the schema in its k-th order; 0 is the plan's own, and after the last it begins again."""
        pool, k = list(self.types), k % self.permutations
        digits = []
        for base in range(1, len(pool) + 1):  # the factorial number system, its last digits first
            k, digit = divmod(k, base)
            digits.append(digit)
        order = [pool.pop(digit) for digit in reversed(digits)]
        return pa.schema([(name, self.types[name]) for name in order])

    def widened(self, name: str, data_type: pa.DataType) -> "Columns":
        """Return the columns with another type for `name`; a new data key comes last, with its timestamps."""
        if name in self.types:
            return replace(self, types={**self.types, name: data_type})
        return replace(self, types={**self.types, name: data_type, f"ts_{name}": pa.float64()})

    def with_key(self, name: str, data_type: pa.DataType, *, untyped: bool = False) -> "Columns | None":
        """Return the columns with those of a further data key, in a table that takes them; else `None`."""
        ours = {name.lower(), f"ts_{name}".lower()}  # a key that would share a column with another stays without one
        taken = any(known.lower() in ours for known in self.types)
        wider = self.widened(name, data_type)
        if taken or len(wider.types) > LATE_COLUMNS_MAX or wider.row_bytes > ROW_BYTES_MAX:
            return None
        return replace(wider, untyped=self.untyped | ({name} if untyped else set()))

    def with_array(self, name: str) -> "Columns":
        """Return the columns beside a further array: its time stamps are among them."""
        types = {**self.types, f"ts_{name}": pa.float64()}
        return replace(self, types=types, elsewhere=self.elsewhere | {name})

    def beside(self, name: str) -> "Columns":
        """Return the columns beside a further data key that is elsewhere."""
        return replace(self, elsewhere=self.elsewhere | {name})

    def split(self, columns_max: int = TABLE_COLUMNS_MAX) -> "list[Columns]":
        """Return the parts of the table, if it is too wide: sorted, and of nearly the same size, as in TiledWriter.

        What PostgreSQL takes counts, too, whatever the storage: a table must not depend on where it is.
        """
        parts = [self]
        while any(len(part.types) > columns_max or part.row_bytes > ROW_BYTES_MAX for part in parts):
            parts = self._parts(len(parts) + 1)
        return parts

    def _parts(self, number: int) -> "list[Columns]":
        names = sorted(self.types)
        size = math.ceil(len(names) / number)
        return [self._part(names[begin : begin + size]) for begin in range(0, len(names), size)]

    @property
    def row_nbytes(self) -> int:
        """What a row takes in memory however little its event holds; text and lists take what they are, besides."""
        return CELL_NBYTES * len(self.types)

    @property
    def row_bytes(self) -> int:
        """The bytes that a row takes in PostgreSQL's table itself, at most."""
        fixed = sum(data_type in _FIXED for data_type in self.types.values())
        return fixed * _FIXED_BYTES + (len(self.types) - fixed) * _OTHER_BYTES

    def _part(self, names: list[str]) -> "Columns":
        others = frozenset(self.data) - set(names)
        return replace(self, types={name: self.types[name] for name in names}, elsewhere=self.elsewhere | others)

    @property
    def has_keys(self) -> bool:
        """Whether `seq_num` and `time`, which name a row, are among the columns (of a split table, in one part)."""
        return _KEYS.keys() <= self.types.keys()


def _filled(data_keys: Mapping[str, Any], first: Event) -> list[str]:
    """Return the external keys that have columns: SQL does not tell case apart, so none that is called like another."""
    taken = {name.lower() for key, spec in data_keys.items() if "external" not in spec for name in (key, f"ts_{key}")}
    found: list[str] = []
    for key, spec in data_keys.items():
        columns = {key.lower(), f"ts_{key}".lower()}
        if "external" in spec and first.filled.get(key) and not columns & taken:
            found.append(key)
            taken |= columns
    return found


def _ordered(keys: list[str], first: Mapping[str, Any]) -> list[str]:
    known = set(keys)
    return [key for key in first if key in known] + [key for key in keys if key not in first]


def column_type(spec: Mapping[str, Any], first: Any = None) -> pa.DataType:
    """Return the Arrow type for a data key's values; integers are 64 bits, numbers are doubles.

    Whether they are lists, of one dimension, is told by the first value, where devices are known to describe one and
    send the other: a number with a shape, an array of one element. It makes no type narrower; a list that comes later
    widens its column.

    Lists of lists, which PostgreSQL has no column for, are written out as text.
    """
    dtype, shape = str(spec.get("dtype")), spec.get("shape") or ()
    if dtype == "array" and len(shape) <= 1:
        values = _VALUES.get(numpy_kind(spec.get("dtype_numpy")), pa.float64())
        return values if _is_single(first) and math.prod(size or 0 for size in shape) == 1 else pa.list_(values)
    single = _SCALARS.get(dtype, pa.string())
    listed = _is_texts(first) if single == pa.string() else _is_list(first)
    return pa.list_(single) if listed else single


def _is_single(value: Any) -> bool:
    return value is not None and not _is_list(value) and not (isinstance(value, np.ndarray) and value.ndim)


def _is_texts(value: Any) -> bool:
    """Whether it is a list of texts: any other list is written out as JSON in a column of text."""
    return _is_list(value) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _is_list(value: Any) -> bool:
    """Whether it is a list of single values."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, list | tuple) and not any(isinstance(item, list | tuple) for item in value)


def numpy_kind(dtype: Any) -> str:
    """Return numpy's letter for a type as descriptors spell it (`<f8`, `float32`); `f` if in doubt."""
    if isinstance(dtype, list | tuple):
        return "V"
    if match := _KIND.fullmatch(str(dtype)):
        return "b" if match[1] == "?" else match[1]
    return _KIND_WORDS.get(str(dtype).rstrip("0123456789_"), "f")


def numpy_dtype(described: Any) -> np.dtype[Any] | None:
    """Return the type that a data key declares, in this machine's byte order; `None` for none that can be stored.

    Text may be declared as long as it likes: nothing is laid out for it that its values do not prove.
    """
    if isinstance(described, list | tuple):
        described = [tuple(field) if isinstance(field, list) else field for field in described]
    if isinstance(described, str | list) and len(described) > DESCRIBED_MAX:
        return None
    try:
        dtype = np.dtype(described or "O").newbyteorder("=")
    except (TypeError, ValueError, SyntaxError):  # numpy parses `f8,f8` as Python
        return None
    opaque = dtype.hasobject or (dtype.kind == "V" and not dtype.names)  # objects; bytes, or arrays, as elements
    return None if opaque or (dtype.kind not in "US" and dtype.itemsize > ITEM_NBYTES_MAX) else dtype


def store(spec: Mapping[str, Any], array_size_max: int = ARRAY_SIZE_MAX) -> Store:
    """Return where the values of a (normalised) data key are kept: as TiledWriter does it, where PostgreSQL can.

    It has no table for lists of lists, so arrays of several dimensions are zarr however small they are.

    `array_size_max` is a number of elements; -1 means that all arrays go into the table.
    """
    if "external" in spec:
        return "external"
    shape = spec.get("shape") or ()
    if spec.get("dtype") != "array":
        return "table"
    if None in shape:
        return "ragged"
    too_long = 0 <= array_size_max < math.prod(shape) or len(shape) > 1
    return "zarr" if too_long or numpy_kind(spec.get("dtype_numpy")) in "USO" else "table"
