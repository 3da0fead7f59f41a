"""The breaker trips when nearly everything is refused, and only then."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_ingest.core.breaker import NOT_COUNTED, Breaker
from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.policy import Policy

POLICY = Policy(breaker_window=10, breaker_share_max=0.5)
BAD = InvalidDocument("undecodable", "no msgpack")


def test_it_trips_when_more_than_the_share_of_the_last_is_refused() -> None:
    breaker = Breaker(POLICY)
    for _ in range(5):
        breaker.passed()
    for _ in range(5):
        breaker.refused(BAD)
    assert breaker.opened is None
    breaker.refused(BAD)
    assert re.match(r"6 of the last 10 .*undecodable", str(breaker.opened))


def test_it_waits_for_a_full_window() -> None:
    breaker = Breaker(POLICY)
    for _ in range(9):
        breaker.refused(BAD)
    assert breaker.opened is None
    breaker.refused(BAD)
    assert breaker.opened is not None


def test_half_is_not_more_than_half() -> None:
    breaker = Breaker(POLICY)
    for _ in range(50):
        breaker.refused(BAD)
        breaker.passed()
    assert breaker.opened is None


def test_what_passes_makes_the_past_forgotten() -> None:
    breaker = Breaker(POLICY)
    for _ in range(9):
        breaker.refused(BAD)
    for _ in range(10):
        breaker.passed()
    for _ in range(5):
        breaker.refused(BAD)
    assert breaker.opened is None
    breaker.refused(BAD)
    assert breaker.opened is not None


@pytest.mark.parametrize("code", sorted(NOT_COUNTED))
def test_decisions_are_no_surprises(code: str) -> None:
    breaker = Breaker(POLICY)
    for _ in range(100):
        breaker.refused(InvalidDocument(code, "decided"))
    assert breaker.opened is None


def test_a_share_of_one_never_trips() -> None:
    breaker = Breaker(Policy(breaker_window=3, breaker_share_max=1.0))
    for _ in range(30):
        breaker.refused(BAD)
    assert breaker.opened is None


@given(st.lists(st.booleans(), max_size=100), st.integers(1, 12), st.floats(0, 1))
def test_it_trips_exactly_when_a_count_says_so(documents: list[bool], window: int, share: float) -> None:
    breaker = Breaker(Policy(breaker_window=window, breaker_share_max=share))
    for number, refused in enumerate(documents, 1):
        last = documents[max(0, number - window) : number]
        expected = refused and number >= window and sum(last) > share * window
        before = breaker.opened
        breaker.refused(BAD) if refused else breaker.passed()
        assert (breaker.opened is not before) == (expected and before is None)


# ---------------------------------------------------------------- runs


def test_it_trips_when_tiled_refuses_nearly_every_run() -> None:
    breaker = Breaker(POLICY)
    for _ in range(5):
        breaker.run_ended()
    for _ in range(5):
        breaker.run_failed("no")
    assert breaker.opened is None
    breaker.run_failed("no")
    assert re.match(r"6 of the last 10 runs .*: no", str(breaker.opened))


def test_one_poisoned_run_stops_nothing_and_documents_do_not_dilute_runs() -> None:
    breaker = Breaker(POLICY)
    breaker.run_failed("no")
    for _ in range(100):
        breaker.passed()
    for _ in range(8):
        breaker.run_failed("no")
    assert breaker.opened is None
    breaker.run_failed("no")
    assert breaker.opened is not None


def test_it_trips_when_someone_else_writes_nearly_every_run_and_says_so() -> None:
    breaker = Breaker(POLICY)
    for _ in range(4):
        breaker.run_ended()
    for _ in range(5):
        breaker.run_not_ours("foreign_run", "")
    assert breaker.opened is None
    breaker.run_not_ours("foreign_run", "")
    assert str(breaker.opened) == (
        "6 of the last 10 runs were written by someone else; is a TiledWriter still running beside this service?"
    )


def test_a_single_foreign_run_among_good_ones_never_trips_it() -> None:
    breaker = Breaker(POLICY)
    for _ in range(100):
        breaker.run_not_ours("foreign_run", "")
        for _ in range(9):
            breaker.run_ended()
    assert breaker.opened is None


def test_foreign_runs_that_are_to_be_skipped_do_not_count() -> None:
    breaker = Breaker(Policy(breaker_window=10, breaker_share_max=0.5, foreign_skip=True))
    for _ in range(100):
        breaker.run_not_ours("foreign_run", "")
    assert breaker.opened is None


def test_runs_of_several_faults_count_together() -> None:
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.run_failed("no")
        breaker.run_not_ours("foreign_run", "theirs")
        breaker.run_not_ours("conflicting_run", "another")
    breaker.run_ended()
    assert breaker.opened is None
    breaker.run_not_ours("conflicting_run", "another")
    assert str(breaker.opened) == "9 of the last 10 runs were refused, the last: conflicting_run: another"
