"""Killed at the worst moments: what was published is in Tiled once, whatever dies when, on both storages.

Every test lets a proxy kill the service (or Tiled) at a chosen request, shows by Kafka's own numbers that documents
were in flight then, starts it again, publishes the rest, and compares every row.
"""

from __future__ import annotations

import os
import random
import re
import time
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.system.publishing import Publication, interleaved, offsets_of, rows_in, runs, uid_of
from tests.system.scene import Cut, Scene, wait_until
from tests.system.service import Service

pytestmark = pytest.mark.real

API = r"/api/v1"
UID = r"[0-9a-f-]{36}"
NODE, PARTITION, SOURCE = f"{API}/metadata", f"{API}/table/partition", f"{API}/data_source"
LIVE, CHILD = r"/internal(\?|$)", r"/internal/rebuild-[^/?]+(\?|$)"
LONG = os.environ.get("TILED_INGEST_CHAOS", "") not in {"", "0"}  # `make chaos`


@dataclass(frozen=True)
class Point:
    """A request at which to kill.

    Attributes
    ----------
    when
        Before the server has the request, or after it answered and before the client hears of it.
    inherited
        The service is killed once before, mid-run, so that its tables are an earlier claim's.
    published
        The share of all documents that is out when it happens; the rest follows afterwards.
    """

    method: str
    path: str
    when: Literal["before", "after"] = "after"
    nth: int = 1
    inherited: bool = False
    published: float = 0.6

    def arm(self, scene: Scene, kill: object) -> Cut:
        assert callable(kill)
        return scene.cut_at(self.method, self.path, kill, when=self.when, nth=self.nth)


POINTS = {
    "run created": Point("POST", rf"{NODE}/?$"),
    "stream created, table not": Point("POST", rf"{NODE}/{UID}$"),
    "table created, nothing appended": Point("POST", rf"{NODE}/{UID}/\w+$", nth=2),
    "append not yet arrived": Point("PATCH", rf"{PARTITION}/.*{LIVE}", nth=4, when="before"),
    "append applied, reply lost": Point("PATCH", rf"{PARTITION}/.*{LIVE}", nth=4),
    "switch: live looked up": Point("GET", rf"{NODE}/.*{LIVE}", inherited=True),
    "switch: child created": Point("POST", rf"{NODE}/.*{LIVE}", inherited=True),
    "switch: child filled": Point("PATCH", rf"{PARTITION}/.*{CHILD}", inherited=True),
    "switch: child read back": Point("GET", rf"{PARTITION}/.*{CHILD}", inherited=True),
    "switch: live points to it": Point("PUT", rf"{SOURCE}/.*{LIVE}", inherited=True),
    "switch: child has the old": Point("PUT", rf"{SOURCE}/.*{CHILD}", inherited=True),
    "audit: first table read": Point("GET", rf"{PARTITION}/.*{LIVE}", published=1.0),
    "audit: between two tables": Point("GET", rf"{NODE}/.*{LIVE}", nth=3, published=1.0),
    "stop written, streams not closed": Point("PATCH", rf"{NODE}/{UID}\?", published=1.0),
}


def begun(scene: Scene, **settings: object) -> tuple[Service, Publication]:
    """Three runs, interleaved, and a service; nothing has begun yet."""
    return scene.service(**settings), scene.publication(interleaved(runs()))


def inherit(service: Service, publication: Publication) -> None:
    """Have tables in Tiled that a dead claim made."""
    publication.publish_to(0.25)
    service.start().wait_for("flush", count=5)
    service.kill()


def finish(scene: Scene) -> None:
    """Everything that is left is published; then all is as it should be."""
    for publication in scene.publications:
        publication.pause()
        publication.steadily(portion=40)
        publication.done()
    scene.settle()
    scene.verify()


# ---------------------------------------------------------------- the service dies


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_the_service_is_killed(scene: Scene, point: Point) -> None:
    service, publication = begun(scene)
    if point.inherited:
        inherit(service, publication)
    cut = point.arm(scene, service.kill)
    publication.steadily(point.published)
    service.start()
    scene.wait_for(cut)
    service.start()
    finish(scene)


def test_killed_when_an_append_is_confirmed_but_not_committed(scene: Scene) -> None:
    service, publication = begun(scene)
    service.start()
    publication.steadily(0.9, portion=6, pause_s=0.1)
    cut, offsets = confirmed_append_killed(scene, service, publication)
    assert cut.committed <= min(offsets), "its offset was committed already"
    service.start()
    finish(scene)


def confirmed_append_killed(scene: Scene, service: Service, publication: Publication) -> tuple[Cut, list[int]]:
    """Kill as soon as the service has said that an append is settled; again if a commit came first."""
    service.wait_for("flush", count=3)
    for _ in range(10):
        bodies: list[bytes] = []
        append = scene.proxy.watch("PATCH", rf"{PARTITION}/.*{LIVE}", body=lambda body: not bodies.append(body))  # noqa: B023
        assert append.finished.wait(20)
        run, stream = append.exchanges[0].path.split("?")[0].split("/")[-3:-1]
        rows = rows_in(bodies[0])
        offsets = offsets_of(publication.documents, run, stream, rows)
        service.wait_for("flush", run=run, stream=stream, rows=len(rows))
        service.kill()
        cut = Cut(append, committed=scene.committed(), end=scene.end())
        if cut.committed <= min(offsets):
            assert cut.unsettled
            return cut, offsets
        service.start_claimed()
    raise AssertionError("a commit came first, ten times")


