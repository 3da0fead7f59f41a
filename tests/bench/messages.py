"""Messages as `bluesky_kafka.Publisher` makes them, a million in a few seconds.

An event is packed once, with marks where its values stand; the messages are copies of it, a matrix of bytes, with the
values written over the marks, column by column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import numpy.typing as npt

from tests.bench.shapes import ELEMENTS, TEXT, TIME_0, TIME_STEP, Column, Numbers, Shape

Bytes = npt.NDArray[np.uint8]
Values = Callable[[Numbers, Numbers, npt.NDArray[np.float64]], Bytes]  # runs, numbers, times -> (events, width)
_HEX = np.frombuffer(b"".join(b"%04x" % number for number in range(65_536)), np.uint8).reshape(-1, 4)


def packed(kind: str, doc: Any) -> bytes:
    """One message."""
    made: bytes = msgpack.packb((kind, doc), default=msgpack_numpy.encode)
    return made


@dataclass(frozen=True)
class Names:
    """The uids of a topic's runs. `mark`: eight hexadecimal digits that no other topic has."""

    mark: str

    def run(self, number: int) -> str:
        return f"{self.mark}-0000-4000-8000-{number:012x}"

    def descriptor(self, number: int) -> str:
        return f"{self.mark}-0000-4000-9000-{number:012x}"

    def start(self, number: int) -> bytes:
        doc = {"uid": self.run(number), "time": TIME_0, "scan_id": number + 1, "plan_name": "bench"}
        return packed("start", doc)

    def descriptor_of(self, number: int, shape: Shape) -> bytes:
        doc = {
            "uid": self.descriptor(number),
            "run_start": self.run(number),
            "time": TIME_0,
            "name": "primary",
            "data_keys": shape.data_keys,
            "configuration": {},
            "hints": {},
            "object_keys": {"bench": list(shape.data_keys)},
        }
        return packed("descriptor", doc)

    def stop(self, number: int, events: int) -> bytes:
        doc = {
            "uid": f"{self.mark}-0000-4000-a000-{number:012x}",
            "run_start": self.run(number),
            "time": TIME_0 + 1e6,
            "exit_status": "success",
            "reason": "",
            "num_events": {"primary": events},
        }
        return packed("stop", doc)


@dataclass
class Template:
    """One variant of a shape's events, as bytes and the places where values go."""

    base: Bytes
    _raw: bytes
    _patches: list[tuple[int, Values]] = field(default_factory=list)

    @classmethod
    def of(cls, names: Names, shape: Shape, missing: frozenset[str]) -> Template:
        """Pack an event with marks, and find them again."""
        marks = _Marks()
        columns = [column for column in shape.columns if column.name not in missing]
        doc = {
            "descriptor": names.descriptor(0)[:-8] + marks.text(_hex_of(lambda runs, _: runs)),
            "uid": f"{marks.text(_hex_of(lambda runs, _: runs))}-0000-4000-b000-0000{marks.text(_hex_of(_number))}",
            "time": marks.float(_time),
            "seq_num": marks.integer(_number),
            "data": {column.name: marks.value(column) for column in columns},
            "timestamps": {column.name: marks.float(_time) for column in columns},
            "filled": {},
        }
        return marks.found(packed("event", doc))

    def add(self, mark: bytes, values: Values) -> None:
        at = self._raw.index(mark)
        if self._raw.count(mark) != 1:
            raise AssertionError("a mark that is not unique")
        self._patches.append((at, values))

    def messages(self, runs: Numbers, numbers: Numbers, times: npt.NDArray[np.float64]) -> list[bytes]:
        """One message for each event."""
        made = np.tile(self.base, (len(numbers), 1))
        for at, values in self._patches:
            columns = values(runs, numbers, times)
            made[:, at : at + columns.shape[1]] = columns
        width, joined = made.shape[1], made.tobytes()
        return [joined[begin : begin + width] for begin in range(0, len(joined), width)]


