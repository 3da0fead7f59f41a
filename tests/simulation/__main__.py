"""Run one history and print all that happened in it: `python -m tests.simulation SEED [--shrink]`."""

import argparse
import sys

from tiled_ingest.core.engine import Engine

from .faults import Fault
from .options import Options, Report
from .shrink import describe, shrink
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--strikes-max", type=int)
    parser.add_argument("--runs-max", type=int)
    parser.add_argument("--brief", action="store_true", help="as seven of eight histories of a campaign are")
    parser.add_argument("--storm", action="store_true", help="as one of sixteen is")
    parser.add_argument("--without", action="append", default=[], type=Fault)
    parser.add_argument("--shrink", action="store_true", help="first look for a shorter history that fails")
    given = parser.parse_args()
    smaller = given.strikes_max, frozenset(given.without), given.runs_max
    options = Options(given.seed, *smaller, brief=given.brief, storm=given.storm)
    if given.shrink:
        options = shrink(_quietly, _quietly(options)).options
    report = World(options, Engine, trace=print_line).run()
    print_line(describe(report))
    return bool(report.violations)


def _quietly(options: Options) -> Report:
    return World(options, Engine).run()


def print_line(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
