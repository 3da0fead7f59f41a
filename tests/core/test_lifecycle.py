"""A run's node and its end: made once, adopted only if it is ours, closed only after an audit, failed in order."""

from typing import Any

import numpy as np
import pytest

from tests.core.test_steps import (
    HOME,
    TOPIC_ID,
    Around,
    MiniTiled,
    always,
    descriptor_doc,
    drive,
    event_doc,
    once,
    play,
    record,
    run_of,
    start_doc,
    stop_doc,
)
from tests.core.test_switch import LIVE, Scene, log_of
from tests.core.test_tables import Desk
from tiled_ingest.core import writes as w
from tiled_ingest.core.errors import Forbidden, TiledRejected
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.runs.documents import Normalised, content_hash, normalise_descriptor
from tiled_ingest.core.runs.lifecycle import (
    STREAM_SPECS,
    close_run,
    decide_failure,
    do_chore,
    emit_run,
    final_state,
    mark_failed,
    open_run,
    run_facts,
)
from tiled_ingest.core.runs.run import Chore, Run, Verdict
from tiled_ingest.core.runs.states import State, Trigger
from tiled_ingest.core.runs.stream import Stream
from tiled_ingest.core.steps import Letters, LogChunk
from tiled_ingest.core.writing.datasets import OURS

SPECS = (("BlueskyRun", "3.0"),)
OURS_FAILED = Verdict("TiledRejected", "run_failed", "no place for it", ours=True)
THEIRS = Verdict("InvalidDocument", "foreign_run", "someone else's", ours=False)


def facts(state: str = "open", **changes: Any) -> dict[str, Any]:
    """Our facts as they stand in Tiled for the run `r`, written by the claim before ours."""
    source = {"topic": "t", "topic_id": TOPIC_ID, "partition": 0, "first_offset": 0}
    found = {
        "version": "0", "state": state, "rows": {}, "source": source, "notes": [], "epoch": 2,
        "start_hash": content_hash(start_doc()),
    }  # fmt: skip
    return {**found, **changes}


def tiled_with(ours: Any) -> MiniTiled:
    tiled = MiniTiled()
    tiled.nodes["r",] = w.Node({"start": start_doc(), **({} if ours is None else {OURS: ours})})
    return tiled


# ---------------------------------------------------------------- the run's node


def test_a_new_run_gets_its_parents_and_its_node() -> None:
    start = start_doc(tiled_access_tags="tag", tiled_specs=["mine"])
    run = Run(HOME, ("a", "b"), start, content_hash(start), 5, inherited=False)
    around = Around()
    metadata = {
        "start": {"uid": "r", "time": 1.0},
        OURS: {
            "version": "0", "state": "open", "rows": {}, "notes": [], "epoch": 3, "start_hash": content_hash(start),
            "source": {"topic": "t", "topic_id": TOPIC_ID, "partition": 0, "first_offset": 5},
        },
    }  # fmt: skip
    node = w.CreateContainer(("a", "b"), "r", metadata, (("mine", None), *SPECS), ("tag",))
    play(open_run(around, run), (w.EnsureContainer(("a", "b")), w.Done()), (node, w.Done()))
    assert (run.state, run.opened) == (State.OPEN, True)


@pytest.mark.parametrize("inherited", [True, False])
def test_an_open_run_of_ours_is_adopted(inherited: bool) -> None:
    run, tiled = run_of(inherited=inherited), tiled_with(facts())
    drive(open_run(Around(), run), tiled)
    assert (run.state, run.opened) == (State.OPEN, True)
    assert tiled.count(w.CreateContainer) == (0 if inherited else 1)
    assert tiled.count(w.UpdateMetadata) == 0


FOREIGN = [
    None,
    "a word",
    facts(source={"topic": "t", "topic_id": "another", "partition": 0}),
    facts(source={"topic": "t", "topic_id": TOPIC_ID, "partition": 1}),
    facts(source={}),
    facts(source=None),
    {},
    {"state": "complete"},
]


