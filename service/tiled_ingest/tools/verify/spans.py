"""Which part of which partitions is read: by offsets, by time, or all of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import confluent_kafka as ck

from tiled_ingest.core.record import Home
from tiled_ingest.kafka.topics import Topics
from tiled_ingest.kafka.waiting import insist
from tiled_ingest.settings import Kafka, revealed
from tiled_ingest.tools.log import lone_consumer

ANSWER_S_MAX = 30.0


class NothingToRead(ValueError):
    """What was asked for does not exist (a topic, a partition), or ends before it begins; the text names it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to verify; by default everything that the settings' topics hold.

    Attributes
    ----------
    first_offset, next_offset
        Of each partition: from the first to before the second.
    since, until
        By the broker's timestamps: the first record at or after `since`, up to the first one at or after `until`.
    committed
        Stop where the group has committed: what comes after is not settled yet. Where it never did, nothing is read.
    runs
        Only these runs.
    """

    topics: tuple[str, ...] = ()
    partitions: frozenset[int] = frozenset()
    first_offset: int | None = None
    next_offset: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    committed: bool = False
    runs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise NothingToRead("--until is not after --since")
        if self.next_offset is not None and (self.first_offset or 0) >= self.next_offset:
            raise NothingToRead("--to-offset is not after --from-offset")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of one partition.

    Attributes
    ----------
    start, stop
        What is read: from `start` to before `stop`.
    low, high
        What the log holds.
    committed
        The group's committed offset; -1 without one.
    topic_id
        Tells apart topics that had the same name one after the other.
    """

    home: Home
    start: int
    stop: int
    low: int
    high: int
    committed: int
    topic_id: str

    def within(self, start: int, stop: int) -> "Span":
        """Return the part of it between two offsets."""
        start = min(max(self.start, start), self.high)
        return replace(self, start=start, stop=max(min(self.stop, stop), start))


class Log:
    """What the cluster says about the partitions."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._topics = Topics(kafka.bootstrap_servers, revealed(kafka.properties), ANSWER_S_MAX)

    def spans(self, wanted: Wanted) -> list[Span]:
        """Return what there is to read.

        Raises
        ------
        NothingToRead
            A topic or partition does not exist.
        IngestError
            Kafka does not tell.
        """
        homes = self._homes(wanted)
        lows, highs = self._topics.lows(homes), self._topics.highs(homes)
        ids = self._topics.ids(home.topic for home in homes)
        committed = self._committed(homes)
        whole = [
            Span(home, lows[home], highs[home], lows[home], highs[home], committed[home], ids[home.topic])
            for home in homes
        ]
        return [span.within(*limits) for span, limits in zip(whole, self._limits(wanted, whole), strict=True)]

    def high(self, home: Home) -> int:
        """Return where the partition ends now."""
        return self._topics.highs([home])[home]

    def _homes(self, wanted: Wanted) -> list[Home]:
        names = wanted.topics or self._kafka.topics
        homes = self._topics.homes(names)
        for name in names:
            if not any(self._kafka.reads(name, home.topic) for home in homes):
                raise NothingToRead(f"no topic {name}")
        chosen = [home for home in homes if not wanted.partitions or home.partition in wanted.partitions]
        for partition in wanted.partitions - {home.partition for home in chosen}:
            raise NothingToRead(f"no partition {partition}")
        return chosen

    def _committed(self, homes: Sequence[Home]) -> dict[Home, int]:
        if not homes:
            return {}
        consumer = lone_consumer(self._kafka)
        try:
            places = [ck.TopicPartition(*home) for home in homes]
            # A coordinator that is not there yet, or moves, is worth asking again.
            found = insist(lambda left: consumer.committed(places, timeout=left), ANSWER_S_MAX, "committed offsets")
            return {Home(place.topic, place.partition): max(place.offset, -1) for place in found}
        finally:
            consumer.close()

    def _limits(self, wanted: Wanted, spans: Sequence[Span]) -> list[tuple[int, int]]:
        starts = self._at(wanted.since, spans) or [0] * len(spans)
        starts = [max(start, wanted.first_offset or 0) for start in starts]
        ends = self._at(wanted.until, spans) or [span.high for span in spans]
        limits = []
        for span, start, end in zip(spans, starts, ends, strict=True):
            stop = end if wanted.next_offset is None else min(end, wanted.next_offset)
            limits.append((start, min(stop, span.committed) if wanted.committed else stop))  # -1: nothing is settled
        return limits

    def _at(self, when: datetime | None, spans: Sequence[Span]) -> list[int]:
        """Return the first offset of each partition with that time or a later one; its end if there is none."""
        if when is None or not spans:
            return []
        # Kafka has no time before 1970: negative ones have a meaning of their own there (the end, the beginning).
        time_ms = max(0, int(when.timestamp() * 1000))
        consumer = lone_consumer(self._kafka)
        try:
            places = [ck.TopicPartition(*span.home, time_ms) for span in spans]
            found = consumer.offsets_for_times(places, timeout=ANSWER_S_MAX)
        finally:
            consumer.close()
        return [place.offset if place.offset >= 0 else span.high for place, span in zip(found, spans, strict=True)]
