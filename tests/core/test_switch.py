"""The switch, request by request: one writer a dataset, ever, and readers see the old one or the new one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.core.test_steps import (
    POLICY,
    Around,
    MiniTiled,
    always,
    descriptor_doc,
    drive,
    event_doc,
    keys_of,
    once,
    page_doc,
    play,
    record,
    run_of,
    start_doc,
)
from tiled_ingest.core import writes as w
from tiled_ingest.core.decoding.eras import Eras
from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.effects import LogRead
from tiled_ingest.core.errors import TiledRejected
from tiled_ingest.core.record import Record
from tiled_ingest.core.rows.columns import Columns
from tiled_ingest.core.runs.documents import normalise_descriptor, rename_reserved
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.runs.stream import Stream
from tiled_ingest.core.steps import LogChunk, Procedure, Sleep
from tiled_ingest.core.writing.datasets import OURS, Superseded, facts_of, packed, unpacked
from tiled_ingest.core.writing.patience import LOSSES_MAX, WITNESSES_MIN
from tiled_ingest.core.writing.switch import Switch

LIVE = ("r", "primary", "internal")
DECODE = Eras(POLICY)


class Scene:
    """A run with one stream, whose rows an earlier claim (epoch 2) wrote: inherited, as after a rebuild."""

    def __init__(self, log: list[Record], around: Around | None = None, **start: Any) -> None:
        self.log = log
        self.around = around or Around()
        self.run: Run = run_of(start_doc(**start), inherited=True)
        self.stream: Stream | None = None
        for held in log:
            self._recall(*DECODE(held), held.offset)
        assert self.stream is not None
        self.stream.recalled()
        self.upto: int = log[-1].offset + 1

    def _recall(self, kind: str, doc: Any, offset: int) -> None:
        self.run.last_offset = offset
        if kind == "descriptor":
            normalised = normalise_descriptor(doc)
            if self.run.acceptance.descriptor(doc["uid"]) is None:
                self.run.acceptance.add_descriptor(doc["uid"], normalised.doc["name"], offset=offset, content="")
            if normalised.doc["name"] not in self.run.streams:
                self.stream = Stream((*self.run.path, normalised.doc["name"]), normalised, fresh=False)
                self.run.streams[self.stream.name] = self.stream
            else:
                self.primary.reconfigure(normalised)
        elif kind in {"event", "event_page"}:
            for event in [doc] if isinstance(doc, Event) else doc.events():
                if self.run.acceptance.add_event("primary", event.seq_num, event.uid):
                    self.primary.plan(event)
                    self.primary.recall(rename_reserved(event, self.primary.renames))

    @property
    def primary(self) -> Stream:
        return self.run.streams["primary"]

    @property
    def columns(self) -> Columns:
        assert self.primary.parts
        return self.primary.parts[0].columns

    def switch(self, upto: int | None = None) -> Procedure[None]:
        def build(batch: Any) -> Any:
            return batch.to_table(self.columns)

        switch = Switch(self.around, self.run, self.primary, self.primary.parts[0], build)
        return switch.run(self.upto if upto is None else upto)

    def old_source(self, **facts: Any) -> w.TableSource:
        known = {OURS: {"epoch": 2, "nonce": "theirs", "orders": [0], **facts}}
        return w.TableSource(1, self.columns.permuted(0), {"table_name": "table", "dataset_id": 1}, known, "duckdb")

    def tiled(self, source: w.TableSource | None = None, rows: int = 0) -> MiniTiled:
        """A Tiled in which the run's table has the first so many rows of the log."""
        tiled = MiniTiled()
        source = source or self.old_source()
        for path in (("r",), ("r", "primary")):
            tiled.nodes[path] = w.Node({})
        tiled.nodes[LIVE] = w.Node({}, source)
        tiled.rows[source.dataset] = [self.table([*range(1, rows + 1)])] if rows else []
        return tiled

    def table(self, seq_nums: list[int]) -> pa.Table:
        values: dict[str, Any] = {
            "seq_num": seq_nums, "time": [100.0 + n for n in seq_nums], "x": [float(n) for n in seq_nums],
            "i": seq_nums, "ts_x": [1.0] * len(seq_nums), "ts_i": [1.0] * len(seq_nums),
        }  # fmt: skip
        return pa.table(values, schema=self.columns.schema)