@pytest.mark.parametrize("ours", FOREIGN)
def test_a_run_of_others_is_left_alone(ours: Any) -> None:
    run, tiled = run_of(), tiled_with(ours)
    drive(open_run(Around(), run), tiled)
    assert run.verdict is not None
    assert (run.state, run.opened, run.verdict.code, run.verdict.ours) == (
        State.CONDEMNED,
        False,
        "foreign_run",
        False,
    )
    assert tiled.count(w.UpdateMetadata) == 0


def test_another_run_under_the_same_uid_is_conflicting_and_left_alone() -> None:
    run, tiled = run_of(start_doc(scan_id=2)), tiled_with(facts())
    drive(open_run(Around(), run), tiled)
    assert run.verdict is not None
    assert (run.state, run.verdict.code, run.verdict.ours) == (State.CONDEMNED, "conflicting_run", False)


@pytest.mark.parametrize("state", ["complete", "incomplete", "abandoned"])
def test_a_closed_run_of_ours_is_recognised_up_to_where_it_was_written(state: str) -> None:
    found = facts(state)
    found["source"]["last_offset"] = 17
    run = run_of()
    drive(open_run(Around(), run), tiled_with(found))
    assert (run.state, run.known_to, run.opened) == (State.REDELIVERED, 17, False)


@pytest.mark.parametrize(
    "ours",
    [facts("failed"), facts("open", failing={"code": "run_failed", "error": "why"}), facts("failed", failing={})],
)
def test_a_run_that_was_failing_goes_on_failing(ours: dict[str, Any]) -> None:
    run = run_of(inherited=True)
    run.emitted_to = 40
    drive(open_run(Around(), run), tiled_with(ours))
    assert run.verdict is not None
    assert (run.state, run.verdict.code, run.verdict.ours) == (State.CONDEMNED, "run_failed", True)
    assert run.emitted_to == 0  # wholly


@pytest.mark.parametrize("inherited", [True, False])
def test_a_node_that_vanishes_is_a_rejection(inherited: bool) -> None:
    tiled = MiniTiled()
    tiled.faults.append(always(w.CreateContainer, w.Exists()))
    with pytest.raises(TiledRejected, match="gone"):
        drive(open_run(Around(), run_of(inherited=inherited)), tiled)


def test_a_refused_access_tag_is_about_the_run_any_other_refusal_about_us() -> None:
    tiled = MiniTiled()
    tiled.faults.append(once(w.CreateContainer, w.Denied("access tag 'x' refused", 403), w.Denied("scope", 403)))
    with pytest.raises(TiledRejected):
        drive(open_run(Around(), run_of()), tiled)
    with pytest.raises(Forbidden):
        drive(open_run(Around(), run_of()), tiled)


# ---------------------------------------------------------------- a closed run is believed only if it is whole


def closed_with_table(rows_said: int, rows_there: int, **source: Any) -> MiniTiled:
    scene = Scene(log_of(1, 2, 3))
    tiled = scene.tiled(scene.old_source(**source), rows=rows_there)
    found = facts("complete", rows={"primary": rows_said, "quiet": 0})
    found["source"]["last_offset"] = 17
    tiled.nodes["r",] = w.Node({OURS: found})
    return tiled


def test_a_closed_run_with_all_its_rows_is_believed() -> None:
    run = run_of()
    drive(open_run(Around(), run), closed_with_table(2, 2))
    assert run.state is State.REDELIVERED


@pytest.mark.parametrize(("said", "there", "source"), [(2, 1, {}), (2, 3, {}), (2, 2, {"epoch": 3, "nonce": "mine"})])
def test_a_closed_run_whose_tables_are_others_than_its_audit_saw_is_open(
    said: int, there: int, source: dict[str, Any]
) -> None:
    run = run_of()
    drive(open_run(Around(), run), closed_with_table(said, there, **source))
    assert (run.state, run.opened) == (State.OPEN, True)


