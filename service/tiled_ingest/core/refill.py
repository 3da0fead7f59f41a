"""The rows of one stream once more, from the log: what a dataset of our own must hold.

The log is read chunk by chunk, so that a run of any length needs no more memory than one chunk. The rules of
`acceptance` are applied anew, from the run's start, so the rows are those that were accepted before.
"""

from collections.abc import Iterator
from typing import Any

from .acceptance import Acceptance
from .decode import Decoder
from .documents import normalise_descriptor, rename_reserved
from .effects import LogRead
from .errors import InvalidDocument
from .events import Event, EventPage
from .record import Record
from .rows import Batch, RowBuffer
from .run import Run


class Refill:
    """Accepted rows of `stream` before offset `stop`.

    Attributes
    ----------
    next_offset
        Where to read on.
    """

    def __init__(self, run: Run, stream: str, stop: int) -> None:
        self.next_offset = run.first_offset
        self.stop = stop
        self._run = run
        self._stream = stream
        self._renames = run.streams[stream].renames
        self._acceptance = Acceptance()

    @property
    def done(self) -> bool:
        """Whether all of the log was taken."""
        return self.next_offset >= self.stop

    def take(self, chunk: LogRead, decode: Decoder) -> Batch | None:
        """Return the accepted rows of a chunk; `None` if it has none."""
        buffer = RowBuffer()
        for record in chunk.records:
            if record.offset < self.stop:
                for event in self._accepted(record, decode):
                    buffer.append(event, record.offset, record.nbytes)
        self.next_offset = chunk.next_offset
        return buffer.take() if buffer.rows else None

    def _accepted(self, record: Record, decode: Decoder) -> Iterator[Event]:
        try:
            kind, doc = decode(record)
        except InvalidDocument:
            return  # refused then, refused now
        if kind == "descriptor" and isinstance(doc, dict):
            self._note_descriptor(doc)
        elif isinstance(doc, Event | EventPage):
            yield from self._rows(doc)

    def _note_descriptor(self, doc: dict[str, Any]) -> None:
        if doc.get("run_start") == self._run.uid:
            self._acceptance.add_descriptor(doc["uid"], normalise_descriptor(doc).doc["name"])

    def _rows(self, doc: Event | EventPage) -> Iterator[Event]:
        if not self._acceptance.is_of(doc.descriptor, self._stream):
            return
        for event in doc.events() if isinstance(doc, EventPage) else (doc,):
            if self._acceptance.add_event(self._stream, event.seq_num, event.uid):
                yield rename_reserved(event, self._renames)
