"""What counts of a run's documents: a redelivery does not, a rewind does, and reading again changes no verdict."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.runs.acceptance import GAP_MAX, Acceptance, Seen

EVENTS = st.lists(
    st.tuples(
        st.integers(-3, 12) | st.sampled_from([0, GAP_MAX, GAP_MAX + 1, GAP_MAX + 2, 2**63 - 1, -(2**63)]),
        st.sampled_from("abcdef"),
    ),
    max_size=40,
)


def test_a_redelivered_event_counts_once() -> None:
    seen = Seen()
    assert [seen.add(number, f"u{number}") for number in (1, 2, 3)] == [True] * 3
    assert [seen.add(number, f"u{number}") for number in (2, 1, 3, 3)] == [False] * 4
    assert seen.add(4, "u4")
    assert seen.distinct == 4


def test_a_rewind_keeps_both() -> None:
    seen = Seen()
    for number in (1, 2, 3):
        seen.add(number, f"u{number}")
    assert [seen.add(number, f"again{number}") for number in (2, 3)] == [True, True]
    assert [seen.add(number, f"again{number}") for number in (2, 3)] == [False, False]
    assert [seen.add(number, f"u{number}") for number in (2, 3)] == [False, False]
    assert seen.distinct == 3


def test_gaps_may_be_filled_later() -> None:
    seen = Seen()
    assert seen.add(5, "u5")
    assert seen.add(2, "u2")
    assert not seen.add(2, "u2")
    assert not seen.add(5, "u5")
    assert seen.distinct == 2


def test_what_came_too_early_is_known_when_its_turn_comes() -> None:
    far = GAP_MAX + 2  # too far ahead for a slot at first
    seen = Seen()
    assert seen.add(far, "far")
    assert seen.add(GAP_MAX, "near")
    assert not seen.add(far, "far")
    assert seen.add(far, "rewound")
    assert seen.distinct == 2


@given(EVENTS)
def test_verdicts_are_those_of_a_set(events: list[tuple[int, str]]) -> None:
    seen, model = Seen(), set[tuple[int, str]]()
    for event in events:
        assert seen.add(*event) == (event not in model)
        model.add(event)
        assert seen.distinct == len({number for number, _ in model})


@given(EVENTS)
def test_gaps_are_what_lies_between(events: list[tuple[int, str]]) -> None:
    seen = Seen()
    for event in events:
        seen.add(*event)
    numbers = {number for number, _ in events if number > 0}
    gaps, last = [], 0
    for number in sorted(numbers):
        if number > last + 1:
            gaps.append((last + 1, number - 1))
        last = number
    assert seen.gaps() == gaps


def test_a_rewind_and_a_redelivery_are_no_gaps() -> None:
    seen = Seen()
    for number, uid in [(1, "a"), (2, "b"), (3, "c"), (2, "again"), (3, "again"), (3, "again"), (4, "d")]:
        seen.add(number, uid)
    assert seen.gaps() == []
    assert Seen().gaps() == []


def test_gaps_of_a_long_stream_take_no_time() -> None:
    seen = Seen()
    seen.add_all(np.arange(1, 1_000_001), [b"u"] * 1_000_000)
    seen.add(1_000_010, "late")
    began_s = time.process_time()
    assert seen.gaps() == [(1_000_001, 1_000_009)]
    assert time.process_time() - began_s < 0.5


@given(EVENTS, st.data())
def test_reading_again_from_the_start_changes_no_verdict(events: list[tuple[int, str]], data: st.DataObject) -> None:
    first, second = Seen(), Seen()
    verdicts = [first.add(*event) for event in events]
    cut = data.draw(st.integers(0, len(events)))  # an earlier claim came so far
    for event in events[:cut]:
        second.add(*event)
    assert [second.add(*event) for event in events[cut:]] == verdicts[cut:]
    assert second.distinct == first.distinct


@pytest.mark.parametrize("number", [0, -1, -(2**63), 2**63 - 1, 10**12])
def test_a_seq_num_from_anywhere_is_kept(number: int) -> None:
    seen = Seen()
    assert [seen.add(number, "a"), seen.add(number, "b"), seen.add(number, "a")] == [True, True, False]
    assert seen.distinct == 1


def memory_of(numbers: range) -> int:
    tracemalloc.start()
    try:
        seen = Seen()
        for number in numbers:
            seen.add(number, str(number))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_huge_seq_nums_cost_no_more_than_their_number() -> None:
    assert memory_of(range(2**62, 2**62 + 10**15, 10**12)) < 1_000_000  # 1000 of them


def test_gaps_cost_no_more_than_a_message() -> None:
    # 100 events of some hundred bytes each: "no message may exhaust memory".
    assert memory_of(range(1, 100 * GAP_MAX, GAP_MAX)) < 10_000_000


def test_events_that_count_up_are_cheap() -> None:
    assert memory_of(range(1, 10_001)) < 10_000 * 64


# ---------------------------------------------------------------- of a run


def test_a_descriptor_counts_once_and_streams_are_apart() -> None:
    accepted = Acceptance()
    accepted.add_descriptor("d1", "primary", offset=1, content="one")
    accepted.add_descriptor("d2", "primary", offset=2, content="two")  # configured anew
    accepted.add_descriptor("d3", "baseline", offset=3, content="three")
    assert accepted.descriptor("d2") == ("primary", 2, "two")
    assert (accepted.has_all(["d1", "d3"]), accepted.has_all(["d1", "d4"])) == (True, False)
    assert list(accepted.descriptors) == ["d1", "d2", "d3"]
    assert accepted.add_event("primary", 1, "a")
    assert accepted.add_event("baseline", 1, "a")
    assert not accepted.add_event(accepted.stream_of("d2"), 1, "a")
    assert (accepted.distinct("primary"), accepted.distinct("baseline"), accepted.distinct("never")) == (1, 1, 0)
    assert accepted.is_of("d2", "primary")
    assert not accepted.is_of("d2", "baseline")
    assert not accepted.is_of("d9", "primary")


def test_an_event_without_descriptor_is_an_orphan() -> None:
    with pytest.raises(InvalidDocument) as caught:
        Acceptance().stream_of("d1")
    assert caught.value.code == "orphan"