def test_a_closed_run_whose_table_is_gone_is_open() -> None:
    run, tiled = run_of(), closed_with_table(2, 2)
    del tiled.nodes[LIVE]
    drive(open_run(Around(), run), tiled)
    assert run.state is State.OPEN


ARRAY = ("r", "primary", "img")


@pytest.mark.parametrize(
    ("rows", "epoch", "state"),
    [(2, 1, State.REDELIVERED), (1, 1, State.OPEN), (2, 3, State.OPEN), (None, 1, State.OPEN)],
)
def test_a_closed_run_is_believed_only_if_its_arrays_are_those_that_its_audit_saw(
    rows: int | None, epoch: int, state: State
) -> None:
    """A successor of who closed it may have switched an array, and died before it came to the table."""
    run, tiled = run_of(), closed_with_table(2, 2)
    found = {**facts("complete", rows={"primary": 2}), "arrays": {"primary": {"img": 2}}}
    tiled.nodes["r",] = w.Node({OURS: found})
    if rows is not None:
        properties = {OURS: {"epoch": epoch, "nonce": "theirs"}}
        array = w.ArraySource(
            5, "array", np.dtype("i8"), (rows, 3), ((rows,), (3,)), ("time", "x"), properties=properties
        )
        tiled.nodes[ARRAY] = w.Node({}, array=array)
    drive(open_run(Around(), run), tiled)
    assert run.state is state


# ---------------------------------------------------------------- streams


def chore_of(run: Run, doc: dict[str, Any], *, update: bool = False) -> Chore:
    normalised = normalise_descriptor(doc)
    stream = Stream(("r", normalised.doc["name"]), normalised, fresh=True)
    return Chore(stream, normalised.doc, update, Hold(1, 1))


def test_a_stream_gets_its_node_with_the_runs_tags() -> None:
    run = run_of(start_doc(tiled_access_tags=["tag"]))
    chore = chore_of(run, descriptor_doc(x="number"))
    described = {"dtype": "number", "shape": [], "source": "s", "dtype_numpy": "<f8"}
    metadata = {"uid": "d", "time": 1.0, "data_keys": {"x": described}}
    node = w.CreateContainer(("r",), "primary", metadata, STREAM_SPECS, ("tag",))
    play(do_chore(Around(), run, chore), (node, w.Done()))
    assert chore.stream.fresh


def test_a_stream_that_is_there_may_have_someones_table() -> None:
    run = run_of()
    chore = chore_of(run, descriptor_doc())
    play(do_chore(Around(), run, chore), (w.CreateContainer, w.Exists()))
    assert not chore.stream.fresh


def test_a_stream_without_its_run_is_a_rejection() -> None:
    run = run_of()
    with pytest.raises(TiledRejected, match="gone"):
        play(do_chore(Around(), run, chore_of(run, descriptor_doc())), (w.CreateContainer, w.Missing()))


def configured(uid: str) -> Normalised:
    doc = {**descriptor_doc(uid), "configuration": {"det": {"data": {"gain": float(uid[1])}}}}
    return normalise_descriptor(doc)


def updates_of(tiled: MiniTiled) -> list[str]:
    return [update["uid"] for update in tiled.nodes["r", "primary"].metadata["_config_updates"]]


def test_later_descriptors_are_listed_once_however_often_they_are_written() -> None:
    run, tiled = run_of(), MiniTiled()
    tiled.nodes["r", "primary"] = w.Node({"uid": "d"})
    stream = chore_of(run, descriptor_doc()).stream
    for uid in ("d2", "d3"):
        stream.reconfigure(configured(uid))
        for _ in range(2):  # the first reply was lost
            drive(do_chore(Around(), run, Chore(stream, configured(uid).doc, True, Hold(1, 1))), tiled)
        assert updates_of(tiled)[-1] == uid
    assert updates_of(tiled) == ["d2", "d3"]
    listed = tiled.nodes["r", "primary"].metadata["_config_updates"]
    assert listed[0]["configuration"]["det"]["data"] == {"gain": 2.0}
    assert tiled.nodes["r", "primary"].metadata["uid"] == "d"