def log_of(*seq_nums: int) -> list[Record]:
    events = [record(2 + place, "event", event_doc(number)) for place, number in enumerate(seq_nums)]
    return [record(0, "start", start_doc()), record(1, "descriptor", descriptor_doc()), *events]


def chunk(log: list[Record], stop: int) -> LogRead:
    return LogRead(0, log, stop, 0)


# ---------------------------------------------------------------- the sequence


def test_a_switch_is_exactly_this_sequence() -> None:
    scene = Scene(log_of(1, 2), tiled_access_tags=["tag"])
    old = scene.old_source()
    order = 3  # it begins at the claim's epoch
    schema = scene.columns.permuted(order)
    child = (*LIVE, "rebuild-3-n1")
    facts = {"epoch": 3, "nonce": "mine", "orders": [0, order], "child": "rebuild-3-n1", "replaced": packed(old)}
    made = w.TableSource(9, schema, {"table_name": "table", "dataset_id": 9}, {OURS: facts}, "duckdb")
    rows = scene.table([1, 2]).select(schema.names)
    keys = w.Keys(rows["seq_num"].to_numpy()[::-1], rows["time"].to_numpy()[::-1])  # in whatever order
    ours = replace(made, id=1)
    play(
        scene.switch(),
        (w.GetNode(LIVE), w.Done(w.Node({}, old))),
        (w.CreateTable(LIVE, "rebuild-3-n1", schema, {}, ("tag",), {OURS: facts}), w.Done(made)),
        (LogChunk(0, 4), chunk(scene.log, 4)),
        (w.Append(child, rows), w.Done()),
        (w.ReadKeys(child), w.Done(keys)),
        (w.PutSource(LIVE, ours), w.Done()),
        (w.PutSource(child, replace(old, id=9)), w.Done()),
    )
    assert scene.primary.parts[0].source == ours
    assert scene.around.told == [("switched", {"run": "r", "stream": "primary", "rows": 2})]


def test_the_node_keeps_its_number_and_the_child_gets_the_old_rows() -> None:
    scene = Scene(log_of(1, 2, 3))
    tiled = scene.tiled(rows=2)
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1, 2, 3]
    assert tiled.seq_nums((*LIVE, "rebuild-3-n1")) == [1, 2]
    sources = [node.source for node in tiled.nodes.values() if node.source]
    assert [source.id for source in sources] == [1, 2]


def test_a_lost_reply_to_the_first_put_leaves_one_truth() -> None:
    scene = Scene(log_of(1, 2, 3))
    tiled = scene.tiled(rows=2)
    tiled.faults.append(once(w.PutSource, w.Unknown("reset"), w.Unprocessed("busy")))
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1, 2, 3]


def test_nothing_is_appended_to_what_others_made() -> None:
    scene = Scene(log_of(1, 2, 3))
    tiled = scene.tiled(rows=2)
    drive(scene.switch(), tiled, scene.log)
    assert LIVE not in {request.path for request in tiled.asked if isinstance(request, w.Append)}
    assert len(tiled.rows[scene.old_source().dataset]) == 1


def test_a_long_log_is_read_in_chunks_and_pages_come_whole() -> None:
    log = [*log_of(1, 2, 3), record(5, "event_page", page_doc(4, 5, 6)), record(9, "event", event_doc(7))]
    scene = Scene(log)
    tiled = scene.tiled()
    trace = drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1, 2, 3, 4, 5, 6, 7]
    assert [step.start for step in trace.steps if isinstance(step, LogChunk)] == [0, 3, 9]


