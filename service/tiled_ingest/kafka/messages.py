"""From librdkafka's messages to the engine's inputs."""

from collections.abc import Callable, Iterable
from sys import intern
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.effects import EndReached, Records
from tiled_ingest.core.record import Home, Record

from .errors import is_end

Arrivals = list[Records | EndReached]


def to_record(message: Any) -> Record:
    """Translate a message that is no error."""
    kind, timestamp_ms = message.timestamp()
    return Record(
        topic=intern(message.topic()),  # one string for all records of a topic
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=timestamp_ms if kind != ck.TIMESTAMP_NOT_AVAILABLE else -1,
        key=message.key(),
        value=message.value(),
    )


def arrivals(messages: Iterable[Any], on_error: Callable[[Any], None]) -> Arrivals:
    """Return records and ends in the order in which they came; errors go to `on_error`."""
    found: Arrivals = []
    records: list[Record] = []
    for message in messages:
        if not (error := message.error()):
            records.append(to_record(message))
        elif is_end(error):
            found += [Records(records)] if records else []
            records = []
            found.append(EndReached(Home(intern(message.topic()), message.partition()), message.offset()))
        else:
            on_error(error)
    return [*found, Records(records)] if records else found


def only(found: Arrivals, homes: set[Home]) -> Arrivals:
    """Keep what came from these partitions."""
    kept: Arrivals = []
    for item in found:
        if isinstance(item, EndReached):
            kept += [item] if item.home in homes else []
        elif records := [record for record in item.records if record.home in homes]:
            kept.append(Records(records))
    return kept
