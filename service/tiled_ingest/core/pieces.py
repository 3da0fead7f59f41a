"""From events, which are rows, to columns: what a batch is made of, and how values are gathered from it."""

from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

from .columns import Columns
from .events import Event, EventPage

Piece = list[Event] | EventPage
_BLOCK = 512  # events whose values are gathered together: while they are in the processor's cache


def events(pieces: list[Piece]) -> Iterator[Event]:
    """Yield the rows of all pieces as events, in order."""
    for piece in pieces:
        yield from piece.events() if isinstance(piece, EventPage) else piece


def gather(pieces: list[Piece], columns: Columns) -> dict[str, list[Any]]:
    """Return the values of every column, one a row; `None` where an event has none, or only the id of a datum."""
    gathered: dict[str, list[Any]] = {name: [] for name in columns.types}
    for block in _blocks(pieces):
        data, stamps = _Values(block, "data"), _Values(block, "timestamps")
        for name, values in gathered.items():
            if name in {"seq_num", "time"}:
                values.extend(head(block, name))
            elif columns.is_stamp(name):
                values.extend(stamps.of(name[3:]))
            else:
                values.extend(data.loaded(name, external=name in columns.external))
    return gathered


def values_of(pieces: list[Piece], key: str, *, external: bool) -> list[Any]:
    """Return the values of one data key, as `gather` does."""
    blocks = (_Values(piece, "data") for piece in pieces)
    return list(chain.from_iterable(block.loaded(key, external=external) for block in blocks))


def keys_of(pieces: list[Piece]) -> set[str]:
    """Return the data keys of which any event has a value."""
    # Events of a stream nearly always have the same keys: few different tuples to look at.
    shapes = (tuple(mapping) for piece in pieces for mapping in _mappings(piece, "data"))
    return set(chain.from_iterable(set(shapes)))


def head(piece: Piece, name: str) -> list[Any]:
    """Return a field that every event has, one a row."""
    get = attrgetter(name)
    return get(piece) if isinstance(piece, EventPage) else list(map(get, piece))


def _blocks(pieces: list[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        if isinstance(piece, EventPage):
            yield piece
        else:
            yield from (piece[begin : begin + _BLOCK] for begin in range(0, len(piece), _BLOCK))


def _mappings(piece: Piece, name: str) -> list[dict[str, Any]]:
    get = attrgetter(name)
    return [get(piece)] if isinstance(piece, EventPage) else list(map(get, piece))


class _Values:
    """Values by key, of a page or of some events."""

    def __init__(self, piece: Piece, name: str) -> None:
        self._rows = len(piece)
        self._page = isinstance(piece, EventPage)
        self._mappings = _mappings(piece, name)
        self._filled = _mappings(piece, "filled")
        self._flagged = set(chain.from_iterable(self._filled))

    def of(self, key: str) -> list[Any]:
        return self._picked(self._mappings, key, None)

    def loaded(self, key: str, *, external: bool) -> list[Any]:
        """Return the values, without those that only name a datum: `filled` says so, or the descriptor."""
        if key in self._flagged:
            flags = self._picked(self._filled, key, not external)
            return [value if flag else None for value, flag in zip(self.of(key), flags, strict=True)]
        return [None] * self._rows if external else self.of(key)

    def _picked(self, mappings: list[dict[str, Any]], key: str, default: Any) -> list[Any]:
        if self._page:
            column: list[Any] = mappings[0].get(key) or [default] * self._rows
            return column
        try:
            return list(map(itemgetter(key), mappings))
        except KeyError:
            return [mapping.get(key, default) for mapping in mappings]
