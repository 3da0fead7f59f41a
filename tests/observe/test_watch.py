"""What the loop shows of itself: it is alive when it makes progress, has nothing to do, or waits for Tiled."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tiled_ingest.core.snapshot import EngineSnapshot
from tiled_ingest.observe.health import Health
from tiled_ingest.observe.metrics import Metrics
from tiled_ingest.observe.watch import Watch

NOW_S = 1_000.0


@dataclass
class Loop:
    """An engine, as far as it can be seen."""

    progress: int = 0
    busy: bool = True
    waits_for_tiled: bool = False
    letters_s: float | None = None
    ending: bool = False

    def snapshot(self) -> EngineSnapshot:
        down_s = 1.0 if self.waits_for_tiled else None
        return EngineSnapshot((), (), 0, down_s, self.letters_s, paused=False, ending=self.ending)


@pytest.fixture
def health() -> Health:
    return Health(10.0, clock=lambda: NOW_S)


@pytest.fixture
def watch(health: Health) -> Watch:
    return Watch(Metrics(CollectorRegistry(), "test", "0"), health)


def turn(watch: Watch, loop: Loop) -> None:
    seen: Any = loop
    watch.turned(seen, SimpleNamespace(last_error="", lag=dict))


@pytest.mark.parametrize(
    ("loop", "alive"),
    [
        (Loop(busy=True), False),
        (Loop(busy=True, progress=1), True),
        (Loop(busy=False), True),
        (Loop(busy=True, waits_for_tiled=True), True),
    ],
)
def test_a_loop_that_only_turns_is_not_alive(
    watch: Watch, health: Health, monkeypatch: pytest.MonkeyPatch, loop: Loop, alive: bool
) -> None:
    health.beat(NOW_S - 100)
    monkeypatch.setattr("tiled_ingest.observe.watch.time.monotonic", lambda: NOW_S)
    turn(watch, loop)
    assert (health.not_live() == []) is alive


@pytest.mark.parametrize(
    ("loop", "reason"),
    [
        (Loop(ending=True), "the service is stopping"),
        (Loop(letters_s=60.0), "a dead letter was not confirmed"),
        (Loop(waits_for_tiled=True), "Tiled cannot be reached"),
    ],
)
def test_why_it_is_not_ready(watch: Watch, health: Health, loop: Loop, reason: str) -> None:
    turn(watch, loop)
    assert reason in health.not_ready()