def test_killed_when_all_is_committed_and_the_next_batch_is_in_flight(scene: Scene) -> None:
    service, publication = begun(scene)
    publication.publish_to(0.3)
    service.start()
    service.wait_until(lambda: scene.committed() == scene.end(), "the first portion committed")
    settled = scene.committed()
    cut = scene.cut_at("PATCH", rf"{PARTITION}/.*{LIVE}", service.kill, when="before")
    publication.publish_to(0.4)
    scene.wait_for(cut)
    assert cut.committed == settled
    assert cut.fault.finished.wait(10)
    assert cut.fault.exchanges[0].status == 200, "the batch was in flight, and arrived after its sender was dead"
    service.start()
    finish(scene)


# ---------------------------------------------------------------- a dead owner's requests arrive late

Release = Literal["before the successor looks", "in the middle of the switch", "after the switch", "after the stop"]


@pytest.mark.parametrize(
    "release",
    ["before the successor looks", "in the middle of the switch", "after the switch", "after the stop"],
)
def test_an_append_is_held_back_until_its_sender_is_dead_and_replaced(scene: Scene, release: Release) -> None:
    service, publication = begun(scene)
    held, run, stream = killed_while_held(scene, service, publication, rf"{PARTITION}/.*/primary{LIVE}", "PATCH", 2)
    if release == "before the successor looks":
        let_go(held.fault)
    if release == "in the middle of the switch":
        child = rf"{NODE}/{run}/{stream}{LIVE}"
        scene.proxy.watch("POST", child, after=lambda: let_go(held.fault))
    service.start_claimed()
    publication.steadily(0.9)
    service.wait_for("switched", run=run, stream=stream)
    if release == "after the switch":
        let_go(held.fault)
    finish(scene)
    if release == "after the stop":
        let_go(held.fault)
        scene.verify()
    assert held.fault.finished.is_set()


def test_the_creation_of_a_table_is_held_back_until_its_sender_is_dead(scene: Scene) -> None:
    service, publication = begun(scene)
    held, run, stream = killed_while_held(scene, service, publication, rf"{NODE}/{UID}/primary$", "POST", 1)
    scene.proxy.watch("POST", rf"{NODE}/{run}/{stream}$", before=lambda: let_go(held.fault))
    service.start()
    finish(scene)
    assert held.fault.exchanges[0].status == 200
    assert held.fault.finished.is_set()


def test_a_zombies_switch_lands_late_and_is_put_back_by_the_audit(scene: Scene) -> None:
    service, publication = begun(scene)
    inherit(service, publication)
    held, run, stream = killed_while_held(scene, service, publication, rf"{SOURCE}/.*{LIVE}", "PUT", 1)
    service.start_claimed()
    publication.steadily(0.9)
    service.wait_for("switched", run=run, stream=stream)
    let_go(held.fault)
    assert held.fault.exchanges[0].status == 200
    finish(scene)
    assert [line for line in service.lines("put_back") if (line["run"], line["stream"]) == (run, stream)]


def killed_while_held(
    scene: Scene, service: Service, publication: Publication, path: str, method: str, nth: int
) -> tuple[Cut, str, str]:
    """Kill the service while the proxy holds one of its requests back."""
    cut = scene.cut_at(method, path, service.kill, when="before", nth=nth, fault="hold")
    publication.steadily(0.6)
    service.start()
    scene.wait_for(cut)
    named = re.search(rf"({UID})/(\w+)", cut.fault.exchanges[0].path)
    assert named
    return cut, named[1], named[2]


def let_go(fault: object) -> None:
    """Let a held request go on to Tiled, and wait for the answer that nobody hears."""
    fault.release()  # type: ignore[attr-defined]
    assert fault.finished.wait(20)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- Tiled dies

TILED_POINTS = {
    name: POINTS[name]
    for name in POINTS
    if LONG
    or name in {"append applied, reply lost", "table created, nothing appended", "switch: live points to it"}
}


@pytest.mark.parametrize("point", TILED_POINTS.values(), ids=TILED_POINTS)
def test_tiled_is_killed(scene: Scene, point: Point) -> None:
    service, publication = begun(scene)
    if point.inherited:
        inherit(service, publication)
    cut = point.arm(scene, scene.tiled.kill)
    publication.steadily(point.published)
    service.start()
    scene.wait_for(cut)
    pid = service.process.pid
    scene.tiled.restart()
    finish(scene)
    assert service.process.pid == pid, "the service lived through it"


# ---------------------------------------------------------------- at random

MOMENTS = 200 if LONG else 20


def test_killed_at_random_moments(scene: Scene) -> None:
    seed = int(os.environ.get("TILED_INGEST_SEED") or time.time_ns() % 1_000_000)
    print(f"TILED_INGEST_SEED={seed}")
    chance = random.Random(seed)
    rounds = MOMENTS // 20
    service = scene.service()
    in_flight = 0
    for _ in range(rounds):
        publication = scene.publication(interleaved(runs(), seed=chance.random().__hash__()))
        for moment in range(20):
            publication.steadily((moment + 1) / 20, portion=5, pause_s=0.02)
            service.start()
            if chance.random() < 0.8:
                service.wait_for("claimed")
            time.sleep(chance.uniform(0.0, 0.7))
            service.kill()
            in_flight += scene.end() > scene.committed()
            publication.pause()
    print(f"{in_flight} of {MOMENTS} moments had unsettled documents in flight")
    assert in_flight >= MOMENTS // 2
    service.start()
    finish(scene)


# ---------------------------------------------------------------- memberships


def test_a_member_without_a_name_of_its_own_comes_back(scene: Scene) -> None:
    """Its partitions are free when the group's session time-out is over."""
    service, publication = begun(scene, membership="dynamic")
    cut = scene.cut_at("PATCH", rf"{PARTITION}/.*{LIVE}", service.kill, nth=5)
    publication.steadily(0.6)
    service.start()
    scene.wait_for(cut)
    service.start()
    finish(scene)


__all__ = ["uid_of", "wait_until"]
