"""Many histories, in several processes, in portions that are kept: a campaign goes on where it was stopped.

`python -m tests.simulation.campaign --histories 100000` runs what is missing and writes the report,
`--variants` counts how many histories it takes to catch each wrong engine, `--report` only writes. Beside the
report stand its numbers; histories that were played with the present code count from there, too, on any machine.
"""

import argparse
import ast
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tiled_ingest.core.engine import Engine

from .coverage import IMPOSSIBLE, possible, watched
from .faults import Fault
from .options import Options
from .quick import remember_forms
from .report import write_report
from .variants import VARIANTS, caught
from .world import World

PORTION = 250
STEPS_MIN = 60  # of a history
RESIDUAL_SHARE_MAX = 0.05  # of the histories meet a risk that is documented
ROOT = Path(__file__).parents[2]
LOOP = "service/tiled_ingest/ingestor.py"
BESIDE = frozenset(
    {"campaign.py", "report.py", "coverage.py", "broken.py", "broken_loops.py", "variants.py", "shrink.py"}
)
FOLDER = ROOT / "build" / "simulation"
NUMBERS = ROOT / "docs" / "simulation.json"  # of the report


@dataclass
class Portion:
    """What became of the histories of a range of seeds.

    Attributes
    ----------
    source
        Names the code that ran.
    cpu_s
        Of the process.
    cells
        In how many histories a transition happened after a fault had struck; keys are `state trigger fault`.
    violations
        By seed: the first thing that must not happen.
    """

    first: int
    count: int
    source: str
    cpu_s: float = 0.0
    steps: int = 0
    steps_min: int = 1 << 30
    hit: Counter[str] = field(default_factory=Counter)
    histories_hit: Counter[str] = field(default_factory=Counter)
    cells: Counter[str] = field(default_factory=Counter)
    transitions: Counter[str] = field(default_factory=Counter)
    storages: Counter[str] = field(default_factory=Counter)
    protocols: Counter[str] = field(default_factory=Counter)
    residual: int = 0
    violations: dict[str, str] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The seed after the last one."""
        return self.first + self.count

    def followed_by(self, other: "Portion") -> "Portion":
        """Return both as one; the other one begins where this one ends."""
        both = vars(self) | {name: held + getattr(other, name) for name, held in vars(self).items() if name in _SUMS}
        violations = self.violations | other.violations
        return Portion(**both | {"violations": violations, "steps_min": min(self.steps_min, other.steps_min)})


_SUMS = {"count", "cpu_s", "steps", "hit", "histories_hit", "cells", "transitions", "storages", "protocols", "residual"}


def joined(portions: Iterable[Portion]) -> list[Portion]:
    """Return portions in order, and as one those that follow each other; what was there before counts once."""
    found: list[Portion] = []
    for portion in sorted(portions, key=lambda each: (each.first, -each.count)):
        if not found or portion.first > found[-1].end:
            found.append(portion)
        elif portion.first == found[-1].end:
            found[-1] = found[-1].followed_by(portion)
    return found


def play(first: int, count: int, source: str) -> Portion:
    """Run the histories of these seeds."""
    portion = Portion(first, count, source)
    began_s = time.process_time()
    with pytest.MonkeyPatch.context() as patch, watched() as coverage:
        remember_forms(patch)
        for seed in range(first, first + count):
            world = World(Options.of(seed), Engine)
            coverage.begin(world.faults)
            report = world.run()
            portion.steps += report.steps
            portion.steps_min = min(portion.steps_min, report.steps)
            portion.hit.update({str(fault): number for fault, number in report.hit.items()})
            portion.histories_hit.update(map(str, report.hit))
            portion.cells.update(" ".join(cell) for cell in coverage.met)
            portion.transitions.update(" ".join(transition) for transition in coverage.transitions)
            portion.storages[report.storage] += 1
            portion.protocols[report.protocol] += 1
            portion.residual += bool(report.residual)
            if report.violations:
                portion.violations[str(seed)] = report.violations[0]
    portion.cpu_s = time.process_time() - began_s
    return portion


def source_digest() -> str:
    """Name the code that a history runs (the loop, the core, the models), whatever its comments say."""
    files = [*ROOT.glob("service/tiled_ingest/core/**/*.py"), *ROOT.glob("tests/simulation/*.py")]
    used = [path for path in sorted(files) if path.name not in BESIDE and not path.name.startswith("test_")]
    texts = [ast.dump(ast.parse(path.read_bytes())).encode() for path in (*used, ROOT / LOOP)]
    return hashlib.blake2b(b"\0".join(texts), digest_size=8).hexdigest()


# ---------------------------------------------------------------- portions that are kept


def kept(folder: Path, source: str, numbers: Path) -> list[Portion]:
    """Return what was played with the present code: it stands in the folder, or was written beside the report."""
    found = [json.loads(path.read_text()) for path in folder.glob("portion-*.json")]
    found += json.loads(numbers.read_text())["portions"] if numbers.exists() else []
    return joined(_portion(each) for each in found if each["source"] == source)


def _portion(found: Mapping[str, Any]) -> Portion:
    counters = {name: Counter(found[name]) for name in found if isinstance(found[name], dict)}
    return Portion(**{**found, **counters, "violations": found["violations"]})


def _keep(folder: Path, portion: Portion) -> None:
    path = folder / f"portion-{portion.first:09d}.json"
    path.with_suffix(".new").write_text(json.dumps(vars(portion)))
    path.with_suffix(".new").rename(path)


def play_missing(folder: Path, wanted: Sequence[int], processes: int, limit_s: float) -> None:
    """Play the portions that begin with these seeds; what was begun when the time is over is finished."""
    source, until_s = source_digest(), time.monotonic() + limit_s
    with ProcessPoolExecutor(processes) as pool:
        waiting = iter(wanted)
        under_way = {pool.submit(play, at, PORTION, source) for at in islice(waiting, processes)}
        while under_way:
            ended = next(as_completed(under_way))
            under_way.discard(ended)
            portion = ended.result()
            _keep(folder, portion)
            _tell(portion, len(wanted))
            at = next(waiting, None) if time.monotonic() < until_s else None
            if at is not None:
                under_way.add(pool.submit(play, at, PORTION, source))


def _tell(portion: Portion, portions: int) -> None:
    wrong = f", WRONG: {portion.violations}" if portion.violations else ""
    rate = portion.count / portion.cpu_s
    sys.stdout.write(f"seeds {portion.first}-{portion.first + portion.count - 1} of {portions} portions: "
                     f"{rate:.1f} histories per second of CPU{wrong}\n")  # fmt: skip
    sys.stdout.flush()


def missing(portions: Iterable[Portion], first: int, histories: int) -> list[int]:
    """Return the first seeds of the portions of a range that were not played."""
    played = {at for portion in portions for at in range(portion.first, portion.end, PORTION)}
    return [at for at in range(first, first + histories, PORTION) if at not in played]


def catch_variants(folder: Path, most: int) -> list[str]:
    """Count for each wrong engine how many histories it takes, and keep it; what is known of the present code stays.

    Returns those that were not caught.
    """
    path, source = folder / "variants.json", source_digest()
    known = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, tuple[int, str] | None] = known.get("caught", {}) if known.get("source") == source else {}
    with pytest.MonkeyPatch.context() as patch:
        remember_forms(patch)
        for variant in VARIANTS:
            name = variant.__name__
            if not found.get(name):
                found[name] = caught(variant, most)
                sys.stdout.write(f"{name}: {found[name]}\n")
                sys.stdout.flush()
            path.write_text(json.dumps({"most": most, "source": source, "caught": found}, indent=1))
    return uncaught(found)


def uncaught(found: Mapping[str, object]) -> list[str]:
    """Name the wrong engines that no history showed to be wrong, as far as they were tried."""
    return [f"{variant.__name__} was not caught" for variant in VARIANTS if not found.get(variant.__name__)]


def main() -> int:
    """Do what is asked for; returns 1, and says why, if it did not show what it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.campaign", description=__doc__)
    parser.add_argument("--histories", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no portion after so long")
    parser.add_argument("--variants", type=int, default=0, metavar="MOST", help="catch each within so many histories")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--report", type=Path, help="write the report to this file (docs/simulation.md)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.histories:
        wanted = missing(kept(given.folder, source_digest(), NUMBERS), given.first, given.histories)
        play_missing(given.folder, wanted, given.processes, 60 * given.minutes)
    lacking = catch_variants(given.folder, given.variants) if given.variants else []
    portions = kept(given.folder, source_digest(), NUMBERS)
    if given.report and portions:
        caught = given.folder / "variants.json"
        plain = [vars(portion) for portion in portions]
        write_report(given.report, plain, json.loads(caught.read_text()) if caught.exists() else None)
        given.report.with_suffix(".json").write_text(json.dumps({"portions": plain}, indent=1) + "\n")
    if given.histories or given.report or not given.variants:
        lacking += shortcomings(portions, given.first, given.histories)
    sys.stdout.writelines(f"NOT SHOWN: {what}\n" for what in lacking)
    return bool(lacking)


def shortcomings(portions: Sequence[Portion], first: int, histories: int) -> list[str]:
    """Say what the portions that were played do not show, of what a campaign of so many histories must."""
    left = missing(portions, first, histories)
    total = sum(portion.count for portion in portions)
    found = [f"{len(left)} portions of {PORTION} histories were not played"] if left else []
    found += [] if portions else ["no history was played with the present code"]
    found += [f"seed {seed}: {why}" for portion in portions for seed, why in portion.violations.items()]
    found += [f"a history has {portion.steps_min} steps" for portion in portions if portion.steps_min < STEPS_MIN]
    if sum(portion.residual for portion in portions) > total * RESIDUAL_SHARE_MAX:
        found.append("the documented risk is not rare")
    return found + [f"empty cell: {cell}" for cell in _unmet(portions)]


def _unmet(portions: Sequence[Portion]) -> list[str]:
    """Name the transitions that never happened after one of the faults, and those that were thought impossible."""
    cells = sum((portion.cells for portion in portions), Counter())
    transitions = sum((portion.transitions for portion in portions), Counter())
    wanted = [f"{state} {trigger} {fault}" for state, trigger in possible() for fault in Fault]
    names = [f"{state} {trigger}" for state, trigger in IMPOSSIBLE]
    return [cell for cell in wanted if not cells[cell]] + [name for name in names if transitions[name]]


if __name__ == "__main__":
    sys.exit(main())
