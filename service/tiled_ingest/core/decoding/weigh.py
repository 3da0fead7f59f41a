"""What messages weigh: their elements, counted without building any of them, and what was built of an event."""

from collections.abc import Collection, Iterable
from typing import Any

from tiled_ingest.core.errors import InvalidDocument

from .events import Event

# A sixteenth of what they take in memory at most: what the buffers may hold is counted by bytes in Kafka, and Python's
# objects take about six times as much; but an empty list is one byte there, and 72 here.
_ENTRY, _CONTAINER, _TEXT, _NUMBER = 18, 12, 10, 0
_CONTAINERS = frozenset({list, dict})
_TEXTS = frozenset({str, bytes})


def _fixed_sizes() -> list[int]:
    """Return for each first byte how many bytes the element takes on its own; 0 where a length follows."""
    sizes = [1] * 256  # small integers, and the heads of small maps and arrays, nil and booleans
    for length in range(32):
        sizes[0xA0 + length] = 1 + length
    for tag in (*range(0xC4, 0xCA), *range(0xD9, 0xDC)):
        sizes[tag] = 0
    sizes[0xCA:0xD4] = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9]  # floats, unsigned, signed
    sizes[0xD4:0xD9] = [3, 4, 6, 10, 18]  # extensions of fixed size
    sizes[0xDC:0xE0] = [3, 5, 3, 5]  # heads of arrays and maps: what they hold is counted by itself
    return sizes


_SIZES = _fixed_sizes()
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS = frozenset({0xC7, 0xC8, 0xC9})  # one more byte, for their code


def count_elements(message: bytes, elements_max: int) -> int:
    """Return the number of elements (keys are elements, too). About 0.1 us each.

    Raises
    ------
    InvalidDocument
        `too_many_elements`, as soon as there are more than `elements_max`.
    """
    at, count, end, sizes = 0, 0, len(message), _SIZES
    while at < end:
        tag = message[at]
        at += sizes[tag] or _sized(message, at, tag)
        count += 1
        if count > elements_max:
            raise InvalidDocument("too_many_elements", f"more than {elements_max} elements")
    return count


def _sized(message: bytes, at: int, tag: int) -> int:
    width = _LENGTH_BYTES[tag]
    length = int.from_bytes(message[at + 1 : at + 1 + width], "big")
    return 1 + width + length + (tag in _EXTENSIONS)


def held_nbytes(event: Event) -> int:
    """Return what the parts of an event count at least, whatever their bytes in Kafka."""
    parts: tuple[dict[str, Any], ...] = (event.data, event.timestamps, event.filled)
    return sum(_ENTRY * len(part) + _inside(part.values()) for part in parts if part)


def _inside(values: Iterable[Any]) -> int:
    return sum(_held(value) for value in values if type(value) in _CONTAINERS)


def _held(value: Any) -> int:
    if isinstance(value, dict):
        return _CONTAINER + _ENTRY * len(value) + _inside(value.values())
    items: Collection[Any] = value
    kinds = set(map(type, items))
    each = _TEXT if kinds & _TEXTS else _NUMBER
    return _CONTAINER + each * len(items) + (_inside(items) if kinds & _CONTAINERS else 0)
