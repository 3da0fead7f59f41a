"""Rows go into a stream's table exactly once, whatever becomes of the replies; the audit sees what did not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    play,
    record,
    start_doc,
)
from tests.core.test_switch import DECODE, LIVE, Scene, log_of
from tests.core.test_switch import lost as lost_by_its_database
from tiled_ingest.core import writes as w
from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.errors import Forbidden, TiledRejected
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.rows.batches import Batch, RowBuffer
from tiled_ingest.core.runs.documents import normalise_descriptor
from tiled_ingest.core.steps import Procedure, Sleep
from tiled_ingest.core.writing.datasets import OURS, Superseded, facts_of
from tiled_ingest.core.writing.patience import WITNESSES_MIN
from tiled_ingest.core.writing.tables import REPAIRS_MAX, SEED
from tiled_ingest.core.writing.values import Values

BOOM = w.Unknown("boom", 500)
IMPATIENT = Policy(late_write_s_max=0.0, server_errors_max=3)


class Desk(Scene):
    """A run's stream with a table to fill; `fresh`: nobody was here before."""

    def __init__(self, *seq_nums: int, fresh: bool = True, around: Around | None = None, **start: Any) -> None:
        super().__init__(log_of(*seq_nums), around, **start)
        self.primary.fresh = fresh
        self.values = Values(self.around, self.run, self.primary)

    @property
    def source(self) -> w.TableSource:
        assert self.primary.parts[0].source is not None
        return self.primary.parts[0].source

    def batch(self, *events: dict[str, Any]) -> Batch:
        """The next accepted events, at the end of the log."""
        buffer = RowBuffer()
        for doc in events:
            offset = self.log[-1].offset + 1
            self.log.append(record(offset, "event", doc))
            event = DECODE(self.log[-1])[1]
            assert isinstance(event, Event)
            assert self.run.acceptance.add_event("primary", event.seq_num, event.uid)
            self.primary.plan(event)
            buffer.append(event, offset, 10)
        self.run.last_offset = self.log[-1].offset
        return buffer.take()

    def append(self, *events: dict[str, Any]) -> Procedure[set[int]]:
        return self.values.append(self.batch(*events))

    def audit(self) -> Procedure[None]:
        return self.values.audit(self.run.last_offset + 1)

    def empty_tiled(self, storage: str = "duckdb") -> MiniTiled:
        tiled = MiniTiled(storage)
        tiled.nodes |= {("r",): w.Node({}), ("r", "primary"): w.Node({})}
        return tiled


def told(desk: Desk, event: str) -> list[Any]:
    return [fields for word, fields in desk.around.told if word == event]


def appends(tiled: MiniTiled) -> list[tuple[str, list[int]]]:
    asked = [ask for ask in tiled.asked if isinstance(ask, w.Append)]
    return [(ask.path[-1], [int(number) for number in keys_of(ask.table).seq_num]) for ask in asked]


# ---------------------------------------------------------------- create and append


def test_the_first_batch_makes_the_table_and_goes_in() -> None:
    desk = Desk(tiled_access_tags=["tag"])
    batch = desk.batch(event_doc(1), event_doc(2))
    schema = desk.columns.schema
    facts = {OURS: {"epoch": 3, "nonce": "mine", "orders": [0]}}
    source = w.TableSource(8, schema, {"table_name": "t", "dataset_id": 1}, facts, "postgresql")
    metadata = {key: desk.primary.data_keys[key] for key in ("x", "i")}
    misfits = play(
        desk.values.append(batch),
        (w.CreateTable(("r", "primary"), "internal", schema, metadata, ("tag",), facts), w.Done(source)),
        (w.Append(LIVE, desk.table([1, 2])), w.Done()),
    )
    assert misfits == set()
    assert desk.primary.parts[0].source == source
    assert desk.primary.confirmed.count == 2
    play(desk.append(event_doc(3)), (w.Append(LIVE, desk.table([3])), w.Done()))
    assert desk.primary.confirmed.count == 3


