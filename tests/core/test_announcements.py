"""The topic of completed runs is told of each run that is over: after Tiled holds it, before its stop is settled."""

from dataclasses import replace
from typing import Any

import pytest

from tests.core.test_engine import AWAY, POLICY, World, of, ready, started, whole
from tests.core.test_steps import HOME, TOPIC_ID, event_doc, record, stop_doc
from tiled_ingest.core import effects as fx
from tiled_ingest.core import writes as w
from tiled_ingest.core.offsets import ResumePoint

TELLING = replace(POLICY, announces=True)
STOP_AT = 4  # of `whole()`


def confirmed(effect: fx.Announce) -> fx.Input:
    return fx.Announced(effect.ticket)


def telling(policy: Any = TELLING) -> World:
    return ready(policy, answers={fx.Announce: confirmed})


def announced(world: World) -> list[tuple[str, str]]:
    return [(effect.run, effect.state) for effect in world.kinds(fx.Announce)]


def successor(before: World, committed: int, policy: Any = TELLING) -> World:
    """Another process, after the first one crashed with this offset committed; the run begins at 0."""
    world = World(policy, tiled=before.tiled, logs=before.logs, answers={fx.Announce: confirmed})
    world.assign(committed=committed, point=ResumePoint(0, 1, "n", TOPIC_ID))
    world.settle()
    return world


def test_without_a_topic_nothing_is_announced() -> None:
    world = ready()
    world.publish(*whole())
    world.settle()
    assert announced(world) == []
    assert world.committed == STOP_AT + 1


def test_what_is_said_is_what_tiled_holds() -> None:
    world = telling()
    world.publish(*whole())
    world.settle()
    (said,) = world.kinds(fx.Announce)
    assert (said.run, said.path, said.state, said.rows) == ("r", ("r",), "complete", {"primary": 2})
    assert world.committed == STOP_AT + 1


def test_it_is_said_once_tiled_has_everything_and_before_the_stop_is_settled() -> None:
    world = telling()
    world.keeps = of(fx.Announce)
    world.publish(*whole())
    world.settle()
    assert world.tiled.facts(("r",))["state"] == "complete"
    assert isinstance(world.kinds(fx.Ask)[-1].request, w.CloseStreams)
    assert world.told("run_closed") == []
    assert (world.committed, world.commits[-1][2].start) == (STOP_AT, 0)
    assert world.engine.busy
    world.let_go()
    world.settle()
    assert len(world.told("run_closed")) == 1
    assert (world.committed, world.commits[-1][2].start) == (STOP_AT + 1, STOP_AT + 1)


def test_other_runs_go_on_while_one_waits_for_its_announcement() -> None:
    world = telling()
    world.keeps = lambda effect: isinstance(effect, fx.Announce) and effect.run == "r"
    world.publish(*whole(), *whole("q", descriptor="e"))
    world.settle()
    assert announced(world) == [("r", "complete"), ("q", "complete")]
    assert world.tiled.facts(("q",))["state"] == "complete"
    assert world.committed == STOP_AT


def test_a_refused_announcement_is_tried_again_until_it_is_taken() -> None:
    world = telling()
    world.answers[fx.Announce] = lambda effect: fx.Announced(effect.ticket, "no such topic")
    world.publish(*whole())
    world.settle(30)
    assert len(announced(world)) > 2
    assert {told["detail"] for told in world.told("announcement_refused")} == {"no such topic"}
    assert (world.committed, world.stop) == (STOP_AT, None)
    world.answers[fx.Announce] = confirmed
    world.settle(30)
    assert world.committed == STOP_AT + 1


@pytest.mark.parametrize("committed", [1, 3, STOP_AT])
def test_after_a_crash_before_its_confirmation_it_is_said_again(committed: int) -> None:
    """Wherever the commit stands: the stop may come before, or after, its successor knows that the run is closed."""
    before = telling()
    before.keeps = of(fx.Announce)
    before.publish(*whole())
    before.settle()
    world = successor(before, committed)
    assert announced(world) == [("r", "complete")]
    (said,) = world.kinds(fx.Announce)
    assert said.rows == {"primary": 2}
    assert world.committed == STOP_AT + 1
    assert world.engine.snapshot().runs == ()
    assert not [ask for ask in world.kinds(fx.Ask) if isinstance(ask.request, w.Append | w.UpdateMetadata)]


