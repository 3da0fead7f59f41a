"""The rows of one stream once more, from the log: what a dataset of our own must hold.

The log is read chunk by chunk, so that a run of any length needs no more memory than one chunk. The rules of
`acceptance` are applied anew, from the run's start, so the rows are those that were accepted before.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tiled_ingest.core.decoding.eras import Decode
from tiled_ingest.core.decoding.events import BulkEvents, Event, EventPage, rows_of
from tiled_ingest.core.decoding.weigh import held_nbytes
from tiled_ingest.core.effects import LogRead
from tiled_ingest.core.errors import InvalidDocument, TiledRejected
from tiled_ingest.core.record import Record
from tiled_ingest.core.rows.batches import Batch, RowBuffer
from tiled_ingest.core.rows.stretch import ROW_BYTES_MIN, Stretch
from tiled_ingest.core.runs.acceptance import Acceptance
from tiled_ingest.core.runs.documents import normalise_descriptor, rename_reserved
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.steps import Procedure, Surroundings, read_log


class Refill:
    """Accepted rows of `stream` before offset `stop`.

    Parameters
    ----------
    rows_max, bytes_max
        Of a batch.

    Attributes
    ----------
    next_offset
        Where to read on.
    """

    def __init__(self, run: Run, stream: str, stop: int, rows_max: int, bytes_max: int) -> None:
        self.next_offset = run.first_offset
        self.stop = stop
        self._run = run
        self._stream = stream
        self._renames = run.streams[stream].renames
        self._acceptance = Acceptance()
        self._rows_max = rows_max
        self._bytes_max = bytes_max

    @property
    def done(self) -> bool:
        """Whether all of the log was taken."""
        return self.next_offset >= self.stop

    def take(self, chunk: LogRead, decode: Decode) -> Iterator[Batch]:
        """Yield the accepted rows of a chunk, in batches that are bearable when they become tables."""
        buffer = RowBuffer()
        for piece in decode.stretches([record for record in chunk.records if record.offset < self.stop]):
            if isinstance(piece, Stretch) and not self._renames:
                yield from self._take_stretch(piece, buffer)
                continue
            for record in piece.records if isinstance(piece, Stretch) else (piece,):
                for event in self._accepted(record, decode):
                    buffer.append(event, record.offset, max(ROW_BYTES_MIN, held_nbytes(event)))
                    if self._is_full(buffer):
                        yield buffer.take()
        self.next_offset = chunk.next_offset
        if buffer.rows:
            yield buffer.take()

    def _is_full(self, buffer: RowBuffer) -> bool:
        return buffer.rows >= self._rows_max or buffer.bytes >= self._bytes_max

    def _take_stretch(self, stretch: Stretch, buffer: RowBuffer) -> Iterator[Batch]:
        ours = stretch.split(lambda descriptor: self._acceptance.is_of(descriptor, self._stream)).get(True)
        if ours is None:
            return
        is_new = self._acceptance.add_events(self._stream, ours.seq_nums, ours.uids)
        rest = ours.take(np.flatnonzero(is_new))
        while len(rest):
            fitting, rest = rest.divided(self._rows_max - buffer.rows)
            buffer.extend(fitting.packed, int(fitting.weights.sum()))
            if self._is_full(buffer):
                yield buffer.take()

    def _accepted(self, record: Record, decode: Decode) -> Iterator[Event]:
        try:
            kind, doc = decode(record)
        except InvalidDocument:
            return  # refused then, refused now
        if kind == "descriptor" and isinstance(doc, dict):
            self._note_descriptor(doc, record.offset)
        elif isinstance(doc, Event | EventPage | BulkEvents):
            yield from self._rows(doc, record.nbytes)

    def _note_descriptor(self, doc: dict[str, Any], offset: int) -> None:
        accepted = self._run.acceptance.descriptor(doc["uid"])
        if accepted is not None and accepted.offset == offset:  # else it was refused then, or is a repetition
            keys = normalise_descriptor(doc).doc["data_keys"]
            self._acceptance.add_descriptor(doc["uid"], accepted.stream, keys, offset=offset, content=accepted.content)

    def _rows(self, doc: Event | EventPage | BulkEvents, nbytes: int) -> Iterator[Event]:
        if not isinstance(doc, BulkEvents) and not self._acceptance.is_of(doc.descriptor, self._stream):
            return
        events = tuple(rows_of(doc))
        if not self._acceptance.has_all(event.descriptor for event in events):
            return  # refused then, refused now
        if len(events) > 1 and not self._acceptance.bears((event.descriptor for event in events), nbytes):
            return
        for event in events:
            if not self._acceptance.is_of(event.descriptor, self._stream):
                continue
            if self._acceptance.add_event(self._stream, event.seq_num, event.uid):
                yield rename_reserved(event, self._renames)


class Logged:
    """The accepted rows of a stream before offset `stop`, read batch by batch."""

    def __init__(self, around: Surroundings, run: Run, stream: str, stop: int) -> None:
        self._around = around
        self._where = "/".join((*run.path, stream))
        rows_max = run.streams[stream].laid_rows_max(around.policy)
        self._refill = Refill(run, stream, stop, rows_max, around.policy.bytes_max)
        self._batches: Iterator[Batch] | None = None

    @property
    def done(self) -> bool:
        """Whether all of the log was taken."""
        return self._refill.done and self._batches is None

    def next(self) -> Procedure[Batch | None]:
        """Return the next batch of accepted rows; `None` after the last.

        Raises
        ------
        TiledRejected
            The log does not hold the run's beginning any more.
        """
        while not self.done:
            if self._batches is None:
                self._batches = self._refill.take((yield from self._read()), self._around.decode)
            if (batch := next(self._batches, None)) is not None:
                return batch
            self._batches = None
        return None

    def _read(self) -> Procedure[LogRead]:
        chunk = yield from read_log(self._refill.next_offset, self._refill.stop)
        if chunk.low > self._refill.next_offset:
            begins = f"the log begins at {chunk.low}"
            raise TiledRejected(f"{begins}, after the documents of {self._where} at {self._refill.next_offset}")
        return chunk
