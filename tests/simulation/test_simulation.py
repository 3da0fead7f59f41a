"""The engine against a world in which everything fails, in seeded histories; and wrong engines, to be caught.

A failing history is shown with the command that prints it step by step. `SIMULATION_HISTORIES` sets how many
run.
"""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tiled_ingest.core.engine import Engine

from .broken import Bent
from .campaign import PORTION as CAMPAIGN_PORTION
from .campaign import RESIDUAL_SHARE_MAX, STEPS_MIN, Portion, kept, missing, shortcomings, uncaught
from .coordinator import PROTOCOLS
from .faults import Fault
from .options import Options, Report
from .quick import remember_forms
from .shrink import describe, shrink
from .variants import VARIANTS, caught
from .world import World

HISTORIES = int(os.environ.get("SIMULATION_HISTORIES", "2000"))
PORTION = 500  # histories in one test: enough to meet every fault
CAUGHT_WITHIN = 200  # histories: a wrong engine must be noticed in one of so many
FAILURES_SHOWN = 3

pytestmark = pytest.mark.timeout(600 + PORTION)


def run(options: Options) -> Report:
    return World(options, Engine).run()


@pytest.mark.parametrize("first", range(0, HISTORIES, PORTION))
def test_nothing_is_lost_nothing_is_doubled_and_everything_comes_to_rest(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_forms(monkeypatch)
    reports = [run(Options.of(seed)) for seed in range(first, first + PORTION)]
    failed = [report for report in reports if report.violations]
    shown = [describe(shrink(run, report)) for report in failed[:FAILURES_SHOWN]]
    seeds = [report.options.seed for report in failed]
    assert not failed, f"{len(failed)} of {len(reports)} histories failed, seeds {seeds}\n" + "\n".join(shown)
    _assert_they_mean_something(reports)


def _assert_they_mean_something(reports: list[Report]) -> None:
    assert min(report.steps for report in reports) >= STEPS_MIN
    assert {report.storage for report in reports} == {"postgresql", "duckdb"}
    assert {report.protocol for report in reports} == set(PROTOCOLS)
    hit: Counter[Fault] = sum((report.hit for report in reports), Counter())
    assert set(hit) == set(Fault), f"never hit: {set(Fault) - set(hit)}"
    assert sum(bool(report.residual) for report in reports) <= len(reports) * RESIDUAL_SHARE_MAX, (
        "the documented risk is rare"
    )


def test_remembering_forms_changes_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [run(Options.of(seed)) for seed in range(10)]
    remember_forms(monkeypatch)
    assert [run(Options.of(seed)) for seed in range(10)] == plain


def test_a_history_can_be_repeated() -> None:
    assert run(Options(7)) == run(Options(7))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_a_wrong_engine_is_caught(variant: type[Bent], monkeypatch: pytest.MonkeyPatch) -> None:
    remember_forms(monkeypatch)
    assert caught(variant, CAUGHT_WITHIN)


def test_a_campaign_says_what_it_did_not_show() -> None:
    def told(portion: Portion, histories: int) -> str:
        return "\n".join(shortcomings([portion], 0, histories))

    fine = Portion(0, CAMPAIGN_PORTION, "code", steps_min=STEPS_MIN)
    assert "not played" not in told(fine, CAMPAIGN_PORTION)
    assert "1 portions of" in told(fine, CAMPAIGN_PORTION + 1)
    assert "empty cell: " in told(fine, CAMPAIGN_PORTION)
    assert "59 steps" in told(replace(fine, steps_min=59), CAMPAIGN_PORTION)
    assert "seed 7: lost" in told(replace(fine, violations={"7": "lost"}), CAMPAIGN_PORTION)
    assert "not rare" in told(replace(fine, residual=CAMPAIGN_PORTION // 10), CAMPAIGN_PORTION)
    assert shortcomings([], 0, 0) != []


def test_what_was_played_counts_once_wherever_it_is_kept(tmp_path: Path) -> None:
    def part(first: int, portions: int = 1, source: str = "code") -> Portion:
        count = portions * CAMPAIGN_PORTION
        return Portion(first * CAMPAIGN_PORTION, count, source, steps=count, steps_min=60 + first, hit=Counter(crash=1))

    (tmp_path / "numbers.json").write_text(json.dumps({"portions": [vars(part(0, 3)), vars(part(9, source="old"))]}))
    for each in (part(1), part(3), part(5)):
        (tmp_path / f"portion-{each.first:09d}.json").write_text(json.dumps(vars(each)))
    found = kept(tmp_path, "code", tmp_path / "numbers.json")
    four = replace(part(0, 4), hit=Counter(crash=2))
    assert found == [four, part(5)]
    assert [at // CAMPAIGN_PORTION for at in missing(found, 0, 7 * CAMPAIGN_PORTION)] == [4, 6]


def test_a_campaign_notices_an_engine_that_was_not_caught() -> None:
    found = {variant.__name__: (1, "seen") for variant in VARIANTS}
    assert uncaught(found) == []
    assert uncaught({**found, "SwapsRows": None}) == ["SwapsRows was not caught"]
