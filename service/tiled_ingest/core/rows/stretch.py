"""Events that follow each other in the log, each of a known layout: taken together, as if one by one."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.decoding.layouts import Slot
from tiled_ingest.core.record import Record

from .packed import Indices, Packed

ROW_BYTES_MIN = 100  # what a row counts in memory: the smallest, 7 bytes of a page, takes several hundred once decoded

T = TypeVar("T", bound=Hashable)


class Stretch:
    """Records that are events of known layouts.

    Parameters
    ----------
    records
        In the order of the log.
    parts
        Their messages, by layout.
    part_of, row_of
        For each record, which part its message is in, and in which row there.
    """

    def __init__(self, records: Sequence[Record], parts: Sequence[Packed], part_of: Indices, row_of: Indices) -> None:
        self.records = records
        self._parts = parts
        self._part_of = part_of
        self._row_of = row_of

    def __len__(self) -> int:
        return len(self.records)

    def take(self, rows: Indices) -> "Stretch":
        """Return some of the records, in order."""
        records = [self.records[row] for row in rows.tolist()]
        return Stretch(records, self._parts, self._part_of[rows], self._row_of[rows])

    def divided(self, rows: int) -> "tuple[Stretch, Stretch]":
        """Return the first `rows` records, and the rest."""
        if rows >= len(self):
            return self, Stretch((), self._parts, self._part_of[:0], self._row_of[:0])
        return self.take(np.arange(rows)), self.take(np.arange(rows, len(self)))

    def split(self, owner_of: Callable[[str], T | None]) -> "dict[T | None, Stretch]":
        """Return the records of each owner, which is asked for once for each descriptor."""
        uids = self._texts("descriptor")
        owners = {uid: owner_of(uid.decode()) for uid in set(uids)}
        if len(set(owners.values())) == 1:
            return {owners[uids[0]]: self}
        numbers: dict[T | None, int] = {}
        number_of = [numbers.setdefault(owners[uid], len(numbers)) for uid in uids]
        ends = np.cumsum(np.bincount(number_of)).tolist()
        pieces = self._cut(np.argsort(number_of, kind="stable"), ends)
        return dict(zip(numbers, pieces, strict=True))

    def _cut(self, order: Indices, ends: list[int]) -> "Iterator[Stretch]":
        """Yield the records in that order, a piece up to each end; each piece's own are in the order of the log.

        Pieces may be of a few rows, a thousand of them: what is known of each row is looked up for all together.
        """
        records = [self.records[row] for row in order.tolist()]
        part_of, row_of = self._part_of[order], self._row_of[order]
        seq_nums, offsets, weights = self.seq_nums[order], self.offsets[order], self.weights[order]
        for begin, end in pairwise((0, *ends)):
            rows = slice(begin, end)
            piece = Stretch(records[rows], self._parts, part_of[rows], row_of[rows])
            piece.seq_nums, piece.offsets, piece.weights = seq_nums[rows], offsets[rows], weights[rows]
            yield piece

    @property
    def first(self) -> Event:
        """The first event."""
        packed = self._parts[int(self._part_of[0])]
        return packed.take(self._row_of[:1]).events()[0]

    @property
    def uids(self) -> list[bytes]:
        """The events' uids, in UTF-8."""
        return self._texts("uid")

    @cached_property
    def seq_nums(self) -> npt.NDArray[np.int64]:
        """The events' `seq_num`s."""
        found = np.empty(len(self), np.int64)
        for rows, packed in self._by_part:
            found[rows] = packed.seq_num
        return found

    @property
    def newest_ms(self) -> int:
        """The largest of the broker's timestamps."""
        return max(record.timestamp_ms for record in self.records)

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """The records' offsets."""
        return np.fromiter(map(attrgetter("offset"), self.records), np.int64, len(self))

    def place_of(self, record: Record) -> int:
        """Return how many of the records come before one of them."""
        return int(np.searchsorted(self.offsets, record.offset))

    @cached_property
    def weights(self) -> npt.NDArray[np.int64]:
        """What each row counts in memory, in bytes."""
        return np.array([max(part.layout.length, ROW_BYTES_MIN) for part in self._parts])[self._part_of]

    @cached_property
    def nbytes(self) -> int:
        """What all rows count in memory, in bytes."""
        return int(self.weights.sum())

    @property
    def packed(self) -> list[tuple[Packed, npt.NDArray[np.int64]]]:
        """The events by layout, with the offsets of their records."""
        return [(packed, self.offsets[rows]) for rows, packed in self._by_part]

    @cached_property
    def _by_part(self) -> list[tuple[Indices, Packed]]:
        present = sorted(set(self._part_of.tolist()))
        if len(present) == 1:
            return [(np.arange(len(self)), self._parts[present[0]].take(self._row_of))]
        by_part = [(np.flatnonzero(self._part_of == part), self._parts[part]) for part in present]
        return [(rows, packed.take(self._row_of[rows])) for rows, packed in by_part]

    def _texts(self, name: str) -> list[bytes]:
        """Return the text that stands in a field of the event, in UTF-8."""
        slots: list[Slot] = [getattr(part.layout, name) for part in self._parts]
        places = [(slot.at, slot.at + slot.width) for slot in slots]
        messages = [record.value or b"" for record in self.records]
        if len(set(places)) == 1:  # nearly always, also where layouts are several
            begin, end = places[0]
            return [message[begin:end] for message in messages]
        spans = [places[part] for part in self._part_of.tolist()]
        return [message[begin:end] for message, (begin, end) in zip(messages, spans, strict=True)]
