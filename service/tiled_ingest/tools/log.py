"""Parts of the log, read fast and beside the group: nothing joins, nothing is committed. For tools."""

import time
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.record import Home
from tiled_ingest.kafka import properties as props
from tiled_ingest.kafka.errors import LogUnavailable, is_end, kafka_error, reading_error, stopping_error
from tiled_ingest.settings import Kafka, revealed

SILENCE_S_MAX = 30.0
_MESSAGES = 5_000  # at once; `consume` waits for so many, or so long
_WAIT_S = 0.1


def lone_consumer(kafka: Kafka) -> Any:
    """Make a consumer that only reads. librdkafka wants a group's name: the service's own needs no further rights."""
    made = props.lone_consumer(kafka.bootstrap_servers, kafka.group_id, revealed(kafka.properties))
    return ck.Consumer(made)


def messages(kafka: Kafka, home: Home, start: int, stop: int) -> Iterator[list[Any]]:
    """Yield the messages of a partition from `start` to before `stop`, in order, some at a time.

    Raises
    ------
    LogUnavailable
        Nothing came for long, or what was asked for is not in the log any more.
    Forbidden, KafkaFatal
        Kafka refuses us.
    """
    if start >= stop:
        return
    consumer = lone_consumer(kafka)
    try:
        consumer.assign([ck.TopicPartition(home.topic, home.partition, start)])
        yield from _until(consumer, home, start, stop)
    except ck.KafkaException as error:
        raise reading_error(home, kafka_error(error)) from error
    finally:
        consumer.close()


def _until(consumer: Any, home: Home, start: int, stop: int) -> Iterator[list[Any]]:
    heard_s = time.monotonic()
    while start < stop:
        got = consumer.consume(_MESSAGES, _WAIT_S)
        found = [message for message in got if message.error() is None]
        ends = [_end(home, message) for message in got if message.error() is not None]
        reached = max([start, *ends, *(message.offset() + 1 for message in found[-1:])])
        if reached > start:
            start, heard_s = reached, time.monotonic()
        elif time.monotonic() - heard_s > SILENCE_S_MAX:
            raise LogUnavailable(f"{home}: nothing from offset {start} within {SILENCE_S_MAX:g} s")
        if found and found[-1].offset() >= stop:
            found = [message for message in found if message.offset() < stop]
        if found:
            yield found


def _end(home: Home, message: Any) -> int:
    """Return where the partition ends, of an "error" that only says so."""
    error = message.error()
    if is_end(error):
        return int(message.offset())
    if stopping_error(error) or error.code() == ck.KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        raise reading_error(home, error)
    return -1
