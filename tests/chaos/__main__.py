"""`python -m tests.chaos`: the fault run from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import report
from tests.chaos.plan import FAULTS_PER_ACT, plan
from tests.chaos.run import end_acts, run, say

STORAGES = {"duckdb": ("duckdb",), "postgresql": ("postgresql",), "both": ("duckdb", "postgresql")}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="A seeded fault run on real parts.")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="repeats a plan")
    parser.add_argument("--faults", type=int, default=1000, help="how many are planned (1000)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no more faults after so long")
    parser.add_argument("--storage", choices=STORAGES, default="both")
    parser.add_argument("--faults-per-act", type=int, default=FAULTS_PER_ACT)
    parser.add_argument("--at-once", type=int, default=1, help="acts that are played beside each other (1)")
    parser.add_argument("--folder", type=Path, help="for the report, and the logs of what failed (build/chaos/SEED)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0 when every run is in Tiled as it was published, and nothing else went wrong."""
    given = _arguments(arguments)
    signal.signal(signal.SIGTERM, end_acts)
    folder = (given.folder or Path("build") / "chaos" / str(given.seed)).absolute()
    say(f"seed {given.seed}; report and logs in {folder}")
    acts = plan(given.seed, given.faults, STORAGES[given.storage], given.faults_per_act)
    results = run(acts, folder, given.seed, given.minutes, given.at_once)
    say(report.markdown(given.seed, results))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
