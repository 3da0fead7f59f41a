"""`python -m tests.bench [--quick] [--only ROW ...] [--repeat N]`: all rows of the table in one go."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from pathlib import Path

import psutil

from tests.bench import flame, report
from tests.bench.bench import QUICK, Bench, Sizes
from tests.bench.figures import Figure
from tests.bench.places import Place
from tests.bench.rows import ROWS

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Run the rows, tell them as they come, and write the report."""
    options = _options()
    there = report.Circumstances(
        dt.datetime.now(dt.UTC).date().isoformat(), 1 if options.quick else options.repeat, psutil.getloadavg()[0]
    )
    sizes = QUICK if options.quick else Sizes().scaled(options.scale)
    into = options.into or (None if options.quick or options.only else DOCS / "performance")
    figures = run(options.only or list(ROWS), there.repeat, sizes, into, quick=options.quick)
    if into is not None:
        page = DOCS / "performance.md" if into == DOCS / "performance" else None
        report.write(figures, there, into, page)
    _say(report.markdown(figures, there))


def run(names: list[str], repeat: int, sizes: Sizes, into: Path | None, *, quick: bool) -> list[Figure]:
    """Run some of the rows; if the results are kept, draw where the time of a backlog goes, too."""
    figures: list[Figure] = []
    with Place() as place:
        bench = Bench(place, sizes, repeat, quick=quick, log=_say)
        for name in names:
            began_s = time.monotonic()
            bench.log(f"{name}: {(ROWS[name].__doc__ or '').splitlines()[0]}")
            figures += ROWS[name](bench)
            bench.log(f"    {time.monotonic() - began_s:.0f} s in all")
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
            drawn = flame.draw(bench, into / "flame.svg")
            bench.log("flame graph drawn" if drawn else "no flame graph: py-spy may not watch other processes here")
    return figures


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny, once: does it run, and are the results right?")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"some rows only: {', '.join(ROWS)}")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often; the table shows medians (3)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="so many times the usual events (1)")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="where to write (all rows: docs/performance)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
