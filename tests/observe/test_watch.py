"""What the loop shows of itself: it is alive when it makes progress, has nothing to do, or waits for Tiled."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tiled_ingest.core import effects as fx
from tiled_ingest.core.record import Home
from tiled_ingest.core.snapshot import EngineSnapshot, PartitionView
from tiled_ingest.observe.health import Health
from tiled_ingest.observe.metrics import Metrics
from tiled_ingest.observe.snapshot import Snapshot
from tiled_ingest.observe.watch import SAY_STOPPED_EVERY_S, Watch

NOW_S = 1_000.0


@dataclass
class Loop:
    """An engine, as far as it can be seen."""

    progress: int = 0
    busy: bool = True
    waits_for_tiled: bool = False
    letters_s: float | None = None
    ending: bool = False
    partitions: tuple[PartitionView, ...] = ()

    def snapshot(self) -> EngineSnapshot:
        down_s = 1.0 if self.waits_for_tiled else None
        return EngineSnapshot(self.partitions, (), 0, down_s, None, self.letters_s, paused=False, ending=self.ending)


@pytest.fixture
def health() -> Health:
    return Health(10.0, clock=lambda: NOW_S)


@pytest.fixture
def watch(health: Health) -> Watch:
    return Watch(Metrics(CollectorRegistry(), "test", "0"), health)


def turn(watch: Watch, loop: Loop) -> None:
    seen: Any = loop
    watch.turned(seen, SimpleNamespace(last_error="", assignments=0, lag=dict))


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


def test_one_that_stays_and_reads_nothing_is_alive_and_says_why_seldom(
    watch: Watch, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [NOW_S]
    monkeypatch.setattr("tiled_ingest.observe.watch.time.monotonic", lambda: now_s[0])
    source, engine = Source({}), Loop(busy=True)
    with structlog.testing.capture_logs() as said:
        for _ in range(5):
            watch.stays("BreakerOpen: 9 of 9", cast("Any", engine), source)
            now_s[0] += SAY_STOPPED_EVERY_S / 4
    assert [line["event"] for line in said] == ["reading_stopped"] * 2
    assert said[0]["error"] == "BreakerOpen: 9 of 9"
    assert "nothing is read any more: BreakerOpen: 9 of 9" in health.not_ready()
    health.beat(0.0)
    watch.stays("BreakerOpen: 9 of 9", cast("Any", engine), source)
    assert health.still_s <= 0.0


# ---------------------------------------------------------------- ages


WEEK_S = 7 * 86_400.0


class Source:
    last_error = ""
    assignments = 0

    def __init__(self, ends: dict[Home, int]) -> None:
        self.ends = ends

    def lag(self) -> dict[Home, tuple[int | None, int]]:
        return {home: (None, end) for home, end in self.ends.items()}


def view(partition: int, *, received: int, settled: int, age_s: float) -> PartitionView:
    return PartitionView("t", partition, True, received, settled, settled, int((time.time() - age_s) * 1000))


def seen(*partitions: PartitionView, end: int = 10) -> Snapshot:
    health = Health(60)
    watch = Watch(Metrics(CollectorRegistry(), "sim", "1"), health)
    watch.turned(Loop(partitions=partitions), Source({Home("t", each.partition): end for each in partitions}))  # type: ignore[arg-type]
    return health.snapshot


def test_the_age_is_that_of_the_oldest_record_that_waits() -> None:
    snapshot = seen(view(0, received=10, settled=4, age_s=5), view(1, received=10, settled=9, age_s=50))
    assert snapshot.oldest_unsettled_age_s == pytest.approx(50, abs=2)
    assert snapshot.lag == {"t[0]": 6, "t[1]": 1}


def test_an_idle_partition_is_not_old() -> None:
    """Its last record came last week, and is settled; beside it another partition has work."""
    idle = view(0, received=10, settled=10, age_s=WEEK_S)
    assert seen(idle).oldest_unsettled_age_s == 0
    assert seen(idle, view(1, received=10, settled=9, age_s=3)).oldest_unsettled_age_s == pytest.approx(3, abs=2)


def test_what_has_not_come_yet_does_not_make_a_settled_record_old() -> None:
    snapshot = seen(view(0, received=10, settled=10, age_s=WEEK_S), end=11)
    assert snapshot.oldest_unsettled_age_s == pytest.approx(0, abs=1)
    assert snapshot.lag == {"t[0]": 1}


def test_what_is_not_read_while_all_is_paused_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiled went away at a quiet moment, and then records came: retention must not eat them unseen."""
    now_s = time.time()
    health = Health(60)
    watch, source = Watch(Metrics(CollectorRegistry(), "sim", "1"), health), Source({Home("t", 0): 20})
    for passed_s, received, expected_s in (
        (0, 10, 0),
        (60, 10, 60),
        (60, 10, 120),
        (5, 12, 0),
        (30, 12, 30),
        (1, 20, 0),
    ):
        now_s += passed_s
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        watch._looked_s = 0.0
        settled = view(0, received=received, settled=received, age_s=WEEK_S)
        watch.turned(Loop(partitions=(settled,)), source)  # type: ignore[arg-type]
        assert health.snapshot.oldest_unsettled_age_s == pytest.approx(expected_s, abs=1)
        unread_since_ms = {"t[0]": pytest.approx((now_s - expected_s) * 1000, abs=1000)} if received < 20 else {}
        assert health.snapshot.unread_since_ms == unread_since_ms


# ---------------------------------------------------------------- rebalances


def test_a_rebalance_is_counted_once_however_many_partitions_it_brings() -> None:
    registry = CollectorRegistry()
    watch = Watch(Metrics(registry, "sim", "1"), Health(60))
    source = Source({Home("t", partition): 10 for partition in range(12)})
    counted = []
    for assignments in (0, 1, 1, 3):
        source.assignments = assignments
        for home in source.ends:
            watch.came(fx.Assigned(home, "id", None, "", 0, 10, "nonce"))
        watch.turned(Loop(), source)  # type: ignore[arg-type]
        counted.append(registry.get_sample_value("tiled_ingest_rebalances_total", {"beamline": "sim"}))
    assert counted == [0, 1, 1, 3]


# ---------------------------------------------------------------- Kafka's complaints


def test_each_complaint_of_kafkas_client_is_said_once_while_it_lasts(
    watch: Watch, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage makes librdkafka name the refused connection and that all brokers are down, in turn, for hours."""
    now_s = [NOW_S]
    monkeypatch.setattr("tiled_ingest.observe.watch.time.monotonic", lambda: now_s[0])
    refused, down = "_TRANSPORT: connection refused", "_ALL_BROKERS_DOWN: 1/1 brokers are down"
    source = Source({})
    said = []
    for error in (refused, down, refused, down, "", refused):
        with structlog.testing.capture_logs() as lines:
            source.last_error = error
            watch.turned(Loop(), source)  # type: ignore[arg-type]
        said.append([line["error"] for line in lines])
        assert (f"Kafka's client says: {error}" in health.not_ready()) == bool(error)
        now_s[0] += 2.0
    assert said == [[refused], [down], [], [], [], [refused]]
