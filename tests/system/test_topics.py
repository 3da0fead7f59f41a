"""What an administrator does to a topic while it is read: nothing that is published then is lost without a word."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.rig.topics import recreate
from tests.system.publishing import Documents, message, runs, uid_of
from tests.system.scene import Scene
from tests.system.service import Service
from tiled_ingest.demo.processes import ProcessError

pytestmark = pytest.mark.real


# ---------------------------------------------------------------- deleted and created again


def running(scene: Scene, service: Service) -> Callable[[], None]:
    """Nothing holds it up."""
    del scene, service
    return lambda: None


def paused(scene: Scene, service: Service) -> Callable[[], None]:
    """Tiled is away, so that no intake is taken."""
    scene.proxy.answer(".*", "", 503, times=None)
    scene.publication(runs(1)[0]).publish(20)
    service.wait_for("tiled_down", limit_s=40)
    time.sleep(2)  # it pauses a second later
    return scene.proxy.clear


def frozen(scene: Scene, service: Service) -> Callable[[], None]:
    """It gets no time from its machine."""
    del scene
    service.process.send(signal.SIGSTOP)
    return lambda: service.process.send(signal.SIGCONT)


@pytest.mark.parametrize("hold_up", [running, paused, frozen])
def test_a_topic_made_again_is_never_read_from_its_middle(
    duckdb_scene: Scene, hold_up: Callable[[Scene, Service], Callable[[], None]]
) -> None:
    """The new topic is longer than where we stood. Either it is claimed anew, or the service stops and says so."""
    scene = duckdb_scene
    service = scene.service().start_claimed()
    before, *after = runs()
    scene.publication(before).publish()
    scene.settle()
    stood = scene.committed()
    go_on = hold_up(scene, service)
    recreate(scene.broker.bootstrap_servers, scene.topic)
    published: Documents = [document for run in after for document in run]
    scene.publication(published).publish()
    assert scene.end() > stood
    go_on()
    with suppress(ProcessError):
        service.wait_until(lambda: scene.committed() == scene.end(), "all of it read", limit_s=40)
    if not service.running:
        assert service.process.returncode == 1
        stopped = service.lines("stopped")[-1]
        assert stopped["reason"] == "OffsetOutOfRange"
        assert scene.committed() == -1
        service.start_claimed()
    scene.notes += [f"{hold_up.__name__}: {line['error']}" for line in service.lines("stopped", of_all=True)]
    scene.settle()
    scene.compare(published, "complete")
    # What was received out of its middle, before the commit that failed, had no beginning there.
    assert {letter.code for letter in scene.letters() if int(letter.headers["offset"]) >= stood} <= {"orphan"}
    assert uid_of(before) in scene.client


def test_what_the_runbook_says_of_a_topic_made_again_helps(duckdb_scene: Scene) -> None:
    """With a commit that means the old one, as of a process that asked a moment before the topic went."""
    scene = duckdb_scene
    service = scene.service(membership="dynamic").start_claimed()
    before, *after = runs()
    scene.publication(before).publish()
    scene.settle()
    assert service.stop() == 0
    commit_late = scene.keep_commit()
    recreate(scene.broker.bootstrap_servers, scene.topic)
    published: Documents = [document for run in after for document in run]
    scene.publication(published).publish()
    commit_late()
    for arguments in ((), ("--accept-gap",)):
        assert service.start(*arguments).ended(40) == 1
        stopped = service.lines("stopped")[-1]
        assert (stopped["reason"], "created again" in stopped["error"]) == ("OffsetOutOfRange", True)
    scene.reset_to_earliest()
    service.start()
    scene.settle()
    scene.compare(published, "complete")
    assert scene.letters() == []


# ---------------------------------------------------------------- partitions added


@pytest.mark.parametrize("start_offset", ["earliest", "latest"])
def test_a_partition_that_is_added_is_read_from_its_beginning(duckdb_scene: Scene, start_offset: str) -> None:
    """A run begins in it before the service knows of it."""
    scene = duckdb_scene
    old, first, second = runs()
    scene.publication(old).publish()
    service = scene.service(kafka__start_offset=start_offset).start_claimed()
    scene.publication(first).publish()
    scene.settle()
    scene.add_partitions(3)
    part = len(second) // 2
    scene.produce(*(message(*document) for document in second[:part]), partition=2)
    assert len(service.lines("claimed")) == 1, "it was known before anything was in it"
    service.wait_for("claimed", count=3, limit_s=60)
    scene.produce(*(message(*document) for document in second[part:]), partition=2)
    scene.settle(0, 2)
    scene.compare(first + second, "complete")
    assert scene.letters() == []
    assert (uid_of(old) in scene.client) == (start_offset == "earliest"), "the group's first start"