def test_nothing_is_confirmed_before_tiled_said_so() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    procedure = desk.append(event_doc(1))
    answer: Any = None
    for _ in range(2):
        step = procedure.send(answer)
        assert desk.primary.confirmed.count == 0
        answer = tiled(step)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        procedure.send(answer)
    assert desk.primary.confirmed.count == 1


def test_a_create_whose_reply_was_lost_is_recognised_by_its_word() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()

    def applied_but_lost(request: w.Request) -> w.Outcome | None:
        if isinstance(request, w.CreateTable) and tiled.count(w.CreateTable) == 1:
            tiled.apply(request)
            return w.Unknown("reset")
        return None

    tiled.faults.append(applied_but_lost)
    drive(desk.append(event_doc(1)), tiled, desk.log)
    assert appends(tiled) == [("internal", [1])]
    assert tiled.count(w.PutSource) == 0


def test_a_create_that_meets_the_table_of_another_switches_even_if_it_is_empty() -> None:
    desk = Desk(1)
    tiled = desk.tiled()
    desk = Desk()
    drive(desk.append(event_doc(1)), tiled, desk.log)
    assert tiled.count(w.PutSource) == 2
    assert appends(tiled) == [("internal", [1])]
    assert facts_of(desk.source)["epoch"] == 3
    assert tiled.rows[desk.old_source().dataset] == []


def test_an_inherited_table_is_switched_before_the_first_row_goes_in() -> None:
    desk = Desk(1, 2, fresh=False)
    tiled = desk.tiled(rows=2)
    drive(desk.append(event_doc(3)), tiled, desk.log)
    assert appends(tiled) == [("rebuild-3-n1", [1]), ("rebuild-3-n1", [2]), ("internal", [3])]
    assert tiled.seq_nums(LIVE) == [1, 2, 3]
    assert tiled.seq_nums((*LIVE, "rebuild-3-n1")) == [1, 2]
    assert tiled.count(w.PutSource) == 2


def test_rows_that_a_dead_owner_appended_and_never_confirmed_are_not_doubled() -> None:
    desk = Desk(1, 2, fresh=False)
    tiled = desk.tiled(rows=3)  # the third was not committed: it comes again
    drive(desk.append(event_doc(3)), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2, 3]


def test_a_stream_that_was_made_without_its_table_gets_one() -> None:
    desk = Desk(fresh=False)
    tiled = desk.empty_tiled()
    drive(desk.append(event_doc(1)), tiled, desk.log)
    assert appends(tiled) == [("internal", [1])]
    assert tiled.count(w.PutSource) == 0


def test_a_table_is_switched_once_not_at_every_batch() -> None:
    desk = Desk(1, fresh=False)
    tiled = desk.tiled(rows=1)
    for number in (2, 3, 4):
        drive(desk.append(event_doc(number)), tiled, desk.log)
    assert tiled.count(w.PutSource) == 2
    assert tiled.seq_nums(LIVE) == [1, 2, 3, 4]


# ---------------------------------------------------------------- the reply was lost


def lost(tiled: MiniTiled, *, applied: bool, number: int = 1) -> None:
    """The reply of the n-th append is lost."""

    def fault(request: w.Request) -> w.Outcome | None:
        if isinstance(request, w.Append) and tiled.count(w.Append) == number:
            if applied:
                tiled.apply(request)
            return w.Unknown("time-out")
        return None

    tiled.faults.append(fault)


def test_an_append_that_is_found_is_not_repeated() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    lost(tiled, applied=True)
    drive(desk.append(event_doc(1), event_doc(2)), tiled, desk.log)
    assert appends(tiled) == [("internal", [1, 2])]
    assert tiled.seq_nums(LIVE) == [1, 2]
    assert desk.primary.confirmed.count == 2
    assert told(desk, "ambiguous") == [{"outcome": "present", "detail": "time-out"}]


