"""Nothing is committed that someone still holds; where to resume travels with every commit."""

import json
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_ingest.core.offsets import (
    METADATA_BYTES_MAX,
    Hold,
    Ledger,
    ResumePoint,
    out_of_range,
    partitions_at_first,
)
from tiled_ingest.core.record import Home

HOME = Home("bmm.documents", 2)

# ---------------------------------------------------------------- the ledger


def test_without_holds_everything_received_is_settled() -> None:
    ledger = Ledger(5)
    assert (ledger.committable, ledger.settled) == (5, True)
    ledger.received(5)
    ledger.received(9)  # 6 to 8 do not exist
    assert ledger.committable == 10
    ledger.passed(14)
    ledger.passed(3)
    assert ledger.committable == ledger.next_offset == 14


def test_a_hold_stops_the_commit_at_its_offset_over_gaps_too() -> None:
    ledger = Ledger(0)
    ledger.received(3)
    held = ledger.hold(3)
    ledger.received(7)
    ledger.passed(20)
    assert (ledger.committable, ledger.settled) == (3, False)
    ledger.release(held)
    assert (ledger.committable, ledger.settled) == (20, True)


def test_a_hold_below_what_came_last_counts() -> None:
    ledger = Ledger(0)
    for offset in (0, 1, 2):
        ledger.received(offset)
    assert ledger.committable == 3
    ledger.hold(1)
    assert ledger.committable == 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_holds_may_be_released_in_any_order(order: tuple[int, ...]) -> None:
    ledger = Ledger(0)
    holds: dict[int, Hold] = {}
    for offset in range(3):
        ledger.received(10 * offset)
        holds[offset] = ledger.hold(10 * offset)
    for offset in order:
        ledger.release(holds.pop(offset))
        assert ledger.committable == min((hold.offset for hold in holds.values()), default=21)


def test_two_holds_of_one_offset_are_two() -> None:
    ledger = Ledger(0)
    ledger.received(4)
    one, other = ledger.hold(4), ledger.hold(4)
    ledger.release(other)
    assert ledger.committable == 4
    ledger.release(one)
    assert ledger.committable == 5


def test_a_second_release_is_a_bug() -> None:
    ledger = Ledger(0)
    ledger.received(0)
    held = ledger.hold(0)
    ledger.release(held)
    with pytest.raises(KeyError):
        ledger.release(held)


STEPS = st.lists(st.tuples(st.sampled_from(["receive", "hold", "release", "pass"]), st.integers(0, 6)), max_size=60)


@given(st.integers(0, 50), STEPS)
def test_committable_is_what_a_list_of_unsettled_offsets_says(first: int, steps: list[tuple[str, int]]) -> None:
    ledger, next_offset = Ledger(first), first
    held: list[Hold] = []
    for what, number in steps:
        if what == "receive":
            next_offset += number
            ledger.received(next_offset)
            next_offset += 1
        elif what == "pass":
            next_offset += number
            ledger.passed(next_offset)
        elif what == "hold" and next_offset > first:
            held.append(ledger.hold(max(first, next_offset - 1 - number)))
        elif what == "release" and held:
            ledger.release(held.pop(number % len(held)))
        assert ledger.committable == min((hold.offset for hold in held), default=next_offset)
        assert ledger.settled == (not held)


def test_the_oldest_timestamp_is_that_of_what_waits_longest() -> None:
    ledger = Ledger(0)
    assert ledger.oldest_timestamp_ms == -1
    ledger.received(0, 1_000)
    one = ledger.hold(0)
    ledger.received(1, 2_000)
    other = ledger.hold(1)
    ledger.received(2, 3_000)
    assert ledger.oldest_timestamp_ms == 1_000
    assert ledger.release(one) == 1_000
    assert ledger.oldest_timestamp_ms == 2_000
    assert ledger.release(other) == 2_000
    assert ledger.oldest_timestamp_ms == 3_000


# ---------------------------------------------------------------- the resume point

POINT = ResumePoint(3, 7, "nonce", "topic-id", 1)
NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS, NUMBERS, st.text(max_size=32), st.text(max_size=32), st.integers(1, 99), st.integers(0, 10_000))
def test_a_resume_point_comes_back(
    start: int, epoch: int, nonce: str, topic_id: str, rules: int, partitions: int
) -> None:
    point = ResumePoint(start, epoch, nonce, topic_id, rules, [], partitions)
    assert ResumePoint.decode(point.encode()) == point