def test_an_update_for_a_stream_that_vanishes_is_not_settled() -> None:
    run, tiled = run_of(), MiniTiled()
    chore = chore_of(run, descriptor_doc("d2"), update=True)
    with pytest.raises(TiledRejected, match="gone"):
        drive(do_chore(Around(), run, chore), tiled)
    tiled.nodes["r", "primary"] = w.Node({"uid": "d"})
    tiled.faults.append(always(w.UpdateMetadata, w.Missing()))
    with pytest.raises(TiledRejected, match="gone"):
        drive(do_chore(Around(), run, chore), tiled)


def test_an_update_that_landed_late_over_a_longer_list_is_repaired_at_stop() -> None:
    desk, tiled = stopped(1, primary=1)
    for uid in ("d2", "d3"):
        desk.primary.reconfigure(configured(uid))
    tiled.nodes["r", "primary"] = w.Node({"_config_updates": [{"uid": "d2"}]})
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert updates_of(tiled) == ["d2", "d3"]
    assert desk.run.state is State.FINISHED


# ---------------------------------------------------------------- the end


def stopped(*seq_nums: int, **num_events: int) -> tuple[Desk, MiniTiled]:
    """A run of which everything is in Tiled but its stop."""
    desk = Desk()
    tiled = desk.empty_tiled()
    if seq_nums:
        drive(desk.append(*(event_doc(number) for number in seq_nums)), tiled, desk.log)
    desk.run.stop = stop_doc(num_events=num_events)
    desk.log.append(record(desk.log[-1].offset + 1, "stop", desk.run.stop))
    desk.run.last_offset = desk.log[-1].offset
    desk.run.meet(Trigger.STOP)
    tiled.asked.clear()
    return desk, tiled


def test_a_run_is_audited_then_marked_then_closed_for_live_readers() -> None:
    desk, tiled = stopped(1, 2, primary=2)
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert [type(request) for request in tiled.asked] == [w.GetNode, w.ReadKeys, w.UpdateMetadata, w.CloseStreams]
    metadata = tiled.nodes["r",].metadata
    assert metadata["stop"] == desk.run.stop
    assert (metadata[OURS]["state"], metadata[OURS]["rows"]) == ("complete", {"primary": 2})
    assert metadata[OURS]["source"]["last_offset"] == desk.run.last_offset
    assert tiled.closed == [LIVE, ("r", "primary"), ("r",)]
    assert desk.run.state is State.FINISHED


def test_closing_may_be_repeated_as_a_whole() -> None:
    desk, tiled = stopped(1, primary=2)
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    before = dict(tiled.nodes)
    desk.run.state = State.CLOSING
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert tiled.nodes == before


def test_a_stop_whose_reply_was_lost_is_written_again() -> None:
    desk, tiled = stopped(1)
    tiled.faults += [once(w.UpdateMetadata, w.Unknown("reset")), once(w.CloseStreams, w.Unknown("reset"))]
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert desk.run.state is State.FINISHED
    assert "stop" in tiled.nodes["r",].metadata


def test_a_run_whose_node_vanished_is_not_closed() -> None:
    """A document is settled when Tiled confirmed its effect; 404 confirms nothing."""
    desk, tiled = stopped()
    del tiled.nodes["r",]
    with pytest.raises(TiledRejected, match="gone"):
        drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert desk.run.state is State.CLOSING


def test_a_run_that_cannot_be_repaired_is_not_closed() -> None:
    desk, tiled = stopped(1, 2)
    tiled.rows[desk.source.dataset].clear()
    tiled.faults.append(always(w.CreateTable, w.Rejected("no", 422)))
    with pytest.raises(TiledRejected):
        drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert "stop" not in tiled.nodes["r",].metadata