def test_presence_in_the_dataset_of_another_is_no_proof() -> None:
    """A zombie's switch hides our dataset behind its own, which happens to hold the same rows."""
    desk, tiled = Desk(), Desk().empty_tiled()
    batch = desk.batch(event_doc(1))
    theirs = w.TableSource(1, desk.columns.schema, {"table_name": "table", "dataset_id": 77}, {}, "duckdb")
    tiled.rows[theirs.dataset] = [desk.table([1])]

    def hide(request: w.Request) -> None:
        if isinstance(request, w.ReadKeys) and tiled.count(w.ReadKeys) == 1:
            tiled.nodes[LIVE] = replace(tiled.nodes[LIVE], source=theirs)

    lost(tiled, applied=False)
    tiled.faults.append(hide)
    drive(desk.values.append(batch), tiled, desk.log)
    source = tiled.nodes[LIVE].source
    assert source is not None
    assert facts_of(source)["epoch"] == 3
    assert tiled.seq_nums(LIVE) == [1]


def test_an_append_that_lands_late_is_found() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()

    def late(request: w.Request) -> w.Outcome | None:
        if isinstance(request, w.ReadKeys) and tiled.count(w.ReadKeys) == 4:
            tiled.apply(next(ask for ask in tiled.asked if isinstance(ask, w.Append)))
        return None

    lost(tiled, applied=False)
    tiled.faults.append(late)
    trace = drive(desk.append(event_doc(1)), tiled, desk.log)
    assert (tiled.count(w.Append), tiled.seq_nums(LIVE)) == (1, [1])
    assert 0 < trace.slept_s < POLICY.late_write_s_max


def test_an_append_that_stays_absent_is_looked_for_as_long_as_it_may_take_and_then_cannot_hurt() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    lost(tiled, applied=False)
    trace = drive(desk.append(event_doc(1), event_doc(2)), tiled, desk.log)
    assert trace.slept_s >= POLICY.late_write_s_max
    assert tiled.count(w.PutSource) == 2
    assert appends(tiled) == [("internal", [1, 2]), ("internal", [1, 2])]
    assert tiled.seq_nums(LIVE) == [1, 2]
    assert [fields["outcome"] for fields in told(desk, "ambiguous")] == ["absent", "switched"]
    stale = next(ask for ask in tiled.asked if isinstance(ask, w.Append))
    assert isinstance(tiled.apply(stale), w.Rejected)  # it lands after all: refused, its columns are in another order
    assert tiled.seq_nums(LIVE) == [1, 2]


def test_an_append_that_lands_during_the_switch_stays_with_the_old_dataset() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()

    def late(request: w.Request) -> w.Outcome | None:
        if isinstance(request, w.PutSource) and request.path == LIVE and tiled.count(w.PutSource) == 1:
            tiled.apply(next(ask for ask in tiled.asked if isinstance(ask, w.Append)))
        return None

    lost(tiled, applied=False)
    tiled.faults.append(late)
    drive(desk.append(event_doc(1)), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1]
    assert tiled.seq_nums((*LIVE, "rebuild-3-n1")) == [1]


def test_a_wait_for_a_late_append_is_no_outage() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    lost(tiled, applied=False)
    trace = drive(desk.append(event_doc(1)), tiled, desk.log)
    assert not any(step.down for step in trace.steps if isinstance(step, Sleep))


def test_a_table_that_its_database_has_lost_is_written_anew() -> None:
    """It answers 500 for ever, other tables do not: no document is at fault."""
    desk, tiled = Desk(), Desk().empty_tiled()
    lost_by_its_database(tiled, LIVE)
    trace = drive(desk.append(event_doc(1)), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1]
    assert [fields["outcome"] for fields in told(desk, "ambiguous")] == ["absent", "switched"]
    assert not any(step.down for step in trace.steps if isinstance(step, Sleep))


def test_a_table_that_is_lost_after_its_rows_were_confirmed_is_written_anew_at_the_audit() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    drive(desk.append(event_doc(1)), tiled, desk.log)
    lost_by_its_database(tiled, LIVE)
    drive(desk.audit(), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1]
    assert len(told(desk, "audit_mismatch")) == 1


