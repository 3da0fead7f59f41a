"""When nearly everything is refused: one window of dead letters, however long it goes on, and nobody takes over."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.system.publishing import interleaved, runs
from tests.system.scene import Scene
from tests.system.service import Service

pytestmark = pytest.mark.real

WINDOW = 20
STAYS_S = 3.0
GARBAGE = [b"no msgpack"] * (5 * WINDOW)


def told(service: Service) -> dict[str, Any]:
    """What the status page says."""
    found: dict[str, Any] = json.loads(service.get("/status")[1])
    return found


def test_after_the_breaker_it_stays_reads_nothing_and_says_why(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    service = scene.service(limits__dead_letter_window=WINDOW).start_claimed()
    scene.produce(*GARBAGE)
    line = service.wait_for("reading_stopped")
    assert "BreakerOpen" in line["error"]
    assert "restart" in line["what_to_do"]
    letters, committed = len(scene.letters()), scene.committed()
    assert letters == committed, "what was begun is confirmed and committed"
    assert letters < len(GARBAGE)
    scene.produce(*GARBAGE)
    other = scene.service("other", membership="dynamic", limits__dead_letter_window=WINDOW).start()
    time.sleep(STAYS_S)

    assert service.get("/livez")[0] == 200
    status, body = service.get("/readyz")
    assert (status, "nothing is read any more: BreakerOpen" in body) == (503, True)
    assert told(service)["stopped"].startswith("BreakerOpen: ")
    lag = 2 * len(GARBAGE) - committed
    service.wait_until(lambda: told(service)["lag"][f"{scene.topic}[0]"] == lag, "the lag goes on being told")
    assert len(service.lines("reading_stopped")) == 1
    assert (len(scene.letters()), scene.committed()) == (letters, committed), "nobody takes any more"
    assert service.running

    assert other.stop() == 0
    assert service.stop() == 1
    assert service.lines("stopped")[-1]["reason"] == "BreakerOpen"


def test_until_the_end_it_ends_at_once(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    scene.produce(*GARBAGE)
    service = scene.service(limits__dead_letter_window=WINDOW).start("--until-end")
    assert service.ended(60) == 1
    assert service.lines("stopped")[-1]["reason"] == "BreakerOpen"


def test_after_its_cause_was_mended_a_restart_goes_on(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    service = scene.service(limits__dead_letter_window=WINDOW, limits__message_bytes_max=20).start_claimed()
    documents = interleaved(runs(1))
    scene.publication(documents).publish()
    service.wait_for("reading_stopped")
    assert service.stop() == 1
    more = interleaved(runs(1))
    scene.publication(more).publish()
    mended = scene.service("mended").start()
    scene.settle(limit_s=120)
    assert mended.stop() == 0
    scene.compare(more, "complete")
