"""Accepted events that are still bytes: rows of one layout, which become columns without having been objects."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.decoding.layouts import Layout, Slot, Words

from .cells import Cells, converted
from .columns import Columns

Values = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
_NOTHING = Slot("none")
_EXACT_MAX = 2**53  # integers up to here are floats, too
_TRUE = 0xC3


@dataclass(frozen=True)
class Packed:
    """Events of one layout.

    Attributes
    ----------
    words
        Their messages, shape (rows, words), contiguous.
    """

    layout: Layout
    words: Words

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: Indices) -> "Packed":
        """Return some of the rows, in order, as a copy: what waits of a large block must not keep all of it."""
        return self if len(rows) == len(self) else Packed(self.layout, self.words[rows])

    @classmethod
    def concat(cls, parts: "Sequence[Packed]") -> "Packed":
        """Return rows of one layout together."""
        return parts[0] if len(parts) == 1 else cls(parts[0].layout, np.concatenate([part.words for part in parts]))

    # ------------------------------------------------------------ fields of the events

    @property
    def seq_num(self) -> npt.NDArray[np.int64]:
        """Of each row."""
        return self.view(self.layout.seq_num).astype(np.int64)

    @property
    def time(self) -> npt.NDArray[np.float64]:
        """Of each row, in seconds since 1970."""
        return self.view(self.layout.time).astype(np.float64)

    @property
    def keys(self) -> set[str]:
        """The data keys of the rows."""
        return set(self.layout.data)

    def values(self, key: str, *, external: bool = False) -> list[Any]:
        """Return the values of a data key, one a row; `None` where there is none, or but a datum's id."""
        return self._list(self._loaded(key, external=external))

    def raw(self, key: str, default: Any) -> list[Any]:
        """Return the values of a data key as they came, one a row; `default` where there is none."""
        return self._list(self.layout.data[key]) if key in self.layout.data else [default] * len(self)

    def events(self) -> list[Event]:
        """Return the events that `decode` makes of these messages."""
        layout = self.layout
        heads = [self._list(slot) for slot in (layout.descriptor, layout.uid, layout.time, layout.seq_num)]
        mappings = self._mappings(layout.data), self._mappings(layout.timestamps)
        rows: Iterable[Any] = zip(*heads, *mappings, strict=True)
        return [
            Event(descriptor, uid, time, seq_num, data, timestamps, dict(layout.filled))
            for descriptor, uid, time, seq_num, data, timestamps in rows
        ]

    def _mappings(self, slots: Mapping[str, Slot]) -> list[dict[str, Any]]:
        columns = [self._list(slot) for slot in slots.values()]
        rows = zip(*columns, strict=True) if columns else [()] * len(self)
        return [dict(zip(slots, row, strict=True)) for row in rows]

    def _loaded(self, key: str, *, external: bool) -> Slot:
        flag = self.layout.filled.get(key, not external)
        return self.layout.data.get(key, _NOTHING) if flag else _NOTHING

    # ------------------------------------------------------------ columns

    def cells(self, columns: Columns) -> dict[str, Cells]:
        """Return all columns, converted as `cells.converted` does it, but for a look at each value."""
        return {
            name: self._cells(self._slot(name, columns), data_type, untyped=name in columns.untyped)
            for name, data_type in columns.types.items()
        }

    def _slot(self, name: str, columns: Columns) -> Slot:
        if name in {"seq_num", "time"}:
            slot: Slot = getattr(self.layout, name)
            return slot
        if columns.is_stamp(name):
            return self.layout.timestamps.get(name[3:], _NOTHING)
        return self._loaded(name, external=name in columns.external)

    def _cells(self, slot: Slot, data_type: pa.DataType, *, untyped: bool) -> Cells:
        if slot.kind == "none":
            return Cells(pa.array([None] * len(self), data_type))
        convert = _CONVERSIONS.get((slot.kind, data_type))
        array = convert(self.view(slot)) if convert else None
        return Cells(array) if array is not None else converted(self._list(slot), data_type, untyped=untyped)

    # ------------------------------------------------------------ bytes

    def view(self, slot: Slot) -> Values:
        """Return the bytes of a slot as numbers, shape (rows,); of text and arrays, shape (rows, elements)."""
        dtype, stride = np.dtype(slot.dtype), self.words.strides[0]
        if slot.kind not in {"text", "array"}:
            return np.ndarray((len(self),), dtype, self.words, slot.at, (stride,))
        shape = (len(self), slot.width // dtype.itemsize)
        return np.ndarray(shape, dtype, self.words, slot.at, (stride, dtype.itemsize))

    def _list(self, slot: Slot) -> list[Any]:
        if slot.kind == "none":
            return [None] * len(self)
        view = self.view(slot)
        if slot.kind == "text":
            text, width = view.tobytes().decode("ascii"), slot.width
            return [text[width * row : width * (row + 1)] for row in range(len(self))]
        if slot.kind == "array":
            return list(view.astype(view.dtype.newbyteorder("=")))
        listed: list[Any] = (view == _TRUE if slot.kind == "bool" else view).tolist()
        return listed


# ---------------------------------------------------------------- conversions; `None` where values need a look at each

Column = Any  # of pyarrow's arrays; or `None`
Convert = Callable[[Values], Column]


def _floats(view: Values) -> Column:
    return pa.array(view.astype(np.float64))


def _integers(view: Values) -> Column:
    return pa.array(view.astype(np.int64))


def _integers_as_floats(view: Values) -> Column:
    integers = view.astype(np.int64)
    exact = integers.min() >= -_EXACT_MAX and integers.max() <= _EXACT_MAX
    return pa.array(integers.astype(np.float64)) if exact else None


def _truths(view: Values) -> Column:
    return pa.array(view == _TRUE)


def _texts(view: Values) -> Column:
    if not view.all():
        return None  # NUL, which a column of text does not hold
    ends = _ends(view).tobytes()
    return pa.StringArray.from_buffers(len(view), pa.py_buffer(ends), pa.py_buffer(view.tobytes()))


def _ends(view: Values) -> npt.NDArray[np.int32]:
    """Return where each row's elements begin, and the last one's end."""
    rows, width = view.shape
    return np.arange(rows + 1, dtype=np.int32) * np.int32(width)


def _lists(elements: Convert, kinds: str) -> Convert:
    def convert(view: Values) -> Column:
        ends: Any = pa.array(_ends(view))
        flat = elements(view.ravel()) if view.dtype.kind in kinds else None
        return None if flat is None else pa.ListArray.from_arrays(ends, flat)

    return convert


_CONVERSIONS: dict[tuple[str, pa.DataType], Convert] = {
    ("float", pa.float64()): _floats,
    ("int", pa.int64()): _integers,
    ("int", pa.float64()): _integers_as_floats,
    ("bool", pa.bool_()): _truths,
    ("text", pa.string()): _texts,
    ("array", pa.list_(pa.float64())): _lists(_floats, "f"),
    ("array", pa.list_(pa.int64())): _lists(_integers, "i"),
}