def test_only_what_was_accepted_before_the_offset_is_written_again() -> None:
    log = [
        *log_of(1, 2, 2, 1),  # delivered again
        record(6, "event", event_doc(2, uid="rewound")),
        record(7, "descriptor", descriptor_doc("other", run="s")),
        record(8, "event", event_doc(9, descriptor="other")),
        record(9, "event", event_doc(8, descriptor="unknown")),
        Record("t", 0, 10, 0, None, b"garbage"),
    ]
    scene = Scene(log[:7])
    after = record(12, "event", event_doc(3))
    tiled = scene.tiled()
    drive(scene.switch(12), tiled, [*log, after])
    assert tiled.seq_nums(LIVE) == [1, 2, 2]


def test_a_renamed_key_is_renamed_again() -> None:
    log = [
        record(0, "start", start_doc()),
        record(1, "descriptor", descriptor_doc(x="number", i="integer", time="number")),
        record(2, "event", event_doc(1, x=1.0, i=1, time=5.0)),
    ]
    scene = Scene(log)
    tiled = scene.tiled()
    drive(scene.switch(), tiled, log)
    table = tiled.table_at(LIVE)
    assert table is not None
    assert table["time_"].to_pylist() == [5.0]


# ---------------------------------------------------------------- orders of columns


def names(source: w.TableSource) -> tuple[str, ...]:
    return tuple(source.schema.names)


def test_every_owner_has_another_order() -> None:
    log = log_of(1, 2)
    tiled = Scene(log).tiled(rows=2)
    orders = set()
    for epoch in range(3, 13):
        scene = Scene(log, Around(epoch=epoch, nonce=f"claim-{epoch}"))
        drive(scene.switch(), tiled, log)
        source = tiled.nodes[LIVE].source
        assert source is not None
        orders.add(names(source))
        assert len(facts_of(source)["orders"]) == len({*facts_of(source)["orders"]}) == epoch - 1
    assert len(orders) == 10
    assert names(scene.old_source()) not in orders


def order_after(used: list[int], epoch: int = 3) -> int:
    """The order that a claim chooses for a table whose datasets had these orders."""
    scene = Scene(log_of(1), Around(epoch=epoch))
    tiled = scene.tiled(scene.old_source(orders=used), rows=1)
    drive(scene.switch(), tiled, scene.log)
    source = tiled.nodes[LIVE].source
    assert source is not None
    *before, order = facts_of(source)["orders"]
    assert {*before} == {*used}
    return int(order)


def test_an_order_in_use_is_passed_over() -> None:
    used = [0]
    for _ in range(30):
        used.append(order_after(used))
    assert len({order % 720 for order in used}) == 31  # 6 columns have 720 orders


def test_claims_that_do_not_see_each_other_choose_different_orders() -> None:
    first = {epoch: order_after([0], epoch) for epoch in range(3, 30)}
    assert len({*first.values()}) == 27
    later = order_after([0, first[3]], 3)  # the same claim again: nor may it meet one of a neighbour
    assert later not in first.values()


def test_a_table_of_two_columns_that_runs_out_of_orders_waits_until_nothing_old_can_land() -> None:
    bare: dict[str, Any] = {**event_doc(1), "data": {}, "timestamps": {}}
    descriptor = {**descriptor_doc(), "data_keys": {}}
    log = [record(0, "start", start_doc()), record(1, "descriptor", descriptor), record(2, "event", bare)]
    tiled, slept = Scene(log).tiled(), []
    for epoch in (3, 4, 5):
        scene = Scene(log, Around(epoch=epoch, nonce=f"claim-{epoch}"))
        trace = drive(scene.switch(), tiled, log)
        waits = [step for step in trace.steps if isinstance(step, Sleep)]
        assert all(wait == Sleep(POLICY.late_write_s_max, down=False) for wait in waits)
        slept.append(len(waits))
        assert tiled.seq_nums(LIVE) == [1]
    assert slept == [0, 1, 1]


