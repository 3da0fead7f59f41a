"""Where the service's time goes during a backlog, as a flame graph."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import arms
from tests.bench.arms import LIMIT_S
from tests.bench.bench import Bench
from tiled_ingest.demo.processes import Process

SAMPLES_A_SECOND = 200


def draw(bench: Bench, path: Path) -> bool:
    """Watch a backlog of one run and draw what it did into an SVG; `False` where the system lets nobody watch."""
    topic = bench.place.topics.backlog("floats10", 1, bench.sizes.backlog)
    with bench.storage("duckdb") as node, arms.running(bench.place, topic, node()) as (made, _):
        made.wait_for("claimed", limit_s=LIMIT_S)
        program = str(Path(sys.executable).with_name("py-spy"))
        options = ["--pid", str(made.process.pid), "--rate", str(SAMPLES_A_SECOND), "--output", str(path), "--gil"]
        watcher = Process("py-spy", [program, "record", *options], bench.place.folder / "py-spy.log")
        watcher.start()
        status = made.ended(LIMIT_S)
        watcher.wait(LIMIT_S)
    if status:
        raise RuntimeError(f"the service ended with {status}\n{made.tail(20)}")
    return path.exists()
