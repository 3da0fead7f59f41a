"""The books of the lanes: who sleeps, who waits for a place, whose answer it is."""

import math
from types import SimpleNamespace
from typing import cast

import pytest

from tests.core.test_steps import HOME, run_of, start_doc
from tiled_ingest.core.claim import Claim
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.record import Home
from tiled_ingest.core.schedule import Counter, Lane, Ripening, Sleepers
from tiled_ingest.core.steps import Procedure, Sleep
from tiled_ingest.core.writes import CreateContainer, EnsureContainer, GetNode, Request


def claim(home: Home = HOME) -> Claim:
    """All that the books look at is where it is."""
    return cast("Claim", SimpleNamespace(home=home))


NOBODY = claim()
AWAY, OWN = Sleep(2.0), Sleep(2.0, down=False)


def lane(key: str) -> Lane:
    return Lane(key, NOBODY, None)


def insist_nothing() -> Procedure[None]:
    yield AWAY


def asked(key: str) -> GetNode:
    return GetNode((key,))


# ---------------------------------------------------------------- sleepers


def test_lanes_wake_in_the_order_of_their_times_each_once() -> None:
    sleepers, one, two, three = Sleepers(), lane("one"), lane("two"), lane("three")
    sleepers.add(one, Sleep(3.0), 0.0)
    sleepers.add(two, Sleep(1.0), 0.0)
    sleepers.add(three, Sleep(1.0), 0.0)
    assert list(sleepers.awake(0.9)) == []
    assert list(sleepers.awake(1.0)) == [two, three]
    assert list(sleepers.awake(1.0)) == []
    assert list(sleepers.awake(99.0)) == [one]
    assert not sleepers.any_down
    assert not list(Sleepers().awake(1e9))


def test_only_those_who_wait_for_tiled_wake_when_it_is_back() -> None:
    sleepers, away, own = Sleepers(), lane("away"), lane("own")
    sleepers.add(away, AWAY, 0.0)
    sleepers.add(own, OWN, 0.0)
    assert sleepers.any_down
    assert sleepers.wake_down() == [away]
    assert sleepers.wake_down() == []
    assert not sleepers.any_down
    assert list(sleepers.awake(2.0)) == [own]  # not the one that was woken already


def test_a_lane_that_sleeps_anew_does_not_wake_by_its_earlier_sleep() -> None:
    sleepers, one = Sleepers(), lane("one")
    sleepers.add(one, Sleep(5.0), 0.0)
    sleepers.wake_down()
    sleepers.add(one, Sleep(9.0), 1.0)
    assert list(sleepers.awake(5.0)) == []
    assert list(sleepers.awake(10.0)) == [one]


def test_a_dropped_lane_knocks_at_no_door() -> None:
    sleepers, one = Sleepers(), lane("one")
    sleepers.add(one, AWAY, 0.0)
    one.dropped = True
    assert not sleepers.any_down


def test_a_lane_is_idle_without_work() -> None:
    one = lane("one")
    assert one.idle
    one.procedure = insist_nothing()
    assert not one.idle


# ---------------------------------------------------------------- requests


def test_who_comes_first_is_served_first_within_the_limit() -> None:
    counter, lanes = Counter(), [lane(str(number)) for number in range(4)]
    for waiting in lanes:
        counter.add(waiting, asked(waiting.key))
    for ticket in (1, 2):
        found = counter.next(2)
        assert found == (lanes[ticket - 1], asked(str(ticket - 1)))
        counter.sent(ticket, *found)
    assert counter.next(2) is None
    assert counter.under_way == 2
    assert counter.answered(1) == (lanes[0], asked("0"))
    assert counter.next(1) is None  # the limit has shrunk: storage turned out to be embedded
    assert counter.next(2) == (lanes[2], asked("2"))


def working(offset: int, home: Home = HOME) -> Lane:
    """The lane of a run of which one document, of that offset, waits to be settled."""
    run = run_of(start_doc(f"{home.partition}/{offset}"), first_offset=0)
    run.last_offset = 1_000
    run.in_hand.append(Hold(offset, 1))
    return Lane(run.uid, claim(home), run)


def test_of_one_partition_the_run_with_the_oldest_document_is_served_first() -> None:
    counter = Counter()
    for each in (working(30), working(10), lane("claim"), working(20)):
        counter.add(each, asked(each.key))
    served = [found[0].key for _ in range(4) if (found := counter.next(9))]
    assert served == ["claim", "0/10", "0/20", "0/30"]


