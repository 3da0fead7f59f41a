"""From events, which are rows, to columns: how values are gathered from a batch."""

from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

from .columns import Columns
from .events import Event

_BLOCK = 512  # events whose values are gathered together: while they are in the processor's cache


def gather(events: list[Event], columns: Columns) -> dict[str, list[Any]]:
    """Return the values of every column, one a row; `None` where an event has none, or only the id of a datum."""
    gathered: dict[str, list[Any]] = {name: [] for name in columns.types}
    for block in _blocks(events):
        data, stamps = _Values(block, "data"), _Values(block, "timestamps")
        for name, values in gathered.items():
            if name in {"seq_num", "time"}:
                values.extend(head(block, name))
            elif columns.is_stamp(name):
                values.extend(stamps.of(name[3:]))
            else:
                values.extend(data.loaded(name, external=name in columns.external))
    return gathered


def values_of(events: list[Event], key: str, *, external: bool) -> list[Any]:
    """Return the values of one data key, as `gather` does."""
    return _Values(events, "data").loaded(key, external=external)


def keys_of(events: list[Event]) -> set[str]:
    """Return the data keys of which any event has a value."""
    # Events of a stream nearly always have the same keys: few different tuples to look at.
    return set(chain.from_iterable({tuple(event.data) for event in events}))


def head(events: list[Event], name: str) -> list[Any]:
    """Return a field that every event has, one a row."""
    return list(map(attrgetter(name), events))


def _blocks(events: list[Event]) -> Iterator[list[Event]]:
    yield from (events[begin : begin + _BLOCK] for begin in range(0, len(events), _BLOCK))


class _Values:
    """Values by key, of some events."""

    def __init__(self, events: list[Event], name: str) -> None:
        self._rows = len(events)
        self._mappings: list[dict[str, Any]] = head(events, name)
        self._filled: list[dict[str, Any]] = head(events, "filled")
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
