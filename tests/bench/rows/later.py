"""Rows of what is not built yet: they say so instead of a number."""

from __future__ import annotations

from tests.bench.bench import Bench
from tests.bench.figures import Figure, Goal

NOT_YET = "not available yet"


def external(_: Bench) -> list[Figure]:
    """Fly scans: 10 detectors, a stream_datum every 10 ms."""
    goals = Goal("ratio", ">=", 20), Goal("value", "<=", 0.05)
    return [
        Figure("external", "fly scans, 10 detectors", "stream_datums/s", (), "TiledWriter", (), goals[0], NOT_YET),
        Figure("external", "requests for a stream_datum", "", (), goal=goals[1], note=NOT_YET),
    ]
