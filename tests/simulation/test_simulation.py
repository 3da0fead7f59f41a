"""The engine against a world in which everything fails, in seeded histories; and wrong engines, to be caught.

A failing history is shown with the command that prints it step by step. `SIMULATION_HISTORIES` sets how many
run.
"""

import os
from collections import Counter

import pytest

from tiled_ingest.core.engine import Engine

from .broken import VARIANTS, Bent, caught
from .coverage import IMPOSSIBLE, Cell, Transition, possible, watched
from .faults import Fault
from .options import Options, Report
from .quick import remember_forms
from .shrink import describe, shrink
from .world import World

HISTORIES = int(os.environ.get("SIMULATION_HISTORIES", "500"))
STEPS_MIN = 60
CAUGHT_WITHIN = 200  # histories: a wrong engine must be noticed in one of so many
RARE = 5_000  # histories: in so many every possible cell of transitions by faults is met
FAILURES_SHOWN = 3

pytestmark = pytest.mark.timeout(600 + HISTORIES)


def run(options: Options) -> Report:
    return World(options, Engine).run()


@pytest.fixture(scope="module")
def played() -> tuple[list[Report], set[Cell], set[Transition]]:
    """Return the reports of all histories, and what of the automaton they met."""
    reports, cells, transitions = [], set[Cell](), set[Transition]()
    with pytest.MonkeyPatch.context() as patch, watched() as coverage:
        remember_forms(patch)
        for seed in range(HISTORIES):
            world = World(Options.of(seed), Engine)
            coverage.begin(world.faults)
            reports.append(world.run())
            cells |= coverage.met
            transitions |= coverage.transitions
    return reports, cells, transitions


@pytest.fixture(scope="module")
def reports(played: tuple[list[Report], set[Cell], set[Transition]]) -> list[Report]:
    return played[0]


def test_nothing_is_lost_nothing_is_doubled_and_everything_comes_to_rest(reports: list[Report]) -> None:
    failed = [report for report in reports if report.violations]
    shown = [describe(shrink(run, report)) for report in failed[:FAILURES_SHOWN]]
    seeds = [report.options.seed for report in failed]
    assert not failed, f"{len(failed)} of {len(reports)} histories failed, seeds {seeds}\n" + "\n".join(shown)


def test_histories_are_long_enough_to_mean_something(reports: list[Report]) -> None:
    assert min(report.steps for report in reports) >= STEPS_MIN


@pytest.mark.skipif(HISTORIES < 200, reason="too few histories to meet every fault")
def test_every_fault_was_hit(reports: list[Report]) -> None:
    hit: Counter[Fault] = sum((report.hit for report in reports), Counter())
    assert set(hit) == set(Fault), f"never hit: {set(Fault) - set(hit)}"


@pytest.mark.skipif(HISTORIES < RARE, reason="too few histories to meet every transition after every fault")
def test_every_transition_happened_after_every_fault(played: tuple[list[Report], set[Cell], set[Transition]]) -> None:
    _, cells, transitions = played
    assert {(state, trigger, fault) for state, trigger in possible() for fault in Fault} - cells == set()
    assert transitions & IMPOSSIBLE.keys() == set(), "they are possible"


def test_remembering_forms_changes_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [run(Options.of(seed)) for seed in range(10)]
    remember_forms(monkeypatch)
    assert [run(Options.of(seed)) for seed in range(10)] == plain


def test_the_documented_residual_risk_is_rare(reports: list[Report]) -> None:
    assert sum(bool(report.residual) for report in reports) <= len(reports) / 20


def test_both_storages_were_met(reports: list[Report]) -> None:
    assert {report.storage for report in reports} == {"postgresql", "duckdb"}


def test_a_history_can_be_repeated() -> None:
    assert run(Options(7)) == run(Options(7))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_a_wrong_engine_is_caught(variant: type[Bent], monkeypatch: pytest.MonkeyPatch) -> None:
    remember_forms(monkeypatch)
    assert caught(variant, CAUGHT_WITHIN)