def test_partitions_take_turns() -> None:
    counter, other = Counter(), Home("t", 1)
    for each in (*map(working, (1, 2, 3)), *(working(offset, other) for offset in (501, 502))):
        counter.add(each, asked(each.key))
    served = [found[0].key for _ in range(5) if (found := counter.next(9))]
    assert served == ["0/1", "1/501", "0/2", "1/502", "0/3"]


def making(lane: Lane) -> CreateContainer:
    assert lane.run is not None
    return CreateContainer(lane.run.parent, lane.key, {}, (), None)


def test_of_one_partition_nodes_of_runs_are_made_one_by_one_and_in_order() -> None:
    """`catalog[-1]` is the run that was made last: answers of requests beside each other come in any order."""
    counter, (late, early, other) = Counter(), (working(20), working(10), working(501, Home("t", 1)))
    for each in (late, early, other):
        counter.add(each, making(each))
    stream = CreateContainer(("runs", "open"), "primary", {}, (), None)
    counter.add(open_ := working(30), stream)  # its run has its node already: it waits for nobody
    sent: list[tuple[Lane, Request]] = []
    while found := counter.next(9):
        counter.sent(len(sent), *found)
        sent.append(found)
    assert sent == [(early, making(early)), (other, making(other)), (open_, stream)]
    counter.answered(0)
    assert counter.next(9) == (late, making(late))


def test_who_makes_the_node_above_has_the_first_run_in_it() -> None:
    counter, early, late = Counter(), working(10), working(20)
    above = EnsureContainer(("runs",))
    counter.add(early, above)
    counter.add(late, above)
    counter.sent(1, *(counter.next(9) or pytest.fail("nothing to send")))
    assert counter.next(9) is None
    counter.answered(1)
    counter.add(early, making(early))
    assert counter.next(9) == (early, making(early))


def test_a_node_that_a_lost_claim_still_makes_holds_up_nobody() -> None:
    counter, gone, here = Counter(), working(10), working(20)
    counter.sent(1, gone, making(gone))
    counter.add(here, making(here))
    assert counter.next(9) is None
    gone.dropped = True
    assert counter.next(9) == (here, making(here))


def test_a_ticket_is_answered_once() -> None:
    counter = Counter()
    counter.sent(1, lane("one"), asked("one"))
    counter.answered(1)
    with pytest.raises(KeyError):
        counter.answered(1)


def test_requests_of_dropped_lanes_are_never_sent() -> None:
    counter, gone, here = Counter(), lane("gone"), lane("here")
    counter.add(gone, asked("gone"))
    gone.dropped = True
    assert counter.empty
    counter.add(here, asked("here"))
    assert not counter.empty
    assert counter.next(1) == (here, asked("here"))


def test_what_is_under_way_counts_even_if_its_lane_is_dropped() -> None:
    counter, gone, here = Counter(), lane("gone"), lane("here")
    counter.sent(1, gone, asked("gone"))
    gone.dropped = True
    counter.add(here, asked("here"))
    assert not counter.empty
    assert counter.next(1) is None  # embedded storage bears one writer, whoever it is
    counter.answered(1)
    assert counter.next(1) is not None


def test_whether_a_claim_awaits_an_answer() -> None:
    counter, other = Counter(), claim()
    counter.sent(1, Lane("one", other, None), asked("one"))
    assert counter.are_under_way(other)
    assert not counter.are_under_way(NOBODY)
    counter.answered(1)
    assert not counter.are_under_way(other)


# ---------------------------------------------------------------- ripening


def test_rows_are_looked_at_when_they_are_of_age_once() -> None:
    ripening, one, two = Ripening(), lane("one"), lane("two")
    assert ripening.next_s == math.inf
    ripening.add(one, 2.0)
    ripening.add(two, 1.0)
    assert ripening.next_s == 1.0
    assert list(ripening.ripe(0.9)) == []
    assert list(ripening.ripe(1.0)) == [two]
    assert list(ripening.ripe(9.0)) == [one]
    assert list(ripening.ripe(9.0)) == []


def test_of_two_moments_of_a_lane_the_later_word_counts() -> None:
    ripening, one, gone = Ripening(), lane("one"), lane("gone")
    ripening.add(one, 1.0)
    ripening.add(one, 5.0)  # what waited since was written, and new rows came
    ripening.add(one, 5.0)
    ripening.add(gone, 1.0)
    gone.dropped = True
    assert list(ripening.ripe(1.0)) == []
    assert list(ripening.ripe(5.0)) == [one]
    ripening.add(one, 6.0)
    assert list(ripening.ripe(6.0)) == [one]
