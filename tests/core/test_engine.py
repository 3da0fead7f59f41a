"""The engine at its only door, in a small world that answers at once, later, or wrongly.

The simulation covers crashes and chance; here each promise has its own scene.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from tests.core.test_steps import (
    HOME,
    TOPIC_ID,
    Fault,
    MiniTiled,
    always,
    chunk_of,
    descriptor_doc,
    event_doc,
    once,
    page_doc,
    record,
    start_doc,
    stop_doc,
)
from tiled_ingest.core import effects as fx
from tiled_ingest.core import writes as w
from tiled_ingest.core.engine import Engine
from tiled_ingest.core.errors import TiledRejected
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.runs import jobs
from tiled_ingest.core.runs.lifecycle import GAPS_SHOWN
from tiled_ingest.core.steps import Procedure, Sleep
from tiled_ingest.core.writing.datasets import OURS

OTHER = Home("t", 1)
POLICY = Policy(age_s_max=0.2, late_write_s_max=1.0, server_errors_max=3, backoff_s_max=1.0)
TABLE = ("r", "primary", "internal")
WRITES = (w.CreateContainer, w.CreateTable, w.Append, w.PutSource, w.UpdateMetadata, w.CloseStreams, w.EnsureContainer)
AWAY = w.Unprocessed("connection refused")


@dataclass
class World:
    """Kafka, Tiled and a clock around one engine. What `keeps` says is answered only by `let_go`."""

    policy: Policy = POLICY
    tiled: MiniTiled = field(default_factory=MiniTiled)
    keeps: Callable[[fx.Effect], bool] = lambda _: False
    now_s: float = 100.0
    logs: dict[Home, list[Record]] = field(default_factory=dict)
    lows: dict[Home, int] = field(default_factory=dict)
    position: dict[Home, int] = field(default_factory=dict)
    effects: list[fx.Effect] = field(default_factory=list)
    kept: list[fx.Effect] = field(default_factory=list)
    commits: list[tuple[Home, int, ResumePoint]] = field(default_factory=list)
    letters: list[fx.DeadLetter] = field(default_factory=list)
    flowing: set[Home] = field(default_factory=set)
    answers: dict[type, Callable[[Any], fx.Input]] = field(default_factory=dict)
    unread: dict[Home, int] = field(default_factory=dict)  # where logs end that were not delivered so far
    stop: fx.Stop | None = None

    def __post_init__(self) -> None:
        self._words = 0
        self._inbox: list[fx.Input] = []
        self.engine = Engine(self.policy, self._word)

    def _word(self) -> str:
        self._words += 1
        return f"w{self._words}"

    # ------------------------------------------------------------ the loop

    def give(self, given: fx.Input) -> None:
        if isinstance(given, fx.Released):
            self.flowing -= set(given.homes)
        self._inbox.append(given)
        while self._inbox:
            for effect in self.engine.step(self.now_s, self._inbox.pop(0)):
                self.effects.append(effect)
                if self.keeps(effect):
                    self.kept.append(effect)
                else:
                    self._perform(effect)
            self._deliver()

    def let_go(self) -> None:
        """Answer everything that was kept, and keep nothing more."""
        self.keeps = lambda _: False
        while self.kept:
            self._perform(self.kept.pop(0))
            self.give(fx.Tick())

    def tick(self, seconds: float = 0.6) -> None:
        self.now_s += seconds
        ends = {home: self.logs[home][-1].offset + 1 for home in self.flowing if self.logs.get(home)}
        self.give(fx.Ends(ends | self.unread))
        self.give(fx.Tick())

    def settle(self, ticks: int = 12, seconds: float = 0.6) -> None:
        for _ in range(ticks):
            self.tick(seconds)

    def _perform(self, effect: fx.Effect) -> None:
        if type(effect) in self.answers:
            self._inbox.append(self.answers[type(effect)](effect))
            return
        match effect:
            case fx.Ask():
                self._inbox.append(fx.Answered(effect.ticket, self.tiled(effect.request)))
            case fx.ReadLog():
                log, low = self.logs.get(effect.home, []), self.lows.get(effect.home, 0)
                self._inbox.append(chunk_of(log, effect.start, effect.stop, low, effect.ticket))
            case fx.Commit():
                point = ResumePoint.decode(effect.metadata)
                assert point is not None
                self.commits.append((effect.home, effect.offset, point))
                self._inbox.append(fx.Committed(effect.ticket))
            case fx.DeadLetter():
                self.letters.append(effect)
                self._inbox.append(fx.DeadLettered(effect.ticket))
            case fx.Pause():
                self.flowing -= set(effect.homes)
            case fx.Resume():
                self.flowing |= set(effect.homes)
            case fx.Stop():
                self.stop = effect

    def _deliver(self) -> None:
        for home in sorted(self.flowing):
            log = self.logs.get(home, [])
            new = [held for held in log if held.offset >= self.position[home]]
            if new:
                self.position[home] = new[-1].offset + 1
                self._inbox.append(fx.Records(new))

    # ------------------------------------------------------------ what tests do

    def assign(
        self,
        home: Home = HOME,
        committed: int | None = None,
        point: ResumePoint | None = None,
        *,
        low: int = 0,
        topic_id: str = TOPIC_ID,
        high: int | None = None,
    ) -> None:
        log = self.logs.setdefault(home, [])
        end = high if high is not None else (log[-1].offset + 1 if log else 0)
        self.position[home] = low if committed is None else committed
        self.lows[home] = low
        metadata = point.encode() if point else ""
        self.give(fx.Assigned(home, topic_id, committed, metadata, low, end, self._word()))

    def publish(self, *documents: tuple[str, Any], home: Home = HOME) -> None:
        log = self.logs.setdefault(home, [])
        for name, doc in documents:
            log.append(record(log[-1].offset + 1 if log else 0, name, doc, home))
        self.give(fx.Tick())

    # ------------------------------------------------------------ what tests see

    @property
    def committed(self) -> int:
        return self.commits[-1][1]

    @property
    def codes(self) -> list[tuple[int, str]]:
        return [(letter.record.offset, letter.code) for letter in self.letters]

    @property
    def in_flight(self) -> list[w.Request]:
        return [effect.request for effect in self.kept if isinstance(effect, fx.Ask)]

    def told(self, event: str) -> list[Any]:
        return [effect.fields for effect in self.effects if isinstance(effect, fx.Tell) and effect.event == event]

    def kinds(self, *kinds: type) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kinds)]


def started(uid: str = "r", descriptor: str = "d") -> list[tuple[str, Any]]:
    return [("start", start_doc(uid)), ("descriptor", descriptor_doc(descriptor, run=uid))]


def whole(uid: str = "r", events: int = 2, descriptor: str = "d") -> list[tuple[str, Any]]:
    rows = [("event", event_doc(number, descriptor=descriptor)) for number in range(1, events + 1)]
    return [*started(uid, descriptor), *rows, ("stop", stop_doc(uid, {"primary": events}))]


def asks(*kinds: type) -> Callable[[fx.Effect], bool]:
    return lambda effect: isinstance(effect, fx.Ask) and isinstance(effect.request, kinds)


def of(kind: type) -> Callable[[fx.Effect], bool]:
    return lambda effect: isinstance(effect, kind)


def writes_of(world: World) -> list[w.Request]:
    return [ask.request for ask in world.kinds(fx.Ask) if isinstance(ask.request, WRITES)]


def ready(policy: Policy = POLICY, storage: str = "duckdb", **more: Any) -> World:
    world = World(policy, MiniTiled(storage), **more)
    world.assign()
    return world


# ---------------------------------------------------------------- one record's way


def test_a_run_goes_into_tiled_and_its_offsets_are_committed() -> None:
    world = ready()
    world.publish(*whole())
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1, 2]
    assert world.tiled.facts(("r",))["state"] == "complete"
    assert world.committed == 5
    assert world.commits[-1][2].start == 5
    assert world.letters == []


@pytest.mark.parametrize(
    ("kind", "beyond"), [(w.CreateContainer, 0), (w.CreateTable, 2), (w.Append, 2), (w.UpdateMetadata, 4)]
)
def test_nothing_is_committed_beyond_what_tiled_has_not_confirmed(kind: type, beyond: int) -> None:
    world = ready()
    world.keeps = asks(kind)
    world.publish(*whole())
    world.settle()
    assert max((offset for _, offset, _ in world.commits), default=0) == beyond
    world.let_go()
    world.settle()
    assert world.committed == 5


def test_the_resume_point_stays_at_the_start_of_the_oldest_open_run() -> None:
    world = ready()
    world.publish(*started("q", "e"), *whole(), ("event", event_doc(1, descriptor="e")))
    world.settle()
    assert (world.committed, world.commits[-1][2].start) == (8, 0)
    world.publish(("stop", stop_doc("q")))
    world.settle()
    assert (world.committed, world.commits[-1][2].start) == (9, 9)


def test_the_resume_point_stays_while_a_document_of_a_closed_run_is_at_or_after_what_is_committed() -> None:
    world = ready()
    world.keeps = asks(w.CreateContainer)
    world.publish(("start", start_doc("q")))
    world.keeps = lambda effect: effect in world.kept
    world.publish(*whole())
    world.settle()
    assert {point.start for _, _, point in world.commits} == {0}


def test_a_commit_waits_for_the_one_before_it() -> None:
    world = ready()
    world.keeps = of(fx.Commit)
    world.publish(*whole())
    world.settle()
    assert len(world.kept) == 1


def test_offsets_that_do_not_exist_are_passed() -> None:
    world = ready()
    world.publish(*whole())
    world.settle()
    world.give(fx.EndReached(HOME, 9))
    world.settle()
    assert world.committed == 9


def test_a_page_is_one_record_and_all_its_rows() -> None:
    world = ready()
    world.publish(*started(), ("event_page", page_doc(1, 2, 3)), ("event", event_doc(4)))
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1, 2, 3, 4]


def test_redelivered_documents_are_counted_once() -> None:
    world = ready()
    run = whole()
    world.publish(*run[:-1], *run[:-1], run[-1])
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1, 2]
    assert world.letters == []
    assert world.committed == 9
    assert {"result": "duplicate", "name": "event", "count": 2} in world.told("documents")


def test_misfits_are_in_the_dead_letters_before_their_offset_is_committed() -> None:
    world = ready()
    world.keeps = of(fx.DeadLetter)
    world.publish(*started(), ("event", event_doc(1, x="OFF", i=1)))
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1]
    assert world.committed == 2
    world.let_go()
    world.settle()
    assert world.codes == [(2, "value_misfit")]
    assert world.committed == 3


# ---------------------------------------------------------------- the claim


POINT = ResumePoint(0, 6, "before", TOPIC_ID)


def test_a_claim_is_committed_with_its_epoch_before_anything_is_asked() -> None:
    world = World(keeps=of(fx.Commit))
    world.logs[HOME] = [record(offset, *doc) for offset, doc in enumerate(started())]
    world.assign(committed=2, point=POINT)
    assert [type(effect) for effect in world.effects] == [fx.Commit]
    commit = world.kinds(fx.Commit)[0]
    point = ResumePoint.decode(commit.metadata)
    assert point is not None
    assert (commit.offset, point.start, point.epoch, point.topic_id) == (2, 0, 7, TOPIC_ID)
    assert point.nonce != "before"
    world.settle()
    assert [type(effect) for effect in world.effects] == [fx.Commit]
    assert HOME not in world.flowing
    world.let_go()
    assert HOME in world.flowing


@pytest.mark.parametrize("fenced", [False, True])
def test_a_claim_that_cannot_be_committed_is_tried_again_until_the_partition_is_lost(fenced: bool) -> None:
    """Not at once: a rebalance that refuses commits goes on only while the loop polls."""
    world = World(keeps=of(fx.Commit))
    world.assign(committed=0, point=POINT)
    world.give(fx.CommitFailed(world.kinds(fx.Commit)[0].ticket, "not this generation", fenced=fenced))
    assert len(world.kinds(fx.Commit)) == 1
    world.settle()
    assert len(world.kinds(fx.Commit)) == 2
    assert world.flowing == set()
    assert world.kinds(fx.Ask) == []
    assert world.engine.drained([HOME])
    world.give(fx.Released((HOME,)))
    world.give(fx.CommitFailed(world.kinds(fx.Commit)[1].ticket, "not ours", fenced=True))
    world.settle()
    assert len(world.kinds(fx.Commit)) == 2


def test_without_metadata_tiled_is_asked_which_runs_are_open() -> None:
    before = ready()
    before.publish(*started("q", "e"), *whole()[:3])
    before.settle()
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=5)  # a tool has reset the group's offset: its metadata is gone
    first = world.effects[0]
    assert isinstance(first, fx.Ask)
    assert first.request == w.FindOpenRuns((), TOPIC_ID, 0)
    home, offset, point = world.commits[0]
    assert (home, offset, point.start, point.epoch) == (HOME, 5, 0, 2)


BY_SESSION = replace(POLICY, routes=((".*", "{start[session]}"),))


def below_a_route_by_start(point: ResumePoint | None = None) -> World:
    """An open run, written by another claim, in a node that its start document names."""
    before = World(BY_SESSION)
    before.assign(committed=0, point=point)
    before.publish(("start", start_doc(session="pass-1")), started()[1], ("event", event_doc(1)))
    before.settle()
    assert before.tiled.seq_nums(("pass-1", *TABLE)) == [1]
    return World(BY_SESSION, before.tiled, logs=before.logs)


def test_offsets_may_be_reset_where_routes_depend_on_the_start() -> None:
    """A tool's reset loses the metadata, and the epoch with it: the new claim is no zombie for that."""
    world = below_a_route_by_start(POINT)
    world.assign(committed=0)
    world.publish(("stop", stop_doc(num_events={"primary": 1})))
    world.settle()
    assert world.stop is None
    assert world.tiled.facts(("pass-1", "r"))["state"] == "complete"


