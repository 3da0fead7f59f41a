"""Which layout each of many messages has: those known, and new ones learned on the way."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.record import Record
from tiled_ingest.core.rows.packed import Indices, Packed
from tiled_ingest.core.rows.stretch import Stretch

from .decode import Document
from .events import Event
from .layouts import MESSAGE_BYTES_MAX, Layout, UnfitError, Words, joined

LENGTHS_MAX = 256  # different lengths of messages, and layouts of each, that are remembered: a few kB each
LAYOUTS_MAX = 8
LEARN_ROWS = 128  # so many messages pay for one layout more: to learn it takes as long as to decode twenty
_NONE = -1


class KnownLayouts:
    """Finds stretches of events with known layouts among records.

    Parameters
    ----------
    read
        Decodes a message; layouts are learned from those that it has read.
    rows_min
        Fewer messages of one length, or fewer one after the other, are left to be decoded: that is quicker then.
    """

    def __init__(self, read: Callable[[bytes], Document], rows_min: int) -> None:
        self._read = read
        self._rows_min = max(rows_min, 1)
        self._layouts: OrderedDict[int, list[Layout]] = OrderedDict()  # by length, the last used last

    def __call__(self, records: Sequence[Record]) -> Iterator[Record | Stretch]:
        """Yield the records in their order, those that follow each other and have layouts in one."""
        if len(records) < self._rows_min:
            yield from records
            return
        parts, part_of, row_of = self._sorted(records)
        edges = np.flatnonzero(np.diff(part_of == _NONE)) + 1
        for begin, end in pairwise((0, *edges.tolist(), len(records))):
            if part_of[begin] == _NONE or end - begin < self._rows_min:
                yield from records[begin:end]
            else:
                yield Stretch(records[begin:end], parts, part_of[begin:end], row_of[begin:end])

    def _sorted(self, records: Sequence[Record]) -> tuple[list[Packed], Indices, Indices]:
        """Return the messages that have layouts, by layout; for each record its part (-1: none), and its row there."""
        messages = [record.value or b"" for record in records]
        lengths = np.fromiter(map(len, messages), np.intp, len(records))
        parts: list[Packed] = []
        part_of, row_of = np.full(len(records), _NONE), np.zeros(len(records), np.intp)
        for length in np.unique(lengths).tolist():
            places = np.flatnonzero(lengths == length)
            if len(places) < self._rows_min or not 0 < length <= MESSAGE_BYTES_MAX:
                continue
            every = len(places) == len(messages)
            words = joined(messages if every else [messages[place] for place in places.tolist()])
            for layout, rows in self._fitting(length, words):
                part_of[places[rows]], row_of[places[rows]] = len(parts), np.arange(len(rows))
                parts.append(Packed(layout, words).take(rows))
        return parts, part_of, row_of

    def _fitting(self, length: int, words: Words) -> Iterator[tuple[Layout, Indices]]:
        """Yield layouts, and which of these messages of one length have them."""
        left = np.arange(len(words))
        known = reversed(self._known(length))
        for attempt in range(LAYOUTS_MAX + 1 + len(words) // LEARN_ROWS):
            layout = next(known, None) or self._learned(words[left[attempt % len(left)]].tobytes()[:length])
            if layout is None:
                continue
            fits = layout.fits(words if len(left) == len(words) else words[left])
            if fits.any():
                yield layout, left[fits]
                left = left[~fits]
            if not len(left):
                return

    def _known(self, length: int) -> list[Layout]:
        known = self._layouts.setdefault(length, [])
        self._layouts.move_to_end(length)
        while len(self._layouts) > LENGTHS_MAX:
            self._layouts.popitem(last=False)
        return list(known)

    def _learned(self, message: bytes) -> Layout | None:
        try:
            _, event = self._read(message)
            layout = Layout.of(message, event) if isinstance(event, Event) else None
        except (InvalidDocument, UnfitError):
            return None
        if layout is not None:
            known = self._layouts[len(message)]
            known.append(layout)
            del known[:-LAYOUTS_MAX]
        return layout
