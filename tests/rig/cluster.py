"""Kafka with one or three brokers, each also behind a link that can be cut; who leads can be asked."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka.admin import AdminClient

from tests.rig.link import Link
from tiled_ingest.demo.broker import ExistingBroker, KafkaBroker
from tiled_ingest.demo.processes import free_port

_ASK_LIMIT_S = 20.0


class Cluster:
    """Brokers that are controllers, too: with three of them one may be away, and nothing that was confirmed is lost.

    `bootstrap_servers` is the direct way (publishers and questions), `via_links` the one that can be cut.
    """

    def __init__(self, size: int = 1, properties: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        name = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        folders = [folder and folder / f"kafka-{number + 1}" for number in range(size)]
        self.brokers = [KafkaBroker(each, cluster_id=name) for each in folders]
        self._doors = [free_port() for _ in self.brokers]
        self.links = [Link(door) for door in self._doors]
        for number in range(size):
            self.brokers[number].properties |= self._properties(number) | dict(properties or {})
        self._stack = ExitStack()

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    @property
    def via_links(self) -> str:
        """The addresses that lead through the links."""
        return ",".join(f"127.0.0.1:{link.port}" for link in self.links)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic with a replica on every broker; returns when it can be used."""
        ExistingBroker(self.bootstrap_servers).create_topic(name, partitions, config)

    def leader(self, topic: str, partition: int) -> KafkaBroker:
        """The broker that leads a partition at this moment."""
        found: int = self._metadata().topics[topic].partitions[partition].leader
        return self.brokers[found - 1]

    @property
    def in_sync(self) -> bool:
        """Whether every partition has all its replicas: then any one broker may go."""
        topics = self._metadata().topics.values()
        return all(len(each.isrs) == len(self.brokers) for topic in topics for each in topic.partitions.values())

    def __enter__(self) -> Cluster:
        try:
            for link in self.links:
                self._stack.enter_context(link)
            for broker in self.brokers:
                self._stack.callback(broker.stop)
            # Together: a controller alone elects nobody.
            with ThreadPoolExecutor(len(self.brokers)) as together:
                list(together.map(KafkaBroker.start, self.brokers))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _metadata(self) -> Any:
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 2})
        return admin.list_topics(timeout=_ASK_LIMIT_S)

    def _properties(self, number: int) -> dict[str, str]:
        broker, size = self.brokers[number], len(self.brokers)
        voters = [f"{node}@127.0.0.1:{other.controller_port}" for node, other in enumerate(self.brokers, 1)]
        listeners = {"PLAINTEXT": broker.port, "LINK": self._doors[number], "CONTROLLER": broker.controller_port}
        advertised = {"PLAINTEXT": broker.port, "LINK": self.links[number].port}
        copies = (
            "default.replication.factor",
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "share.coordinator.state.topic.replication.factor",
        )
        return {
            "node.id": str(number + 1),
            "controller.quorum.voters": ",".join(voters),
            "listeners": _addresses(listeners),
            "advertised.listeners": _addresses(advertised),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,LINK:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            **dict.fromkeys(copies, str(size)),
            "min.insync.replicas": str((size + 1) // 2),  # what was confirmed outlives any one of them
            "leader.imbalance.check.interval.seconds": "5",  # a broker that is back leads again: one more change
            "controller.quorum.election.timeout.ms": "500",
            "controller.quorum.fetch.timeout.ms": "1000",
        }


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