def test_its_version_is_written_even_where_it_is_the_default() -> None:
    assert json.loads(POINT.encode())["v"] == 1


def test_fields_and_versions_of_the_future_are_no_hindrance() -> None:
    later = {**json.loads(POINT.encode()), "v": 2, "new": {"deep": [1]}}
    point = ResumePoint.decode(json.dumps(later))
    assert point is not None
    assert (point.start, point.epoch, point.nonce, point.topic_id) == (3, 7, "nonce", "topic-id")


def test_fields_of_the_past_may_be_missing() -> None:
    assert ResumePoint.decode('{"s":3,"e":7,"n":"nonce","t":"topic-id"}') == POINT


@pytest.mark.parametrize(
    "text",
    ["", " ", "null", "[]", "{}", "someone else", '"text"', "7", '{"s":1}', '{"s":"1","e":1,"n":"","t":""}', '{"s":1'],
)
def test_metadata_of_others_are_none(text: str) -> None:
    assert ResumePoint.decode(text) is None


@given(st.text(max_size=50))
def test_no_metadata_string_is_an_error(text: str) -> None:
    ResumePoint.decode(text)


def test_the_first_number_of_partitions_is_handed_on() -> None:
    noted = [msgspec.structs.replace(POINT, partitions=number).encode() for number in (4, 6)]
    assert partitions_at_first([], 8) == 8
    assert partitions_at_first(["", "someone else", POINT.encode()], 8) == 8, "an older version did not note it"
    assert partitions_at_first(["", POINT.encode(), *noted], 8) == 4


def test_brokers_take_the_longest_resume_point() -> None:
    # A topic's id has 22 characters, a nonce fewer than 64.
    longest = ResumePoint(2**63 - 1, 2**63 - 1, "n" * 64, "t" * 64, 10**6, [], 2**31 - 1)
    assert len(longest.encode().encode()) < METADATA_BYTES_MAX <= 4_096


def test_limits_that_changed_at_every_restart_fit_and_let_pass_what_they_did() -> None:
    """Only a moving start forgets eras; while a run stays open they would become more for ever."""
    eras = [(10 * number, 10**6 + number, 64 - number % 2, 10**6 - number) for number in range(1_000)]
    text = ResumePoint(0, 2**40, "0123456789", "x" * 22, 1, eras).encode()
    assert METADATA_BYTES_MAX - 100 < len(text) <= METADATA_BYTES_MAX
    point = ResumePoint.decode(text)
    assert point is not None
    (start, *generous), *rest = point.limits
    assert [start, *rest] == [0, *eras[-len(rest) :]]
    merged = eras[: len(eras) - len(rest)]
    assert generous == [max(limits) for limits in list(zip(*merged, strict=True))[1:]]


def test_a_resume_point_is_frozen() -> None:
    with pytest.raises(AttributeError):
        msgspec.structs.replace(POINT).start = 4  # type: ignore[misc]


# ---------------------------------------------------------------- the log's limits


@pytest.mark.parametrize("committed", [5, 7, 9])
def test_offsets_within_the_log_are_good(committed: int) -> None:
    assert out_of_range(HOME, committed, 5, 9) is None


def test_a_log_that_lost_its_beginning_is_told_with_the_number_lost() -> None:
    why = out_of_range(HOME, 5, 12, 90)
    assert why is not None
    for part in ("bmm.documents[2]", "committed offset 5", "begins at 12", "7 offsets", "--accept-gap"):
        assert part in why


def test_an_offset_beyond_the_end_is_told() -> None:
    why = out_of_range(HOME, 91, 12, 90)
    assert why is not None
    for part in ("bmm.documents[2]", "91", "end 90"):
        assert part in why


def test_a_hold_behind_what_was_received_lets_nothing_between_them_be_committed() -> None:
    """The breaker opened in the midst of a stretch whose rows were taken already."""
    ledger = Ledger(0)
    ledger.received(2)
    hold = ledger.hold(5)
    assert ledger.committable == 3
    ledger.release(hold)
    assert ledger.committable == 3