# ---------------------------------------------------------------- whose it is


@pytest.mark.parametrize(("epoch", "nonce"), [(4, "theirs"), (3, "theirs")])
def test_a_zombie_writes_nothing_more(epoch: int, nonce: str) -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled(scene.old_source(epoch=epoch, nonce=nonce), rows=1)
    with pytest.raises(Superseded):
        drive(scene.switch(), tiled, scene.log)
    assert tiled.asked == [w.GetNode(LIVE)]


def test_our_own_dataset_may_be_replaced_by_us() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled(scene.old_source(epoch=3, nonce="mine"))
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1]


def test_a_table_without_our_facts_is_an_old_one() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled(replace(scene.old_source(), properties={}))
    drive(scene.switch(), tiled, scene.log)
    source = tiled.nodes[LIVE].source
    assert source is not None
    assert facts_of(source)["orders"][0] == 0
    assert source.schema.names != scene.columns.schema.names


def test_a_child_that_exists_is_ours_when_its_word_is() -> None:
    """The reply to its creation was lost: the random word in its name is nobody else's."""
    scene = Scene(log_of(1))
    tiled = scene.tiled()

    def applied_but_lost(request: w.Request) -> w.Outcome | None:
        if isinstance(request, w.CreateTable) and tiled.count(w.CreateTable) == 1:
            tiled.apply(request)
            return w.Unknown("reset")
        return None

    tiled.faults.append(applied_but_lost)
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1]
    assert len([path for path in tiled.nodes if path[:3] == LIVE]) == 2


def test_a_child_that_vanishes_gets_a_successor() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled()
    tiled.faults.append(once(w.CreateTable, w.Exists()))
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1]
    assert (*LIVE, "rebuild-3-n2") in tiled.nodes


# ---------------------------------------------------------------- a crash between the two PUTs


class Killed(Exception):
    """The owner died here."""


def half_switched() -> MiniTiled:
    scene = Scene(log_of(1, 2))
    tiled = scene.tiled(rows=1)

    def die(request: w.Request) -> None:
        if isinstance(request, w.PutSource) and request.path != LIVE:
            raise Killed

    tiled.faults.append(die)
    with pytest.raises(Killed):
        drive(scene.switch(), tiled, scene.log)
    tiled.faults.clear()
    return tiled


def test_the_next_owner_finishes_what_was_begun() -> None:
    tiled, child = half_switched(), (*LIVE, "rebuild-3-n1")
    assert tiled.seq_nums(child) == tiled.seq_nums(LIVE) == [1, 2]  # both name one dataset
    scene = Scene(log_of(1, 2), Around(epoch=4, nonce="next"))
    tiled.asked.clear()
    drive(scene.switch(), tiled, scene.log)
    assert isinstance(tiled.asked[0], w.GetNode)
    assert tiled.asked[1] == w.GetNode(child)
    assert isinstance(tiled.asked[2], w.PutSource)
    assert tiled.asked[2].path == child
    assert tiled.seq_nums(child) == [1]
    assert tiled.seq_nums(LIVE) == [1, 2]
    datasets = [node.source.dataset for node in tiled.nodes.values() if node.source]
    assert len(set(datasets)) == len(datasets) == 3


def test_what_is_finished_is_not_finished_again() -> None:
    log = log_of(1, 2)
    scene = Scene(log)
    tiled = scene.tiled(rows=1)
    drive(scene.switch(), tiled, log)
    tiled.asked.clear()
    drive(Scene(log, Around(epoch=4, nonce="next")).switch(), tiled, log)
    assert tiled.seq_nums((*LIVE, "rebuild-3-n1")) == [1]
    puts = [request.path for request in tiled.asked if isinstance(request, w.PutSource)]
    assert puts == [LIVE, (*LIVE, "rebuild-4-n1")]


