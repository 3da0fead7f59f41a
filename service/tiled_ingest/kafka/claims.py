"""What the engine must know of a partition before its first record."""

from collections.abc import Callable
from sys import intern
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.effects import Assigned
from tiled_ingest.core.offsets import partitions_at_first
from tiled_ingest.core.record import Home

from .topics import Topics
from .waiting import insist


def home_of(place: Any) -> Home:
    """Return the home that a `TopicPartition` names."""
    return Home(intern(place.topic), place.partition)


def place_of(home: Home, offset: int = ck.OFFSET_INVALID) -> Any:
    """Return a home as a `TopicPartition`."""
    return ck.TopicPartition(home.topic, home.partition, offset)


def look_up(
    consumer: Any, topics: Topics, homes: list[Home], nonce: Callable[[], str], limit_s: float
) -> list[Assigned]:
    """Read where the group and the logs stand.

    Raises
    ------
    KafkaUnavailable, Forbidden, KafkaFatal
        Each of the questions is insisted on for `limit_s`.
    """
    if not homes:
        return []
    found = topics.descriptions(home.topic for home in homes)
    siblings = [Home(name, number) for name, topic in found.items() for number in range(topic.partitions)]
    asked = sorted({*homes, *siblings})
    committed = insist(lambda left: _committed(consumer, asked, left), limit_s, "committed offsets")
    lows, highs = topics.lows(homes), topics.highs(homes)
    first = {
        name: partitions_at_first((metadata for home, (_, metadata) in committed.items() if home.topic == name), now)
        for name, (_, now) in found.items()
    }
    return [
        Assigned(home, found[home.topic].id, *committed[home], lows[home], highs[home], nonce(), first[home.topic])
        for home in homes
    ]


def start_of(claim: Assigned, start_latest: bool) -> Any:
    """Return the place with an explicit offset.

    A commit outside of the log is moved into it: the partition is paused, and the engine stops when it sees
    the claim.
    """
    if claim.committed is None:
        return place_of(claim.home, claim.begins_at(start_latest=start_latest))
    return place_of(claim.home, min(max(claim.committed, claim.low), claim.high))


def _committed(consumer: Any, homes: list[Home], timeout_s: float) -> dict[Home, tuple[int | None, str]]:
    answers = consumer.committed([place_of(home) for home in homes], timeout=timeout_s)
    for answer in answers:
        if answer.error:
            raise ck.KafkaException(answer.error)
    return {home_of(it): (it.offset if it.offset >= 0 else None, it.metadata or "") for it in answers}
