"""Killed at the worst moments: what was published is in Tiled once, whatever dies when, on both storages.

Every test lets a proxy kill the service (or Tiled) at a chosen request, shows by Kafka's own numbers that documents
were in flight then, starts it again, publishes the rest, and compares every row. In the gate several moments follow
each other in one story; `TEST_CHAOS=1` (`make chaos`) also tries each by itself, and ten times as many at
random. `TEST_SEED` repeats a random story.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from tests.rig.proxy import Fault
from tests.system.publishing import Publication, interleaved, offsets_of, rows_in, runs
from tests.system.scene import LONG, Cut, Scene, alone
from tests.system.service import Service

pytestmark = pytest.mark.real

SEED = int(os.environ.get("TEST_SEED", "") or time.time_ns() % 1_000_000)
API = r"/api/v1"
UID = r"[0-9a-f-]{36}"
NODE, PARTITION, SOURCE = f"{API}/metadata", f"{API}/table/partition", f"{API}/data_source"
LIVE, CHILD = r"/internal(\?|$)", r"/internal/rebuild-[^/?]+(\?|$)"
APPEND = rf"{PARTITION}/.*{LIVE}"
COMMITS_S = 0.9  # the service commits every 0.5 s


@dataclass(frozen=True)
class Point:
    """A request at which to kill: before the server has it, or after it answered and before the client hears of it.

    Attributes
    ----------
    pause_s
        The sender waits so long for its answer before it dies: longer than from one commit to the next.
    half
        The server gets only the request's beginning.
    """

    method: str
    path: str
    when: Literal["before", "after"] = "after"
    nth: int = 1
    pause_s: float = 0.0
    half: bool = False


WAY = {
    "run created": Point("POST", rf"{NODE}/?$"),
    "stream created, table not": Point("POST", rf"{NODE}/{UID}$"),
    "table created, nothing appended": Point("POST", rf"{NODE}/{UID}/\w+$"),
    "append on its way": Point("PATCH", APPEND, when="before", pause_s=COMMITS_S, half=True),
    "append applied, reply lost": Point("PATCH", APPEND, nth=3),
}
SWITCH = {
    "switch: live looked up": Point("GET", rf"{NODE}/.*{LIVE}"),
    "switch: child created": Point("POST", rf"{NODE}/.*{LIVE}"),
    "switch: child filled": Point("PATCH", rf"{PARTITION}/.*{CHILD}", pause_s=COMMITS_S),
    "switch: child read back": Point("GET", rf"{PARTITION}/.*{CHILD}"),
    "switch: live points to it": Point("PUT", rf"{SOURCE}/.*{LIVE}"),
    "switch: child has the old": Point("PUT", rf"{SOURCE}/.*{CHILD}"),
}
STOP = {
    "audit: first table read": Point("GET", APPEND),
    "audit: between two tables": Point("GET", rf"{NODE}/.*{LIVE}", nth=2),
    "stop written, streams not closed": Point("PATCH", rf"{NODE}/{UID}\?"),
}
POINTS = WAY | SWITCH | STOP


def begun(scene: Scene, membership: str = "static") -> tuple[Service, Publication]:
    """Three runs, interleaved, and a service; nothing has begun yet."""
    return scene.service(membership=membership), scene.publication(interleaved(runs()))


def inherit(scene: Scene, service: Service, publication: Publication) -> None:
    """Have tables in Tiled that a dead claim made, with rows whose offsets are committed."""
    publication.pause()
    publication.publish_to(0.3)
    service.start()
    service.wait_until(lambda: scene.committed() == scene.end(), "all so far committed", poll_s=0.1)
    service.kill()


def prepare(name: str, scene: Scene) -> tuple[Service, Publication]:
    """Bring the story to where its points can be reached."""
    service, publication = begun(scene)
    if name in SWITCH:
        inherit(scene, service, publication)
    if name in STOP:
        publication.publish()
    return service, publication


def strike(
    scene: Scene, point: Point, kill: Callable[[], object], begin: Callable[[], object], fault: str = "watch"
) -> Cut:
    """Arm the proxy, let things go on, and wait until it struck."""
    how: dict[str, Any] = {"fault": "cut_request", "bytes_max": 500} if point.half else {"fault": fault}
    cut = scene.cut_at(point.method, point.path, kill, when=point.when, nth=point.nth, pause_s=point.pause_s, **how)
    begin()
    scene.wait_for(cut)
    scene.notes.append(f"{point.method} {point.path}: {cut}")
    return cut


def finish(scene: Scene) -> None:
    """Everything that is left is published; then all is as it should be."""
    for publication in scene.publications:
        publication.pause()
        publication.steadily(portion=40)
        publication.done()
    scene.settle()
    scene.verify()


# ---------------------------------------------------------------- the service dies


def test_the_service_is_killed_at_one_point_after_the_other(scene: Scene) -> None:
    service, publication = begun(scene)
    for number, point in enumerate(WAY.values(), 1):
        publication.steadily(0.05 * number)
        strike(scene, point, service.kill, service.start)
    inherit(scene, service, publication)
    for number, point in enumerate(SWITCH.values(), 1):
        publication.steadily(0.4 + 0.08 * number)
        strike(scene, point, service.kill, service.start)
    publication.pause()
    publication.publish()
    for point in STOP.values():
        strike(scene, point, service.kill, service.start)
    service.start()
    finish(scene)


@alone
@pytest.mark.parametrize("name", POINTS)
def test_the_service_is_killed(scene: Scene, name: str) -> None:
    service, publication = prepare(name, scene)
    publication.steadily(0.6)
    strike(scene, POINTS[name], service.kill, service.start)
    service.start()
    finish(scene)


def test_killed_around_a_commit(scene: Scene) -> None:
    service, publication = begun(scene)
    publication.publish_to(0.3)
    kill_with_one_event_in_flight(scene, service, publication, arrives=True)
    kill_with_one_event_in_flight(scene, service, publication, arrives=False)
    publication.steadily(0.9, portion=6, pause_s=0.1)
    cut, offsets = kill_before_the_commit(scene, service, publication)
    assert cut.committed <= min(offsets), "these documents are in Tiled, and Kafka does not know"
    service.start()
    finish(scene)


def kill_with_one_event_in_flight(scene: Scene, service: Service, publication: Publication, *, arrives: bool) -> None:
    """Kill when all else is committed, so that only the event's own batch keeps its offset from being committed."""
    while publication.documents[publication.position][0] != "event":
        publication.publish(1)
    service.start()
    service.wait_until(lambda: scene.committed() == scene.end(), "all so far committed", poll_s=0.1)
    settled = scene.committed()
    flight = Point("PATCH", APPEND, "before", pause_s=COMMITS_S, half=not arrives)
    cut = strike(scene, flight, service.kill, lambda: publication.publish(1))
    assert (cut.committed, cut.end) == (settled, settled + 1)
    assert cut.fault.finished.wait(10)
    assert cut.fault.exchanges[0].status == (200 if arrives else None)


