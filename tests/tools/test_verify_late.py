"""What a dead owner's request does that lands after the stop's audit, and that `verify` finds it (how-it-works.md)."""

from __future__ import annotations

import pytest

from tests.system.publishing import Documents, interleaved, runs, uid_of
from tests.system.scene import Scene
from tests.system.test_crashes import LIVE, PARTITION, SOURCE, inherit, killed_while_held, let_go
from tests.tools.test_verify import sentences
from tests.tools.test_verify_topic import checked, small_run

pytestmark = pytest.mark.real


def settled(scene: Scene) -> None:
    """All is published, and in Tiled as it was; the service is gone."""
    for publication in scene.publications:
        publication.pause()
        publication.publish()
    scene.settle()
    scene.verify()
    assert scene.services[0].stop() == 0
    assert checked(scene).passed


def test_an_append_that_lands_after_the_audit_changes_nothing(scene: Scene) -> None:
    service, publication = scene.service(), scene.publication(interleaved(runs()))
    held, *_ = killed_while_held(scene, service, publication, "PATCH", rf"{PARTITION}/.*/primary{LIVE}", 0.5)
    service.start()
    settled(scene)
    let_go(held)
    scene.notes.append(f"the late append was answered {held.exchanges[0].status}")
    assert checked(scene).passed
    scene.verify()


def test_a_switch_that_lands_after_the_audit_is_found(scene: Scene) -> None:
    service, publication = scene.service(), scene.publication(interleaved(runs()))
    inherit(scene, service, publication)
    held, run, stream = killed_while_held(scene, service, publication, "PUT", rf"{SOURCE}/.*/primary{LIVE}", 0.6)
    service.start()
    settled(scene)
    let_go(held)
    assert held.exchanges[0].status == 200
    report = checked(scene)
    assert not report.passed
    (found,) = [each for each in report.runs if not each.is_same]
    counts = {each.name: each.counts for each in found.streams}
    assert found.uid == run
    assert counts[stream].missing > 0
    assert counts[stream].found + counts[stream].missing == counts[stream].expected, "the rest is there, once"


def bare_run(rows: int) -> Documents:
    """A run whose table has two columns only: its events say that something happened, and no value."""
    documents = small_run([0] * rows)
    for name, doc in documents:
        if name == "descriptor":
            doc["data_keys"] = {}
        elif name == "event":
            doc["data"], doc["timestamps"] = {}, {}
    return documents


def test_an_append_to_two_columns_that_lands_after_the_audit_is_found(scene: Scene) -> None:
    """They have two orders: the third owner's table has the first one's, and takes what that one sent."""
    documents = bare_run(30)
    service, publication = scene.service(), scene.publication(documents)
    held, run, _ = killed_while_held(scene, service, publication, "PATCH", rf"{PARTITION}/.*{LIVE}", 0.3)
    assert run == uid_of(documents)
    publication.pause()
    service.start()  # the second owner
    publication.publish_to(0.6)
    service.wait_until(lambda: scene.committed() == scene.end(), "all so far committed", poll_s=0.1)
    service.kill()
    service.start()  # the third
    settled(scene)
    before = checked(scene).runs[0].streams[0].counts.found
    let_go(held)
    assert held.exchanges[0].status == 200
    report = checked(scene)
    counts = report.runs[0].streams[0].counts
    assert not report.passed
    assert counts.found > before == counts.expected
    assert counts.duplicated == counts.found - before, sentences(report.runs[0])
