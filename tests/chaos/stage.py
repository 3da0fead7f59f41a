"""The parts of one act: Kafka, Tiled, service processes, links and a proxy between them, and runs all the time."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.chaos.plan import Act, Kind
from tests.chaos.progress import Progress, Strike
from tests.chaos.supply import Supply
from tests.chaos.traffic import Traffic
from tests.rig.cluster import Cluster
from tests.rig.fixtures import postgres_tiled, topics_of
from tests.rig.link import Link
from tests.rig.postgres import Postgres
from tests.system.scene import LATE_WRITE_S, Scene
from tests.system.service import Service
from tiled_ingest.demo.tiled_server import TiledServer

PARTITIONS = 3
SESSION_S = 2.0  # a member that is silent for so long has lost its partitions
STANDSTILL_S_MAX = 150.0  # the worst single wait: a member that is counted out, and a process that starts, twice
END_LIMIT_S = 60.0
SERVICES_MAX = 4
_GROUP_PROPERTIES = {
    "group.consumer.session.timeout.ms": str(round(1000 * SESSION_S)),
    "group.consumer.heartbeat.interval.ms": "300",
}
_MEMBERS: dict[str, dict[str, Any]] = {
    "static": {"kafka__instance_id": "chaos-0"},
    "cooperative-sticky": {
        "kafka__properties": {"session.timeout.ms": round(1000 * SESSION_S), "heartbeat.interval.ms": 300},
    },
    "consumer": {"kafka__properties": {"group.protocol": "consumer"}},
}


class Stage:
    """One act's parts, started by `with`, and gone after it.

    Parameters
    ----------
    folder
        Where all logs and Tiled's files are kept.
    """

    def __init__(self, act: Act, folder: Path) -> None:
        self.act = act
        self.chance = random.Random(act.seed)
        self.folder = folder
        self.members: list[Service] = []
        self.ends: Counter[str] = Counter()  # why services ended that nobody had ended
        self.planted: set[bytes] = set()
        self._stack = ExitStack()
        self._names = 0

    def __enter__(self) -> Stage:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _set_up(self) -> None:
        enter, parts = self._stack.enter_context, self.act.parts
        self.cluster = enter(Cluster(parts.brokers, _GROUP_PROPERTIES, self.folder))
        self.postgres = enter(Postgres()) if parts.storage == "postgresql" else None
        where = self.folder / "tiled"
        files = self.folder / "detectors"
        self.tiled = enter(
            postgres_tiled(self.postgres, where, readable_folders=[files])
            if self.postgres
            else TiledServer(where, readable_folders=[files])
        )
        self.scene = enter(closing(Scene(self.cluster, self.tiled, topics_of(self.cluster), self.folder)))
        self.scene.divide(PARTITIONS)
        # Dead letters are confirmed by all brokers: while one is away they wait, and everything else goes on.
        self.cluster.create_topic(f"{self.scene.group}.dead-letters", 1, {"min.insync.replicas": str(parts.brokers)})
        self.scene.ask_limit_s = 3.0
        self.tiled_link = enter(Link(self.scene.proxy.port))
        self.progress = enter(Progress(self.scene, PARTITIONS))
        self.supply = Supply(files, self._refuse)
        seeds = [random.Random(self.chance.random()) for _ in range(PARTITIONS)]
        self.traffic = [
            Traffic(self.scene, home, PARTITIONS, each, self.supply.draw, lambda: self.progress.behind)
            for home, each in enumerate(seeds)
        ]

    def _refuse(self, run: str) -> None:
        """Let Tiled refuse each stream of a run, for ever."""
        self.scene.proxy.answer("POST", rf"/api/v1/metadata/{run}$", 422, times=None, stays=True)

    def begin(self) -> None:
        """Let services work and runs come; returns when every partition has its owner."""
        for traffic in self.traffic:
            traffic.start()
        for _ in range(self.act.parts.services):
            self.join()
        self.wait_claimed(PARTITIONS)

    # ------------------------------------------------------------ services

    def new_service(self) -> Service:
        """Make one more, not started and no member yet."""
        self._names += 1
        return self.scene.service(
            f"service-{self._names}",
            **_MEMBERS[self.act.parts.membership],
            membership="static" if self.act.parts.membership == "static" else "dynamic",
            kafka__bootstrap_servers=self.cluster.via_links,
            tiled__uri=f"http://127.0.0.1:{self.tiled_link.port}/api/v1",
            tiled__timeout_s=self.act.parts.timeout_s,
            tiled__late_write_s_max=LATE_WRITE_S,
            limits__drain_s_max=8.0,
            limits__commit_s_max=5.0,
            limits__stalled_s_max=60.0,  # above what any one call may take, and well below a standstill
            batch__age_s_max=0.4,
        )

    def join(self) -> Service:
        """Start one more member."""
        made = self.new_service()
        self.members.append(made.start())
        return made

    def any_member(self) -> Service:
        self.tend()
        return self.chance.choice(self.members)

    def tend(self) -> None:
        """Start again what ended by itself, as an operator's supervisor does, and note why it ended."""
        for member in self.members:
            if not member.running:
                self.note_end(member)
                member.start()

    def note_end(self, service: Service) -> None:
        stopped = service.lines("stopped")
        reason = stopped[-1]["reason"] if stopped else f"exit status {service.process.returncode} without a reason"
        self.ends[reason] += 1

    def wait_claimed(self, count: int) -> bool:
        """Wait until the present processes have claimed so many partitions."""
        until_s = time.monotonic() + END_LIMIT_S
        while sum(len(member.lines("claimed")) for member in self.members) < count:
            if time.monotonic() > until_s:
                return False
            self.tend()
            time.sleep(0.05)
        return True

    # ------------------------------------------------------------ faults

    def strike(self, kind: Kind) -> Strike:
        return self.progress.strike(kind)

    def pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self.chance.uniform(least_s, most_s))

    def recover(self, waiting_s_max: float = 0.0) -> None:
        """Let nothing more happen until no strike has waited longer than this for its documents to be settled."""
        self._wait_while(lambda: self.progress.waiting_s > waiting_s_max, lambda: self.progress.missing)

    def _wait_while(self, waiting: Callable[[], bool], missing: Callable[[], int]) -> None:
        """Wait however long it takes, as long as something more is settled every now and then: machines may be busy."""
        least, since_s = missing(), time.monotonic()
        while waiting():
            if (left := missing()) < least:
                least, since_s = left, time.monotonic()
            assert time.monotonic() - since_s < STANDSTILL_S_MAX, f"stands still for {STANDSTILL_S_MAX:g} s: {self}"
            self.tend()
            time.sleep(0.1)

    def plant(self) -> None:
        """Put a record into the topic that is no document, and must come out as a dead letter."""
        value = b"\xc1planted " + str(len(self.planted)).encode()
        self.scene.produce(value, partition=self.chance.randrange(PARTITIONS))
        self.planted.add(value)

    # ------------------------------------------------------------ the end

    def settle(self) -> None:
        """Let every run end; returns when all is committed."""
        for traffic in self.traffic:
            traffic.finish()
        self._wait_while(lambda: self.progress.unsettled > 0, lambda: self.progress.unsettled)

    def __str__(self) -> str:
        """By partition, how far it is."""
        homes = range(PARTITIONS)
        return ", ".join(f"[{home}]: {self.scene.committed(home)} of {self.scene.end(home)}" for home in homes)

    def said(self, event: str) -> int:
        """How often the services said something."""
        return sum(len(service.lines(event, of_all=True)) for service in self.scene.services)