def abandoned(*seq_nums: int) -> tuple[Desk, MiniTiled]:
    desk = Desk()
    tiled = desk.empty_tiled()
    drive(desk.append(*(event_doc(number) for number in seq_nums)), tiled, desk.log)
    desk.run.meet(Trigger.IDLE)
    return desk, tiled


def test_an_abandoned_run_is_closed_without_an_invented_stop() -> None:
    desk, tiled = abandoned(1, 2)
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    metadata = tiled.nodes["r",].metadata
    assert metadata[OURS]["state"] == "abandoned"
    assert "stop" not in metadata
    assert tiled.closed == [LIVE, ("r", "primary"), ("r",)]


def test_the_last_rows_of_an_abandoned_run_are_repaired_too() -> None:
    desk, tiled = abandoned(1, 2)
    tiled.rows[desk.source.dataset].clear()
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2]
    assert tiled.facts(("r",))["state"] == "abandoned"


@pytest.mark.parametrize(
    ("num_events", "expected"),
    [
        ({"primary": 3}, "complete"),
        ({"primary": 2}, "complete"),  # rows may exceed it after rewinds
        ({}, "complete"),
        ({"primary": 4}, "incomplete"),
        ({"primary": 3, "baseline": 0}, "complete"),
        ({"primary": 3, "baseline": 1}, "incomplete"),
    ],
)
def test_the_stops_count_tells_whether_the_run_is_complete(num_events: dict[str, int], expected: str) -> None:
    desk, _ = stopped(1, 2, 3, **num_events)
    assert final_state(desk.run) == expected
    assert bool(desk.run.notes) == (expected == "incomplete")


def test_rewound_rows_do_not_make_up_for_missing_ones() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    drive(desk.append(event_doc(1), event_doc(2), event_doc(2, uid="again")), tiled, desk.log)
    desk.run.meet(Trigger.STOP)
    desk.run.stop = stop_doc(num_events={"primary": 3})
    assert final_state(desk.run) == "incomplete"


@pytest.mark.parametrize("stop", [{"num_events": None}, {}])
def test_an_old_stop_counts_nothing(stop: dict[str, Any]) -> None:
    run = run_of()
    run.meet(Trigger.STOP)
    run.stop = stop
    assert final_state(run) == "complete"


def test_notes_are_written_once_each() -> None:
    desk, tiled = stopped(1, primary=1)
    desk.run.notes += ["a", "b", "a"]
    drive(close_run(desk.around, desk.run), tiled, desk.log)
    assert tiled.nodes["r",].metadata["notes"] == tiled.facts(("r",))["notes"] == ["a", "b"]


def test_only_an_ended_run_says_where_it_ended() -> None:
    run = run_of()
    assert "last_offset" not in run_facts(Around(), run, "open")["source"]
    assert run_facts(Around(), run, "abandoned")["source"]["last_offset"] == 0


# ---------------------------------------------------------------- failing


def condemned(verdict: Verdict = OURS_FAILED) -> tuple[Desk, MiniTiled]:
    desk, tiled = stopped(1, 2)
    desk.log.insert(2, replaced_offset(desk, "bulk_events", {"s": []}))
    desk.run.condemn(verdict)
    return desk, tiled


def replaced_offset(desk: Desk, name: str, doc: dict[str, Any]) -> Any:
    """A record of nobody between the run's own ones (offsets from 2 on move by one)."""
    desk.log[2:] = [type(held)(*held.home, held.offset + 1, 0, None, held.value) for held in desk.log[2:]]
    desk.run.last_offset += 1
    return record(2, name, doc)


