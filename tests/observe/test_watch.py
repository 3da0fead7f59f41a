"""What the loop shows of where it stands."""

import time

import pytest
from prometheus_client import CollectorRegistry

from tiled_ingest.core.record import Home
from tiled_ingest.core.snapshot import EngineSnapshot, PartitionView
from tiled_ingest.observe.health import Health
from tiled_ingest.observe.metrics import Metrics
from tiled_ingest.observe.snapshot import Snapshot
from tiled_ingest.observe.watch import Watch

WEEK_S = 7 * 86_400.0


class Engine:
    """Only what the watch looks at."""

    def __init__(self, *partitions: PartitionView) -> None:
        self.partitions = partitions

    def snapshot(self) -> EngineSnapshot:
        return EngineSnapshot(self.partitions, (), 0, None, paused=False)


class Source:
    last_error = ""

    def __init__(self, ends: dict[Home, int]) -> None:
        self.ends = ends

    def lag(self) -> dict[Home, tuple[int | None, int]]:
        return {home: (None, end) for home, end in self.ends.items()}


def view(partition: int, *, received: int, settled: int, age_s: float) -> PartitionView:
    return PartitionView("t", partition, True, received, settled, settled, int((time.time() - age_s) * 1000))


def seen(*partitions: PartitionView, end: int = 10) -> Snapshot:
    health = Health(60)
    watch = Watch(Metrics(CollectorRegistry(), "sim", "1"), health)
    watch.turned(Engine(*partitions), Source({Home("t", each.partition): end for each in partitions}))  # type: ignore[arg-type]
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
    assert snapshot.oldest_unsettled_age_s == 0
    assert snapshot.lag == {"t[0]": 1}
