"""A run that was given up goes on when its publisher does: each step durable before the next, whoever dies between."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from tests.core.test_engine import (
    IDLE,
    OTHER,
    TABLE,
    World,
    asks,
    is_update_to,
    of,
    ready,
    started,
    whole,
)
from tests.core.test_steps import HOME, TOPIC_ID, always, descriptor_doc, event_doc, once, record, start_doc, stop_doc
from tiled_ingest.core import effects as fx
from tiled_ingest.core import writes as w
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.runs import reopening
from tiled_ingest.core.writing.datasets import OURS

REST = [("event", event_doc(2)), ("stop", stop_doc("r", {"primary": 2}))]
NOTE = "Given up as abandoned, and opened again as its documents went on: 1 times"


def given_up(policy: Policy = IDLE, *runs: str) -> World:
    """Runs of a start, a descriptor and an event each are given up; `r` is one of them."""
    world = ready(policy)
    for uid in ("r", *runs):
        world.publish(*started(uid, f"{uid}-d" if uid != "r" else "d"))
        world.tick(2.0)
    world.publish(("event", event_doc(1)))
    world.settle(ticks=130)
    assert world.tiled.facts(("r",))["state"] == "abandoned"
    return world


def successor(before: World, committed: int, point: ResumePoint, policy: Policy = IDLE) -> World:
    world = World(policy, tiled=before.tiled, logs=before.logs)
    world.assign(committed=committed, point=point)
    world.settle()
    return world


def states_written(world: World) -> list[str]:
    updates = [request for request in world.tiled.asked if isinstance(request, w.UpdateMetadata)]
    return [update.metadata[OURS]["state"] for update in updates if OURS in update.metadata]


def assert_whole(world: World, *, end: int) -> None:
    assert world.tiled.seq_nums(TABLE) == [1, 2]
    metadata = world.tiled.nodes["r",].metadata
    assert (metadata[OURS]["state"], metadata["stop"]["uid"]) == ("complete", REST[-1][1]["uid"])
    assert metadata[OURS]["source"]["last_offset"] == end - 1
    assert (world.committed, world.commits[-1][2].start, world.commits[-1][2].reopening) == (end, end, [])
    assert world.letters == []


# ---------------------------------------------------------------- in one claim


def test_a_run_that_was_given_up_goes_on_and_is_complete() -> None:
    world = given_up()
    assert (world.committed, world.commits[-1][2].start) == (3, 3)  # a dormant run pins neither
    world.publish(*REST)
    world.settle()
    assert_whole(world, end=5)
    assert states_written(world) == ["abandoned", "open", "complete"]
    assert world.told("run_reopened")[0]["run"] == "r"
    assert world.kinds(fx.Stop) == []
    assert [request for request in world.tiled.asked if isinstance(request, w.PutSource)] == []  # the same dataset


def test_its_node_says_that_it_was_given_up_and_when_it_went_on() -> None:
    world = given_up()
    world.publish(REST[0])
    late = world.logs[HOME][-1]
    world.settle()
    facts = world.tiled.facts(("r",))
    assert (facts["state"], facts["reopened"]) == ("open", {"times": 1, "timestamp_ms": late.timestamp_ms})
    world.publish(REST[1])
    world.settle()
    assert any(note.startswith(NOTE) for note in world.tiled.facts(("r",))["notes"])


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 2**62])
def test_a_publisher_cannot_choose_a_time_that_stops_us(timestamp_ms: int) -> None:
    world = given_up()
    for name, doc in REST:
        log = world.logs[HOME]
        log.append(structs.replace(record(log[-1].offset + 1, name, doc), timestamp_ms=timestamp_ms))
    world.settle()
    assert_whole(world, end=5)


def test_the_streams_are_closed_again_at_its_end() -> None:
    world = given_up()
    closed = len(world.tiled.closed)
    world.publish(*REST)
    world.settle()
    assert ("r",) in world.tiled.closed[closed:]


def test_nothing_says_that_it_is_open_before_a_commit_covers_it() -> None:
    world = given_up()
    world.keeps = of(fx.Commit)
    world.publish(*REST)
    world.settle()
    point = ResumePoint.decode(world.kept[-1].metadata)  # type: ignore[union-attr]
    assert point is not None
    assert (point.start, point.reopening, states_written(world)) == (0, [0], ["abandoned"])
    world.let_go()
    world.settle()
    assert_whole(world, end=5)


def test_nothing_is_appended_before_its_node_says_that_it_is_open() -> None:
    world = given_up()
    world.keeps = asks(w.UpdateMetadata)
    world.publish(*REST)
    world.settle()
    assert [is_update_to("open", request) for request in world.in_flight] == [True]  # type: ignore[arg-type]
    assert (world.tiled.seq_nums(TABLE), world.committed) == ([1], 3)
    world.let_go()
    world.settle()
    assert_whole(world, end=5)


def test_a_commit_that_is_not_confirmed_is_tried_again() -> None:
    world = given_up()
    world.answers[fx.Commit] = lambda commit: fx.CommitFailed(commit.ticket, "timed out", fenced=False)
    world.publish(*REST)
    world.settle(ticks=3)
    assert states_written(world) == ["abandoned"]
    world.answers.clear()
    world.settle()
    assert_whole(world, end=5)


def test_what_is_repeated_of_it_is_a_repetition_and_opens_nothing() -> None:
    world = given_up()
    world.publish(*started(), ("event", event_doc(1)))
    world.settle()
    assert states_written(world) == ["abandoned"]
    assert (world.committed, world.commits[-1][2].start, world.letters) == (6, 6, [])


def test_another_start_of_its_uid_is_refused_and_opens_nothing() -> None:
    world = given_up()
    world.publish(("start", {**start_doc("r"), "plan_name": "impostor"}))
    world.settle()
    assert (world.codes, states_written(world)) == ([(3, "conflicting_run")], ["abandoned"])


def test_a_new_stream_may_come_and_what_is_repeated_while_it_waits() -> None:
    world = given_up()
    world.keeps = of(fx.Commit)
    late = [("descriptor", descriptor_doc("later", run="r")), ("event", event_doc(2, descriptor="later"))]
    world.publish(*late)
    world.settle()
    world.publish(*late, ("stop", stop_doc("r", {"primary": 2})))
    world.let_go()
    world.settle()
    assert_whole(world, end=8)


def test_what_is_wrong_with_a_document_is_found_when_it_is_taken() -> None:
    world = given_up()
    world.publish(*REST, ("event", event_doc(3)))
    world.settle()
    assert world.codes == [(5, "late")]
    assert world.tiled.seq_nums(TABLE) == [1, 2]
    assert (world.tiled.facts(("r",))["state"], world.committed) == ("complete", 6)


def test_it_may_be_given_up_again_and_go_on_again() -> None:
    world = given_up()
    world.publish(REST[0])
    world.settle(ticks=130)
    assert (world.tiled.facts(("r",))["state"], world.tiled.facts(("r",))["source"]["last_offset"]) == ("abandoned", 3)
    assert (world.committed, world.commits[-1][2].start) == (4, 4)
    world.publish(REST[1])
    world.settle()
    assert_whole(world, end=5)
    assert world.tiled.facts(("r",))["reopened"]["times"] == 2


def test_what_waits_counts_in_memory_and_pauses_the_intake() -> None:
    world = given_up(replace(IDLE, memory_bytes_max=2_000))
    world.keeps = of(fx.Commit)
    world.publish(*[("event", event_doc(number)) for number in range(2, 40)])
    world.settle(ticks=2)
    assert world.engine.snapshot().paused
    world.let_go()
    world.settle()
    assert world.tiled.seq_nums(TABLE) == list(range(1, 40))
    assert world.engine.snapshot().buffered_bytes == 0


def test_a_run_that_is_open_again_counts_among_those_that_may_be_open() -> None:
    world = given_up(replace(IDLE, open_max=1), "q")
    world.publish(*started("p", "p-d"))
    world.settle(ticks=2)
    world.publish(REST[0])
    world.settle()
    assert world.told("run_idle")[-1] == {"run": "p"}
    assert [run.uid for run in world.engine.snapshot().runs] == ["r"]


def test_both_its_ends_are_announced() -> None:
    world = ready(replace(IDLE, announces=True))
    world.answers[fx.Announce] = lambda announce: fx.Announced(announce.ticket, "")
    world.publish(*started(), ("event", event_doc(1)))
    world.settle(ticks=130)
    world.publish(*REST)
    world.settle()
    assert [announce.state for announce in world.kinds(fx.Announce)] == ["abandoned", "complete"]
    assert_whole(world, end=5)


def test_a_run_of_another_partition_is_still_known() -> None:
    world = given_up()
    world.assign(OTHER)
    world.publish(REST[0], home=OTHER)
    world.settle()
    assert world.codes == [(0, "scattered_run")]


# ---------------------------------------------------------------- when it cannot go on


def test_a_run_whose_beginning_the_log_has_lost_does_not_go_on() -> None:
    world = given_up()
    world.lows[HOME] = 1
    before = len(world.commits)
    world.publish(*REST)
    world.settle()
    assert world.codes == [(3, "late"), (4, "late")]
    assert (states_written(world), world.committed) == (["abandoned"], 5)
    assert {point.start for _, _, point in world.commits[before:]} == {5}  # nobody is sent to where nothing is
    world.publish(("event", event_doc(5)))
    assert world.codes[2:] == [(5, "late")]


def replaced(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "epoch": facts["epoch"] + 1}


def being_rebuilt(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "rebuild": {"epoch": 9, "nonce": "w"}}


@pytest.mark.parametrize("change", [replaced, being_rebuilt])
def test_a_run_that_a_redrive_has_taken_up_does_not_go_on_here(change: Any) -> None:
    world = given_up()
    node = world.tiled.nodes["r",]
    world.tiled.nodes["r",] = replace(node, metadata={**node.metadata, OURS: change(node.metadata[OURS])})
    world.publish(*REST)
    world.settle()
    assert world.codes == [(3, "late"), (4, "late")]
    assert world.tiled.seq_nums(TABLE) == [1]


def test_a_run_whose_node_was_deleted_does_not_go_on() -> None:
    world = given_up()
    for path in [path for path in world.tiled.nodes if path[:1] == ("r",)]:
        del world.tiled.nodes[path]
    world.publish(*REST)
    world.settle()
    assert world.codes == [(3, "late"), (4, "late")]


def test_nothing_is_left_of_a_run_that_could_not_go_on() -> None:
    world = given_up()
    world.lows[HOME] = 1
    late = [("descriptor", descriptor_doc("later", run="r")), ("event", event_doc(2, descriptor="later"))]
    world.publish(*late)
    world.settle()
    world.publish(late[1])
    world.settle()
    assert world.codes == [(3, "late"), (4, "late"), (5, "late")]
    runs = next(iter(world.engine._claims.values())).runs
    assert (runs._runs, runs._by_descriptor, world.engine._lanes.keys() - {(HOME, "")}) == ({}, {}, set())


def test_what_comes_while_the_dead_letters_are_on_their_way_follows_them() -> None:
    world = given_up()
    world.lows[HOME] = 1
    world.keeps = of(fx.DeadLetter)
    world.publish(REST[0])
    world.settle()
    world.publish(REST[1])
    world.settle()
    assert (len(world.kept), world.committed) == (1, 3)
    world.let_go()
    world.settle()
    assert (world.codes, world.committed) == ([(3, "late"), (4, "late")], 5)


def test_a_run_whose_dead_letters_are_on_their_way_is_not_forgotten_for_another() -> None:
    world = given_up(replace(IDLE, dormant_max=1))
    world.lows[HOME] = 1
    world.keeps = of(fx.DeadLetter)
    world.publish(REST[0])
    world.settle()
    assert len(world.kept) == 1
    world.publish(*started("q", "e"))
    world.settle(ticks=130)
    assert world.tiled.facts(("q",))["state"] == "abandoned"
    world.let_go()
    world.settle()
    assert (world.codes, world.committed) == ([(3, "late")], 6)


def test_a_node_that_cannot_be_opened_again_fails_its_run_wholly() -> None:
    world = given_up()
    opens = partial(is_update_to, "open")
    world.tiled.faults.append(once(w.UpdateMetadata, w.Rejected("no", 422), where=opens))
    world.publish(*REST)
    world.settle(ticks=20)
    assert world.codes == [(offset, "run_failed") for offset in range(5)]
    assert (world.tiled.facts(("r",))["state"], world.committed) == ("failed", 5)


@pytest.mark.parametrize("policy", [replace(IDLE, dormant_max=1), replace(IDLE, dormant_bytes_max=8_000)])
def test_of_too_many_dormant_runs_the_longest_dormant_is_forgotten(policy: Policy) -> None:
    world = ready(policy)
    for uid, descriptor in (("r", "d"), ("q", "e")):
        world.publish(*started(uid, descriptor), ("event", event_doc(1, descriptor=descriptor)))
        world.settle(ticks=130)
    world.publish(*REST, ("event", event_doc(2, descriptor="e")))
    world.settle()
    assert world.codes == [(6, "late"), (7, "late")]
    assert (world.tiled.facts(("r",))["state"], world.tiled.facts(("q",))["state"]) == ("abandoned", "open")


def test_a_log_that_cannot_be_read_now_is_waited_for() -> None:
    world = given_up()
    world.answers[fx.ReadLog] = lambda read: fx.LogUnreadable(read.ticket, "broker away")
    world.publish(*REST)
    world.settle(ticks=4)
    assert (states_written(world), world.letters, world.committed) == (["abandoned"], [], 3)
    world.answers.clear()
    world.settle()
    assert_whole(world, end=5)


def test_not_more_runs_are_named_at_once_than_fit_into_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "NAMED_MAX", 1)
    world = given_up(IDLE, "q")
    world.keeps = asks(w.UpdateMetadata)
    world.publish(REST[0], ("event", event_doc(1, descriptor="q-d")))
    world.settle()
    assert max(len(point.reopening) for _, _, point in world.commits) == 1
    world.let_go()
    world.settle()
    assert (world.tiled.facts(("r",))["state"], world.tiled.facts(("q",))["state"]) == ("open", "open")


# ---------------------------------------------------------------- who comes after a crash


def test_a_late_document_that_no_commit_covered_is_a_dead_letter_after_a_crash() -> None:
    before = given_up()
    before.keeps = of(fx.Commit)
    before.publish(*REST)
    world = successor(before, 3, ResumePoint(3, 1, "n", TOPIC_ID))
    assert world.codes == [(3, "orphan"), (4, "orphan")]
    assert before.letters == []
    assert (world.tiled.facts(("r",))["state"], world.tiled.seq_nums(TABLE)) == ("abandoned", [1])


def test_a_crash_between_the_commit_and_the_node_leaves_the_opening_to_the_successor() -> None:
    before = given_up()
    before.keeps = asks(w.UpdateMetadata)
    before.publish(*REST)
    before.settle()
    assert (before.committed, before.commits[-1][2].start, before.commits[-1][2].reopening) == (3, 0, [0])
    world = successor(before, 3, before.commits[-1][2])
    assert states_written(world) == ["abandoned", "open", "complete"]
    assert_whole(world, end=5)
    assert before.letters == []
    assert world.tiled.facts(("r",))["reopened"]["times"] == 1


def test_who_opens_a_run_for_its_predecessor_names_it_until_its_node_says_so() -> None:
    before = given_up()
    before.keeps = asks(w.UpdateMetadata)
    before.publish(*REST)
    before.settle()
    between = World(IDLE, tiled=before.tiled, logs=before.logs, keeps=asks(w.UpdateMetadata))
    between.assign(committed=3, point=before.commits[-1][2])
    between.settle()
    assert {tuple(point.reopening) for _, _, point in between.commits} == {(0,)}
    world = successor(before, 3, between.commits[-1][2])
    assert_whole(world, end=5)


def test_a_crash_after_the_node_says_so_costs_nothing() -> None:
    before = given_up()
    before.keeps = asks(w.Append)
    before.publish(*REST)
    before.settle()
    assert before.tiled.facts(("r",))["state"] == "open"
    world = successor(before, 3, before.commits[-1][2])
    assert_whole(world, end=5)
    assert world.tiled.facts(("r",))["reopened"]["times"] == 1


def test_a_crash_after_its_rows_are_written_doubles_none() -> None:
    before = given_up()
    before.publish(REST[0])
    point = next(point for _, _, point in before.commits if point.reopening)
    assert before.tiled.seq_nums(TABLE) == [1]
    before.settle()
    assert before.tiled.seq_nums(TABLE) == [1, 2]
    before.logs[HOME] += [structs.replace(each, offset=4) for each in whole_stop(before)]
    world = successor(before, 3, point)
    assert_whole(world, end=5)


def whole_stop(world: World) -> list[Any]:
    """The record of the stop, which nobody has received yet."""
    beside = ready()
    beside.publish(*whole())
    return [beside.logs[HOME][-1]]


def test_a_successor_that_finds_it_named_and_silent_gives_it_up_again() -> None:
    before = given_up()
    before.keeps = asks(w.UpdateMetadata)
    before.publish(REST[0])
    before.settle()
    point = before.commits[-1][2]
    before.logs[HOME].pop()  # it was never stored: an unclean leader
    world = World(IDLE, tiled=before.tiled, logs=before.logs)
    world.assign(committed=3, point=point)
    world.settle(ticks=130)
    assert world.tiled.facts(("r",))["state"] == "abandoned"
    assert (world.commits[-1][2].start, world.commits[-1][2].reopening) == (3, [])
    world.publish(*REST)
    world.settle()
    assert_whole(world, end=5)


def test_a_zombie_cannot_open_what_it_gave_up() -> None:
    zombie = given_up()
    zombie.answers[fx.Commit] = lambda commit: fx.CommitFailed(commit.ticket, "unknown member", fenced=True)
    zombie.publish(*REST)
    zombie.settle()
    assert (states_written(zombie), zombie.letters, zombie.tiled.seq_nums(TABLE)) == (["abandoned"], [], [1])


def test_an_older_version_reads_the_resume_point() -> None:
    point = ResumePoint(3, 1, "n", TOPIC_ID, reopening=[0, 7])
    assert ResumePoint.decode(point.encode()) == point
    assert '"o"' not in ResumePoint(3, 1, "n", TOPIC_ID).encode()


def test_in_process_nothing_is_opened_again() -> None:
    """Its log holds no run."""
    world = given_up(replace(IDLE, log_holds_runs=False))
    world.publish(*REST)
    world.settle()
    assert world.codes == [(3, "late"), (4, "late")]


def test_a_drain_brings_what_waits_into_tiled_first() -> None:
    world = given_up()
    world.keeps = of(fx.ReadLog)
    world.publish(*REST)
    world.give(fx.Drain())
    assert not world.engine.finished
    world.let_go()
    world.settle()
    assert world.engine.finished
    assert_whole(world, end=5)


def test_tiled_may_be_away_meanwhile() -> None:
    world = given_up()
    world.tiled.faults.append(always(w.UpdateMetadata, w.Unknown("time-out")))
    world.publish(*REST)
    world.settle(ticks=5)
    assert (world.letters, world.committed) == ([], 3)
    world.tiled.faults.clear()
    world.settle(ticks=30)
    assert_whole(world, end=5)