def test_runs_below_a_route_by_start_are_found_without_metadata_too() -> None:
    world = below_a_route_by_start()
    world.assign(committed=3)
    world.publish(("event", event_doc(2)), ("stop", stop_doc()))
    world.settle()
    assert world.codes == []
    assert world.tiled.seq_nums(("pass-1", *TABLE)) == [1, 2]


def test_a_rebuild_holds_no_rows_and_causes_no_write() -> None:
    before = ready()
    before.publish(*started(), *[("event", event_doc(number)) for number in range(1, 30)])
    before.settle()
    assert before.committed == 31
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=31, point=before.commits[-1][2])
    world.settle()
    assert [ask.request for ask in world.kinds(fx.Ask, fx.DeadLetter)] == [w.GetNode(())], "only whether Tiled is there"
    snapshot = world.engine.snapshot()
    assert snapshot.buffered_bytes == 0
    assert [(run.uid, run.waiting_bytes) for run in snapshot.runs] == [("r", 0)]
    assert world.told("claimed")[0]["open_runs"] == 1
    assert world.kinds(fx.ReadLog)[0].start == 0


def test_a_rebuilt_run_goes_on_in_a_dataset_of_its_own() -> None:
    before = ready()
    before.publish(*whole()[:-1])
    before.settle()
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=4, point=before.commits[-1][2])
    world.publish(("event", event_doc(3)), ("stop", stop_doc(num_events={"primary": 3})))
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1, 2, 3]
    assert world.tiled.facts(("r",))["state"] == "complete"
    assert world.tiled.count(w.PutSource) == 2


def test_a_log_that_is_away_for_a_moment_is_asked_again() -> None:
    world = World(keeps=of(fx.ReadLog))
    world.logs[HOME] = [record(offset, *doc) for offset, doc in enumerate(started())]
    world.assign(committed=2, point=POINT)
    world.give(fx.LogUnreadable(world.kept.pop().ticket, "away"))  # type: ignore[union-attr]
    assert not world.kept, "not at once: it would ask in a circle"
    world.tick()
    assert isinstance(world.kept[0], fx.ReadLog)
    world.let_go()
    assert HOME in world.flowing


@pytest.mark.parametrize(("committed", "low", "high"), [(3, 5, 9), (10, 5, 9)])
def test_an_offset_out_of_range_stops_and_commits_nothing(committed: int, low: int, high: int) -> None:
    world = World()
    world.assign(committed=committed, point=POINT, low=low, high=high)
    assert world.stop is not None
    assert world.stop.reason == "OffsetOutOfRange"
    assert world.commits == []
    assert world.engine.finished
    world.settle()
    assert len(world.effects) == 1


def test_a_topic_that_was_created_again_stops() -> None:
    world = World()
    world.assign(committed=3, point=POINT, high=9, topic_id="another-id")
    assert world.stop is not None
    assert world.stop.reason == "OffsetOutOfRange"
    assert "created again" in world.stop.detail
    assert world.commits == []


def test_a_new_group_begins_where_the_policy_says() -> None:
    log = [record(offset, *doc) for offset, doc in enumerate(whole())]
    for latest, expected in ((False, 0), (True, 5)):
        world = World(replace(POLICY, start_latest=latest))
        world.logs[HOME] = log
        world.keeps = of(fx.Commit)
        world.assign()
        assert world.kinds(fx.Commit)[0].offset == expected


@pytest.mark.parametrize(("partitions", "expected"), [(0, 5), (1, 0), (3, 0), (4, 5), (8, 5)])
def test_a_partition_that_was_added_begins_at_its_beginning(partitions: int, expected: int) -> None:
    """A group that begins at the ends of logs knows by its siblings' commits which partitions were there then."""
    added = Home(HOME.topic, 3)
    world = World(replace(POLICY, start_latest=True))
    world.give(fx.Assigned(added, TOPIC_ID, None, "", 0, 5, "nonce", partitions))
    home, offset, point = world.commits[0]
    assert (home, offset, point.start, point.partitions) == (added, expected, expected, partitions)


def test_a_run_whose_beginning_the_log_lost_is_marked_as_failed() -> None:
    before = ready()
    before.publish(*whole()[:-1])
    before.settle()
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=4, point=before.commits[-1][2], low=2)
    world.publish(("event", event_doc(3)), ("descriptor", descriptor_doc("e")), ("stop", stop_doc()))
    world.settle()
    assert world.tiled.facts(("r",))["state"] == "failed"
    assert "rows" not in world.tiled.facts(("r",))  # what Tiled holds is more than none, and nobody counts it
    assert world.codes == [(offset, "beginning_lost") for offset in (4, 5, 6)]
    assert world.committed == 7


def test_what_was_committed_of_a_run_is_not_hidden_when_a_repeated_start_comes_after_the_log_lost_the_first() -> None:
    """A zombie called the run abandoned, so that nobody misses the beginning of an open one."""
    zombie = ready()
    zombie.publish(*whole()[:-1])
    zombie.settle()
    owner = World(tiled=zombie.tiled, logs=zombie.logs)
    owner.assign(committed=4, point=zombie.commits[-1][2])
    owner.publish(("event", event_doc(3)))
    owner.settle()
    assert (owner.committed, owner.tiled.seq_nums(TABLE)) == (5, [1, 2, 3])
    facts = zombie.tiled.facts(("r",))
    facts |= {"state": "abandoned", "rows": {"primary": 2}, "epoch": 1, "source": {**facts["source"], "last_offset": 3}}
    world = World(tiled=owner.tiled, logs=owner.logs)
    world.assign(committed=5, point=owner.commits[-1][2], low=5)
    world.publish(*started(), ("event", event_doc(4)), ("stop", stop_doc()))
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1, 2, 3]
    assert world.tiled.facts(("r",))["state"] == "failed"
    assert world.codes == [(offset, "beginning_lost") for offset in (5, 6, 7, 8)]
    assert world.committed == 9


def test_a_log_that_loses_its_beginning_during_the_rebuild_is_noticed() -> None:
    before = ready()
    before.publish(*whole(events=6)[:-1])
    before.settle()
    world = World(tiled=before.tiled, logs=before.logs, keeps=of(fx.ReadLog))
    world.assign(committed=8, point=before.commits[-1][2])
    world.lows[HOME] = 5
    world.let_go()
    world.publish(("stop", stop_doc()))
    world.settle()
    assert world.tiled.facts(("r",))["state"] == "failed"
    assert world.codes == [(8, "beginning_lost")]


# ---------------------------------------------------------------- refusals


def test_what_belongs_to_no_run_is_an_orphan() -> None:
    world = ready()
    world.publish(("event", event_doc(1)), ("stop", stop_doc()), ("descriptor", descriptor_doc()))
    assert [code for _, code in world.codes] == ["orphan"] * 3


def test_an_event_before_its_descriptor_is_an_orphan_and_the_run_goes_on() -> None:
    world = ready()
    run = whole()
    world.publish(run[0], ("event", event_doc(9)), *run[1:])
    world.settle()
    assert world.codes == [(1, "orphan")]
    assert world.tiled.seq_nums(TABLE) == [1, 2]


BROKEN: list[tuple[str, Any]] = [
    ("event", event_doc(3) | {"seq_num": "three"}),
    ("event_page", page_doc(4, 5) | {"time": [1.0]}),
    ("descriptor", descriptor_doc("other") | {"data_keys": 7}),
]


@pytest.mark.parametrize("again", [False, True], ids=["at once", "after a rebuild"])
def test_a_run_notes_what_cannot_be_read_of_it(again: bool) -> None:
    """By the descriptor or the run that the document names; of nobody's it is a letter without a run."""
    world = ready()
    stray = ("event", event_doc(1, descriptor="unknown") | {"seq_num": "one"})
    world.publish(*whole()[:-1], *BROKEN, stray)
    world.settle()
    assert [letter.run for letter in world.letters] == ["r", "r", "r", ""]
    assert {code for _, code in world.codes} == {"schema"}
    if again:
        world = World(tiled=world.tiled, logs=world.logs)
        world.assign(committed=8, point=ResumePoint(start=0, epoch=1, nonce="w1", topic_id=TOPIC_ID))
        world.settle()
    world.publish(("stop", stop_doc(num_events={"primary": 2})))
    world.settle()
    assert world.tiled.facts(("r",))["state"] == "complete"
    assert world.tiled.facts(("r",))["notes"] == ["3 documents of this run are dead letters: schema."]


def test_a_document_in_another_partition_than_its_run_is_scattered() -> None:
    world = ready()
    world.assign(OTHER)
    world.publish(*started())
    world.publish(("event", event_doc(1)), ("stop", stop_doc()), home=OTHER)
    assert [code for _, code in world.codes] == ["scattered_run"] * 2
    assert {letter.record.home for letter in world.letters} == {OTHER}