def kill_before_the_commit(scene: Scene, service: Service, publication: Publication) -> tuple[Cut, list[int]]:
    """Start it, and kill it as soon as it has said that an append is settled; again, if a commit came first."""
    for _ in range(10):
        seen = len(scene.proxy.exchanges)  # requests of the processes before this one
        service.start().wait_for("flush", count=3)
        bodies: list[bytes] = []
        append = scene.proxy.watch("PATCH", APPEND, body=lambda body, kept=bodies: not kept.append(body))
        assert append.finished.wait(20)
        hit = append.exchanges[0]
        run, stream = hit.path.split("?")[0].split("/")[-3:-1]
        earlier = [each for each in scene.proxy.exchanges[seen : hit.number] if each.path == hit.path]
        service.wait_for("flush", count=len(earlier) + 1, run=run, stream=stream)
        service.kill()
        cut = Cut(append, committed=scene.committed(), end=scene.end())
        offsets = offsets_of(publication.documents, run, stream, rows_in(bodies[0]))
        if cut.committed <= min(offsets):
            return cut, offsets
    raise AssertionError("a commit came first, ten times")


# ---------------------------------------------------------------- a dead owner's requests arrive late


def test_appends_are_held_back_until_their_sender_is_dead_and_replaced(scene: Scene) -> None:
    service, publication = begun(scene)
    primary, monitor = (rf"{PARTITION}/.*/{name}{LIVE}" for name in ("primary", "current_monitor"))

    early, *_ = killed_while_held(scene, service, publication, "PATCH", primary, 0.2)
    let_go(early)  # before the successor looks

    middle, run, stream = killed_while_held(scene, service, publication, "PATCH", primary, 0.4)
    scene.proxy.watch("POST", rf"{NODE}/{run}/{stream}{LIVE}", after=lambda: let_go(middle))

    last, *_ = killed_while_held(scene, service, publication, "PATCH", monitor, 0.6)

    late, run, stream = killed_while_held(scene, service, publication, "PATCH", primary, 0.8)
    service.start()
    publication.steadily(0.9)
    service.wait_for("switched", run=run, stream=stream)
    let_go(late)  # after the switch

    finish(scene)
    assert middle.finished.wait(20)  # was let go in the middle of a switch
    let_go(last)  # after the stop
    scene.verify()


def test_the_creation_of_a_table_is_held_back_until_its_sender_is_dead(postgres_scene: Scene) -> None:
    """Its sender has no name of its own in the group, either: its partition is free when its session is over."""
    scene = postgres_scene
    service, publication = begun(scene, membership="dynamic")
    held, run, stream = killed_while_held(scene, service, publication, "POST", rf"{NODE}/{UID}/primary$", 0.4)
    scene.proxy.watch("POST", rf"{NODE}/{run}/{stream}$", before=lambda: let_go(held))
    service.start()
    finish(scene)
    assert held.exchanges[0].status == 200, "the dead sender's table was made under the successor's eyes"


