"""The models by themselves: what the real parts were seen to do; a sink can be right here, or wrong."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.writes import (
    Append,
    CreateContainer,
    CreateTable,
    Done,
    Exists,
    FindOpenRuns,
    GetNode,
    Missing,
    Outcome,
    PutSource,
    ReadKeys,
    Rejected,
    TableSource,
    Unknown,
    UpdateMetadata,
)

from .clock import Clock
from .coordinator import Coordinator
from .documents import Role, plan
from .faults import Fault, Faults
from .kafka_model import Group, Letter, OrderedProducer, Partition
from .naive import NaiveEngine
from .options import Options, Report
from .oracle import row_key
from .order import is_part, letters_out_of_order, misplaced
from .shrink import describe, shrink
from .tiled_model import TiledModel
from .wire import Wire
from .world import World

HOME = Home("documents", 0)
TABLE = ("run", "primary", "internal")
FIELDS: dict[str, pa.DataType] = {"seq_num": pa.int64(), "time": pa.float64(), "x": pa.float64()}
SCHEMA = pa.schema([(name, FIELDS[name]) for name in ("seq_num", "time", "x")])
TURNED = pa.schema([(name, FIELDS[name]) for name in ("time", "seq_num", "x")])
NOTHING_FAILS = frozenset(Fault)
NEVER_GIVES_UP = "(stopped: False) is 'open' in Tiled"


class Recorder:
    """A member that lets go when it is told to."""

    draining = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: set[int] = set()
        self.given: list[tuple[str, str]] = []
        self.revoked: list[tuple[int, ...]] = []
        self.release: list[Callable[[], None]] = []

    def assign(self, home: Home, nonce: str, *, topic_id: str) -> None:
        self.held.add(home.partition)
        self.given.append((nonce, topic_id))

    def revoke(self, homes: tuple[Home, ...], released: Callable[[], None]) -> None:
        self.revoked.append(tuple(home.partition for home in homes))
        self.release.append(released)


def rows(*numbers: int, schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.Table.from_pylist([{"seq_num": n, "time": n / 2, "x": float(n)} for n in numbers], schema=schema)


def seen(tiled: TiledModel) -> list[int]:
    return sorted(row["seq_num"] for row in tiled.live_rows(TABLE))


def source_of(tiled: TiledModel, *path: str) -> TableSource:
    source = tiled.nodes[path].source
    assert source is not None
    return source


@pytest.fixture(params=["postgresql", "duckdb"])
def tiled(request: pytest.FixtureRequest) -> TiledModel:
    tiled = TiledModel(request.param, random.Random(1))
    facts = {"state": "open", "epoch": 3, "source": {"topic_id": "t", "partition": 0}}
    tiled.perform(CreateContainer((), "run", {"start": {"uid": "run"}, "tiled_ingest": facts}, (), None))
    tiled.perform(CreateContainer(("run",), "primary", {}, (), None))
    tiled.perform(CreateTable(("run", "primary"), "internal", SCHEMA, {}, None, {"tiled_ingest": {"epoch": 7}}))
    return tiled


def switch(tiled: TiledModel) -> TableSource:
    """Switch the table to a child of another column order; the old source."""
    old = source_of(tiled, *TABLE)
    made = tiled.perform(CreateTable(TABLE, "rebuild-8-a", TURNED, {}, None, {}))
    assert isinstance(made, Done)
    new = TableSource(old.id, made.value.schema, made.value.parameters)
    assert tiled.perform(PutSource(TABLE, new)) == Done()
    return old


# ---------------------------------------------------------------- Tiled


def test_creating_what_exists_is_an_answer(tiled: TiledModel) -> None:
    assert tiled.perform(CreateContainer((), "run", {}, (), None)) == Exists()
    assert tiled.perform(CreateTable(("run", "primary"), "internal", SCHEMA, {}, None, {})) == Exists()
    assert isinstance(tiled.perform(CreateContainer(("nowhere",), "x", {}, (), None)), Missing)


def test_appended_rows_are_read_back_by_their_keys(tiled: TiledModel) -> None:
    assert tiled.perform(Append(TABLE, rows(1, 2, 3))) == Done()
    outcome = tiled.perform(ReadKeys(TABLE))
    assert isinstance(outcome, Done)
    assert sorted(outcome.value.seq_num.tolist()) == [1, 2, 3]
    assert np.array_equal(outcome.value.time, outcome.value.seq_num / 2)


def test_postgresql_returns_no_order() -> None:
    tiled = TiledModel("postgresql", random.Random(1))
    tiled.perform(CreateTable((), "internal", SCHEMA, {}, None, {}))
    tiled.perform(Append(("internal",), rows(*range(20))))
    outcome = tiled.perform(ReadKeys(("internal",)))
    assert isinstance(outcome, Done)
    assert outcome.value.seq_num.tolist() != list(range(20))


def test_another_order_of_columns_is_refused_and_writes_nothing(tiled: TiledModel) -> None:
    outcome = tiled.perform(Append(TABLE, rows(1, schema=TURNED)))
    assert isinstance(outcome, Unknown)
    assert outcome.status == 500
    assert seen(tiled) == []


def test_datasets_of_one_schema_share_a_sql_table_but_not_rows(tiled: TiledModel) -> None:
    tiled.perform(CreateTable(("run", "primary"), "other", SCHEMA, {}, None, {}))
    tiled.perform(Append(TABLE, rows(1)))
    first, second = source_of(tiled, *TABLE), source_of(tiled, "run", "primary", "other")
    assert first.parameters["table_name"] == second.parameters["table_name"]
    assert tiled.live_rows(("run", "primary", "other")) == []


def test_an_append_resolved_before_a_switch_lands_where_nobody_reads(tiled: TiledModel) -> None:
    early = tiled.resolve(Append(TABLE, rows(1, 2)))
    switch(tiled)
    assert tiled.apply(early) == Done()
    assert seen(tiled) == []
    assert len(list(tiled.all_rows(TABLE))) == 2


def test_an_append_resolved_after_a_switch_is_refused(tiled: TiledModel) -> None:
    switch(tiled)
    assert isinstance(tiled.perform(Append(TABLE, rows(1, 2))), Unknown)
    assert tiled.perform(Append(TABLE, rows(3, schema=TURNED))) == Done()
    assert seen(tiled) == [3]


def test_a_late_switch_hides_the_live_rows_until_somebody_looks(tiled: TiledModel) -> None:
    late = tiled.resolve(PutSource(TABLE, switch(tiled)))
    tiled.perform(Append(TABLE, rows(1, schema=TURNED)))
    tiled.apply(late, stale=True)
    assert tiled.hidden(TABLE)
    assert seen(tiled) == []
    tiled.saw(TABLE, tiled.applied)
    assert not tiled.hidden(TABLE)
    assert tiled.displaced(TABLE)


def test_permuting_columns_in_place_is_a_violation(tiled: TiledModel) -> None:
    source = source_of(tiled, *TABLE)
    tiled.perform(PutSource(TABLE, TableSource(source.id, TURNED, source.parameters)))
    assert tiled.violations


def test_metadata_updates_replace_keys_and_overwrite_each_other(tiled: TiledModel) -> None:
    first = tiled.resolve(UpdateMetadata(("run",), {"a": {"x": 1}}))
    tiled.perform(UpdateMetadata(("run",), {"b": 2}))
    tiled.apply(first)
    metadata = tiled.perform(GetNode(("run",)))
    assert isinstance(metadata, Done)
    assert metadata.value.metadata["a"] == {"x": 1}
    assert "b" not in metadata.value.metadata


def test_a_late_update_counts_until_what_it_changed_is_written_again(tiled: TiledModel) -> None:
    def update(*, stale: bool = False, **metadata: object) -> None:
        tiled.apply(tiled.resolve(UpdateMetadata(("run",), metadata)), stale=stale)

    update(state="failed")
    update(state="open", stale=True)
    update(stop={})
    assert tiled.overwritten(("run",)), "whoever adds a stop document leaves the state as it is"
    update(state="failed")
    assert not tiled.overwritten(("run",))
    update(state="failed", stale=True)
    assert not tiled.overwritten(("run",)), "it changed nothing"
    before = tiled.resolve(UpdateMetadata(("run",), {"notes": []}))
    update(state="open", stale=True)
    tiled.apply(before)
    assert not tiled.overwritten(("run",)), "the state came back with all that was there before"


def test_rows_of_a_rejected_run_are_refused(tiled: TiledModel) -> None:
    tiled.rejects.add("run")
    assert isinstance(tiled.perform(Append(TABLE, rows(1))), Rejected)


def test_open_runs_are_found_with_their_largest_epoch(tiled: TiledModel) -> None:
    found = tiled.perform(FindOpenRuns((), "t", 0))
    assert isinstance(found, Done)
    assert [(run.path, run.epoch_max) for run in found.value] == [(("run",), 7)]
    assert tiled.perform(FindOpenRuns((), "t", 1)) == Done(())


@pytest.mark.parametrize("other", ["owner", "zombie"])
def test_duckdb_loses_confirmed_rows_of_two_writers_and_of_no_others(other: str) -> None:
    tiled, wire, clock = at_duckdb()
    answers: list[Outcome] = []
    for client in ("owner", other) * 5:
        wire.send(client, Append(TABLE, rows(1, 2)), answers.append, knew=False)
    while clock.turn():
        pass
    lost = tiled.swallowed_rows(TABLE)
    assert answers == [Done()] * 10
    assert len(seen(tiled)) + len(lost) == 20
    assert bool(lost) == (other != "owner")


def test_a_refused_append_ends_duckdb_for_all_and_again_when_it_is_repeated() -> None:
    tiled, wire, clock = at_duckdb()
    tiled.rejects.add("run")
    answers: list[Outcome] = []
    for _ in range(20):
        wire.send("owner", Append(TABLE, rows(1)), answers.append, knew=True)
        while clock.turn():
            pass
        clock.now_s += 10.0
    kinds = [type(answer) for answer in answers]
    assert kinds.count(Unknown) in {1, 2, 4}
    assert kinds == sorted(kinds, key=lambda kind: kind is Rejected)
    assert wire.down_until_s > 0


def at_duckdb() -> tuple[TiledModel, Wire, Clock]:
    """A server on DuckDB with a table, and the way to it; its vices strike wherever they can."""
    tiled, clock, faults = TiledModel("duckdb", random.Random(1)), Clock(), Faults(random.Random(1), None, frozenset())
    faults.rates = dict.fromkeys(Fault, 0.0)
    tiled.perform(CreateContainer((), "run", {}, (), None))
    tiled.perform(CreateContainer(("run",), "primary", {}, (), None))
    tiled.perform(CreateTable(TABLE[:-1], TABLE[-1], SCHEMA, {}, None, {}))
    wire = Wire(clock, random.Random(1), faults, tiled, lambda _: "owner", 1.0)
    wire.vices = Always(1)
    return tiled, wire, clock


class Always(random.Random):
    """Draws that hit."""

    def random(self) -> float:
        return 0.0


# ---------------------------------------------------------------- Kafka


def test_a_partition_has_gaps_and_an_end_without_a_record() -> None:
    partition = Partition(HOME)
    offsets = [partition.publish(b"x", gap=gap).offset for gap in (0, 2, 0)]
    partition.mark(2)
    assert offsets == [0, 3, 4]
    assert [record.offset for record in partition.fetch(1, 1)[0]] == [3]
    assert partition.fetch(1, 1)[1] == 4
    assert partition.fetch(4, 10)[1] == 7


def test_reading_the_log_comes_in_pieces_and_starts_at_what_is_left() -> None:
    partition = Partition(HOME)
    for _ in range(5):
        partition.publish(b"12345", gap=0)
    records, position = partition.read(0, 5, 8)
    assert ([record.offset for record in records], position) == ([0, 1], 2)
    partition.truncate(3)
    assert [record.offset for record in partition.read(0, 5, 100)[0]] == [3, 4]
    assert partition.read(0, 5, 100)[1] == 5
    with pytest.raises(LookupError):
        partition.fetch(0, 1)


def test_commits_are_fenced_by_membership_and_not_by_ownership() -> None:
    group = Group()
    group.members, group.owners = {"a", "b"}, {HOME: "a"}
    assert group.commit("a", HOME, 5, "")
    assert not group.violations
    assert group.commit("b", HOME, 6, "")
    assert len(group.violations) == 1
    assert not group.commit("gone", HOME, 7, "")
    assert group.committed(HOME) == 6


# ---------------------------------------------------------------- documents, world, oracle


def test_every_row_of_a_plan_is_unlike_every_other() -> None:
    made = plan(random.Random(3), [HOME, Home("documents", 1)], None)
    items = [item for queue in made.queues.values() for item in queue]
    values = [item.value for item in items if item.role is Role.RUN]
    assert len(values) == len(set(values))
    assert row_key({"b": 1, "a": None, "c": 2}) == row_key({"c": 2, "b": 1.0})


def naive(options: Options) -> Report:
    # It knows no topic of completed runs, and not that DuckDB takes one request at a time.
    silent = replace(options, policy={**options.policy, "announces": False, "requests_max": 1})
    report = World(replace(silent, external=False), NaiveEngine).run()
    return replace(report, violations=[told for told in report.violations if NEVER_GIVES_UP not in told])


@pytest.mark.parametrize("seed", range(60))
def test_a_naive_sink_is_right_while_nothing_fails(seed: int) -> None:
    report = naive(Options(seed, arrays=False, without=NOTHING_FAILS))
    assert not report.violations, describe(report)
    assert report.steps >= 60


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.LATE_APPLIED, Fault.CRASH, Fault.ZOMBIE])
def test_a_naive_sink_is_caught_under_each_of_the_great_faults(fault: Fault) -> None:
    only = frozenset(Fault) - {fault}
    assert any(naive(Options(seed, arrays=False, without=only)).violations for seed in range(200))


def test_a_failing_history_is_made_shorter_and_still_fails() -> None:
    failing = next(report for seed in range(100) if (report := naive(Options(seed, arrays=False))).violations)
    short = shrink(naive, failing)
    assert short.violations
    assert sum(short.hit.values()) <= sum(failing.hit.values())
    assert f"python -m tests.simulation {short.options.seed}" in describe(short)


def test_the_same_options_give_the_same_history() -> None:
    lines: list[list[str]] = [[], []]
    for kept in lines:
        World(Options(5, external=False, arrays=False), NaiveEngine, trace=kept.append).run()
    assert lines[0] == lines[1]


# ---------------------------------------------------------------- order


def test_what_a_producer_leaves_behind_is_a_beginning() -> None:
    arrived: list[int] = []
    producer = OrderedProducer()
    for number, survives in enumerate((True, True, False, True)):
        producer.send(HOME, partial(arrived.append, number), survives=survives)
    producer.deliver(HOME, alive=True)
    for _ in range(3):
        producer.deliver(HOME, alive=False)
    assert arrived == [0, 1]


def test_lists_that_part_ways_are_noticed() -> None:
    assert misplaced([1, 2, 3], [1, 2, 3]) == ""
    assert misplaced([1, 3, 2], [1, 2, 3]) == "at 1 is 3, not 2"
    assert is_part([1, 3], [1, 2, 3])
    assert not is_part([3, 1], [1, 2, 3])


def letter(offset: int, code: str = "run_failed", reason: str = "TiledRejected") -> Letter:
    return Letter(Record(HOME.topic, HOME.partition, offset, 0, None, b""), reason, code, "run")


@pytest.mark.parametrize(
    ("letters", "wrong"),
    [
        ([letter(1), letter(2), letter(3)], 0),
        ([letter(1), letter(3), letter(2)], 1),
        ([letter(1), letter(2), letter(1), letter(2), letter(3)], 0),  # a crash: from the start again
        ([letter(5, "schema", "InvalidDocument"), letter(1), letter(2)], 0),  # it was refused before its run failed
        ([letter(5, "late", "InvalidDocument"), letter(4, "late", "InvalidDocument")], 0),
    ],
)
def test_the_first_letters_of_a_run_have_an_order(letters: list[Letter], wrong: int) -> None:
    assert len(list(letters_out_of_order(letters, {(HOME, offset): "run" for offset in range(9)}))) == wrong


def coordinator(protocol: str, partitions: int) -> tuple[Coordinator, Clock]:
    clock, homes = Clock(), [Home("documents", number) for number in range(partitions)]
    return Coordinator(clock, random.Random(1), Group(), homes, "topic-id", lambda: "nonce", protocol), clock


def settle(clock: Clock) -> None:
    while clock.turn():
        pass


def test_under_the_consumer_protocol_each_partition_moves_by_itself() -> None:
    group, clock = coordinator("consumer", 6)
    first, second = Recorder("a"), Recorder("b")
    group.join(first)
    settle(clock)
    group.join(second)
    assert first.revoked == [(number,) for (number,) in first.revoked]
    assert len(first.revoked) == 3
    first.release[0]()
    settle(clock)
    assert second.held == set(first.revoked[0])


def test_under_the_cooperative_protocol_nobody_gets_any_before_all_have_let_go() -> None:
    group, clock = coordinator("cooperative-sticky", 6)
    members = [Recorder(name) for name in "abc"]
    for member in members[:2]:
        group.join(member)
        settle(clock)
        for release in [release for each in members for release in each.release]:
            release()
        settle(clock)
    before = [len(member.revoked) for member in members[:2]]
    group.join(members[2])
    settle(clock)
    asked = [member for member, count in zip(members, before, strict=False) if len(member.revoked) > count]
    assert len(asked) == 2
    asked[0].release[-1]()
    settle(clock)
    assert not members[2].held
    asked[1].release[-1]()
    settle(clock)
    assert len(members[2].held) == 2


def test_under_the_cooperative_protocol_a_member_that_died_is_not_waited_for() -> None:
    group, clock = coordinator("cooperative-sticky", 2)
    first, second = Recorder("a"), Recorder("b")
    group.join(first)
    settle(clock)
    group.join(second)
    settle(clock)
    assert not second.held
    group.leave("a")
    settle(clock)
    assert second.held == {0, 1}