def test_what_comes_after_the_stop_is_late() -> None:
    world = ready()
    world.publish(*whole(), ("event", event_doc(3)))
    world.settle()
    world.publish(("event", event_doc(4)), ("descriptor", descriptor_doc("new")), ("start", start_doc()))
    world.settle()
    assert world.codes == [(5, "late"), (6, "late"), (7, "late"), (8, "late")]
    assert world.committed == 9


def test_a_second_stop_is_a_repetition_if_it_is_the_same_and_late_if_not() -> None:
    world = ready()
    world.keeps = asks(w.CreateContainer)
    world.publish(*whole(events=0), ("stop", stop_doc(num_events={"primary": 0})), ("stop", stop_doc("r", {"a": 1})))
    assert world.codes == [(4, "late")]


def test_another_start_under_the_same_uid_is_conflicting() -> None:
    world = ready()
    world.publish(("start", start_doc()), ("start", start_doc(scan_id=7)), ("start", start_doc()))
    assert world.codes == [(1, "conflicting_run")]


def test_a_uid_that_cannot_be_a_nodes_key_is_refused_by_itself() -> None:
    world = ready()
    world.publish(("start", start_doc("a/b")), *whole())
    world.settle()
    assert world.codes == [(0, "schema")]
    assert world.committed == 6


def test_a_streams_name_that_cannot_be_a_nodes_key_is_refused_by_itself() -> None:
    world = ready()
    world.publish(started()[0], ("descriptor", descriptor_doc("e", name="a/b")), *whole()[1:])
    world.settle()
    assert world.codes == [(1, "schema")]
    assert world.tiled.facts(("r",))["state"] == "complete"


def foreign() -> World:
    world = ready()
    world.tiled.nodes["r",] = w.Node({"start": start_doc()})
    return world


def test_a_run_of_others_goes_to_the_dead_letters_wholly_and_in_order() -> None:
    world = foreign()
    world.publish(*whole())
    world.settle()
    assert world.codes == [(offset, "foreign_run") for offset in range(5)]
    assert world.committed == 5
    assert world.tiled.nodes["r",].metadata == {"start": start_doc()}
    world.publish(("event", event_doc(3)))
    assert world.codes[5:] == [(5, "foreign_run")]


def test_a_run_of_others_may_be_skipped_by_setting() -> None:
    world = World(replace(POLICY, foreign_skip=True))
    world.assign()
    world.tiled.nodes["r",] = w.Node({"start": start_doc()})
    world.publish(*whole())
    world.settle()
    assert (world.codes, world.committed) == ([], 5)


def test_a_run_that_is_in_tiled_already_is_recognised_and_what_comes_after_it_is_late() -> None:
    before = ready()
    before.publish(*whole())
    before.settle()
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=0, point=ResumePoint(0, 9, "n", TOPIC_ID))
    world.publish(("event", event_doc(9)))
    world.settle()
    assert world.codes == [(5, "late")]
    assert world.committed == 6
    assert world.tiled.seq_nums(TABLE) == [1, 2]
    assert [type(ask) for ask in writes_of(world)] == [w.EnsureContainer, w.CreateContainer]


@pytest.mark.parametrize("committed", [0, 3])
def test_rows_after_the_end_of_an_abandoned_run_are_late_also_in_one_batch_with_those_before_it(committed: int) -> None:
    before = ready(IDLE)
    before.publish(*started(), *[("event", event_doc(number)) for number in (1, 2)])
    before.settle(ticks=130)
    assert before.tiled.facts(("r",))["state"] == "abandoned"
    world = World(IDLE, tiled=before.tiled, logs=before.logs)
    for number in (3, 4, 5):
        world.logs[HOME].append(record(world.logs[HOME][-1].offset + 1, "event", event_doc(number)))
    world.assign(committed=committed, point=ResumePoint(0, 9, "n", TOPIC_ID))
    world.settle()
    assert world.codes == [(offset, "late") for offset in (4, 5, 6)]
    assert world.committed == 7
    assert world.tiled.seq_nums(TABLE) == [1, 2]


def test_a_run_whose_node_was_deleted_while_nobody_looked_is_wholly_in_the_dead_letters() -> None:
    before = ready()
    before.publish(*whole()[:-1])
    before.settle()
    world = World(tiled=before.tiled, logs=before.logs)
    for path in [path for path in world.tiled.nodes if path[:1] == ("r",)]:
        del world.tiled.nodes[path]
    world.assign(committed=before.committed, point=before.commits[-1][2])
    world.publish(whole()[-1])
    world.settle()
    assert world.codes == [(offset, "run_failed") for offset in range(5)]
    assert world.tiled.facts(("r",))["state"] == "failed"


def test_replays_of_complete_runs_leave_nothing_behind() -> None:
    before = ready()
    for number in range(20):
        before.publish(*whole(f"r{number}", 1, f"d{number}"))
    before.settle()
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=0, point=ResumePoint(0, 9, "n", TOPIC_ID))
    world.settle()
    assert world.committed == 80
    assert world.engine.snapshot().runs == ()
    assert len(world.engine._lanes) <= 1  # the claim's own


def test_finished_runs_leave_nothing_behind() -> None:
    world = ready()
    for number in range(20):
        world.publish(*whole(f"r{number}", 1, f"d{number}"))
    world.settle()
    assert len(world.engine._lanes) <= 1


# ---------------------------------------------------------------- dead letters


def test_a_dead_letter_is_confirmed_before_its_offset_is_committed() -> None:
    world = ready()
    world.keeps = of(fx.DeadLetter)
    world.publish(("event", event_doc(1)))
    world.settle()
    assert all(offset == 0 for _, offset, _ in world.commits)
    world.let_go()
    world.settle()
    assert world.committed == 1


def test_a_run_is_over_only_when_what_was_refused_of_it_is_out() -> None:
    """Who finds it closed takes all of it for settled: a letter that was lost with its sender would be missing."""
    world = ready()
    world.keeps = of(fx.DeadLetter)
    world.publish(started()[0], ("descriptor", descriptor_doc("e", name="a/b")), *whole()[1:])
    world.settle()
    assert (world.tiled.facts(("r",))["state"], world.tiled.seq_nums(TABLE)) == ("open", [1, 2])
    after = World(tiled=world.tiled, logs=world.logs)  # the first one died, and its letter with it
    after.assign(committed=1, point=ResumePoint(0, 1, "before", TOPIC_ID))
    after.settle()
    assert after.codes == [(1, "schema")]
    assert (after.committed, after.tiled.facts(("r",))["state"]) == (6, "complete")
    assert after.tiled.seq_nums(TABLE) == [1, 2]


def test_a_run_does_not_wait_for_letters_of_what_came_before_or_after_it() -> None:
    world = ready()
    world.keeps = of(fx.DeadLetter)
    orphan = ("event", event_doc(1, descriptor="unknown"))
    world.publish(orphan, *whole(), orphan, *whole("q", descriptor="f"))
    world.settle()
    assert [world.tiled.facts((uid,))["state"] for uid in "rq"] == ["complete", "complete"]
    assert world.committed == 0
    world.let_go()
    world.settle()
    assert world.committed == 12


def test_a_run_that_is_given_up_waits_for_its_letters_too() -> None:
    world = ready(replace(POLICY, idle_s_max=5.0))
    world.keeps = of(fx.DeadLetter)
    world.publish(started()[0], ("descriptor", descriptor_doc("e", name="a/b")), *whole()[1:-1])
    world.settle(20)
    assert world.tiled.facts(("r",))["state"] == "open"
    world.let_go()
    world.settle()
    assert world.tiled.facts(("r",))["state"] == "abandoned"


def test_a_refused_dead_letter_stops_and_nothing_is_committed() -> None:
    world = ready()
    world.answers[fx.DeadLetter] = lambda effect: fx.DeadLetterRefused(effect.ticket, "too large")
    world.publish(("event", event_doc(1)))
    world.settle()
    assert world.stop is not None
    assert (world.stop.reason, world.stop.detail) == ("DeadLetterFailed", "too large")
    assert all(offset == 0 for _, offset, _ in world.commits)


def test_garbage_keeps_its_reason() -> None:
    world = ready()
    world.logs[HOME] = [Record("t", 0, 0, 0, b"key", b"garbage"), Record("t", 0, 1, 0, None, None)]
    world.give(fx.Tick())
    assert [(letter.reason, letter.code) for letter in world.letters] == [
        ("InvalidDocument", "undecodable"),
        ("InvalidDocument", "tombstone"),
    ]


def test_the_breaker_trips_when_nearly_everything_is_refused() -> None:
    world = ready(replace(POLICY, breaker_window=10, breaker_share_max=0.8))
    world.publish(*whole(), *[("event", event_doc(number, descriptor=f"nobody{number}")) for number in range(20)])
    world.settle()
    assert world.stop is not None
    assert world.stop.reason == "BreakerOpen"
    assert 0 < len(world.letters) < 20


def test_what_the_breaker_let_pass_is_committed_before_the_stop() -> None:
    """Else every restart repeats the same letters, and what comes after them is never written."""
    policy = replace(POLICY, breaker_window=10, breaker_share_max=0.8)
    garbage = [("event", event_doc(number, descriptor=f"nobody{number}")) for number in range(25)]
    world = ready(policy)
    world.publish(*whole("r")[:3], *garbage, *whole("r")[3:], *whole("q", 2, "e"))
    for _ in range(4):
        world.settle()
        point = world.commits[-1][2]
        if world.stop is None:
            break
        letters, committed = world.letters, world.committed
        assert committed == letters[-1].record.offset + 1
        world = World(policy, world.tiled, now_s=world.now_s, logs=world.logs, letters=letters)
        world.assign(committed=committed, point=point)
    assert world.stop is None
    assert [letter.record.offset for letter in world.letters] == list(range(3, 28)), "each went out once"
    assert {world.tiled.facts((uid,))["state"] for uid in "rq"} == {"complete"}


def test_an_end_that_was_polled_with_what_the_breaker_left_is_none() -> None:
    """What comes after the document that opened it is not taken: a commit may not pass it."""
    world = ready(replace(POLICY, breaker_window=2, breaker_share_max=0.5))
    opens = [("event", event_doc(number, descriptor=f"nobody{number}")) for number in range(2)]
    world.keeps = of(fx.DeadLetter)
    world.publish(*opens, *whole())
    world.give(fx.EndReached(HOME, 2 + len(whole())))
    world.let_go()
    assert world.stop is not None
    assert world.stop.reason == "BreakerOpen"
    assert [letter.record.offset for letter in world.letters] == [0, 1]
    assert world.committed == 2


def test_one_lost_descriptor_does_not_open_the_breaker() -> None:
    world = ready(replace(POLICY, breaker_window=10, breaker_share_max=0.5))
    world.publish(("start", start_doc()), *[("event", event_doc(number)) for number in range(1, 50)])
    world.publish(*whole("q", 2, "e"))
    world.settle()
    assert world.stop is None
    assert {code for _, code in world.codes} == {"orphan"}
    assert world.tiled.facts(("q",))["state"] == "complete"


def test_the_breaker_trips_when_tiled_refuses_every_run() -> None:
    """design.md: when nearly everything goes to the dead letters, stop instead."""
    world = ready(replace(POLICY, breaker_window=20, breaker_share_max=0.8))
    world.tiled.faults.append(always(w.CreateContainer, w.Rejected("schema", 422)))
    for number in range(40):
        world.publish(*whole(f"r{number}", 1, f"d{number}"))
    world.settle()
    assert world.stop is not None
    assert world.stop.reason == "BreakerOpen"