@alone
def test_a_zombies_switch_lands_between_two_appends(scene: Scene) -> None:
    """It hides our dataset: the append that follows is refused, and switches."""
    service, publication = begun(scene)
    inherit(scene, service, publication)
    held, run, stream = killed_while_held(scene, service, publication, "PUT", rf"{SOURCE}/.*/primary{LIVE}", 0.4)
    service.start()
    service.wait_for("switched", run=run, stream=stream)
    let_go(held)
    publication.steadily(0.6)
    service.wait_for("switched", count=2, run=run, stream=stream)
    finish(scene)


def test_a_zombies_switch_lands_before_the_audit(scene: Scene) -> None:
    """It hides our dataset, and no append follows: the audit puts ours back."""
    documents = sorted(interleaved(runs()), key=lambda document: document[0] == "stop")
    service, publication = scene.service(), scene.publication(documents)
    inherit(scene, service, publication)
    held, run, stream = killed_while_held(scene, service, publication, "PUT", rf"{SOURCE}/.*/primary{LIVE}", 0.6)
    service.start()
    publication.steadily(1 - 3 / len(documents))  # all but the stops
    publication.done()
    service.wait_until(lambda: scene.committed() == scene.end(), "all rows written", poll_s=0.1)
    let_go(held)  # between the last append and the audit
    finish(scene)
    assert [line for line in service.lines("put_back") if (line["run"], line["stream"]) == (run, stream)]


def killed_while_held(
    scene: Scene, service: Service, publication: Publication, method: str, path: str, upto: float
) -> tuple[Fault, str, str]:
    """Start the service, publish, and kill it while the proxy holds a request back; with its run and stream."""
    cut = scene.cut_at(method, path, service.kill, when="before", fault="hold")
    publication.steadily(upto)
    service.start()
    scene.wait_for(cut)
    named = re.search(rf"({UID})/(\w+)", cut.fault.exchanges[0].path)
    assert named
    return cut.fault, named[1], named[2]


def let_go(held: Fault) -> None:
    """Let a held request go on to Tiled, and wait for the answer that nobody hears."""
    held.release()
    assert held.finished.wait(20)


# ---------------------------------------------------------------- Tiled dies


def test_tiled_is_killed_at_one_point_after_the_other(scene: Scene) -> None:
    service, publication = begun(scene)
    inherit(scene, service, publication)  # for the first one
    service.start()
    lose_tiled(scene, service, POINTS["switch: live points to it"], lambda: publication.steadily(0.5))
    lose_tiled(scene, service, POINTS["append applied, reply lost"], lambda: publication.steadily(0.9))
    finish(scene)


@alone
@pytest.mark.parametrize("name", POINTS)
def test_tiled_is_killed(scene: Scene, name: str) -> None:
    service, publication = prepare(name, scene)
    publication.steadily(0.6)
    lose_tiled(scene, service, POINTS[name], service.start)
    finish(scene)


def lose_tiled(scene: Scene, service: Service, point: Point, begin: Callable[[], object]) -> None:
    """Kill Tiled so that its answer is lost, too: the service says that it cannot work, moves no offset, and waits."""
    strike(scene, point, scene.tiled.kill, begin, "swallow_reply" if point.when == "after" else "watch")
    pid = service.process.pid
    reasons = ["Tiled cannot be reached"]
    service.wait_until(lambda: service.status()["not_ready"] == reasons, "not ready for this reason", poll_s=0.1)
    assert service.get("/readyz")[0] == 503
    assert service.live
    committed = scene.committed()
    time.sleep(COMMITS_S)
    assert scene.committed() == committed < scene.end(), "an offset moved past what Tiled does not have"
    scene.tiled.restart()
    service.wait_until(lambda: service.ready, "ready again", poll_s=0.1)
    assert service.process.pid == pid, "it lived through it"


# ---------------------------------------------------------------- at random

MOMENTS = 20


@pytest.mark.timeout(3_600 if LONG else 300)
def test_killed_at_random_moments(scene: Scene) -> None:
    chance = random.Random(SEED)
    scene.notes.append(f"TEST_SEED={SEED}")
    service = scene.service()
    for _ in range(10 if LONG else 1):
        publication = scene.publication(interleaved(runs(), seed=chance.randrange(1_000_000)))
        in_flight = sum(killed_at_random(scene, service, publication, chance, moment) for moment in range(MOMENTS))
        scene.notes.append(f"{in_flight} of {MOMENTS} moments had unsettled documents in flight")
        assert in_flight > MOMENTS // 2
    service.start()
    finish(scene)


def killed_at_random(
    scene: Scene, service: Service, publication: Publication, chance: random.Random, moment: int
) -> bool:
    """Let it live for a moment while a twentieth of the documents is published; return whether some were in flight."""
    publication.steadily((moment + 1) / MOMENTS, portion=4, pause_s=0.02)
    service.start()
    if chance.random() < 0.8:  # else it dies while it starts
        service.wait_for("claimed")
    time.sleep(chance.uniform(0.0, 0.5))
    service.kill()
    in_flight = scene.end() > scene.committed()
    publication.pause()
    return in_flight
