"""What events look like: data keys of one kind each, with values that follow from the event's number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Kind = Literal["float", "int", "text", "array", "bool"]
Numbers = npt.NDArray[np.int64]

ELEMENTS = 10  # of an array
TEXT = "state "  # before eight hexadecimal digits
TIME_0, TIME_STEP = 1.7e9, 0.01


@dataclass(frozen=True)
class Column:
    """A data key: its kind, and how far its values are from the event's number."""

    name: str
    kind: Kind
    shift: int

    @property
    def spec(self) -> dict[str, Any]:
        """What the descriptor says of it."""
        dtype = {"float": "number", "int": "integer", "text": "string", "array": "array", "bool": "boolean"}[self.kind]
        spec: dict[str, Any] = {"source": f"BENCH:{self.name}", "dtype": dtype, "shape": []}
        if self.kind == "array":
            spec |= {"shape": [ELEMENTS], "dtype_numpy": "<f8"}
        return spec

    def floats(self, numbers: Numbers) -> npt.NDArray[np.float64]:
        """Values as floats: shape (events,), of an array (events, elements)."""
        first = numbers.astype(np.float64) * 0.001 + self.shift
        return first[:, None] + np.arange(ELEMENTS) if self.kind == "array" else first

    def array(self, numbers: Numbers) -> pa.Array[Any]:
        """Values as Tiled shall hold them."""
        if self.kind == "text":
            return pa.array([f"{TEXT}{number + self.shift:08x}" for number in numbers.tolist()], pa.string())
        if self.kind == "array":
            return pa.array(self.floats(numbers).tolist(), pa.list_(pa.float64()))
        if self.kind == "bool":
            return pa.array(np.ones(len(numbers), bool))
        return pa.array(numbers + self.shift if self.kind == "int" else self.floats(numbers))


@dataclass(frozen=True)
class Shape:
    """A stream's events.

    Attributes
    ----------
    key, name
        What programs, and what people call it.
    missing
        Variants of an event, in turn: the keys that each lacks.
    """

    key: str
    name: str
    columns: tuple[Column, ...]
    missing: tuple[frozenset[str], ...] = (frozenset(),)

    @property
    def data_keys(self) -> dict[str, Any]:
        """The descriptor's."""
        return {column.name: column.spec for column in self.columns}

    def present(self, column: Column, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which events have the key."""
        lacking = np.array([column.name in names for names in self.missing])
        present: npt.NDArray[np.bool_] = ~lacking[numbers % len(self.missing)]
        return present

    def table(self, numbers: Numbers, times: npt.NDArray[np.float64] | None = None) -> pa.Table:
        """The rows as Tiled shall hold them, with the columns in the usual order."""
        stamps = TIME_0 + numbers * TIME_STEP if times is None else times
        arrays: dict[str, Any] = {"seq_num": pa.array(numbers), "time": pa.array(stamps)}
        for column in self.columns:
            arrays[column.name] = _masked(column.array(numbers), self.present(column, numbers))
        for column in self.columns:
            arrays[f"ts_{column.name}"] = _masked(pa.array(stamps), self.present(column, numbers))
        return pa.table(arrays)


def _masked(values: Any, present: npt.NDArray[np.bool_]) -> Any:
    if present.all():
        return values
    import pyarrow.compute as pc  # noqa: PLC0415 - rare

    return pc.if_else(pa.array(present), values, pa.scalar(None, values.type))


def _columns(kind: Kind, count: int, shift: int = 0) -> tuple[Column, ...]:
    return tuple(Column(f"{kind}_{index}", kind, shift + index) for index in range(count))


def _mixed() -> Shape:
    columns = (*_columns("float", 4), *_columns("int", 3, 100), *_columns("text", 2, 200), *_columns("bool", 1))
    every = frozenset[str]()
    missing = (every, frozenset({"float_3"}), frozenset({"text_1"}), frozenset({"int_2", "bool_0"}))
    return Shape("mixed", "mixed, keys missing", columns, missing)


SHAPES: Mapping[str, Shape] = {
    shape.key: shape
    for shape in (
        Shape("floats10", "10 floats", _columns("float", 10)),
        Shape("floats100", "100 floats", _columns("float", 100)),
        Shape("texts", "10 strings", _columns("text", 10)),
        Shape("arrays", "5 arrays of 10", _columns("array", 5)),
        _mixed(),
    )
}