def of_others(policy: Policy, runs: int) -> World:
    """Somebody writes every run of the topic, too, and is always first."""
    world = World(policy)
    world.assign()
    for number in range(runs):
        world.tiled.nodes[(f"r{number}",)] = w.Node({"start": start_doc(f"r{number}")})
        world.publish(*whole(f"r{number}", 1, f"d{number}"))
        world.settle()
    return world


def test_the_breaker_trips_when_someone_else_writes_every_run() -> None:
    world = of_others(replace(POLICY, breaker_window=5, breaker_share_max=0.8), 8)
    assert world.stop is not None
    assert world.stop.reason == "BreakerOpen"
    assert world.stop.detail.startswith("5 of the last 5 runs were written by someone else; is a TiledWriter still")
    assert {letter.run for letter in world.letters} == {f"r{number}" for number in range(5)}
    assert world.committed == 5 * len(whole(events=1))


def test_a_run_of_others_counts_once_however_long_it_is() -> None:
    world = of_others(replace(POLICY, breaker_window=5, breaker_share_max=0.8), 1)
    for number in range(2, 30):
        world.publish(("event", event_doc(number, descriptor="d0")))
        world.settle(ticks=2)
    assert len(world.letters) > 20
    assert world.stop is None


def test_runs_of_others_that_are_skipped_open_no_breaker() -> None:
    world = of_others(replace(POLICY, breaker_window=5, breaker_share_max=0.8, foreign_skip=True), 8)
    assert (world.stop, world.letters) == (None, [])