def test_a_packed_source_comes_back_without_the_chain_of_its_ancestors() -> None:
    scene = Scene(log_of(1))
    node = scene.old_source()
    old = scene.old_source(replaced=packed(node), child="rebuild-2-x")
    back = unpacked(packed(old), replace(node, id=7))
    assert (back.id, back.schema, back.parameters, back.storage) == (7, old.schema, old.parameters, "duckdb")
    assert facts_of(back) == {"epoch": 2, "nonce": "theirs", "orders": [0], "child": "rebuild-2-x"}


# ---------------------------------------------------------------- when the child is not filled


def test_an_unknown_append_to_the_child_begins_another_child() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled()
    tiled.faults.append(once(w.Append, w.Unknown("timeout")))
    trace = drive(scene.switch(), tiled, scene.log)
    assert [request.path[-1] for request in tiled.asked if isinstance(request, w.Append)] == [
        "rebuild-3-n1",
        "rebuild-3-n2",
    ]
    assert tiled.seq_nums(LIVE) == [1]
    assert trace.slept_s >= POLICY.late_write_s_max


def test_an_unknown_append_to_the_child_that_is_found_goes_on() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled()

    def applied_but_lost(request: w.Request) -> w.Outcome | None:
        return w.Unknown("reset") if isinstance(request, w.Append) and tiled.apply(request) else None

    tiled.faults.append(applied_but_lost)
    drive(scene.switch(), tiled, scene.log)
    assert tiled.count(w.Append) == tiled.count(w.CreateTable) == 1
    assert tiled.seq_nums(LIVE) == [1]


def test_an_append_that_was_not_processed_is_sent_again() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled()
    tiled.faults.append(once(w.Append, w.Unprocessed("locked"), w.Unprocessed("locked")))
    drive(scene.switch(), tiled, scene.log)
    assert (tiled.count(w.Append), tiled.count(w.CreateTable)) == (3, 1)


def test_a_child_whose_rows_read_back_otherwise_is_not_shown() -> None:
    scene = Scene(log_of(1, 2))
    tiled = scene.tiled(rows=1)
    one_short = keys_of(scene.table([1]))
    tiled.faults.append(once(w.ReadKeys, w.Done(one_short)))
    drive(scene.switch(), tiled, scene.log)
    assert tiled.count(w.CreateTable) == 2
    assert tiled.count(w.PutSource) == 2
    assert tiled.seq_nums(LIVE) == [1, 2]


def test_children_that_never_show_what_was_confirmed_end_in_a_rejection() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled(rows=1)
    tiled.faults.append(once(w.ReadKeys, *[w.Done(keys_of(None))] * 99))
    with pytest.raises(TiledRejected, match=r"1 rows .* 0 are there"):
        drive(scene.switch(), tiled, scene.log)
    assert tiled.count(w.CreateTable) == LOSSES_MAX + 1
    assert tiled.count(w.PutSource) == 0


def test_children_that_show_other_rows_end_in_a_rejection_soon() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled(rows=1)
    other = w.Keys(np.array([7], np.int64), np.array([7.0]))
    tiled.faults.append(once(w.ReadKeys, *[w.Done(other)] * 99))
    with pytest.raises(TiledRejected, match=r"1 rows .* 1 are there, or others"):
        drive(scene.switch(), tiled, scene.log)
    assert 1 < tiled.count(w.CreateTable) < LOSSES_MAX


def test_rows_that_were_lost_are_written_again_after_a_pause_each_time_longer() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled(rows=1)
    tiled.faults.append(once(w.ReadKeys, *[w.Done(keys_of(None))] * 9))
    driven = drive(scene.switch(), tiled, scene.log)
    assert tiled.count(w.PutSource) == 2
    pauses = [step.seconds for step in driven.steps if isinstance(step, Sleep)]
    assert len(pauses) == 9
    assert max(pauses) > 2 * min(pauses)


