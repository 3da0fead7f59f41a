"""Tiled's live subscribers: they see each append of ours, and the end of every stream, however its run ended."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tiled.client import Context, from_context
from tiled.client.stream import Subscription

from tests.rig.application import application
from tests.values.stage import POLICY, Documents, Stage, run_of
from tiled_ingest.core import writes as w
from tiled_ingest.core.policy import Policy
from tiled_ingest.tiled.session import Session

WAIT_S = 60.0  # how long a subscriber may wait for what surely comes
KEYS = {"x": {"dtype": "number"}, "img": {"dtype": "array", "shape": [20]}}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """An application of Tiled in this process, whose streaming cache is its memory."""
    cache = {"uri": "memory", "data_ttl": 600, "seq_ttl": 600}
    with application(tmp_path_factory.mktemp("live"), cache_config=cache) as made:
        yield made


def stage_on(context: Context, policy: Policy = POLICY) -> Stage:
    stage = Stage(Session.from_context(context, ()), policy)
    stage.world.assign()
    return stage


@pytest.fixture
def stage(context: Context) -> Stage:
    return stage_on(context)


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())


@dataclass(eq=False)
class Subscriber:
    """What somebody who subscribed to a node has seen so far."""

    node: Any
    subscription: Any = field(init=False)
    seen: list[Any] = field(default_factory=list)
    _closed: threading.Event = field(default_factory=threading.Event)
    _more: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.subscription = self.node.subscribe()
        # The library holds callbacks weakly: bound methods live as long as we do.
        for name in ("new_data", "child_created"):
            if hasattr(self.subscription, name):
                getattr(self.subscription, name).add_callback(self._take)
        self.subscription.stream_closed.add_callback(self._end)

    def _take(self, update: Any) -> None:
        with self._more:
            self.seen.append(update)
            self._more.notify_all()

    def _end(self, _subscription: Subscription) -> None:
        self._closed.set()

    def wait_for(self, count: int) -> list[Any]:
        """Wait until so many updates came; return them."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.seen) >= count, WAIT_S), f"only {len(self.seen)} of {count}"
            return list(self.seen)

    @property
    def ended(self) -> bool:
        return self._closed.is_set()

    def sees_the_end(self) -> bool:
        return self._closed.wait(WAIT_S)


Subscribe = Callable[..., Subscriber]


@pytest.fixture
def subscribe(context: Context) -> Iterator[Subscribe]:
    made: list[Subscriber] = []

    def subscribing(*path: str) -> Subscriber:
        node = from_context(context)[path[0]]
        for key in path[1:]:
            node = getattr(node, "base", node)[key]
        subscriber = Subscriber(getattr(node, "base", node))
        subscriber.subscription.start_in_thread(1)
        made.append(subscriber)
        return subscriber

    yield subscribing
    for subscriber in made:
        if not subscriber.ended:  # to disconnect would wait for the next update, in one process
            context.http_client.delete(f"{context.api_uri}stream/close/{'/'.join(subscriber.subscription.segments)}")


def of_both(uid: str, events: int, *, stop: bool = True) -> Documents:
    """A run with a column of a table, and an array of its own."""
    rows = [{"x": float(number), "img": [float(number)] * 20} for number in range(1, events + 1)]
    return run_of(uid, KEYS, rows, stop=stop)


def seq_nums(updates: list[Any]) -> list[list[int]]:
    return [sorted(update.data()["seq_num"]) for update in updates]


def test_subscribers_see_each_batch_as_it_comes_and_the_end(stage: Stage, subscribe: Subscribe, uid: str) -> None:
    documents = of_both(uid, 6)
    stage.publish(documents[:4])
    run, stream = subscribe(uid), subscribe(uid, "primary")
    table, array = subscribe(uid, "primary", "internal"), subscribe(uid, "primary", "img")
    assert [update.key for update in run.wait_for(1)] == ["primary"]
    assert {update.key for update in stream.wait_for(2)} == {"internal", "img"}
    assert seq_nums(table.wait_for(1)) == [[1, 2]]
    assert [update.shape for update in array.wait_for(1)] == [(2, 20)]
    stage.publish(documents[4:6])  # while they listen
    assert seq_nums(table.wait_for(2)) == [[1, 2], [3, 4]]
    assert not table.ended
    stage.publish(documents[6:])
    assert seq_nums(table.wait_for(3)) == [[1, 2], [3, 4], [5, 6]]
    shown = array.wait_for(3)
    assert [update.shape for update in shown] == [(2, 20), (4, 20), (6, 20)]
    assert shown[-1].data().tolist() == [[float(number)] * 20 for number in range(1, 7)]
    assert all(subscriber.sees_the_end() for subscriber in (run, stream, table, array))


@pytest.mark.parametrize("how", ["failed", "abandoned"])
def test_subscribers_see_the_end_of_a_run_that_ends_badly(
    context: Context, subscribe: Subscribe, uid: str, how: str
) -> None:
    stage = stage_on(context, replace(POLICY, idle_s_max=20.0) if how == "abandoned" else POLICY)
    documents = of_both(uid, 4, stop=False)
    stage.publish(documents[:4])
    paths = [(uid,), (uid, "primary"), (uid, "primary", "internal"), (uid, "primary", "img")]
    subscribers = [subscribe(*path) for path in paths]
    if how == "failed":
        stage.fault = lambda request, _perform: w.Rejected("no", 422) if isinstance(request, w.Append) else None
        stage.publish(documents[4:])
    else:
        stage.world.settle(ticks=60)
    assert from_context(context)[uid].metadata["tiled_ingest"]["state"] == how
    assert all(subscriber.sees_the_end() for subscriber in subscribers)


def test_subscribers_miss_nothing_when_the_table_is_switched(stage: Stage, subscribe: Subscribe, uid: str) -> None:
    """By a restart, and by a value that makes a column wider."""
    documents = run_of(uid, {"x": {"dtype": "integer"}}, [{"x": value} for value in (1, 2, 3, 4, 0.5, 6)])
    stage.publish(documents[:4])
    table = subscribe(uid, "primary", "internal")
    stage.begin()
    stage.publish(documents[4:6])
    stage.publish(documents[6:])
    assert table.sees_the_end()
    assert len(stage.world.told("switched")) == 2
    assert seq_nums(table.seen) == [[1, 2], [3, 4], [5, 6]]
    assert sorted(table.node.read()["x"]) == [0.5, 1.0, 2.0, 3.0, 4.0, 6.0]


def test_a_run_goes_on_though_its_streams_were_closed_when_it_was_given_up(
    context: Context, subscribe: Subscribe, uid: str
) -> None:
    """A streaming cache takes what comes after the end of a stream, and a second end."""
    stage = stage_on(context, replace(POLICY, idle_s_max=20.0))
    documents = of_both(uid, 4)
    stage.publish(documents[:4])
    before = subscribe(uid, "primary", "internal")
    stage.world.settle(ticks=60)
    assert before.sees_the_end()
    stage.publish(documents[4:])
    run = from_context(context)[uid]
    assert run.metadata["tiled_ingest"]["state"] == "complete"
    assert sorted(run["primary"].base["internal"].read()["seq_num"]) == [1, 2, 3, 4]
    assert run["primary"].base["img"].read().shape == (4, 20)
    assert seq_nums(before.seen) == [[1, 2]]  # who was told of the end hears no more
