"""Reading the log again, beside the group: what a rebuild, a repair or a failed run's dead letters need."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.record import Home, Record

from . import properties as props
from .claims import place_of
from .errors import LogUnavailable, is_end, kafka_error, reading_error, stopping_error
from .messages import to_record
from .waiting import in_thread

Reading = tuple[list[Record], int, int]


@dataclass(slots=True)
class _Chunk:
    """What one `read` found: records, and where to read on."""

    next_offset: int
    bytes_held: int = 0
    records: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        self.records.append(record)
        self.next_offset = record.offset + 1
        self.bytes_held += len(record.value or b"")


class LogReader:
    """Reads ranges of partitions; never commits and never joins a group.

    Consecutive reads of one partition go on where the last one ended, from what was fetched ahead. A lock lets
    several threads share a reader, one read at a time; a reader per thread is quicker.

    Parameters
    ----------
    group_id
        librdkafka wants a name; the service's own one needs no further access rights, and nobody joins.
    read_s_max
        Limit of one `read`.
    """

    def __init__(
        self, bootstrap_servers: str, group_id: str, properties: Mapping[str, str], read_s_max: float = 30.0
    ) -> None:
        self._made = props.lone_consumer(bootstrap_servers, group_id, properties)
        self._read_s_max = read_s_max
        self._lock = threading.Lock()
        self._consumer: Any = None
        self._stands: tuple[Home, int] | None = None  # where the next message would come from
        self._low = 0

    def read(self, home: Home, start: int, stop: int, bytes_max: int) -> Reading:
        """Return the records from `start` up to (not including) `stop`, `next_offset` and `low`.

        Ends early, with `next_offset < stop`, once the values hold `bytes_max` bytes or the time is over; at
        least one record comes, or `LogUnavailable`. If the log begins after `start`: no records, and
        `next_offset` is `low`, the first offset that it still holds.

        Raises
        ------
        LogUnavailable
            Nothing came within the limit; it may be asked again.
        Forbidden, KafkaFatal
            Asking again would not help.
        """
        with self._lock:
            until_s = time.monotonic() + self._read_s_max
            try:
                return self._read(home, start, stop, bytes_max, until_s)
            except ck.KafkaException as error:
                self._rest()
                raise reading_error(home, kafka_error(error)) from error

    def close(self, limit_s: float = 10.0) -> None:
        """Drop the connection; a later read opens another. What takes longer than the limit goes on by itself."""
        with suppress(TimeoutError):
            in_thread(self._close).result(limit_s)

    def _close(self) -> None:
        with self._lock:
            if self._consumer:
                self._consumer.close()
            self._consumer = self._stands = None

    def _read(self, home: Home, start: int, stop: int, bytes_max: int, until_s: float) -> Reading:
        if self._stands != (home, start):
            self._stand_at(home, start, until_s)
        if start < self._low:
            self._rest()
            return [], self._low, self._low
        chunk = _Chunk(next_offset=start)
        while chunk.next_offset < stop and chunk.bytes_held < bytes_max and self._step(home, chunk, stop, until_s):
            pass
        if chunk.next_offset == start < stop:
            self._rest()
            raise LogUnavailable(f"{home}: nothing from {start} up to {stop} within {self._read_s_max} s")
        self._stands = (home, chunk.next_offset)
        if chunk.next_offset >= stop:
            self._rest()
        return chunk.records, chunk.next_offset, self._low

    def _stand_at(self, home: Home, start: int, until_s: float) -> None:
        self._rest()
        self._consumer = self._consumer or ck.Consumer(self._made)
        self._consumer.assign([place_of(home, start)])
        self._stands = (home, start)
        # Asked after `assign`: the question also makes librdkafka fetch now instead of up to a second later.
        limits = self._consumer.get_watermark_offsets(place_of(home), timeout=_left(until_s))
        if limits is None:
            raise LogUnavailable(f"{home}: no answer about the limits of the log within {self._read_s_max} s")
        self._low = limits[0]

    def _step(self, home: Home, chunk: _Chunk, stop: int, until_s: float) -> bool:
        """Take one message; `False` when the time is over."""
        message = self._consumer.poll(_left(until_s))
        if message is None:
            return False
        if error := message.error():
            return self._notice(home, chunk, message, error)
        if message.offset() >= stop:
            chunk.next_offset = message.offset()
        else:
            chunk.add(to_record(message))
        return True

    def _notice(self, home: Home, chunk: _Chunk, message: Any, error: Any) -> bool:
        if is_end(error):
            # Past transaction markers, or just the end for now: the next message, or the limit, will tell.
            chunk.next_offset = max(chunk.next_offset, message.offset())
        elif error.code() == ck.KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - librdkafka's name
            return self._refused(home, chunk, message.offset())
        elif stopping_error(error):
            raise ck.KafkaException(error)
        return True

    def _refused(self, home: Home, chunk: _Chunk, offset: int) -> bool:
        """Read on if that is not where we stand; else hand out what there is: the next read sees the log's begin."""
        if offset != chunk.next_offset:
            # Of where we stood before, and late: librdkafka drops outdated messages, but not this one, and it may
            # have stopped to fetch what we ask for now.
            self._consumer.assign([place_of(home, chunk.next_offset)])
            return True
        self._rest()
        if not chunk.records:
            raise LogUnavailable(f"{home}: the log does not hold offset {chunk.next_offset} any more, or not yet")
        return False

    def _rest(self) -> None:
        # An assigned partition is fetched ahead into memory, for nobody.
        if self._stands:
            self._consumer.unassign()
        self._stands = None


def _left(until_s: float) -> float:
    return max(until_s - time.monotonic(), 0.0)
