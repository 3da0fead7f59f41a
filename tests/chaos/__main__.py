"""`python -m tests.chaos`: the fault run from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from tests.chaos import report
from tests.chaos.plan import FAULTS_PER_ACT, Act, plan
from tests.chaos.play import Result, play

STORAGES = {"duckdb": ("duckdb",), "postgresql": ("postgresql",), "both": ("duckdb", "postgresql")}


def run(acts: Sequence[Act], folder: Path, seed: int, minutes: float = float("inf")) -> list[Result]:
    """Play the acts, as many as the time allows, and write the report after each."""
    begun_s = time.monotonic()
    until_s = begun_s + 60 * minutes
    results: list[Result] = []
    for act in acts:
        if time.monotonic() > until_s:
            _tell(f"{minutes:g} minutes are over: {len(acts) - act.number} acts were not played")
            break
        _tell(f"act {act.number}: {act.parts}, {len(act.kinds)} faults")
        results.append(play(act, folder / f"act-{act.number}", _tell, until_s))
        _tell_end(results[-1])
        _write(folder, seed, results)
    return results


def _write(folder: Path, seed: int, results: Sequence[Result]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(report.markdown(seed, results))
    (folder / "report.json").write_text(report.as_json(seed, results))
    report.plot(results, folder / "recovery.svg")


def _tell(text: str) -> None:
    _say(f"{timedelta(seconds=round(time.monotonic() - _BEGUN_S))} {text}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _tell_end(result: Result) -> None:
    if result.passed:
        _tell(f"act {result.act.number}: {result.runs} runs as published, {result.seconds:.0f} s")
        return
    _tell(f"act {result.act.number}: WRONG; logs in {result.folder}")
    for wrong in (
        result.failure,
        result.differences,
        dict(result.letters),
        result.planted_lost,
        result.unexpected_ends,
    ):
        if wrong:
            _tell(f"  {wrong}")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="A seeded fault run on real parts.")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="repeats a plan")
    parser.add_argument("--faults", type=int, default=1000, help="how many are planned (1000)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no more faults after so long")
    parser.add_argument("--storage", choices=STORAGES, default="both")
    parser.add_argument("--faults-per-act", type=int, default=FAULTS_PER_ACT)
    parser.add_argument("--folder", type=Path, help="for the report, and the logs of what failed (build/chaos/SEED)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0 when every run is in Tiled as it was published, and nothing else went wrong."""
    given = _arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended in order
    folder = (given.folder or Path("build") / "chaos" / str(given.seed)).absolute()
    _say(f"seed {given.seed}; report and logs in {folder}")
    acts = plan(given.seed, given.faults, STORAGES[given.storage], given.faults_per_act)
    results = run(acts, folder, given.seed, given.minutes)
    _say(report.markdown(given.seed, results))
    return 0 if all(result.passed for result in results) else 1


_BEGUN_S = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