def test_an_append_that_was_not_processed_is_simply_repeated() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    tiled.faults.append(once(w.Append, w.Unprocessed("locked"), w.Unprocessed("busy", 9.0)))
    trace = drive(desk.append(event_doc(1)), tiled, desk.log)
    assert (tiled.count(w.Append), tiled.count(w.PutSource), tiled.count(w.ReadKeys)) == (3, 0, 0)
    assert trace.slept_s >= 9.0
    assert all(step.down for step in trace.steps if isinstance(step, Sleep))


# ---------------------------------------------------------------- Tiled refuses


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (w.Rejected("no", 422), TiledRejected),
        (w.Missing("gone"), TiledRejected),
        (w.Denied("Invalid API key", 401), Forbidden),
        (w.Denied("Not enough scopes", 403), Forbidden),
    ],
)
def test_a_refused_append(outcome: w.Outcome, error: type[Exception]) -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    tiled.faults.append(always(w.Append, outcome))
    with pytest.raises(error):
        drive(desk.append(event_doc(1)), tiled, desk.log)
    assert tiled.count(w.Append) == 1


@pytest.mark.parametrize("poison", [1, 4, 5, 9])
@pytest.mark.parametrize("status", [422, 500])
def test_of_a_batch_that_is_refused_the_document_is_named(poison: int, status: int) -> None:
    desk, tiled = Desk(around=Around(policy=IMPATIENT)), Desk().empty_tiled()
    answer = w.Rejected("no", 422) if status == 422 else BOOM

    def fault(request: w.Request) -> w.Outcome | None:
        if not isinstance(request, w.Append) or request.path != LIVE:
            return None
        return answer if poison in keys_of(request.table).seq_num else None

    tiled.faults.append(fault)
    offset = desk.log[-1].offset + poison
    with pytest.raises(TiledRejected, match=rf"offset {offset}\)"):
        drive(desk.append(*(event_doc(number) for number in range(1, 10))), tiled, desk.log)


@pytest.mark.parametrize("then", [None, w.Unprocessed("503")], ids=["once", "then away"])
def test_where_no_document_is_surely_at_fault_none_is_named(then: w.Outcome | None) -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    tiled.faults.append(once(w.Append, w.Rejected("no", 422), *([then] * 20 if then else [])))
    with pytest.raises(TiledRejected) as caught:
        drive(desk.append(*(event_doc(number) for number in range(1, 10))), tiled, desk.log)
    assert "offset" not in str(caught.value)


def limited(rows_max: int) -> Callable[[w.Request], w.Outcome | None]:
    """A proxy that takes so many rows in one request."""

    def fault(request: w.Request) -> w.Outcome | None:
        too_large = isinstance(request, w.Append) and request.table.num_rows > rows_max
        return w.Rejected("413", 413) if too_large else None

    return fault