def lost(tiled: MiniTiled, path: w.Path) -> None:
    """What Tiled shows at this path at first, its database does not have: each request for its rows is answered 500."""
    datasets: list[Any] = []

    def fault(request: w.Request) -> w.Outcome | None:
        if not isinstance(request, w.Append | w.ReadKeys) or request.path != path:
            return None
        source = tiled.nodes[request.path].source
        assert source is not None
        datasets.append(source.dataset)
        return w.Unknown("no such table", 500) if source.dataset == datasets[0] else None

    tiled.faults.append(fault)


def test_a_child_that_its_database_has_lost_is_left_for_another_one() -> None:
    scene = Scene(log_of(1, 2))
    tiled = scene.tiled(rows=1)
    lost(tiled, (*LIVE, "rebuild-3-n1"))
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1, 2]
    assert tiled.count(w.PutSource) == 2
    assert [word for word, _ in scene.around.told] == ["unreadable", "switched"]


def is_probe(request: w.Append) -> bool:
    return request.path[-1].startswith("probe")


def test_a_child_that_fails_while_a_probe_is_taken_is_rejected() -> None:
    scene = Scene(log_of(1))
    tiled = scene.tiled(rows=1)
    boom = w.Unknown("boom", 500)
    tiled.faults.append(once(w.Append, *[boom] * 99, where=lambda ask: not is_probe(ask)))
    with pytest.raises(TiledRejected, match="boom"):
        drive(scene.switch(), tiled, scene.log)
    appends = [ask for ask in tiled.asked if isinstance(ask, w.Append) and not is_probe(ask)]
    assert len(appends) == POLICY.server_errors_max + WITNESSES_MIN
    assert tiled.count(w.PutSource) == 0
    assert tiled.seq_nums(LIVE) == [1]


@pytest.mark.parametrize("failures", range(1, 13))
def test_an_outage_in_a_switch_rejects_nothing_whenever_it_ends(failures: int) -> None:
    scene = Scene(log_of(1, 2))
    tiled = scene.tiled(rows=1)
    tiled.faults.append(once(w.Append, *[w.Unknown("boom", 500)] * failures))
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1, 2]


def test_appends_that_only_time_out_condemn_no_run() -> None:
    """Slow is no reason: design.md knows rejection by 4xx, or by the same 5xx again and again."""
    scene = Scene(log_of(1, 2))
    tiled = scene.tiled(rows=1)
    tiled.faults.append(once(w.Append, *[w.Unknown("timeout")] * 30))
    drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1, 2]


# ---------------------------------------------------------------- what cannot be switched


def test_a_log_that_lost_the_beginning_cannot_be_the_base() -> None:
    scene = Scene(log_of(1, 2))
    tiled = scene.tiled(rows=2)
    with pytest.raises(TiledRejected, match="begins at 3"):
        drive(scene.switch(), tiled, scene.log, low=3)
    assert tiled.count(w.PutSource) == 0


def test_a_log_that_holds_other_rows_than_were_accepted_cannot_be_the_base() -> None:
    scene = Scene(log_of(1, 2, 3))
    tiled = scene.tiled(rows=2)
    with pytest.raises(TiledRejected, match=r"2 accepted rows .* 3 were expected"):
        drive(scene.switch(), tiled, scene.log[:-1])
    assert tiled.count(w.PutSource) == 0


def test_a_table_that_is_gone_is_rejected() -> None:
    scene = Scene(log_of(1))
    with pytest.raises(TiledRejected, match="gone"):
        drive(scene.switch(), MiniTiled(), scene.log)


def test_rows_that_tiled_refuses_are_rejected_and_readers_keep_the_old_ones() -> None:
    scene = Scene(log_of(1, 2))
    tiled = scene.tiled(rows=1)
    tiled.faults.append(always(w.Append, w.Rejected("no", 400)))
    with pytest.raises(TiledRejected):
        drive(scene.switch(), tiled, scene.log)
    assert tiled.seq_nums(LIVE) == [1]