def test_a_stop_that_comes_once_the_run_is_known_to_be_closed_waits_for_the_announcement() -> None:
    before = telling()
    before.keeps = of(fx.Announce)
    before.publish(*whole())
    before.settle()
    log = before.logs[HOME]
    before.logs[HOME] = log[:STOP_AT]
    world = successor(before, 3)
    assert announced(world) == []
    world.keeps = of(fx.Announce)
    before.logs[HOME].append(log[STOP_AT])
    world.settle()
    assert announced(world) == [("r", "complete")]
    assert world.committed == STOP_AT
    world.let_go()
    world.settle()
    assert world.committed == STOP_AT + 1


def test_a_settled_stop_is_not_announced_again() -> None:
    before = telling()
    before.publish(*whole(), *started("q", "e"))
    before.settle()
    world = successor(before, STOP_AT + 1)
    world.publish(("event", event_doc(1, descriptor="e")), ("stop", stop_doc("q", {"primary": 1})))
    world.settle()
    assert announced(world) == [("q", "complete")]


def test_an_abandoned_run_is_announced_and_again_after_a_crash() -> None:
    policy = replace(TELLING, idle_s_max=30.0)
    before = telling(policy)
    before.keeps = of(fx.Announce)
    before.publish(*started(), ("event", event_doc(1)))
    before.settle(80)
    assert announced(before) == [("r", "abandoned")]
    world = successor(before, 3, policy)
    world.settle(80)
    assert announced(world) == [("r", "abandoned")]
    assert world.engine.snapshot().runs == ()
    assert world.commits[-1][2].start == 3


@pytest.mark.parametrize("committed", [1, 3])
def test_a_stop_that_comes_after_its_run_was_given_up_is_late_though_the_end_is_announced_again(committed: int) -> None:
    """Found by the simulation (seed 1596, brief): it was taken for the one that the announcement settles."""
    policy = replace(TELLING, idle_s_max=30.0)
    before = telling(policy)
    before.publish(*started(), ("event", event_doc(1)))
    before.settle(80)
    assert before.tiled.facts(("r",))["state"] == "abandoned"
    before.logs[HOME].append(record(3, "stop", stop_doc("r", {"primary": 1})))
    world = successor(before, committed, policy)
    assert world.codes == [(3, "late")]
    assert world.committed == 4
    assert announced(world) == [("r", "abandoned")]


def test_an_incomplete_run_is_announced_as_such() -> None:
    world = telling()
    world.publish(*started(), ("event", event_doc(1)), ("stop", stop_doc("r", {"primary": 5})))
    world.settle()
    assert announced(world) == [("r", "incomplete")]


def test_a_failed_run_is_not_announced() -> None:
    world = telling()
    world.answers[fx.Ask] = lambda effect: fx.Answered(
        effect.ticket,
        w.Rejected("no", 422) if isinstance(effect.request, w.CreateTable) else world.tiled(effect.request),
    )
    world.publish(*whole())
    world.settle()
    assert announced(world) == []
    assert len(world.letters) == STOP_AT + 1


def test_who_loses_the_partition_hears_no_late_confirmation() -> None:
    world = telling()
    world.keeps = of(fx.Announce)
    world.publish(*whole())
    world.settle()
    world.give(fx.Released((HOME,)))
    world.let_go()
    world.settle()
    assert world.committed == STOP_AT
    assert world.stop is None


def test_while_tiled_is_away_nothing_is_announced() -> None:
    world = telling()
    world.publish(*started(), ("event", event_doc(1)))
    world.settle()
    world.answers[fx.Ask] = lambda effect: fx.Answered(effect.ticket, AWAY)
    world.publish(("stop", stop_doc("r", {"primary": 1})))
    world.settle()
    assert announced(world) == []
