"""A failing history made shorter: fewer faults, fewer kinds of them, fewer runs; as long as it fails alike."""

import re
from collections.abc import Callable
from dataclasses import replace

from .faults import Fault
from .options import Options, Report

Run = Callable[[Options], Report]


def shrink(run: Run, report: Report) -> Report:
    """Find the shortest failing history that a few dozen attempts can."""
    best = _fewest_strikes(run, report)
    for kind in sorted(kind for kind, count in best.hit.items() if count):
        best = _better(run, best, replace(best.options, without=best.options.without | {kind}))
    for runs_max in (1, 2, 3):
        shorter = _better(run, best, replace(best.options, runs_max=runs_max))
        if shorter is not best:
            return shorter
    return best


def _fewest_strikes(run: Run, report: Report) -> Report:
    """Halve the number of strikes: failing is not monotonous in it, but a small one is found all the same."""
    best, low, high = report, 0, sum(report.hit.values())
    while low < high:
        middle = (low + high) // 2
        shorter = run(replace(report.options, strikes_max=middle))
        if _alike(shorter, report):
            best, high = shorter, middle
        else:
            low = middle + 1
    return best


def _better(run: Run, best: Report, options: Options) -> Report:
    candidate = run(options)
    return candidate if _alike(candidate, best) else best


def _alike(one: Report, other: Report) -> bool:
    """Whether they fail in the same way: the same first words, whatever the names and numbers."""
    return bool(one.violations) and _kind(one) == _kind(other)


def _kind(report: Report) -> str:
    return re.sub(r"[\w-]*\d[\w.-]*", "#", report.violations[0])[:60] if report.violations else ""


def describe(report: Report) -> str:
    """Say about a failing history how to see it again, and what it did."""
    options = report.options
    words = [f"python -m tests.simulation {options.seed}"]
    words += ["--brief"] if options.brief else []
    words += ["--storm"] if options.storm else []
    words += [f"--strikes-max {options.strikes_max}"] if options.strikes_max is not None else []
    words += [f"--runs-max {options.runs_max}"] if options.runs_max is not None else []
    words += [f"--without {kind}" for kind in sorted(options.without)]
    faults = ", ".join(f"{Fault(kind)} x{count}" for kind, count in sorted(report.hit.items())) or "no fault"
    return "\n  ".join(
        [
            " ".join(words),
            f"{report.steps} steps, {report.storage}, {report.protocol}, {faults}",
            *report.violations[:6],
        ]
    )