def test_the_breaker_finishes_the_runs_that_were_woken_with_the_one_that_opened_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tiled is back: all that waited for it go on, also those behind the first that fails."""
    world = ready(replace(POLICY, breaker_window=1, breaker_share_max=0.5), "postgresql")

    def waits_first(desk: Any, run: Any, *more: Any) -> Procedure[None]:
        yield Sleep(1_000.0)
        if run.uid == "a":
            raise TiledRejected("no")
        yield from jobs.next_job(desk, run, *more) or ()

    def next_or_waiting(desk: Any, run: Any, *more: Any) -> Any:
        waits = run.uid in "abc" and not run.opened and run.verdict is None
        return waits_first(desk, run, *more) if waits else jobs.next_job(desk, run, *more)

    monkeypatch.setattr("tiled_ingest.core.engine.next_job", next_or_waiting)
    world.publish(*(document for uid in "abcd" for document in whole(uid, 1, f"d{uid}")))
    world.settle(ticks=10)
    assert world.stop is not None
    assert world.stop.reason == "BreakerOpen"
    assert {world.tiled.facts((uid,))["state"] for uid in "bcd"} == {"complete"}
    assert world.committed == 16


def test_a_lost_answer_does_not_keep_the_breaker_from_finishing_what_was_begun() -> None:
    world = ready(replace(POLICY, breaker_window=2, breaker_share_max=0.5))
    world.keeps = asks(w.Append)
    world.publish(*whole())
    world.settle(ticks=2)
    world.publish(*[("event", event_doc(number, descriptor=f"nobody{number}")) for number in range(2)])
    world.tiled.faults.append(once(w.Append, w.Unknown("reset")))
    world.tiled.faults.append(once(w.ReadKeys, AWAY))
    world.let_go()
    assert world.stop is None, "a read-back that failed once says not that nothing can be done"
    world.settle(ticks=20)
    assert world.stop is not None
    assert world.stop.reason == "BreakerOpen"
    assert world.committed == 7
    assert world.tiled.facts(("r",))["state"] == "complete"


def test_while_tiled_is_away_the_breaker_waits_no_longer_than_it_may() -> None:
    world = ready(replace(POLICY, breaker_window=2, breaker_share_max=0.5, end_s_max=5.0))
    world.tiled.faults.append(always(w.CreateContainer, AWAY))
    world.publish(*whole())
    world.publish(*[("event", event_doc(number, descriptor=f"nobody{number}")) for number in range(2)])
    world.settle(ticks=5)
    assert world.stop is None
    world.settle(ticks=6)
    assert world.stop is not None
    assert world.stop.reason == "BreakerOpen"


# ---------------------------------------------------------------- an idle service


def test_an_idle_service_knows_that_tiled_is_away_and_when_it_is_back() -> None:
    world = ready()
    world.settle()
    world.tiled.faults.append(always(w.GetNode, AWAY))
    world.settle(ticks=30, seconds=1.0)
    assert world.engine.snapshot().down_s
    assert world.told("tiled_down") == [{"detail": "connection refused"}]
    world.tiled.faults.clear()
    world.settle(ticks=5, seconds=1.0)
    assert world.engine.snapshot().down_s is None
    assert len(world.told("tiled_up")) == 1


def test_a_key_that_tiled_does_not_know_stops_also_an_idle_service() -> None:
    world = World()
    world.tiled.faults.append(always(w.GetNode, w.Denied("Invalid API key", 401)))
    world.assign(committed=0, point=POINT)
    world.settle(ticks=3)
    assert world.stop is not None
    assert world.stop.reason == "Forbidden"


def test_one_failure_is_not_an_outage() -> None:
    world = ready()
    world.tiled.faults.append(once(w.CreateContainer, w.Unknown("reset")))
    world.publish(*whole())
    world.settle()
    assert world.told("tiled_down") == world.told("tiled_up") == []


# ---------------------------------------------------------------- limits that change while a run is open


def test_what_a_limit_once_let_pass_is_not_lost_when_the_limit_is_lowered() -> None:
    """The row is in Tiled and committed: a rebuild that refused it now would write the run anew without it."""
    before = ready()
    large = event_doc(2, x=2.0, i=2, note="n" * 3_000)
    before.publish(*started()[:1], ("descriptor", descriptor_doc(x="number", i="integer", note="string")))
    before.publish(("event", event_doc(1, x=1.0, i=1, note="")), ("event", large))
    before.settle()
    assert (before.committed, before.tiled.seq_nums(TABLE)) == (4, [1, 2])
    world = World(replace(POLICY, message_bytes_max=1_000), before.tiled, now_s=before.now_s, logs=before.logs)
    world.assign(committed=4, point=before.commits[-1][2])
    world.publish(("event", event_doc(3, x=3.0, i=3, note="")), ("event", {**large, "uid": "u4", "seq_num": 4}))
    world.settle()
    assert world.codes == [(5, "too_large")]
    assert world.tiled.seq_nums(TABLE) == [1, 2, 3]
    third = World(POLICY, world.tiled, now_s=world.now_s, logs=world.logs)
    third.assign(committed=world.committed, point=world.commits[-1][2])
    third.publish(("event", event_doc(5, x=5.0, i=5, note="")), ("stop", stop_doc(num_events={"primary": 4})))
    third.settle()
    assert third.tiled.seq_nums(TABLE) == [1, 2, 3, 5]
    assert third.tiled.facts(("r",))["rows"] == {"primary": 4}
    assert third.letters == []


def test_rules_of_a_newer_version_are_not_guessed() -> None:
    world = World()
    world.assign(committed=0, point=structs.replace(POINT, rules=99))
    assert world.stop is not None
    assert "newer version" in world.stop.detail


# ---------------------------------------------------------------- a run that Tiled refuses


def rejecting(*faults: Fault) -> World:
    world = ready()
    world.tiled.faults += faults or [always(w.Append, w.Rejected("these rows", 422))]
    return world


def test_a_rejected_run_fails_in_order_and_beside_it_others_go_on() -> None:
    world = ready()
    world.tiled.faults.append(once(w.Append, w.Rejected("these rows", 422), where=lambda ask: ask.path == TABLE))
    world.publish(*whole(), *whole("q", 1, "e"))
    world.settle()
    assert world.codes == [(offset, "run_failed") for offset in range(5)]
    assert {letter.run for letter in world.letters} == {"r"}
    assert world.tiled.facts(("r",))["state"] == "failed"
    assert world.tiled.facts(("q",))["state"] == "complete"
    assert world.committed == 9


def order_of_failure(world: World) -> list[str]:
    """The decision, the letters and the mark, as they were asked for and confirmed."""
    found = []
    for effect in world.effects:
        if isinstance(effect, fx.Ask) and isinstance(effect.request, w.UpdateMetadata):
            facts = effect.request.metadata.get(OURS)
            if facts is None:
                continue  # its stop document
            found.append(facts["state"] if facts["state"] == "failed" else "decided" * ("failing" in facts))
        elif isinstance(effect, fx.DeadLetter):
            found.append("letter")
    return found


def test_the_decision_is_durable_before_letters_and_letters_before_the_mark() -> None:
    world = rejecting()
    world.keeps = asks(w.UpdateMetadata)
    world.publish(*whole())
    world.settle()
    assert (len(world.in_flight), world.letters) == (1, [])
    world._perform(world.kept.pop())
    world.keeps = of(fx.DeadLetter)
    world.settle()
    assert world.tiled.facts(("r",))["state"] == "open"
    assert world.committed <= 2
    world.let_go()
    world.settle()
    assert order_of_failure(world) == ["decided", *["letter"] * 5, "failed"]
    assert world.committed == 5


def test_an_owner_that_died_while_it_failed_a_run_is_succeeded_by_one_that_fails_it_wholly() -> None:
    before = rejecting()
    before.keeps = of(fx.DeadLetter)
    before.publish(*whole())
    before.settle()
    assert before.commits[-1][2].start == 0
    appends = before.tiled.count(w.Append)
    world = World(tiled=before.tiled, logs=before.logs)
    world.tiled.faults.clear()
    world.assign(committed=before.committed, point=before.commits[-1][2])
    world.settle()
    assert world.codes == [(offset, "run_failed") for offset in range(5)]
    assert world.tiled.facts(("r",))["state"] == "failed"
    assert world.tiled.count(w.Append) == appends  # those of the first owner


def test_what_still_comes_of_a_failed_run_follows_it() -> None:
    world = rejecting()
    world.publish(*whole()[:-1])
    world.settle()
    assert len(world.letters) == 4
    assert world.commits[-1][2].start == 0  # until it is over
    world.publish(("event", event_doc(3)), ("stop", stop_doc()))
    world.settle()
    assert [offset for offset, _ in world.codes] == [0, 1, 2, 3, 4, 5]
    assert (world.committed, world.commits[-1][2].start) == (6, 6)


def test_rows_count_what_they_take_however_few_bytes_they_came_in() -> None:
    """A page of a megabyte may hold 140 000 rows, and each is a Python object."""
    world = ready(replace(POLICY, memory_bytes_max=50_000))
    world.keeps = of(fx.Ask)
    tiny = {"descriptor": "d", "uid": [""] * 1_000, "time": [0] * 1_000, "seq_num": list(range(1, 1_001))}
    world.publish(*started(), ("event_page", {**tiny, "data": {}, "timestamps": {}, "filled": {}}))
    assert len(world.logs[HOME][-1].value or b"") < 10_000
    assert world.engine.full


@pytest.mark.parametrize("events", [19, 20])
def test_the_tables_of_a_full_batch_count_too(events: int) -> None:
    """Twenty rows make a batch: it becomes a table at once, and its rows are still there."""
    world = ready(replace(POLICY, rows_max=20, age_s_max=1e9, memory_bytes_max=2_600))
    world.keeps = of(fx.Ask)
    world.publish(*started(), *[("event", event_doc(number)) for number in range(1, events + 1)])
    assert sum(len(record.value or b"") for record in world.logs[HOME][2:]) < 2_400
    assert world.engine.full == (events == 20)


def test_integers_that_lose_digits_in_a_column_of_numbers_are_noted() -> None:
    world = ready()
    world.publish(*started(), ("event", event_doc(1, x=2**53 + 1, i=1)), ("stop", stop_doc()))
    world.settle()
    notes = world.tiled.facts(("r",))["notes"]
    assert any("'x'" in note and "lost digits" in note for note in notes)


def test_a_failed_run_holds_no_memory() -> None:
    world = ready(replace(POLICY, memory_bytes_max=600))
    world.tiled.faults.append(always(w.Append, w.Rejected("these rows", 422)))
    world.publish(*started(), *[("event", event_doc(number)) for number in range(1, 12)])
    world.settle()
    assert world.committed == 13
    assert world.engine.snapshot().buffered_bytes == 0
    assert not world.engine.snapshot().paused


def test_a_run_that_fails_while_it_is_abandoned_is_wholly_in_the_dead_letters() -> None:
    """Everything of it was committed: nothing waits, and yet its documents must go out."""
    world = ready(replace(POLICY, idle_s_max=30.0))
    world.publish(*started(), ("event", event_doc(1)))
    world.settle()
    assert world.committed == 3
    for tables in world.tiled.rows.values():
        tables.clear()  # a restored Tiled lost them
    world.tiled.faults.append(always((w.CreateTable, w.Append), w.Rejected("no", 422)))
    world.settle(ticks=200)
    assert world.codes == [(offset, "run_failed") for offset in range(3)]
    assert world.tiled.facts(("r",))["state"] == "failed"


def test_reads_that_succeed_prove_nothing_about_writes() -> None:
    """Storage that cannot be written, and can be read: an outage, not bad data."""
    world = ready(storage="postgresql")
    world.publish(*whole()[:3], *whole("q", 2, "e")[:3])
    world.settle()
    broken = always(WRITES, w.Unknown("read-only file system", 500))
    world.tiled.faults.append(broken)
    world.publish(("event", event_doc(2)), ("event", event_doc(2, descriptor="e")))
    world.settle(ticks=200)
    assert world.told("run_failed") == []
    world.tiled.faults.clear()
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1, 2]


def test_storage_of_rows_that_fails_for_long_and_recovers_condemns_no_run() -> None:
    world = ready(storage="postgresql")
    world.publish(*whole()[:3], *whole("q", 2, "e")[:3])
    world.settle()
    world.tiled.faults.append(always(w.Append, w.Unknown("disk full", 500)))
    world.publish(("event", event_doc(2)), ("event", event_doc(2, descriptor="e")))
    world.settle(ticks=200)
    world.tiled.faults.clear()
    world.settle(ticks=50)
    assert world.told("run_failed") == []
    assert world.letters == []
    assert [world.tiled.seq_nums((uid, "primary", "internal")) for uid in "rq"] == [[1, 2], [1, 2]]


# ---------------------------------------------------------------- what Tiled answers with 500 for ever

BOOM = w.Unknown("boom", 500)


def whole_start(request: w.CreateContainer | w.UpdateMetadata) -> bool:
    return "note" in request.metadata.get("start", {})


def poisoned(kind: type | tuple[type, ...], where: Callable[[Any], bool]) -> Fault:
    return lambda request: BOOM if isinstance(request, kind) and where(request) else None


POISON: dict[str, Fault] = {
    "start": poisoned((w.CreateContainer, w.UpdateMetadata), whole_start),
    "stream": poisoned(w.CreateContainer, lambda ask: (*ask.parent, ask.key) == ("r", "primary")),
    "table": poisoned(w.CreateTable, lambda ask: ask.parent[0] == "r" and "x" in ask.schema.names),
    "rows": poisoned(w.Append, lambda ask: ask.path[0] == "r" and "x" in ask.table.schema.names),
    "stop": poisoned(w.UpdateMetadata, lambda ask: ask.path == ("r",) and "stop" in ask.metadata),
}


def poisoned_run() -> list[tuple[str, Any]]:
    return [("start", start_doc("r", note="poison")), *whole()[1:]]


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("storage", ["duckdb", "postgresql"])
def test_a_run_that_tiled_never_takes_fails_also_when_it_is_alone(poison: str, storage: str) -> None:
    world = ready(storage=storage)
    world.tiled.faults.append(POISON[poison])
    world.publish(*poisoned_run())
    world.settle(ticks=120)
    assert world.committed == 5
    assert world.codes == [(offset, "run_failed") for offset in range(5)]
    assert world.tiled.facts(("r",))["state"] == "failed"
    assert world.tiled.facts(("r",))["failing"]["code"] == "run_failed"
    assert world.told("tiled_down") == []


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("storage", ["duckdb", "postgresql"])
def test_a_run_that_tiled_never_takes_keeps_no_other_waiting(poison: str, storage: str) -> None:
    world = ready(storage=storage)
    world.tiled.faults.append(POISON[poison])
    world.publish(*poisoned_run()[:-1])
    if poison == "stop":
        world.publish(poisoned_run()[-1])
    world.tick(0.1)
    world.publish(*whole("q", 2, "e"))
    world.settle(ticks=4, seconds=0.25)
    assert world.tiled.facts(("q",))["state"] == "complete"
    assert world.tiled.facts(("r",))["state"] == "open" if ("r",) in world.tiled.nodes else True
    assert not world.kinds(fx.Pause)


def test_a_run_that_an_earlier_claim_saw_failing_comes_to_its_end_though_its_stop_is_never_taken() -> None:
    first = ready()
    first.tiled.faults.append(POISON["rows"])
    first.keeps = of(fx.DeadLetter)
    first.publish(*poisoned_run()[:-1])
    first.settle(ticks=60)
    assert "failing" in first.tiled.facts(("r",))
    heir = World(tiled=first.tiled, logs=first.logs)
    heir.tiled.faults[:] = [POISON["stop"]]
    heir.assign(committed=first.commits[-1][1], point=first.commits[-1][2])
    heir.publish(poisoned_run()[-1])
    heir.settle(ticks=60)
    assert heir.committed == 5
    assert heir.tiled.facts(("r",))["state"] == "failed"


def test_a_run_whose_node_is_not_taken_is_decided_on_before_a_letter_is_sent() -> None:
    world = ready()
    world.keeps = of(fx.DeadLetter)
    world.tiled.faults.append(POISON["start"])
    world.publish(*poisoned_run())
    world.settle(ticks=60)
    assert world.kept
    assert world.tiled.facts(("r",))["failing"]["code"] == "run_failed"
    assert world.tiled.nodes["r",].metadata["start"] == {"uid": "r", "time": 1.0}


@pytest.mark.parametrize("ticks", range(0, 60, 4))
def test_a_successor_completes_a_bare_node_or_finds_it_at_fault(ticks: int) -> None:
    """Whenever the claim before it ends: what it writes meanwhile, to see whether Tiled writes, must not hide that."""
    before = ready()
    before.tiled.faults.append(POISON["start"])
    before.publish(*poisoned_run())
    while ("r",) not in before.tiled.nodes:
        before.tick()
    for _ in range(ticks):
        before.tick()
    if "failing" in before.tiled.facts(("r",)) or before.tiled.facts(("r",))["state"] == "failed":
        assert ticks > 4
        return
    assert before.tiled.facts(("r",))["bare"]
    for cured in (True, False):
        tiled = MiniTiled(nodes=dict(before.tiled.nodes), faults=[] if cured else [POISON["start"]])
        world = World(tiled=tiled, logs=before.logs)
        world.assign(committed=0, point=ResumePoint(0, 1, "n", TOPIC_ID))
        world.settle(ticks=60)
        assert tiled.facts(("r",))["state"] == ("complete" if cured else "failed")
        assert len(world.letters) == (0 if cured else 5)
        assert ("note" in tiled.nodes["r",].metadata["start"]) is cured


@pytest.mark.parametrize("ticks", range(1, 40, 3))
def test_a_database_that_is_restarted_fails_no_run_whenever_it_comes_back(ticks: int) -> None:
    """500 for everything, reads too; while runs are opened, live and closed."""
    world = ready(storage="postgresql")
    world.publish(*started("p", "c"), ("event", event_doc(1, descriptor="c")))
    world.settle()
    world.tiled.faults.append(always(w.Request.__args__, BOOM))
    world.publish(*whole("q", 2, "e"), ("event", event_doc(2, descriptor="c")), ("stop", stop_doc("p")))
    world.settle(ticks=ticks, seconds=0.31)
    world.tiled.faults.clear()
    world.publish(*whole("s", 2, "f"))
    world.settle(ticks=60)
    assert world.told("run_failed") == []
    assert world.letters == []
    assert {world.tiled.facts((uid,))["state"] for uid in "pqs"} == {"complete"}
    assert world.tiled.nodes["q",].metadata["start"] == start_doc("q")


def test_a_database_that_is_away_pauses_the_intake_and_is_told() -> None:
    world = ready(storage="postgresql")
    world.publish(*whole()[:-1])
    world.settle()
    world.tiled.faults.append(always(w.Request.__args__, BOOM))
    world.publish(whole()[-1])
    world.settle(ticks=20)
    assert world.engine.snapshot().paused
    assert world.told("tiled_down")
    world.tiled.faults.clear()
    world.settle(ticks=20)
    assert not world.engine.snapshot().paused
    assert world.tiled.facts(("r",))["state"] == "complete"


def test_a_mistake_in_the_configuration_stops_and_no_letter_is_sent() -> None:
    world = rejecting(always(w.CreateContainer, w.Denied("Not enough scopes", 403)))
    world.publish(*whole())
    assert world.stop is not None
    assert world.stop.reason == "Forbidden"
    assert world.letters == []


def test_a_zombie_stops() -> None:
    before = ready()
    before.publish(*whole()[:-1])
    before.settle()
    zombie = World(tiled=before.tiled, logs=before.logs)
    zombie.assign(committed=4, point=ResumePoint(0, 3, "n", TOPIC_ID))
    successor = World(tiled=before.tiled, logs=before.logs)
    successor.assign(committed=4, point=ResumePoint(0, 4, "n", TOPIC_ID))
    successor.publish(("event", event_doc(3)))
    successor.settle()
    appended = before.tiled.count(w.Append)
    zombie.settle()
    assert zombie.stop is not None
    assert zombie.stop.reason == "Superseded"
    assert before.tiled.count(w.Append) == appended


def test_a_repeated_epoch_is_noticed_before_any_append_and_costs_one_restart() -> None:
    """The broker lost a confirmed commit: two claims of one epoch, one after the other (ADR 0015)."""
    first = ready()
    first.publish(*whole()[:-1])
    first.settle()
    _, offset, point = first.commits[-1]
    lost = structs.replace(point, epoch=point.epoch - 1)
    twin = World(tiled=first.tiled, logs=first.logs)
    twin._words = 100  # its nonces are its own
    twin.assign(committed=offset, point=lost)
    appended = first.tiled.count(w.Append)
    twin.publish(("event", event_doc(3)))
    twin.settle()
    assert twin.stop is not None
    assert twin.stop.reason == "Superseded"
    assert first.tiled.count(w.Append) == appended
    after = World(tiled=first.tiled, logs=first.logs)
    after.assign(committed=twin.commits[-1][1], point=twin.commits[-1][2])
    after.publish(("stop", stop_doc("r", {"primary": 3})))
    after.settle()
    assert after.stop is None
    assert after.tiled.seq_nums(TABLE) == [1, 2, 3]
    assert after.tiled.facts(("r",))["state"] == "complete"


# ---------------------------------------------------------------- pauses


def test_too_many_bytes_pause_intake_and_it_resumes_at_half() -> None:
    world = ready(replace(POLICY, memory_bytes_max=500))
    world.keeps = asks(w.Append)
    for number in range(1, 40):
        world.publish(*(started() if number == 1 else []), ("event", event_doc(number)))
        world.tick(0.01)
    assert world.flowing == set()
    assert world.engine.snapshot().paused
    assert world.engine.snapshot().buffered_bytes < 900  # no record more than the one that was too much
    world.let_go()
    world.settle()
    assert world.flowing == {HOME}
    assert world.tiled.seq_nums(TABLE) == list(range(1, 40))


def test_the_bound_counts_what_waits_and_not_what_came() -> None:
    world = ready(policy=replace(POLICY, memory_bytes_max=2_000))
    world.publish(*started())
    for number in range(1, 41):
        world.publish(("event", event_doc(number)))
        world.settle()
    assert sum(len(record.value or b"") for record in world.logs[HOME]) > 2 * 2_000
    assert not world.kinds(fx.Pause)


def test_young_rows_are_left_alone_until_they_are_of_age() -> None:
    world = ready()
    world.publish(*started())
    world.settle()
    assert world.engine.idle_s(world.now_s) == math.inf
    world.publish(("event", event_doc(1)))
    world.give(fx.Tick())
    assert not world.engine.busy
    assert world.engine.idle_s(world.now_s) == pytest.approx(POLICY.age_s_max)
    world.tick(1.1 * POLICY.age_s_max)
    assert world.tiled.seq_nums(TABLE) == [1]
    assert world.engine.idle_s(world.now_s) == math.inf


def test_an_outage_pauses_intake_after_a_moment_and_ends_by_itself() -> None:
    world = ready()
    world.publish(*started())
    world.tiled.faults.append(lambda _: AWAY)
    world.publish(("event", event_doc(1)))
    world.tick(0.3)
    assert world.flowing == {HOME}
    world.settle(ticks=100)
    assert world.flowing == set()
    down_s = world.engine.snapshot().down_s
    assert down_s is not None
    assert down_s > 50
    assert world.committed == 2
    world.tiled.faults.clear()
    world.settle()
    assert world.flowing == {HOME}
    assert world.engine.snapshot().down_s is None
    assert world.tiled.seq_nums(TABLE) == [1]
    assert (len(world.told("tiled_down")), len(world.told("tiled_up"))) == (1, 1)
    assert world.letters == []


def test_one_knock_at_a_time_while_tiled_is_away() -> None:
    world = ready(storage="postgresql")
    world.tiled.faults.append(lambda _: AWAY)
    for number in range(6):
        world.publish(*started(f"r{number}", f"d{number}"))
    world.settle()
    world.keeps = of(fx.Ask)
    world.settle()
    assert len(world.in_flight) == 1


def test_a_partition_that_is_claimed_during_a_pause_does_not_flow() -> None:
    world = ready()
    world.tiled.faults.append(lambda _: AWAY)
    world.publish(*started())
    world.settle()
    world.assign(OTHER, committed=0, point=POINT)
    assert world.flowing == set()
    world.tiled.faults.clear()
    world.settle()
    assert world.flowing == {HOME, OTHER}


def test_an_outage_that_nobody_asks_about_any_more_is_forgotten() -> None:
    world = ready()
    world.tiled.faults.append(lambda _: AWAY)
    world.publish(*started())
    world.settle()
    world.give(fx.Released((HOME,)))
    world.tick()
    assert world.engine.snapshot().down_s is None


# ---------------------------------------------------------------- requests at once


@pytest.mark.parametrize(("storage", "expected"), [("duckdb", 1), ("sqlite", 1), ("postgresql", 3)])
def test_requests_at_once(storage: str, expected: int) -> None:
    world = ready(replace(POLICY, requests_max=3), storage)
    world.publish(*whole())
    begun = [started(f"r{number}", f"d{number}") for number in range(6)]
    world.publish(*(start for start, _ in begun))  # nodes of runs are made one by one
    world.settle()
    world.keeps = of(fx.Ask)
    world.publish(*(descriptor for _, descriptor in begun))
    assert len(world.in_flight) == expected


def test_nodes_of_runs_are_made_in_the_order_of_their_starts() -> None:
    world = ready(storage="postgresql")
    world.publish(*whole())
    world.settle()
    world.keeps = of(fx.Ask)
    for number in range(3):
        world.publish(*started(f"r{number}", f"d{number}"))
    assert [each.key for each in world.in_flight if isinstance(each, w.CreateContainer)] == ["r0"]
    assert len(world.in_flight) == 1


def test_one_request_at_once_until_the_storage_is_known() -> None:
    world = ready(storage="postgresql")
    world.keeps = of(fx.Ask)
    for number in range(6):
        world.publish(*started(f"r{number}", f"d{number}"))
    assert len(world.in_flight) == 1


def test_work_on_one_run_is_in_order() -> None:
    world = ready(storage="postgresql")
    world.publish(*whole())
    world.settle()
    world.keeps = of(fx.Ask)
    world.publish(*whole("q", 3, "e"))
    world.settle()
    assert len(world.in_flight) == 1


# ---------------------------------------------------------------- leaving


def test_a_revoke_flushes_commits_and_drained_tells_when() -> None:
    world = ready()
    world.publish(*started())
    world.settle()
    world.publish(("event", event_doc(1)))
    world.keeps = asks(w.Append)
    world.give(fx.Revoked((HOME,)))
    assert world.flowing == set()
    assert len(world.in_flight) == 1
    assert not world.engine.drained([HOME])
    world.let_go()
    assert world.engine.drained([HOME])
    assert world.committed == 3
    assert world.told("flush")[-1]["reason"] == "revoke"
    world.give(fx.Released((HOME,)))
    assert world.engine.snapshot().partitions == ()


def test_drained_waits_for_dead_letters_and_for_the_commit() -> None:
    world = ready()
    world.keeps = of(fx.DeadLetter)
    world.publish(("event", event_doc(1)))
    world.give(fx.Revoked((HOME,)))
    assert not world.engine.drained([HOME])
    world._perform(world.kept.pop())
    world.keeps = of(fx.Commit)
    world.give(fx.Tick())
    assert not world.engine.drained([HOME])
    world.let_go()
    assert world.engine.drained([HOME])
    assert world.committed == 1


def test_what_is_not_ours_is_drained() -> None:
    assert World().engine.drained([HOME])


def test_while_tiled_is_away_a_revoke_waits_for_nothing_but_the_commit() -> None:
    world = ready()
    world.publish(*started())
    world.settle()
    world.tiled.faults.append(lambda _: AWAY)
    world.publish(("event", event_doc(1)))
    world.settle()
    world.give(fx.Revoked((HOME,)))
    world.tick(0.1)
    assert world.engine.drained([HOME])
    assert world.committed == 2


def test_one_request_that_was_not_processed_does_not_make_a_revoke_give_up_on_the_others() -> None:
    world = ready(storage="postgresql")
    world.publish(*started(), *started("q", "e"), ("event", event_doc(1)), ("event", event_doc(1, descriptor="e")))
    world.settle()
    world.tiled.faults.append(once(w.Append, w.Unprocessed("too many requests", 0.5), where=lambda a: a.path == TABLE))
    world.keeps = asks(w.Append)
    world.publish(("event", event_doc(2)), ("event", event_doc(2, descriptor="e")))
    world.give(fx.Revoked((HOME,)))
    assert len(world.in_flight) == 2
    world._perform(world.kept.pop(0))
    world.tick(0.01)
    assert len(world.in_flight) == 1  # of the other run: Tiled is about to confirm it
    assert not world.engine.drained([HOME])


def test_records_after_a_revoke_are_not_taken() -> None:
    world = ready()
    world.give(fx.Revoked((HOME,)))
    world.give(fx.Records([record(0, "start", start_doc())]))
    world.settle()
    assert world.kinds(fx.Ask)[1:] == []
    assert world.engine.snapshot().runs == ()


def test_a_released_claim_ignores_late_answers_and_writes_nothing_more() -> None:
    world = ready()
    world.publish(*started())
    world.settle()
    world.keeps = lambda effect: isinstance(effect, fx.Ask | fx.Commit)
    world.publish(("event", event_doc(1)), ("event", event_doc(1, descriptor="nobody")))
    world.tick()
    world.give(fx.Released((HOME,)))
    before = len(world.kinds(fx.Ask, fx.Commit, fx.ReadLog))
    world.let_go()
    world.settle()
    assert len(world.kinds(fx.Ask, fx.Commit, fx.ReadLog)) == before
    assert world.engine.snapshot().partitions == ()


def test_a_partition_that_comes_back_is_claimed_anew_beside_what_is_still_under_way() -> None:
    world = ready()
    world.publish(*started())
    world.settle()
    world.keeps = asks(w.CreateTable)
    world.publish(("event", event_doc(1)))
    world.tick()
    assert len(world.in_flight) == 1
    world.give(fx.Released((HOME,)))
    world.assign(committed=world.committed, point=world.commits[-1][2])
    world.settle()
    assert len(world.in_flight) == 1  # on embedded storage one at a time, whoever sent it
    world.let_go()
    world.settle()
    assert world.tiled.seq_nums(TABLE) == [1]
    assert world.commits[-1][2].epoch == 2
    assert world.committed == 3


def test_a_fenced_commit_is_tried_again_since_the_next_generation_may_leave_us_the_partition() -> None:
    """Found by a fault run: nobody tells a member of a partition that it keeps; nothing was committed any more."""
    world = ready()
    world.answers[fx.Commit] = lambda effect: fx.CommitFailed(effect.ticket, "illegal generation", fenced=True)
    world.publish(*started())
    world.settle()
    assert 1 < len(world.kinds(fx.Commit)) < 20
    world.answers.clear()
    world.settle()
    assert world.committed == 2


def test_what_is_fenced_while_it_is_left_is_not_tried_again() -> None:
    world = ready()
    world.answers[fx.Commit] = lambda effect: fx.CommitFailed(effect.ticket, "not a member", fenced=True)
    world.publish(*started())
    world.give(fx.Revoked((HOME,)))
    world.settle()
    number = len(world.kinds(fx.Commit))
    world.settle()
    assert len(world.kinds(fx.Commit)) == number
    assert world.engine.drained([HOME])


def test_a_commit_that_failed_is_tried_again_later() -> None:
    world = ready()
    world.answers[fx.Commit] = lambda effect: fx.CommitFailed(effect.ticket, "busy", fenced=False)
    world.publish(*started())
    world.settle()
    assert 1 < len(world.kinds(fx.Commit)) < 20
    assert world.stop is None
    world.answers.clear()
    world.settle()
    assert world.committed == 2


def test_a_drain_flushes_everything_and_then_the_engine_is_finished() -> None:
    world = ready()
    world.publish(*started(), ("event", event_doc(1)))
    assert not world.engine.finished
    world.keeps = asks(w.Append)
    world.give(fx.Drain())
    assert not world.engine.finished
    world.let_go()
    assert world.engine.finished
    assert world.committed == 3
    assert world.told("flush")[-1]["reason"] == "shutdown"


def test_after_a_drain_nothing_more_is_taken() -> None:
    world = ready()
    world.give(fx.Drain())
    world.assign(OTHER)
    assert world.flowing == set()


# ---------------------------------------------------------------- runs that never end


IDLE = replace(POLICY, idle_s_max=60.0)


def test_an_idle_run_is_abandoned_and_holds_the_resume_point_no_longer() -> None:
    world = ready(IDLE)
    world.publish(*started(), ("event", event_doc(1)))
    world.settle()
    assert world.commits[-1][2].start == 0
    world.settle(ticks=120)
    assert world.tiled.facts(("r",))["state"] == "abandoned"
    assert world.tiled.closed[-1] == ("r",)
    assert (world.committed, world.commits[-1][2].start) == (3, 3)
    world.lows[HOME] = 1  # and what holds nothing may be deleted
    world.publish(("event", event_doc(2)), ("stop", stop_doc()))
    assert world.codes == [(3, "late"), (4, "late")]
    assert {letter.run for letter in world.letters} == {"r"}


GAP_NOTE = "Stream 'primary': no event has seq_num 1, 4-6, 9."


@pytest.mark.parametrize("by_successor", [False, True])
@pytest.mark.parametrize("ends", [True, False])
def test_events_that_never_came_are_noted_by_number(ends: bool, by_successor: bool) -> None:
    """A publisher that waits for no answer has lost some. A rewind and a redelivery are no gaps."""
    numbers = (2, 3, 7, 8, 10)
    again = [("event", event_doc(8, uid="rewound")), ("event", event_doc(10)), ("event", event_doc(10))]
    world = ready(IDLE)
    world.publish(*started(), *(("event", event_doc(number)) for number in numbers), *again)
    world.settle()
    if by_successor:
        committed, point = world.committed, world.commits[-1][2]
        world = World(IDLE, tiled=world.tiled, logs=world.logs)
        world.assign(committed=committed, point=point)
    if ends:
        world.publish(("stop", stop_doc(num_events={"primary": 10})))
    world.settle(ticks=130)
    facts = world.tiled.facts(("r",))
    assert facts["state"] == ("incomplete" if ends else "abandoned")
    assert [note for note in facts["notes"] if "seq_num" in note] == [GAP_NOTE]
    assert GAP_NOTE in world.tiled.nodes["r",].metadata["notes"]


@pytest.mark.parametrize("count", [GAPS_SHOWN, GAPS_SHOWN + 3])
def test_a_note_of_many_gaps_is_short(count: int) -> None:
    world = ready()
    world.publish(
        *started(), *(("event", event_doc(2 * number)) for number in range(1, count + 1)), ("stop", stop_doc())
    )
    world.settle()
    (note,) = world.tiled.facts(("r",))["notes"]
    shown = ", ".join(str(2 * number + 1) for number in range(GAPS_SHOWN))
    assert note == f"Stream 'primary': no event has seq_num {shown}{', and 3 more' if count > GAPS_SHOWN else ''}."


LATE_COMERS = [
    ("start", start_doc("r")),
    ("event", event_doc(2)),
    ("descriptor", descriptor_doc("later", run="r")),
    ("event", event_doc(3, descriptor="later")),
    ("stop", stop_doc("r", {"primary": 3})),
]


def is_update_to(state: str, update: w.UpdateMetadata) -> bool:
    return bool(update.metadata[OURS]["state"] == state)


def given_up(last: type[w.Request] = w.UpdateMetadata, comers: list[tuple[str, Any]] = LATE_COMERS) -> World:
    """A run of three documents is being given up: this request is under way, and others of its run have come."""
    world = ready(IDLE)
    world.publish(*started(), ("event", event_doc(1)))
    world.settle()
    world.keeps = asks(last)
    world.settle(ticks=130)
    assert [type(request) for request in world.in_flight] == [last]
    world.publish(*comers)
    world.settle()
    return world


def test_what_comes_while_a_run_is_given_up_is_taken_once_that_is_durable() -> None:
    world = given_up()
    assert (world.letters, world.committed) == ([], 3)
    world.let_go()
    world.settle()
    facts = world.tiled.facts(("r",))
    assert (facts["state"], facts["source"]["last_offset"], world.tiled.seq_nums(TABLE)) == ("complete", 7, [1, 2, 3])
    assert (world.letters, world.committed, world.engine.snapshot().runs) == ([], 8, ())


def test_what_is_repeated_while_a_run_is_given_up_does_not_open_it_again() -> None:
    """Found by the simulation (seed 702, brief)."""
    world = given_up(comers=[*started(), ("event", event_doc(1))])
    world.let_go()
    world.settle()
    assert (world.tiled.facts(("r",))["state"], world.committed, world.letters) == ("abandoned", 6, [])
    assert world.told("run_reopened") == []


def test_what_comes_while_a_run_is_given_up_is_late_if_the_log_has_lost_its_beginning() -> None:
    world = given_up()
    world.lows[HOME] = 1
    world.let_go()
    world.settle()
    assert world.codes == [(offset, "late") for offset in range(4, 8)]  # a start again is a repetition
    facts = world.tiled.facts(("r",))
    assert (facts["state"], facts["source"]["last_offset"], world.tiled.seq_nums(TABLE)) == ("abandoned", 2, [1])
    assert (world.committed, world.engine.snapshot().runs) == (8, ())


def test_what_comes_while_a_run_is_given_up_goes_to_a_successor_that_finds_it_open() -> None:
    """Found by the simulation (seed 102, brief): such documents were dead letters already, and came into Tiled, too."""
    before = given_up()
    world = World(IDLE, tiled=before.tiled, logs=before.logs)
    world.assign(committed=before.committed, point=before.commits[-1][2])
    world.settle(ticks=20)
    assert before.letters == world.letters == []
    assert world.tiled.seq_nums(TABLE) == [1, 2, 3]
    assert (world.tiled.facts(("r",))["state"], world.committed) == ("complete", 8)


def test_what_came_while_a_run_was_given_up_goes_with_the_run_if_that_fails() -> None:
    world = given_up()
    ends = partial(is_update_to, "abandoned")
    world.tiled.faults.append(once(w.UpdateMetadata, w.Rejected("no", 422), where=ends))
    world.let_go()
    world.settle(ticks=20)
    assert world.codes == [(offset, "run_failed") for offset in range(8)]
    assert (world.tiled.facts(("r",))["state"], world.committed) == ("failed", 8)


def test_a_run_that_turns_out_to_be_closed_is_not_forgotten_while_something_of_it_waits() -> None:
    """Found by the simulation (seed 192): it was idle in the moment in which that was known, and held the commit."""
    before = ready(IDLE)
    before.publish(*started(), ("event", event_doc(1)))
    before.settle(ticks=130)
    world = World(IDLE, tiled=before.tiled, logs=before.logs, keeps=asks(w.CountRows))
    world.assign(committed=3, point=ResumePoint(3, 1, "n", TOPIC_ID))
    world.publish(*LATE_COMERS[:1], *LATE_COMERS[2:4])
    assert [type(request) for request in world.in_flight] == [w.CountRows]  # the last thing that it looks at
    world.now_s += IDLE.idle_s_max + 1.0
    world.let_go()
    world.settle()
    assert world.codes == [(offset, "late") for offset in (3, 4, 5)]
    assert world.committed == 6


def test_a_run_that_is_heard_of_is_not_idle() -> None:
    world = ready(IDLE)
    world.publish(*started())
    for number in range(1, 20):
        world.settle(ticks=10, seconds=1.0)
        world.publish(("event", event_doc(number)))
    assert world.told("run_idle") == []


def test_a_rebuilt_run_is_idle_from_the_claim_on() -> None:
    before = ready()
    before.publish(*started())
    before.settle()
    world = World(IDLE, before.tiled, now_s=1_000.0, logs=before.logs)
    world.assign(committed=2, point=POINT)
    world.settle(ticks=50, seconds=1.0)
    assert world.told("run_idle") == []
    world.settle(ticks=20, seconds=1.0)
    assert world.told("run_idle") == [{"run": "r"}]
    assert world.tiled.facts(("r",))["state"] == "abandoned"


def test_the_silence_that_the_log_shows_counts_for_a_rebuilt_run() -> None:
    """Restarts must not keep a dead run open for ever while other runs go on."""
    before = ready()
    before.publish(*started(), *started("q", "e"))
    before.settle()
    before.logs[HOME] = [structs.replace(r, timestamp_ms=50_000 * (r.offset // 2)) for r in before.logs[HOME]]
    world = World(IDLE, before.tiled, now_s=1_000.0, logs=before.logs)
    world.assign(committed=4, point=POINT)
    ages = {run.uid: (run.age_s, run.idle_s) for run in world.engine.snapshot().runs}
    assert ages == {"r": (50.0, 50.0), "q": (0.0, 0.0)}
    world.settle(ticks=20, seconds=1.0)
    assert world.told("run_idle") == [{"run": "r"}]


def test_a_run_is_not_idle_while_nobody_listens() -> None:
    """Tiled is away for longer than a run may be silent, and the beamline goes on publishing."""
    world = ready(IDLE)
    world.publish(*whole()[:3])
    world.settle()
    world.tiled.faults.append(always(w.Request.__args__, AWAY))
    world.publish(("event", event_doc(2)))
    world.settle(ticks=80, seconds=1.0)
    assert world.engine.snapshot().paused
    world.tiled.faults.clear()
    world.settle(ticks=30, seconds=1.0)
    assert world.told("run_idle") == []
    world.publish(("stop", stop_doc("r", {"primary": 2})))
    world.settle()
    assert world.tiled.facts(("r",))["state"] == "complete"


def test_a_run_is_not_idle_while_the_log_holds_what_was_not_read() -> None:
    world = ready(IDLE)
    world.publish(*whole()[:3])
    world.settle()
    world.unread[HOME] = 1_000
    world.settle(ticks=90, seconds=1.0)
    assert world.told("run_idle") == []
    world.unread.clear()
    world.settle(ticks=45, seconds=1.0)
    assert world.told("run_idle") == []
    world.settle(ticks=20, seconds=1.0)
    assert world.told("run_idle") == [{"run": "r"}]


def test_after_a_pause_the_log_must_be_looked_at_before_silence_counts() -> None:
    """How far the log reaches is known only some time after records may come again."""
    world = ready(IDLE)
    world.publish(*whole()[:3])
    world.settle(ticks=58, seconds=1.0)
    world.tiled.faults.append(always(w.Request.__args__, AWAY))
    world.publish(("start", start_doc("q")))
    world.settle(ticks=80, seconds=1.0)
    world.unread[HOME] = 1_000
    world.tiled.faults.clear()
    world.settle(ticks=30, seconds=1.0)
    assert not world.engine.snapshot().paused
    assert world.told("run_idle") == []


# ---------------------------------------------------------------- a Tiled that says nothing


def silent_s(world: World) -> float:
    return world.engine.snapshot().silent_s or 0.0


def test_it_is_known_how_long_tiled_has_not_answered_through_time_outs_too() -> None:
    world = ready()
    world.publish(*whole()[:3])
    world.settle()
    assert silent_s(world) == 0.0
    world.keeps = asks(w.Append, w.ReadKeys)
    world.publish(("event", event_doc(2)))
    world.settle(ticks=10, seconds=1.0)
    assert silent_s(world) == pytest.approx(9.0, abs=1.1)
    timed_out = world.kept.pop()
    assert isinstance(timed_out, fx.Ask)
    world.give(fx.Answered(timed_out.ticket, w.Unknown("read timeout")))
    world.settle(ticks=3, seconds=1.0)
    assert silent_s(world) == pytest.approx(12.0, abs=1.1)
    world.let_go()
    world.settle()
    assert silent_s(world) == 0.0


def test_a_request_whose_partition_is_gone_is_waited_for_by_nobody() -> None:
    world = ready()
    world.keeps = asks(w.CreateContainer)
    world.publish(("start", start_doc()))
    world.settle(ticks=3)
    world.give(fx.Revoked((HOME,)))
    world.give(fx.Released((HOME,)))
    (ask,) = world.kept
    assert isinstance(ask, fx.Ask)
    world.give(fx.Answered(ask.ticket, w.Unknown("read timeout")))
    assert silent_s(world) == 0.0


@pytest.mark.parametrize("storage", ["duckdb", "postgresql"])
def test_a_rebuilt_run_teaches_what_holds_the_rows(storage: str) -> None:
    """Also where every table is inherited: one request at a time would be slow on PostgreSQL."""
    before = ready(storage=storage)
    before.publish(*whole()[:3], *whole("q", 2, "e")[:3])
    before.settle()
    _, offset, point = before.commits[-1]
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=offset, point=point)
    world.publish(("event", event_doc(2)))
    world.settle()
    world.keeps = asks(w.Append, w.GetNode)
    world.publish(("event", event_doc(3)), ("event", event_doc(2, descriptor="e")))
    world.settle(ticks=3)
    assert len(world.in_flight) == (2 if storage == "postgresql" else 1)


# ---------------------------------------------------------------- a backlog of many short runs


@pytest.mark.parametrize("storage", ["duckdb", "postgresql"])
def test_a_backlog_is_worked_run_by_run_so_that_commits_advance(storage: str) -> None:
    """By the time half of the requests are answered, about half of the runs are closed, and committed."""
    world = ready(replace(POLICY, commit_interval_s=0.0), storage=storage)
    world.keeps = asks(*w.Request.__args__)
    count = 20
    world.publish(*(document for number in range(count) for document in whole(f"r{number}", 2, f"d{number}")))
    closed_at: list[int] = []
    answered = 0
    while world.kept:
        answer = world.kept.pop(0)
        assert isinstance(answer, fx.Ask)
        world.now_s += 0.02
        world.give(fx.Answered(answer.ticket, world.tiled(answer.request)))
        answered += 1
        closed_at += [answered] * (len(world.told("run_closed")) - len(closed_at))
    assert len(closed_at) == count
    assert closed_at[0] < 0.25 * answered
    assert closed_at[count // 2] < 0.7 * answered
    assert next(closed["run"] for closed in world.told("run_closed")) == "r0"
    half = [offset for _, offset, _ in world.commits[: len(world.commits) // 2]]
    assert max(half) >= 5 * count // 4


# ---------------------------------------------------------------- one descriptor's uid in two runs


def twins() -> list[tuple[str, Any]]:
    """Two open runs whose descriptors have the same uid."""
    second = [("start", start_doc("q")), ("descriptor", descriptor_doc("d", run="q"))]
    return [*started(), ("event", event_doc(1)), *second, ("event", event_doc(2))]


def test_a_descriptor_whose_uid_another_open_run_has_is_refused() -> None:
    world = ready()
    world.publish(*twins(), ("stop", stop_doc("r", {"primary": 2})), ("stop", stop_doc("q")))
    world.settle()
    assert world.codes == [(4, "conflicting_descriptor")]
    assert world.tiled.seq_nums(TABLE) == [1, 2]
    assert world.tiled.facts(("q",))["rows"] == {}
    assert {world.tiled.facts((uid,))["state"] for uid in "rq"} == {"complete"}


def test_a_uid_is_free_again_after_the_stop_whatever_tiled_has_taken_by_then() -> None:
    world = ready()
    world.keeps = asks(w.Append)
    world.publish(*whole(), ("start", start_doc("q")), ("descriptor", descriptor_doc("d", run="q")))
    world.publish(("event", event_doc(3)))
    world.let_go()
    world.settle()
    assert world.codes == []
    assert world.tiled.seq_nums(TABLE) == [1, 2]
    assert world.tiled.seq_nums(("q", "primary", "internal")) == [3]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_successor_refuses_the_same_descriptor_and_fills_both_runs_alike(stopped: bool) -> None:
    before = ready()
    again = ("descriptor", descriptor_doc("e", run="q"))
    before.publish(*twins(), again, ("event", event_doc(1, descriptor="e")))
    if stopped:
        before.publish(("stop", stop_doc("r", {"primary": 2})))
    before.settle()
    _, offset, point = before.commits[-1]
    assert point.start == 0
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=offset, point=point)
    rest = [] if stopped else [("event", event_doc(3)), ("stop", stop_doc("r", {"primary": 3}))]
    world.publish(*rest, ("event", event_doc(2, descriptor="e")), ("stop", stop_doc("q", {"primary": 2})))
    world.settle()
    assert world.codes == []
    assert world.tiled.seq_nums(TABLE) == ([1, 2] if stopped else [1, 2, 3])
    assert world.tiled.seq_nums(("q", "primary", "internal")) == [1, 2]


@pytest.mark.parametrize("failing", ["r", "q"])
def test_of_two_runs_with_one_descriptor_uid_only_the_failed_ones_documents_are_dead_letters(failing: str) -> None:
    world = ready()
    world.tiled.faults.append(
        lambda ask: w.Rejected("no", 422) if isinstance(ask, w.CreateContainer) and ask.key == failing else None
    )
    world.publish(*twins(), ("stop", stop_doc("r", {"primary": 2})), ("stop", stop_doc("q")))
    world.settle()
    failed = sorted(offset for offset, code in world.codes if code == "run_failed")
    assert failed == ([0, 1, 2, 5, 6] if failing == "r" else [3, 4, 7])


def test_of_too_many_open_runs_the_longest_idle_is_abandoned() -> None:
    world = ready(replace(POLICY, open_max=3))
    for number in range(3):
        world.publish(*started(f"r{number}", f"d{number}"))
        world.tick(2.0)
    world.publish(("event", event_doc(1, descriptor="d0")))
    world.settle()
    assert world.told("run_idle") == []
    world.publish(*started("r3", "d3"))
    world.settle()
    assert world.told("run_idle") == [{"run": "r1"}]
    assert world.tiled.facts(("r1",))["state"] == "abandoned"
    assert len(world.engine.snapshot().runs) == 3


# ---------------------------------------------------------------- the whole


def history(world: World) -> World:
    world.assign()
    world.assign(OTHER)
    world.tiled.faults += [once(w.Append, w.Unknown("time-out")), once(w.UpdateMetadata, AWAY)]
    world.publish(*whole(), *whole("q", 3, "e")[:-1], ("event", event_doc(1, descriptor="nobody")))
    world.publish(*whole("p", 2, "f"), home=OTHER)
    world.settle()
    world.give(fx.Revoked((OTHER,)))
    world.settle()
    world.give(fx.Released((OTHER,)))
    world.give(fx.Drain())
    world.settle()
    return world


def test_the_same_inputs_have_the_same_effects() -> None:
    one, other = history(World()), history(World())
    assert one.engine.finished
    assert one.tiled.seq_nums(TABLE) == [1, 2]
    assert repr(one.effects) == repr(other.effects)


def test_a_stopped_engine_does_nothing_more() -> None:
    world = ready()
    world.answers[fx.DeadLetter] = lambda effect: fx.DeadLetterRefused(effect.ticket, "no")
    world.publish(("event", event_doc(1)))
    number = len(world.effects)
    world.settle()
    world.assign(OTHER)
    assert len(world.effects) == number


def test_what_operators_see() -> None:
    world = ready()
    world.publish(*started(), ("event", event_doc(1)))
    world.settle()
    world.keeps = asks(w.Append)
    world.publish(("event", event_doc(2)))
    world.tick()
    snapshot = world.engine.snapshot()
    partition, run = snapshot.partitions[0], snapshot.runs[0]
    assert (partition.topic, partition.partition, partition.live) == ("t", 0, True)
    assert (partition.next_offset, partition.committable, partition.committed) == (4, 3, 3)
    assert partition.oldest_timestamp_ms == world.logs[HOME][3].timestamp_ms
    assert (run.uid, run.state, run.rows) == ("r", "open", 1)
    assert run.waiting_bytes == snapshot.buffered_bytes == len(world.logs[HOME][3].value or b"")
    assert (snapshot.paused, snapshot.down_s, world.engine.busy) == (False, None, True)


def test_settled_up_to_the_ends() -> None:
    world = World()
    assert not world.engine.has_settled({HOME: 0})
    world.assign()
    world.keeps = asks(w.Append)
    world.publish(*whole()[:-1])
    world.settle()
    assert world.engine.has_settled({HOME: 2})
    assert not world.engine.has_settled({HOME: 4})
    world.let_go()
    world.settle()
    assert world.engine.has_settled({HOME: 4})


def test_an_unknown_input_is_a_bug() -> None:
    with pytest.raises(TypeError, match="no input"):
        World().engine.step(0.0, "something")  # type: ignore[arg-type]


# ---------------------------------------------------------------- what was refused once is refused again


def mixed(*descriptors: str) -> tuple[str, Any]:
    return "bulk_events", {"primary": [event_doc(7 + number, descriptor=uid) for number, uid in enumerate(descriptors)]}


UNNAMED = ("descriptor", descriptor_doc("e", name="a/b"))
NAMED = ("descriptor", descriptor_doc("e", name="second"))
RECONFIGURED = (
    "descriptor",
    {**descriptor_doc(), "configuration": {"motor": {"data": {}, "timestamps": {}, "data_keys": {}}}},
)


@pytest.mark.parametrize(
    ("documents", "codes", "rows"),
    [
        ([mixed("d", "unknown")], [(2, "orphan")], {"primary": [1, 2]}),
        ([mixed("d", "e"), NAMED, mixed("d", "e")], [(2, "orphan")], {"primary": [7, 1, 2], "second": [8, 4]}),
        (
            [UNNAMED, NAMED, ("event", event_doc(3, descriptor="e"))],
            [(2, "schema")],
            {"primary": [1, 2], "second": [3, 4]},
        ),
        ([started()[1], RECONFIGURED], [(3, "conflicting_descriptor")], {"primary": [1, 2]}),
        ([NAMED, UNNAMED, NAMED, ("event", event_doc(3, descriptor="e"))], [(3, "schema")], {"second": [3, 4]}),
    ],
    ids=["bulk", "bulk, later not", "name", "content", "name, then a repetition"],
)
def test_a_successor_writes_the_rows_anew_that_were_accepted(
    documents: list[tuple[str, Any]], codes: list[tuple[int, str]], rows: dict[str, list[int]]
) -> None:
    """It reads the log twice: once for what it must know, and once more for the rows of a dataset of its own."""
    before = ready()
    before.publish(*started(), *documents, ("event", event_doc(1)))
    before.settle()
    assert before.codes == codes
    world = World(tiled=before.tiled, logs=before.logs)
    world.assign(committed=before.committed, point=before.commits[-1][2])
    more = [("event", event_doc(4, descriptor="e"))] if "second" in rows else []
    world.publish(("event", event_doc(2)), *more, ("stop", stop_doc("r")))
    world.settle()
    assert (world.codes, world.tiled.facts(("r",))["state"]) == ([], "complete")
    assert {stream: world.tiled.seq_nums(("r", stream, "internal")) for stream in rows} == rows
    assert world.told("switched")
