"""Rows of a batch: events as objects, or still as bytes (`packed`); either way they become columns."""

from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tiled_ingest.core.decoding.events import Event

from .cells import Cells, converted
from .columns import Columns

_BLOCK = 512  # events whose values are gathered together: while they are in the processor's cache


class Piece(Protocol):
    """Rows of a batch that are kept in one way."""

    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    def seq_num(self) -> npt.NDArray[np.int64]:
        """Of each row."""

    @property
    def time(self) -> npt.NDArray[np.float64]:
        """Of each row, in seconds since 1970."""

    @property
    def keys(self) -> set[str]:
        """The data keys that any row has."""

    def values(self, key: str, *, external: bool = False) -> list[Any]:
        """Return the values of a data key, one a row; `None` where there is none, or but a datum's id."""

    def raw(self, key: str, default: Any) -> list[Any]:
        """Return the values of a data key as they came, one a row; `default` where there is none."""

    def events(self) -> list[Event]:
        """Return the rows as events."""

    def cells(self, columns: Columns) -> dict[str, Cells]:
        """Return all columns."""


class Loose:
    """Events as objects."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    @property
    def seq_num(self) -> npt.NDArray[np.int64]:
        """Of each row."""
        return np.array(_head(self._events, "seq_num"), np.int64)

    @property
    def time(self) -> npt.NDArray[np.float64]:
        """Of each row, in seconds since 1970."""
        return np.array(_head(self._events, "time"), np.float64)

    @property
    def keys(self) -> set[str]:
        """The data keys that any row has."""
        # Events of a stream nearly always have the same keys: few different tuples to look at.
        return set(chain.from_iterable({tuple(event.data) for event in self._events}))

    def values(self, key: str, *, external: bool = False) -> list[Any]:
        """Return the values of a data key, one a row; `None` where there is none, or but a datum's id."""
        return _Values(self._events, "data").loaded(key, external=external)

    def raw(self, key: str, default: Any) -> list[Any]:
        """Return the values of a data key as they came, one a row; `default` where there is none."""
        return [event.data.get(key, default) for event in self._events]

    def events(self) -> list[Event]:
        """Return the rows as events."""
        return self._events

    def cells(self, columns: Columns) -> dict[str, Cells]:
        """Return all columns. About 2 us a row."""
        return {
            name: converted(values, columns.types[name], untyped=name in columns.untyped)
            for name, values in self._gathered(columns).items()
        }

    def _gathered(self, columns: Columns) -> dict[str, list[Any]]:
        gathered: dict[str, list[Any]] = {name: [] for name in columns.types}
        stamps_of = {name: name[3:] for name in columns.types if columns.is_stamp(name)}
        for block in self._blocks():
            data, stamps = _Values(block, "data"), _Values(block, "timestamps")
            for name, values in gathered.items():
                if name in {"seq_num", "time"}:
                    values.extend(_head(block, name))
                elif name in stamps_of:
                    values.extend(stamps.of(stamps_of[name]))
                else:
                    values.extend(data.loaded(name, external=name in columns.external))
        return gathered

    def _blocks(self) -> Iterator[list[Event]]:
        yield from (self._events[begin : begin + _BLOCK] for begin in range(0, len(self), _BLOCK))


def _head(events: list[Event], name: str) -> list[Any]:
    return list(map(attrgetter(name), events))


class _Values:
    """Values by key, of some events."""

    def __init__(self, events: list[Event], name: str) -> None:
        self._rows = len(events)
        self._mappings: list[dict[str, Any]] = _head(events, name)
        self._filled: list[dict[str, Any]] = _head(events, "filled")
        self._flagged = set(chain.from_iterable(self._filled))

    def of(self, key: str) -> list[Any]:
        return _picked(self._mappings, key, None)

    def loaded(self, key: str, *, external: bool) -> list[Any]:
        """Return the values, without those that only name a datum: `filled` says so, or the descriptor."""
        if key in self._flagged:
            flags = _picked(self._filled, key, not external)
            return [value if flag else None for value, flag in zip(self.of(key), flags, strict=True)]
        return [None] * self._rows if external else self.of(key)


def _picked(mappings: list[dict[str, Any]], key: str, default: Any) -> list[Any]:
    try:
        return list(map(itemgetter(key), mappings))
    except KeyError:
        return [mapping.get(key, default) for mapping in mappings]
