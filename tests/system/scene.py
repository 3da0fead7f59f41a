"""One test's world: a fresh topic and group, Tiled behind a proxy that breaks things, and the service."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from tiled.client import from_uri

from tests.rig.fixtures import TopicFactory
from tests.rig.proxy import Fault, FaultProxy
from tests.rig.reader import compare_run
from tests.rig.topics import add_partitions
from tests.system.publishing import Documents, Publication, by_run
from tests.system.service import Service
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

LONG = os.environ.get("TEST_CHAOS", "") not in {"", "0"}
alone = pytest.mark.skipif(not LONG, reason="only with TEST_CHAOS=1 (make chaos)")

SETTLE_LIMIT_S = 60.0
_MOVES = {
    ck.KafkaError.NOT_LEADER_FOR_PARTITION,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
    ck.KafkaError.NOT_COORDINATOR,
    ck.KafkaError.COORDINATOR_NOT_AVAILABLE,
    ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
# Short, so that tests are: a request may take this long, and a late append is looked for so long.
TIMEOUT_S, LATE_WRITE_S = 3.0, 1.5
MEMBERSHIPS: dict[str, dict[str, Any]] = {
    "static": {"kafka.instance_id": "tiled-ingest-0"},
    "dynamic": {"kafka.properties": {"session.timeout.ms": "1000", "heartbeat.interval.ms": "200"}},
}


@dataclass(frozen=True)
class Letter:
    """A record of the dead-letter topic."""

    value: bytes | None
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        return self.headers["code"]


@dataclass
class Cut:
    """A request at which something is killed, and what stood where at that moment.

    Attributes
    ----------
    committed, end
        The group's committed offset and the log's end, asked after the kill.
    """

    fault: Fault
    struck: threading.Event = field(default_factory=threading.Event)
    committed: int = -1
    end: int = -1
    failure: BaseException | None = None

    @property
    def unsettled(self) -> int:
        """Documents that the log held and nobody had committed."""
        return self.end - max(self.committed, 0)

    def __str__(self) -> str:
        hit = self.fault.exchanges[0] if self.fault.exchanges else "nothing"
        return f"committed {self.committed} of {self.end} when it struck at {hit}"


class Scene:
    """The parts of one test, and what is asked of them."""

    def __init__(self, broker: Broker, tiled: TiledServer, topic: TopicFactory, folder: Path) -> None:
        self.broker, self.tiled = broker, tiled
        self.new_topic, self.folder = topic, folder
        self.topic = topic("system.docs")
        self.group = f"ingest.{uuid.uuid4().hex[:8]}"
        self.services: list[Service] = []
        self.publications: list[Publication] = []
        self.notes: list[str] = []  # evidence, for the report
        self.ask_limit_s = 20.0  # of one question about offsets
        self._open = ExitStack()
        self.proxy = self._open.enter_context(FaultProxy(tiled.port))
        self._offsets = ck.Consumer(
            {"bootstrap.servers": broker.bootstrap_servers, "group.id": self.group, "log_level": 2}
        )
        self._open.callback(self._offsets.close)

    def close(self) -> None:
        for publication in self.publications:
            publication.pause()
        for service in self.services:
            service.kill()
        self._open.close()
        if not self.tiled.running:  # the next test needs it
            self.tiled.restart()

    # ------------------------------------------------------------ its parts

    def divide(self, partitions: int) -> None:
        """Use a topic with so many partitions; before anything else is made."""
        self.topic = self.new_topic("system.docs", partitions)

    def add_partitions(self, partitions: int) -> None:
        """Let the topic have so many from now on."""
        add_partitions(self.broker.bootstrap_servers, self.topic, partitions)
        self._offsets.list_topics(self.topic, timeout=self.ask_limit_s)  # it would not know for minutes

    def service(self, name: str = "service", membership: str = "static", **more: Any) -> Service:
        """Make a service (not started); `more` are settings, with `__` for the dot."""
        settings: dict[str, Any] = {
            "beamline": "test",
            "kafka.bootstrap_servers": self.broker.bootstrap_servers,
            "kafka.group_id": self.group,
            "kafka.topics": [self.topic],
            "tiled.uri": self.proxy.uri,
            "tiled.api_key": self.tiled.api_key,
            "tiled.timeout_s": TIMEOUT_S,
            "tiled.late_write_s_max": LATE_WRITE_S,
            **MEMBERSHIPS[membership],
            **{key.replace("__", "."): value for key, value in more.items()},
        }
        made = Service(self.folder, settings, name)
        self.services.append(made)
        return made

    def publication(
        self, documents: Documents, topic: str | None = None, key: str = "session", **more: Any
    ) -> Publication:
        """Make a publication (nothing is out yet)."""
        made = Publication(self.broker.bootstrap_servers, topic or self.topic, documents, key, **more)
        self.publications.append(made)
        return made

    def produce(self, *values: bytes | None, topic: str | None = None, partition: int = 0) -> None:
        """Put anything into the topic."""
        producer = ck.Producer({"bootstrap.servers": self.broker.bootstrap_servers, "linger.ms": 0, "log_level": 2})
        for value in values:
            producer.produce(topic or self.topic, value, b"session", partition)
        assert producer.flush(20) == 0

    # ------------------------------------------------------------ Kafka's side

    def committed(self, partition: int = 0) -> int:
        """The group's committed offset; -1 without one."""
        return max(-1, int(self._commit(partition).offset))

    def resume_point(self, partition: int = 0) -> int:
        """The offset from which a successor would read, by the commit's metadata."""
        return int(json.loads(self.commit_notes(partition))["s"])

    def commit_notes(self, partition: int = 0) -> str:
        """What stands beside the group's commit."""
        return self._commit(partition).metadata or ""

    def commit_bare(self, offset: int, partition: int = 0) -> None:
        """Commit with nothing beside it, as a tool that sets offsets does; the group must have no members."""
        self._offsets.commit(offsets=[ck.TopicPartition(self.topic, partition, offset)], asynchronous=False)

    def _commit(self, partition: int) -> Any:
        place = ck.TopicPartition(self.topic, partition)
        return self._ask(lambda: self._offsets.committed([place], timeout=self.ask_limit_s)[0])

    def _limits(self, partition: int) -> Any:
        place = ck.TopicPartition(self.topic, partition)
        return self._ask(lambda: self._offsets.get_watermark_offsets(place, timeout=self.ask_limit_s))

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask Kafka again while it moves what is asked for to another broker, or begins."""
        until_s = time.monotonic() + self.ask_limit_s
        while True:
            try:
                return question()
            except ck.KafkaException as error:
                if error.args[0].code() not in _MOVES or time.monotonic() > until_s:
                    raise
            time.sleep(0.1)

    def keep_commit(self, partition: int = 0) -> Callable[[], object]:
        """Return what commits once more what the group has committed now."""
        place = self._commit(partition)
        return lambda: self._offsets.commit(offsets=[place], asynchronous=False)

    def reset_to_earliest(self, partition: int = 0) -> None:
        """Do what `kafka-consumer-groups.sh --reset-offsets --to-earliest` does; the group must have no members."""
        self.commit_bare(self._limits(partition)[0], partition)

    def end(self, partition: int = 0) -> int:
        """Where the log ends now."""
        return int(self._limits(partition)[1])

    def letters(self) -> list[Letter]:
        """All dead letters so far."""
        topic = f"{self.group}.dead-letters"
        consumer = ck.Consumer(
            {
                "bootstrap.servers": self.broker.bootstrap_servers,
                "group.id": f"reader.{self.group}",
                "enable.partition.eof": True,
            }
        )
        found: list[Letter] = []
        try:
            end = consumer.get_watermark_offsets(ck.TopicPartition(topic, 0), timeout=20)[1]
            consumer.assign([ck.TopicPartition(topic, 0, 0)])
            while len(found) < end and (message := consumer.poll(20)) is not None:
                if not message.error():
                    found.append(_letter(message))
        finally:
            consumer.close()
        return found

    # ------------------------------------------------------------ the end of the story

    def settle(self, *partitions: int, limit_s: float = SETTLE_LIMIT_S) -> None:
        """Wait until everything published is committed, by services that do not end meanwhile."""
        homes = partitions or (0,)
        running = [service for service in self.services if service.running]
        assert running, "no service runs"
        what = "everything committed"
        running[0].wait_until(
            lambda: all(self.committed(home) == self.end(home) for home in homes), what, limit_s=limit_s, poll_s=0.1
        )

    def verify(self) -> None:
        """Every run is in Tiled as it was published, row by row, and complete; nothing is in the dead letters."""
        for publication in self.publications:
            self.compare(publication.published, "complete")
        assert [letter.headers for letter in self.letters()] == []
        # What the audit at stop had to repair was wrong until then.
        assert [line for service in self.services for line in service.lines("audit_mismatch", of_all=True)] == []

    def compare(self, documents: Documents, state: str) -> None:
        """The runs of these documents are in Tiled, row by row, in this state."""
        runs = by_run(documents)
        assert {uid: found for uid, run in runs.items() if (found := compare_run(self.client, uid, run))} == {}
        assert {uid: self.state(uid) for uid in runs} == dict.fromkeys(runs, state)

    @property
    def client(self) -> Any:
        """A reader's client, straight to Tiled."""
        return client_of(self.tiled)

    def state(self, uid: str) -> Any:
        """How the service calls the run's state in its metadata."""
        return self.client[uid].metadata["tiled_ingest"]["state"]

    # ------------------------------------------------------------ cuts

    def cut_at(
        self,
        method: str,
        path: str,
        kill: Callable[[], object],
        *,
        when: str = "after",
        nth: int = 1,
        fault: str = "watch",
        pause_s: float = 0.0,
        **options: Any,
    ) -> Cut:
        """Arm the proxy: `kill` something when a request comes by (`before` the server has it, or `after` it answered).

        With `pause_s` the sender waits so long for its answer before: time to commit what must not be committed.
        """
        cut = Cut(Fault("pass", method, path))

        def strike() -> None:
            try:
                time.sleep(pause_s)
                kill()
                cut.committed, cut.end = self.committed(), self.end()
            except BaseException as error:  # noqa: BLE001 - the test's thread raises it
                cut.failure = error
            cut.struck.set()

        cut.fault = getattr(self.proxy, fault)(method, path, nth=nth, **{when: strike}, **options)
        return cut

    def wait_for(self, cut: Cut, limit_s: float = 40.0) -> Cut:
        """Wait until it struck; its evidence must show unsettled documents in flight."""
        until_s = time.monotonic() + limit_s
        while not cut.struck.wait(0.02):
            gone = not cut.fault.hit.is_set() and not any(service.running for service in self.services)
            if gone or time.monotonic() > until_s:
                raise AssertionError(f"the cut point {cut.fault.method} {cut.fault.path} was never reached")
        if cut.failure:
            raise cut.failure
        assert cut.fault.exchanges, "the proxy did not see the request"
        assert cut.unsettled > 0, "nothing was in flight when it struck"
        return cut


_clients: dict[str, Any] = {}


def client_of(server: TiledServer) -> Any:
    """A client for each server: to make one takes half a second."""
    if server.uri not in _clients:
        _clients[server.uri] = from_uri(server.uri, api_key=server.api_key)
    return _clients[server.uri]


def _letter(message: Any) -> Letter:
    headers = {name.removeprefix("tiled_ingest."): value.decode() for name, value in message.headers() or ()}
    return Letter(message.value(), headers)
