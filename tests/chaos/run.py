"""Acts one after the other, or some beside each other, each in a process; the report is written after each."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import datetime
from itertools import islice
from pathlib import Path

from tests.chaos import report
from tests.chaos.plan import Act
from tests.chaos.play import Result, play


def run(acts: Sequence[Act], folder: Path, seed: int, minutes: float = float("inf"), at_once: int = 1) -> list[Result]:
    """Play the acts, as many as the time allows, some of them at once, and write the report after each."""
    until_s = time.monotonic() + 60 * minutes
    results: list[Result] = []
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _end_in_order) as pool:
        waiting = iter(acts)
        under_way = {pool.submit(_play, act, folder, until_s) for act in islice(waiting, at_once)}
        while under_way:
            ended = next(as_completed(under_way))
            under_way.discard(ended)
            results.append(ended.result())
            results.sort(key=lambda result: result.act.number)
            _write(folder, seed, results)
            if time.monotonic() < until_s and (act := next(waiting, None)):
                under_way.add(pool.submit(_play, act, folder, until_s))
    if left := len(acts) - len(results):
        say(f"{minutes:g} minutes are over: {left} acts were not played")
    return results


def _play(act: Act, folder: Path, until_s: float) -> Result:
    """Play one act in this process."""
    say(f"act {act.number}: {act.parts}, {len(act.kinds)} faults")
    result = play(act, folder / f"act-{act.number}", lambda text: say(f"act {act.number}: {text}"), until_s)
    _tell_end(result)
    return result


def _end_in_order(*_: object) -> None:
    """Let an act end what it started when this process is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _write(folder: Path, seed: int, results: Sequence[Result]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(report.markdown(seed, results))
    (folder / "report.json").write_text(report.as_json(seed, results))
    report.plot(results, folder / "recovery.svg")


def say(text: str) -> None:
    sys.stdout.write(f"{datetime.now():%H:%M:%S} {text}\n")  # noqa: DTZ005 - local, as who looks at it
    sys.stdout.flush()


def _tell_end(result: Result) -> None:
    if result.passed:
        say(f"act {result.act.number}: {result.runs} runs as published, {result.seconds:.0f} s")
        return
    say(f"act {result.act.number}: WRONG; logs in {result.folder}")
    for wrong in (
        result.failure,
        result.differences,
        dict(result.letters),
        result.planted_lost,
        result.unexpected_ends,
    ):
        if wrong:
            say(f"act {result.act.number}:   {wrong}")


def end_acts(*_: object) -> None:
    """End the run, and every act in order, as a handler of SIGTERM."""
    for child in multiprocessing.active_children():
        child.terminate()
    sys.exit(143)
