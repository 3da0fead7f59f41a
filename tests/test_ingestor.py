"""The loop takes in no more than there is memory for, and leaves to the next owner what it has not taken in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tiled_ingest.core import effects as fx
from tiled_ingest.core.record import Home, Record
from tiled_ingest.ingestor import Ended, Ingestor

ONE, OTHER = Home("t", 0), Home("t", 1)


@dataclass
class Full:
    """An engine that takes so many records, and is full then."""

    room: int
    taken: list[Record] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    busy = False

    @property
    def full(self) -> bool:
        return len(self.taken) >= self.room

    def idle_s(self, _now_s: float) -> float:
        return 1.0

    def step(self, _now_s: float, given: fx.Input) -> list[fx.Effect]:
        self.given.append(given)
        if isinstance(given, fx.Records):
            self.taken += given.records
        return []

    def drained(self, _homes: Any) -> bool:
        return True


class Nothing:
    """Lanes, letters and a watch that have nothing to say."""

    def results(self, _wait_s: float) -> list[Any]:
        return []

    def poll(self) -> list[Any]:
        return []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@dataclass
class Polled:
    """A consumer that returns these inputs, one list for each poll."""

    polls: list[list[fx.Input]]

    def poll(self, _records_max: int, _timeout_s: float) -> list[fx.Input]:
        return self.polls.pop(0) if self.polls else []

    def lag(self) -> dict[Home, tuple[int | None, int]]:
        return {ONE: (None, 7)}


def records(home: Home, count: int, nbytes: int = 10) -> list[Record]:
    return [Record(home.topic, home.partition, offset, 0, None, b"x" * nbytes) for offset in range(count)]


def loop(engine: Full) -> Ingestor:
    nothing: Any = Nothing()
    made: Any = engine
    return Ingestor(made, nothing, nothing, nothing, 1.0)


def turn(ingestor: Ingestor, *polls: list[fx.Input]) -> None:
    source: Any = Polled(list(polls))
    for _ in polls or [None]:
        ingestor._turn(source)


def test_all_is_taken_in_in_order_and_in_slices() -> None:
    engine = Full(10**9)
    all_of_it = records(ONE, 2 * Ingestor.slice_records_max + 500)
    turn(loop(engine), [fx.Records(all_of_it), fx.EndReached(ONE, len(all_of_it))])
    assert engine.taken == all_of_it
    sizes = [len(given.records) for given in engine.given if isinstance(given, fx.Records)]
    assert sizes == [Ingestor.slice_records_max, Ingestor.slice_records_max, 500]
    assert [type(given) for given in engine.given if not isinstance(given, fx.Tick | fx.Ends)][-1] is fx.EndReached


def test_the_engine_hears_where_the_logs_end() -> None:
    engine = Full(10**9)
    turn(loop(engine), [], [])
    assert [given for given in engine.given if isinstance(given, fx.Ends)] == [fx.Ends({ONE: 7})]


def test_a_slice_of_large_records_is_short() -> None:
    engine = Full(10**9)
    turn(loop(engine), [fx.Records(records(ONE, 10, Ingestor.slice_bytes_max // 2))])
    assert [len(given.records) for given in engine.given if isinstance(given, fx.Records)] == [2] * 5


def test_what_finds_no_room_waits() -> None:
    engine = Full(Ingestor.slice_records_max)
    ingestor = loop(engine)
    turn(ingestor, [fx.Records(records(ONE, 2 * Ingestor.slice_records_max + 500))])
    assert len(engine.taken) == Ingestor.slice_records_max
    engine.room = 10**9
    turn(ingestor)
    assert [record.offset for record in engine.taken] == list(range(2 * Ingestor.slice_records_max + 500))


def test_what_was_not_taken_in_goes_with_its_partition() -> None:
    engine = Full(0)
    ingestor = loop(engine)
    mixed = [record for pair in zip(records(ONE, 5), records(OTHER, 5), strict=True) for record in pair]
    turn(ingestor, [fx.Records(mixed), fx.EndReached(ONE, 5), fx.EndReached(OTHER, 5)])
    ingestor.revoked((ONE,))
    engine.room = 10**9
    turn(ingestor)
    assert engine.taken == records(OTHER, 5)
    assert [given.home for given in engine.given if isinstance(given, fx.EndReached)] == [OTHER]


@pytest.mark.parametrize("callback", [Ingestor.lost, Ingestor.revoked])
def test_what_comes_in_the_poll_of_a_rebalance_is_taken_in(
    callback: Callable[[Ingestor, tuple[Home, ...]], None],
) -> None:
    """A member that comes back loses partitions and gets others, and records of those it keeps, within one poll."""
    engine = Full(10**9)
    ingestor = loop(engine)
    kept, came = records(OTHER, 3), fx.Assigned(ONE, "id", 0, "", 0, 7, "nonce", 1)

    class Rebalanced(Polled):
        def poll(self, records_max: int, timeout_s: float) -> list[fx.Input]:
            callback(ingestor, (ONE,))
            return super().poll(records_max, timeout_s)

    source: Any = Rebalanced([[came, fx.Records(kept)]])
    ingestor._turn(source)
    assert came in engine.given
    assert engine.taken == kept


# ---------------------------------------------------------------- the breaker


class Stopping(Full):
    """An engine that stops at its first record."""

    finished = False

    def __init__(self, reason: str) -> None:
        super().__init__(10**9)
        self.reason = reason

    def step(self, _now_s: float, given: fx.Input) -> list[fx.Effect]:
        self.given.append(given)
        return [fx.Stop(self.reason, "9 of 9")] if isinstance(given, fx.Records) else []

    def has_settled(self, _ends: Any) -> bool:
        return False


@dataclass
class Flowing:
    """A consumer with something at every poll; after so many polls the loop is asked to end."""

    ingestor: Ingestor
    polls_max: int
    polls: int = 0
    paused: list[frozenset[Home]] = field(default_factory=list)
    assigned = frozenset({ONE, OTHER})

    def poll(self, _records_max: int, _timeout_s: float) -> list[fx.Input]:
        self.polls += 1
        if self.polls == self.polls_max:
            self.ingestor.end()
        return [fx.Records(records(ONE, 3))]

    def pause(self, homes: frozenset[Home]) -> None:
        self.paused.append(homes)

    def end_offsets(self) -> dict[Home, int]:
        return {ONE: 7}

    def lag(self) -> dict[Home, tuple[int | None, int]]:
        return {}


def until_stopped(reason: str, *, until_end: bool = False) -> tuple[Flowing, Stopping, Ended]:
    engine = Stopping(reason)
    ingestor = loop(engine)
    source = Flowing(ingestor, polls_max=5)
    consumer: Any = source
    return source, engine, ingestor.run(consumer, until_end=until_end)


def test_after_the_breaker_it_keeps_its_partitions_and_takes_nothing_until_asked_to_end() -> None:
    source, engine, ended = until_stopped("BreakerOpen")
    assert ended == Ended("BreakerOpen", "9 of 9")
    assert source.polls == 5, "it went on polling, so that the group lets it keep them"
    assert source.paused == [frozenset({ONE, OTHER})] * 4, "also those that came since"
    assert sum(isinstance(given, fx.Records) for given in engine.given) == 1


@pytest.mark.parametrize(("reason", "until_end"), [("BreakerOpen", True), ("Forbidden", False)])
def test_it_ends_at_once(reason: str, until_end: bool) -> None:
    source, _, ended = until_stopped(reason, until_end=until_end)
    assert (source.polls, ended.reason) == (1, reason)
