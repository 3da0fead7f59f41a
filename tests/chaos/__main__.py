"""`python -m tests.chaos`: the fault run from the command line."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import report
from tests.chaos.plan import FAULTS_PER_ACT, Act, Kind, plan
from tests.chaos.play import Result
from tests.chaos.run import end_acts, run, say

SPARE = 0.1  # so many more are planned: one that finds nothing unsettled in three tries does not count
STORAGES = {"duckdb": ("duckdb",), "postgresql": ("postgresql",), "both": ("duckdb", "postgresql")}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="A seeded fault run on real parts.")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="repeats a plan")
    parser.add_argument("--faults", type=int, default=1000, help="how many must count (1000); a few more are planned")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no more faults after so long")
    parser.add_argument("--storage", choices=STORAGES, default="both")
    parser.add_argument("--faults-per-act", type=int, default=FAULTS_PER_ACT)
    parser.add_argument("--at-once", type=int, default=1, help="acts that are played beside each other (1)")
    parser.add_argument("--act", type=int, action="append", help="play this act of the plan alone (may be given often)")
    parser.add_argument("--folder", type=Path, help="for the report, and the logs of what failed (build/chaos/SEED)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0 when every run is in Tiled as it was published, nothing else went wrong, and enough was shown."""
    given = _arguments(arguments)
    signal.signal(signal.SIGTERM, end_acts)
    folder = (given.folder or Path("build") / "chaos" / str(given.seed)).absolute()
    say(f"seed {given.seed}; report and logs in {folder}")
    planned = math.ceil(given.faults * (1 + SPARE))
    acts = plan(given.seed, planned, STORAGES[given.storage], given.faults_per_act)
    if given.act:
        acts = [act for act in acts if act.number in given.act]
    results = run(acts, folder, given.seed, given.minutes, given.at_once)
    say(report.markdown(given.seed, results))
    lacking = [] if given.act else report.shortcomings(results, given.faults)
    lacking += unplayed(acts, results)
    for what in lacking:
        say(f"NOT SHOWN: {what}")
    return 0 if all(result.passed for result in results) and not lacking else 1


def unplayed(acts: Sequence[Act], results: Sequence[Result]) -> list[str]:
    """Name the kinds of which nothing was tried, as the acts that have them were not played."""
    played = {kind for result in results for kind in result.act.kinds}
    return [f"{kind}: not played" for kind in Kind if kind not in played and any(kind in act.kinds for act in acts)]


if __name__ == "__main__":
    sys.exit(main())