def test_a_failure_is_decided_durably_then_emitted_then_marked() -> None:
    desk, tiled = condemned()
    drive(decide_failure(desk.around, desk.run), tiled)
    decided = tiled.facts(("r",))
    assert (decided["state"], decided["failing"]) == ("open", {"code": "run_failed", "error": "no place for it"})
    trace = drive(emit_run(desk.around, desk.run, OURS_FAILED), tiled, desk.log)
    assert [letter.record.offset for letter in trace.letters] == [0, 1, 3, 4, 5]
    assert {(letter.reason, letter.code, letter.run) for letter in trace.letters} == {
        ("TiledRejected", "run_failed", "r")
    }
    assert tiled.facts(("r",))["state"] == "open"
    drive(mark_failed(desk.around, desk.run), tiled)
    marked = tiled.facts(("r",))
    assert (marked["state"], marked["failing"]["code"]) == ("failed", "run_failed")
    assert tiled.closed == [LIVE, ("r", "primary"), ("r",)]
    assert tiled.nodes["r",].metadata["stop"] == desk.run.stop


@pytest.mark.parametrize("write", [decide_failure, mark_failed])
def test_a_node_that_was_deleted_is_made_again_to_say_that_the_run_fails(write: Any) -> None:
    desk, tiled = condemned()
    for path in [path for path in tiled.nodes if path[:1] == ("r",)]:
        del tiled.nodes[path]
    drive(write(desk.around, desk.run), tiled)
    assert tiled.facts(("r",))["failing"]["code"] == "run_failed"
    assert tiled.nodes["r",].metadata["start"]["uid"] == "r"


def test_a_node_of_others_is_not_told_of_our_failure() -> None:
    desk, tiled = condemned(THEIRS)
    assert drive(decide_failure(desk.around, desk.run), tiled).steps == []


def test_letters_go_out_chunk_by_chunk_each_confirmed_before_the_next_is_read() -> None:
    desk, tiled = condemned()
    trace = drive(emit_run(desk.around, desk.run, OURS_FAILED), tiled, desk.log)
    assert [type(step) for step in trace.steps] == [LogChunk, Letters, LogChunk, Letters]
    assert desk.run.emitted_to == desk.run.last_offset + 1


def test_what_is_out_already_is_not_sent_again() -> None:
    desk, tiled = condemned()
    desk.run.emitted_to = 4
    trace = drive(emit_run(desk.around, desk.run, OURS_FAILED), tiled, desk.log)
    assert [letter.record.offset for letter in trace.letters] == [4, 5]


def test_documents_that_arrive_meanwhile_go_out_too() -> None:
    desk, tiled = condemned()
    procedure = emit_run(desk.around, desk.run, OURS_FAILED)
    trace = drive(procedure, tiled, desk.log)
    desk.log.append(record(6, "event", event_doc(3)))
    desk.run.last_offset = 6
    trace = drive(emit_run(desk.around, desk.run, OURS_FAILED), tiled, desk.log)
    assert [letter.record.offset for letter in trace.letters] == [6]


def test_documents_of_other_runs_stay_where_they_are() -> None:
    desk, tiled = condemned()
    others = [
        record(6, "start", start_doc("s")),
        record(7, "descriptor", descriptor_doc("e", run="s")),
        record(8, "event", event_doc(1, descriptor="e")),
        record(9, "event", event_doc(4)),
    ]
    desk.log += others
    desk.run.last_offset = 9
    trace = drive(emit_run(desk.around, desk.run, OURS_FAILED), tiled, desk.log)
    assert [letter.record.offset for letter in trace.letters] == [0, 1, 3, 4, 5, 9]


# ---------------------------------------------------------------- where runs are made


def test_a_parent_is_looked_for_once_and_made_again_if_somebody_deleted_it() -> None:
    around, tiled = Around(), MiniTiled()
    runs = [Run(HOME, ("raw",), start_doc(uid), "hash", 0, inherited=False) for uid in ("one", "two", "three")]
    for run in runs:
        drive(open_run(around, run), tiled)
        if run.uid == "two":
            del tiled.nodes["raw",]
    assert [run.state for run in runs] == [State.OPEN] * 3
    assert tiled.count(w.EnsureContainer) == 2
    assert tiled.count(w.CreateContainer) == 4
