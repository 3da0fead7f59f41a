"""Where runs are now: in Tiled, and how far the service has come with their partitions. Only looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.record import Home
from tiled_ingest.core.writing.datasets import OURS
from tiled_ingest.kafka.topics import Topics
from tiled_ingest.kafka.waiting import insist
from tiled_ingest.settings import Kafka, Settings, revealed
from tiled_ingest.tiled.session import Session
from tiled_ingest.tools.log import lone_consumer
from tiled_ingest.tools.verify.tree import Path, Tree

ANSWER_S_MAX = 30.0
READ_S_MIN = 60.0
CLOSED = frozenset({"complete", "incomplete", "abandoned"})


@dataclass(frozen=True, slots=True)
class Partition:
    """What Kafka says of a partition.

    Attributes
    ----------
    topic_id
        The topic's own id; empty if there is no such topic (any more).
    committed
        The group's committed offset; -1 without one.
    epoch
        Of the service's last claim on it; 0 if nobody knows.
    low, high
        First offset that the log still holds, and one past its last.
    """

    topic_id: str
    committed: int = -1
    epoch: int = 0
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class InTiled:
    """A run's node.

    Attributes
    ----------
    facts
        Ours about it; empty if someone else wrote it.
    has_stop
        Whether it has a stop document.
    """

    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    has_stop: bool = False

    @property
    def source(self) -> Mapping[str, Any]:
        """Where the facts say that it comes from."""
        source = self.facts.get("source")
        return source if isinstance(source, Mapping) else {}

    @property
    def state(self) -> str:
        """As in its metadata."""
        return str(self.facts.get("state", ""))

    @property
    def ended(self) -> bool:
        """Whether who wrote it was done with it."""
        return self.state in CLOSED if self.source else self.has_stop

    @property
    def epoch(self) -> int:
        """The latest of those who wrote to it, as far as it says."""
        return max(int(self.facts.get("epoch", 0)), int((self.facts.get("rebuild") or {}).get("epoch", 0)))


class Places:
    """Looks, and remembers what Kafka said."""

    def __init__(self, settings: Settings) -> None:
        kafka, tiled = settings.kafka, settings.tiled
        self._session = Session.at(tiled.uri, tiled.key, timeout_s=max(tiled.timeout_s, READ_S_MIN))
        self._tree = Tree(self._session, deep=bool(tiled.routes))
        self._kafka: Kafka = kafka
        self._topics = Topics(kafka.bootstrap_servers, revealed(kafka.properties), ANSWER_S_MAX)  # connects when asked
        self._partitions: dict[Home, Partition] = {}

    def close(self) -> None:
        """Drop the connection to Tiled."""
        self._session.close()

    def in_tiled(self, uid: str) -> InTiled | None:
        """Return a run's node, of several rather one of ours; `None` if there is none.

        Raises
        ------
        TiledUnreadable
            Tiled does not let us look.
        """
        nodes = [node for path in self._tree.named(uid) if (node := self._tree.node(path))]
        found = [InTiled(node.path, node.metadata.get(OURS) or {}, "stop" in node.metadata) for node in nodes]
        return next((each for each in found if each.source), found[0] if found else None)

    def partition(self, home: Home) -> Partition:
        """Return what Kafka says of a partition.

        Raises
        ------
        KafkaUnavailable
            It does not answer.
        """
        if home not in self._partitions:
            self._partitions[home] = self._asked(home)
        return self._partitions[home]

    def _asked(self, home: Home) -> Partition:
        if ":" in home.topic or not self._topics.exists(home.topic) or home not in self._topics.homes([home.topic]):
            return Partition("")
        low, high = self._topics.lows([home])[home], self._topics.highs([home])[home]
        topic_id = self._topics.ids([home.topic])[home.topic]
        consumer = lone_consumer(self._kafka)
        try:
            places = [ck.TopicPartition(*home)]
            (place,) = insist(lambda left: consumer.committed(places, timeout=left), ANSWER_S_MAX, "committed offsets")
        finally:
            consumer.close()
        point = ResumePoint.decode(place.metadata or "")
        return Partition(topic_id, max(place.offset, -1), point.epoch if point else 0, low, high)