class _Marks:
    """Values that occur nowhere else in a message, and what shall stand in their places."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(5)
        self._all: list[tuple[bytes, Values]] = []

    def found(self, raw: bytes) -> Template:
        template = Template(np.frombuffer(raw, np.uint8), raw)
        for mark, values in self._all:
            template.add(mark, values)
        return template

    def value(self, column: Column) -> Any:
        match column.kind:
            case "float":
                return self.float(lambda _, numbers, __: _big_endian(column.floats(numbers)))
            case "int":
                return self.integer(lambda _, numbers: numbers + column.shift)
            case "text":
                return TEXT + self.text(_hex_of(lambda _, numbers: numbers + column.shift))
            case "array":
                return self._array(column)
            case "bool":
                return True

    def float(self, values: Values) -> float:
        mark = self._chance.standard_normal(1)
        self._all.append((_big_endian(mark).tobytes(), values))
        return float(mark[0])

    def integer(self, values: Callable[[Numbers, Numbers], Numbers]) -> int:
        # Above 2**31: msgpack spells it with four bytes, which hold every smaller number, too.
        mark = int(self._chance.integers(2**31, 2**32))
        self._all.append((mark.to_bytes(4, "big"), lambda runs, numbers, _: _words(values(runs, numbers))))
        return mark

    def text(self, values: Values) -> str:
        mark = "".join(self._chance.choice(list("GHIJKLMNOPQRSTUVWXYZ"), 8))
        self._all.append((mark.encode(), values))
        return mark

    def _array(self, column: Column) -> npt.NDArray[np.float64]:
        mark = self._chance.standard_normal(ELEMENTS)
        self._all.append((mark.tobytes(), lambda _, numbers, __: _rows(column.floats(numbers))))
        return mark


def _hex_of(numbers_of: Callable[[Numbers, Numbers], Numbers]) -> Values:
    def digits(runs: Numbers, numbers: Numbers, _: npt.NDArray[np.float64]) -> Bytes:
        halves = numbers_of(runs, numbers).astype(">u4").view(">u2").reshape(-1, 2)
        found: Bytes = _HEX[halves].reshape(-1, 8)
        return found

    return digits


def _number(_: Numbers, numbers: Numbers) -> Numbers:
    return numbers


def _time(_: Numbers, __: Numbers, times: npt.NDArray[np.float64]) -> Bytes:
    return _big_endian(times)


def _big_endian(values: npt.NDArray[np.float64]) -> Bytes:
    return values.astype(">f8").view(np.uint8).reshape(-1, 8)


def _words(values: Numbers) -> Bytes:
    return values.astype(">u4").view(np.uint8).reshape(-1, 4)


def _rows(values: npt.NDArray[np.float64]) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


class Events:
    """Makes the messages of one topic's events."""

    def __init__(self, names: Names, shape: Shape) -> None:
        self._templates = [Template.of(names, shape, missing) for missing in shape.missing]

    def messages(self, runs: Numbers, numbers: Numbers, times: npt.NDArray[np.float64] | None = None) -> list[bytes]:
        """One message for each event, in order."""
        stamps: npt.NDArray[np.float64] = TIME_0 + numbers.astype(np.float64) * TIME_STEP if times is None else times
        if len(self._templates) == 1:
            return self._templates[0].messages(runs, numbers, stamps)
        made: list[bytes] = [b""] * len(numbers)
        variants = numbers % len(self._templates)
        for variant, template in enumerate(self._templates):
            (rows,) = np.nonzero(variants == variant)
            for row, message in zip(
                rows.tolist(), template.messages(runs[rows], numbers[rows], stamps[rows]), strict=True
            ):
                made[row] = message
        return made

    def blocks(self, events: int, size: int = 20_000) -> Iterator[list[bytes]]:
        """Yield the messages of run 0, a block at a time."""
        for begin in range(1, events + 1, size):
            numbers = np.arange(begin, min(begin + size, events + 1))
            yield self.messages(np.zeros(len(numbers), np.int64), numbers)