@pytest.mark.parametrize("rows_max", [1, 2, 3])
def test_what_is_too_large_for_a_proxy_goes_in_parts_and_the_next_batch_at_once(rows_max: int) -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    tiled.faults.append(limited(rows_max))
    drive(desk.append(*(event_doc(number) for number in range(1, 9))), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert desk.primary.confirmed.count == 8
    before = tiled.count(w.Append)
    drive(desk.append(*(event_doc(number) for number in range(9, 17))), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == list(range(1, 17))
    assert tiled.count(w.Append) - before <= 8, "nothing is refused twice"


def test_misfits_of_a_batch_in_parts_are_counted_from_its_beginning() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    tiled.faults.append(limited(1))
    trace = drive(desk.append(event_doc(1), event_doc(2), event_doc(3, i="text")), tiled, desk.log)
    assert trace.result == {2}


def test_a_part_whose_reply_was_lost_is_switched_away_with_the_parts_before_it_kept() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    tiled.faults.append(limited(2))
    lost(tiled, applied=False, number=3)  # 1: all four, refused; 2: the first two
    drive(desk.append(*(event_doc(number) for number in range(1, 5))), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2, 3, 4]
    assert desk.primary.confirmed.count == 4


def test_a_switch_goes_in_parts_too() -> None:
    desk = Desk(1, 2, 3, 4, 5, fresh=False, around=Around(policy=Policy()))
    tiled = desk.tiled(rows=5)
    tiled.faults.append(limited(1))
    drive(desk.append(event_doc(6)), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2, 3, 4, 5, 6]
    assert [len(rows) for _, rows in appends(tiled)].count(3) == 1, "once three at once were too much"


def test_rows_of_one_document_are_never_divided() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    tiled.faults.append(limited(0))
    with pytest.raises(TiledRejected, match="413"):
        drive(desk.append(event_doc(1), event_doc(2)), tiled, desk.log)


def test_server_errors_for_these_rows_alone_reject_them() -> None:
    desk, tiled = Desk(around=Around(IMPATIENT)), Desk().empty_tiled()
    tiled.faults.append(once(w.Append, *[BOOM] * 99, where=lambda ask: ask.path == LIVE))
    with pytest.raises(TiledRejected, match="boom"):
        drive(desk.append(event_doc(1)), tiled, desk.log)
    asked = [ask.path for ask in tiled.asked if isinstance(ask, w.Append)]
    probes = [path for path in asked if path != LIVE]  # rows of our own, where no reader looks
    assert asked.count(LIVE) == IMPATIENT.server_errors_max + WITNESSES_MIN
    assert len(probes) == WITNESSES_MIN
    assert all(path[:-1] == LIVE and path in tiled.nodes for path in probes)
    assert tiled.seq_nums(LIVE) == []


@pytest.mark.parametrize("failures", range(1, 13))
def test_server_errors_for_all_rows_reject_nothing_whenever_they_end(failures: int) -> None:
    """The storage may recover between an append and its probe: what counts is an append that fails after that."""
    desk, tiled = Desk(around=Around(IMPATIENT)), Desk().empty_tiled()
    tiled.faults.append(once(w.Append, *[BOOM] * failures))
    drive(desk.append(event_doc(1)), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1]


def test_a_catalog_that_takes_nothing_new_rejects_nothing() -> None:
    desk, tiled = Desk(around=Around(IMPATIENT)), Desk().empty_tiled()
    tiled.faults.append(once(w.Append, *[BOOM] * 6, where=lambda ask: ask.path == LIVE))
    tiled.faults.append(once(w.CreateTable, *[BOOM] * 9, where=lambda ask: ask.key.startswith("probe")))
    drive(desk.append(event_doc(1)), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1]


def test_a_table_that_is_not_made_as_it_is_wanted_is_made_with_columns_of_our_own_and_then_judged() -> None:
    desk, tiled = Desk(around=Around(IMPATIENT)), Desk().empty_tiled()
    tiled.faults.append(once(w.CreateTable, *[BOOM] * 99, where=lambda ask: "x" in ask.schema.names))
    with pytest.raises(TiledRejected, match="boom"):
        drive(desk.append(event_doc(1)), tiled, desk.log)
    source = tiled.nodes[LIVE].source
    assert source is not None
    assert source.schema == SEED
    children = [ask for ask in tiled.asked if isinstance(ask, w.CreateTable) and ask.key.startswith("rebuild")]
    assert len(children) == IMPATIENT.server_errors_max + WITNESSES_MIN


@pytest.mark.parametrize("failures", range(1, 13))
def test_an_outage_at_the_creation_of_a_table_costs_nothing_whenever_it_ends(failures: int) -> None:
    desk, tiled = Desk(around=Around(IMPATIENT)), Desk().empty_tiled()
    tiled.faults.append(once(w.CreateTable, *[BOOM] * failures))
    drive(desk.append(event_doc(1), event_doc(2)), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2]
    assert tiled.nodes[LIVE].metadata.keys() == {"x", "i"}


# ---------------------------------------------------------------- columns


def test_a_float_in_a_column_of_integers_widens_it_and_loses_nothing() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    drive(desk.append(event_doc(1), event_doc(2)), tiled, desk.log)
    trace = drive(desk.append(event_doc(3, x=1.0, i=0.5)), tiled, desk.log)
    assert trace.result == set()
    table = tiled.table_at(LIVE)
    assert table is not None
    assert (table["i"].to_pylist(), str(table.schema.field("i").type)) == ([1, 2, 0.5], "double")
    assert tiled.count(w.PutSource) == 2
    assert desk.run.notes == ["Column 'i' of stream 'primary' became double: its values ask for it."]


def test_a_column_that_is_wide_from_the_first_batch_needs_no_switch() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    drive(desk.append(event_doc(1, x=1.0, i=0.5)), tiled, desk.log)
    assert tiled.count(w.PutSource) == 0


def test_a_column_that_an_earlier_claim_widened_stays_wide() -> None:
    desk = Desk(1, 2, fresh=False)
    wide = desk.columns.widened("i", desk.columns.types["x"])
    tiled = desk.tiled(replace(desk.old_source(), schema=wide.permuted(0)))
    drive(desk.append(event_doc(3)), tiled, desk.log)
    assert str(desk.source.schema.field("i").type) == "double"
    assert tiled.seq_nums(LIVE) == [1, 2, 3]


def test_rows_of_the_log_that_need_a_wider_column_widen_it_during_the_switch() -> None:
    desk = Desk(1, fresh=False)
    drive(desk.append(event_doc(2, x=1.0, i=0.5)), tiled := desk.tiled(rows=1), desk.log)
    again = Desk(1, fresh=False, around=Around(epoch=4, nonce="next"))
    again.batch(event_doc(2, x=1.0, i=0.5))
    again.primary.recall(Event("d", "d/2", 102.0, 2, {}, {}))
    again.primary.recalled()
    drive(again.append(event_doc(3)), tiled, again.log)
    table = tiled.table_at(LIVE)
    assert table is not None
    assert table["i"].to_pylist() == [1, 0.5, 3]


def test_keys_that_come_later_get_their_columns_in_the_descriptors_order() -> None:
    """Whatever the process's hash seed: the same inputs have the same effects in every process."""
    keys = {**dict.fromkeys(("x", "i"), "number"), **dict.fromkeys("hgfedcba", "number")}
    desk, tiled = Desk(), Desk().empty_tiled()
    drive(desk.append(event_doc(1)), tiled, desk.log)
    desk.primary.reconfigure(normalise_descriptor(descriptor_doc("d2", **keys)))
    desk.primary.data_keys = dict(normalise_descriptor(descriptor_doc("d2", **keys)).doc["data_keys"])
    values: dict[str, Any] = dict.fromkeys(keys, 1.0)
    drive(desk.append(event_doc(2, **values)), tiled, desk.log)
    assert [name for name in desk.columns.data if name not in {"x", "i"}] == [*"hgfedcba"]


def test_values_that_fit_no_column_are_null_and_named() -> None:
    desk, tiled = Desk(), Desk().empty_tiled()
    rows = [event_doc(1), event_doc(2, x="OFF", i=2), event_doc(3, x=3.0, i=3, surprise=1)]
    trace = drive(desk.append(*rows), tiled, desk.log)
    assert trace.result == {1, 2}
    table = tiled.table_at(LIVE)
    assert table is not None
    assert table["x"].to_pylist() == [1.0, None, 3.0]


@pytest.mark.timeout(20, method="signal")
def test_keys_of_a_later_descriptor_that_look_like_timestamps_end_somewhere() -> None:
    first = descriptor_doc(ts_x="string")
    log = [record(0, "start", start_doc()), record(1, "descriptor", first)]
    desk, tiled = Desk(), Desk().empty_tiled()
    desk.log[:] = log
    desk.primary.__init__(("r", "primary"), normalise_descriptor(first), fresh=True)  # type: ignore[misc]
    desk.batch(event_doc(1, ts_x="a"))
    desk.primary.reconfigure(normalise_descriptor(descriptor_doc("d2", x="number", ts_x="string")))
    desk.run.notes = Bounded()
    drive(desk.append(event_doc(2, ts_x="b", x=1.0)), tiled, desk.log)


class Bounded(list[str]):
    """Notes of a run: a loop that writes them for ever is noticed."""

    def append(self, note: str) -> None:
        assert len(self) < 100, note
        super().append(note)


# ---------------------------------------------------------------- the audit


def filled(*seq_nums: int) -> tuple[Desk, MiniTiled]:
    desk, tiled = Desk(), Desk().empty_tiled()
    drive(desk.append(*(event_doc(number) for number in seq_nums)), tiled, desk.log)
    tiled.asked.clear()
    return desk, tiled


def test_an_audit_that_finds_all_well_only_reads() -> None:
    desk, tiled = filled(1, 2)
    drive(desk.audit(), tiled, desk.log)
    assert tiled.asked == [w.GetNode(LIVE), w.ReadKeys(LIVE)]


def test_a_stream_without_events_has_no_table_and_needs_none() -> None:
    desk = Desk()
    drive(desk.audit(), desk.empty_tiled(), desk.log)


def test_an_inherited_table_is_counted_and_left_alone() -> None:
    desk = Desk(1, 2, fresh=False)
    tiled = desk.tiled(rows=2)
    drive(desk.audit(), tiled, desk.log)
    assert tiled.asked == [w.GetNode(LIVE), w.ReadKeys(LIVE)]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_rows_that_are_too_many_or_too_few_are_repaired(rows: int) -> None:
    desk = Desk(1, 2, fresh=False)
    tiled = desk.tiled(rows=rows)
    drive(desk.audit(), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2]
    assert told(desk, "audit_mismatch") == [{"run": "r", "stream": "primary"}]
    assert isinstance(tiled.asked[-1], w.ReadKeys)  # looked at once more


def test_rows_that_storage_lost_come_back() -> None:
    desk, tiled = filled(1, 2)
    tiled.rows[desk.source.dataset].clear()
    drive(desk.audit(), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2]


def test_a_hidden_dataset_of_ours_is_put_back() -> None:
    desk, tiled = filled(1, 2)
    theirs = replace(desk.old_source(), id=1, parameters={"table_name": "table", "dataset_id": 77})
    tiled.nodes[LIVE] = replace(tiled.nodes[LIVE], source=theirs)
    tiled.rows[theirs.dataset] = [desk.table([1])]
    drive(desk.audit(), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2]
    assert told(desk, "put_back") == [{"run": "r", "stream": "primary"}]
    assert (tiled.count(w.CreateTable), tiled.count(w.PutSource)) == (0, 1)


def test_a_table_of_a_later_claim_is_not_touched() -> None:
    desk, tiled = filled(1, 2)
    tiled.nodes[LIVE] = replace(tiled.nodes[LIVE], source=desk.old_source(epoch=4))
    with pytest.raises(Superseded):
        drive(desk.audit(), tiled, desk.log)
    assert tiled.asked == [w.GetNode(LIVE)]


def test_repairs_that_do_not_help_end_in_a_rejection() -> None:
    desk = Desk(1, 2, fresh=False)
    tiled = desk.tiled(rows=1)
    short = w.Done(keys_of(None))
    tiled.faults.append(once(w.ReadKeys, *[short] * 99, where=lambda ask: ask.path == LIVE))
    with pytest.raises(TiledRejected, match="does not hold"):
        drive(desk.audit(), tiled, desk.log)
    assert len(told(desk, "switched")) <= REPAIRS_MAX


def test_the_last_repair_is_looked_at_too() -> None:
    desk = Desk(1, 2, fresh=False)
    tiled = desk.tiled(rows=1)
    looks = 0

    def short_but_the_last(request: w.Request) -> w.Outcome | None:
        nonlocal looks
        looks += isinstance(request, w.ReadKeys) and request.path == LIVE
        wrong = isinstance(request, w.ReadKeys) and request.path == LIVE and looks <= REPAIRS_MAX
        return w.Done(keys_of(None)) if wrong else None

    tiled.faults.append(short_but_the_last)
    drive(desk.audit(), tiled, desk.log)
    assert tiled.seq_nums(LIVE) == [1, 2]


def test_a_table_that_vanished_with_its_rows_is_a_rejection() -> None:
    desk, tiled = filled(1)
    del tiled.nodes[LIVE]
    with pytest.raises(TiledRejected, match="gone"):
        drive(desk.audit(), tiled, desk.log)
