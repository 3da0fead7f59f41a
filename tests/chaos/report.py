"""What a fault run tells: a table by kind, numbers as JSON, a plot of the times to recover."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.plan import Kind
from tests.chaos.play import Result

SHARE_MIN = 0.03  # of the faults that were asked for must be of each kind


@dataclass(frozen=True)
class Line:
    """One kind of fault, over all acts; times in seconds."""

    kind: Kind
    injected: int
    counted: int
    times_s: list[float]

    @property
    def cells(self) -> tuple[str, ...]:
        times = self.times_s
        shown = (f"{statistics.median(times):.1f}", f"{max(times):.1f}") if times else ("-", "-")
        return (self.kind, str(self.injected), str(self.counted), *shown)


def lines(results: Iterable[Result]) -> list[Line]:
    """Return a line for each kind that was injected, in the order of `Kind`."""
    strikes = [strike for result in results for strike in result.strikes]
    found = []
    for kind in Kind:
        of_kind = [strike for strike in strikes if strike.kind is kind]
        counted = [strike for strike in of_kind if strike.counts]
        times_s = [strike.recovered_s for strike in counted if strike.recovered_s is not None]
        if of_kind:
            found.append(Line(kind, len(of_kind), len(counted), times_s))
    return found


def shortcomings(results: Sequence[Result], faults: int) -> list[str]:
    """Say what was not shown: a fault shows something only if it counts.

    As many as were asked for must count, and of every kind that is possible on the parts `SHARE_MIN` of them.
    """
    counted = Counter({line.kind: line.counted for line in lines(results)})
    possible = {kind for result in results for kind in result.act.kinds}
    least = math.floor(SHARE_MIN * faults)
    found = [] if counted.total() >= faults else [f"{counted.total()} faults count, not {faults}"]
    rare = [kind for kind in Kind if kind in possible and counted[kind] < least]
    return found + [f"{kind}: {counted[kind]} count, not {least}" for kind in rare]


def markdown(seed: int, results: Sequence[Result]) -> str:
    """Return the whole report as Markdown."""
    table = lines(results)
    times_s = [time_s for line in table for time_s in line.times_s]
    total = ("**all**", _sum(line.injected for line in table), _sum(line.counted for line in table))
    rows = [*(line.cells for line in table), (*total, *_total_times(times_s))]
    head = ("Fault", "injected", "counted", "to recover: median, s", "max, s")
    return "\n\n".join([_summary(seed, results), _table(head, rows), _table(_ACTS_HEAD, map(_act_row, results))]) + "\n"


_ACTS_HEAD = ("Act", "parts", "faults", "runs", "documents", "minutes", "wrong")


def _summary(seed: int, results: Sequence[Result]) -> str:
    rows = _total(result.rows for result in results)
    facts = {
        "Seed": seed,
        "Minutes": f"{sum(result.seconds for result in results) / 60:.0f}",
        "Runs compared": sum(result.runs for result in results),
        "of them with files of detectors": sum(result.with_files for result in results),
        "of them refused by Tiled": sum(result.refused for result in results),
        "Documents published": sum(result.documents for result in results),
        "Runs that differ": sum(len(result.differences) for result in results),
        "Rows lost": rows["missing"],
        "Rows twice": rows["duplicated"],
        "Rows that nobody published": rows["not published"],
        "Dead letters that nobody planted": _shown(_total(result.letters for result in results)),
        "Planted dead letters": f"{sum(result.planted for result in results)}, "
        f"{sum(result.planted_lost for result in results)} of them lost",
        "Services that ended by themselves": _shown(_total(result.ends for result in results)),
        "What the services said": _shown(_total(Counter(result.said) for result in results)),
        "Acts that did not end": "; ".join(result.failure for result in results if result.failure) or "none",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _act_row(result: Result) -> tuple[str, ...]:
    counted = sum(strike.counts for strike in result.strikes)
    wrong = "" if result.passed else "yes"
    numbers = (counted, result.runs, result.documents)
    return (
        str(result.act.number),
        str(result.act.parts),
        *map(str, numbers),
        f"{result.seconds / 60:.1f}",
        wrong,
    )


def as_json(seed: int, results: Sequence[Result]) -> str:
    """Return everything that was measured."""
    return json.dumps({"seed": seed, "acts": [_as_dict(result) for result in results]}, indent=1)


def _as_dict(result: Result) -> dict[str, Any]:
    strikes = [
        {"kind": strike.kind, "unsettled": strike.unsettled, "recovered_s": strike.recovered_s, "void": strike.void}
        for strike in result.strikes
    ]
    plain = (
        "runs",
        "documents",
        "with_files",
        "refused",
        "differences",
        "rows",
        "letters",
        "planted",
        "planted_lost",
        "ends",
        "said",
        "seconds",
    )
    facts = {name: getattr(result, name) for name in plain}
    head = {"act": result.act.number, "parts": str(result.act.parts), "seed": result.act.seed}
    return {**head, **facts, "failure": result.failure, "passed": result.passed, "strikes": strikes}


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the times to recover, a row for each kind, a point for each fault."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second to import, and only a run needs it

    table = [line for line in lines(results) if line.times_s][::-1]
    figure = Figure(figsize=(9, 0.6 + 0.32 * len(table)), layout="constrained")
    axes = figure.subplots()
    for row, line in enumerate(table):
        axes.plot(line.times_s, [row] * len(line.times_s), "o", color="tab:blue", alpha=0.3, markersize=5)
        axes.plot(statistics.median(line.times_s), row, "|", color="black", markersize=14)
    axes.set_yticks(range(len(table)), [f"{line.kind} ({line.counted})" for line in table])
    axes.set_xscale("log")
    axes.set_xlabel("seconds until all that was unsettled is committed (bar: median)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruled = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ruled)


def _total_times(times_s: list[float]) -> tuple[str, str]:
    return (f"{statistics.median(times_s):.1f}", f"{max(times_s):.1f}") if times_s else ("-", "-")


def _total(counts: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counts, Counter())


def _sum(numbers: Iterable[int]) -> str:
    return str(sum(numbers))


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
