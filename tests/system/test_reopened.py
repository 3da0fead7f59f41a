"""A run falls silent, is given up, and goes on: Tiled has all of it once, whoever dies meanwhile, on both storages."""

from __future__ import annotations

import pytest

from tests.system.publishing import Publication, message, runs, uid_of
from tests.system.scene import Scene
from tests.system.service import Service
from tests.system.test_crashes import API, UID

pytestmark = pytest.mark.real

IDLE_S_MAX = 2.0
NODE_UPDATED = rf"{API}/metadata/{UID}\?"
NOTE = "Given up as abandoned, and opened again as its documents went on"


def given_up(scene: Scene) -> tuple[Service, Publication]:
    """Half of a run is published, and after a while given up; nothing of it holds the commit or the resume point."""
    service = scene.service(runs__idle_s_max=IDLE_S_MAX).start_claimed()
    publication = scene.publication(runs(1)[0])
    publication.publish_to(0.5)
    service.wait_for("run_closed", state="abandoned")
    service.wait_until(lambda: scene.resume_point() == scene.end(), "the run holds nothing", poll_s=0.1)
    scene.compare(publication.published, "abandoned")
    return service, publication


def assert_whole(scene: Scene, publication: Publication) -> None:
    publication.publish()
    scene.settle()
    scene.verify()
    running = next(service for service in scene.services if service.running)
    running.wait_until(lambda: scene.resume_point() == scene.end(), "nothing is held", poll_s=0.1)
    notes = scene.client[uid_of(publication.published)].metadata["notes"]
    assert [note for note in notes if note.startswith(NOTE)], notes


def test_a_run_that_was_given_up_goes_on(scene: Scene) -> None:
    service, publication = given_up(scene)
    scene.produce(message(*publication.published[-1]))  # a repetition opens nothing
    scene.settle()
    assert service.lines("run_reopened") == []
    assert_whole(scene, publication)
    assert len(service.lines("run_reopened")) == 1
    assert service.lines("switched") == []  # its rows are appended to the tables that it had


def test_killed_after_a_run_was_opened_again(scene: Scene) -> None:
    service, publication = given_up(scene)
    publication.publish_to(0.7)
    service.wait_for("run_reopened")
    service.kill()
    publication.publish_to(0.8)
    service.start_claimed()
    assert_whole(scene, publication)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_its_node_is_told_that_it_is_open(scene: Scene, when: str) -> None:
    """The commit names the run already: who comes next opens it, whether or not its predecessor has."""
    service, publication = given_up(scene)
    cut = scene.cut_at("PATCH", NODE_UPDATED, service.kill, when=when)
    publication.publish_to(0.7)
    scene.notes.append(str(scene.wait_for(cut)))
    assert service.lines("run_reopened") == []
    assert scene.resume_point() == 0
    service.start_claimed()
    assert_whole(scene, publication)


def test_a_run_that_was_given_up_before_a_restart_does_not_go_on(duckdb_scene: Scene) -> None:
    """What it was is forgotten, and nothing says that the log is to be read from its start: `dlq redrive` does."""
    scene = duckdb_scene
    service, publication = given_up(scene)
    before = list(publication.published)
    service.kill()
    service.start_claimed()
    publication.publish()
    scene.settle()
    scene.compare(before, "abandoned")
    assert {letter.code for letter in scene.letters()} == {"orphan"}
    assert len(scene.letters()) == len(publication.published) - len(before)
