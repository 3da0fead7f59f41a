"""A process in virtual time waits, is frozen, and ends where it stands; the group's decisions reach it in its polls."""

import random
from collections import deque
from typing import Any

import pytest

from tiled_ingest.core.effects import Assigned, Records
from tiled_ingest.core.record import Home, Record
from tiled_ingest.ingestor import POLL_IDLE_S

from .clock import Clock
from .consumer import Consumer
from .faults import Fault, Faults
from .kafka_model import Group, Partition
from .process import Process
from .surroundings import Host, Surroundings

ONE, OTHER = Home("documents", 0), Home("documents", 1)


def run(clock: Clock, until_s: float = 100.0) -> None:
    while clock.now_s < until_s and clock.turn():
        pass


def test_only_sleeping_takes_time() -> None:
    clock, seen = Clock(), list[float]()

    def main() -> None:
        seen.append(clock.now_s)
        process.sleep(3.0)
        seen.append(clock.now_s)

    process = Process(clock, main)
    clock.after(1.0, lambda: seen.append(clock.now_s))
    run(clock)
    assert seen == [0.0, 1.0, 3.0]


@pytest.mark.parametrize(("light", "woken_s"), [(True, 1.0), (False, 3.0)])
def test_a_light_sleep_alone_can_be_ended(light: bool, woken_s: float) -> None:
    clock, seen = Clock(), list[float]()

    def main() -> None:
        process.sleep(3.0, light=light)
        seen.append(clock.now_s)
        process.sleep(5.0)  # what would have ended the sleep before does not end this one
        seen.append(clock.now_s)

    process = Process(clock, main)
    clock.after(1.0, process.nudge)
    run(clock)
    assert seen == [woken_s, woken_s + 5.0]


def test_what_happens_to_a_frozen_process_happens_once_it_is_thawed() -> None:
    clock, seen = Clock(), list[str]()

    def main() -> None:
        process.sleep(1.0)
        seen.append(f"woke at {clock.now_s}")
        process.sleep(1.0)

    process = Process(clock, main)
    clock.after(0.5, process.freeze)
    clock.after(2.0, lambda: process.happens(lambda: seen.append(f"heard at {clock.now_s}")))
    clock.after(4.0, process.thaw)
    run(clock)
    assert seen == ["woke at 4.0", "heard at 4.0"]


def test_a_process_that_ends_does_nothing_more() -> None:
    clock, seen = Clock(), list[str]()

    def main() -> None:
        try:
            process.sleep(3.0)
            seen.append("went on")
        finally:
            seen.append("ended")

    process = Process(clock, main)
    clock.after(1.0, process.end)
    clock.after(2.0, lambda: process.happens(lambda: seen.append("heard")))
    run(clock)
    assert seen == ["ended"]


class Rig:
    """A consumer of two partitions with ten records each, in a process that polls as it is told."""

    def __init__(self, seed: int = 0) -> None:
        self.clock, self.group = Clock(), Group()
        self.partitions = {home: Partition(home) for home in (ONE, OTHER)}
        for partition in self.partitions.values():
            for _ in range(10):
                partition.publish(b"x", gap=0)
        rng = random.Random(seed)
        nothing: Any = None
        faults = Faults(rng, None, frozenset(Fault))
        around = Surroundings(
            self.clock, rng, faults, nothing, self.group, self.partitions, nothing, nothing,
            nothing, nothing, nothing, nothing, nothing, nothing, nothing,
        )  # fmt: skip
        self.heard: list[tuple[str, tuple[Home, ...]]] = []
        self.polls: list[list[Any]] = []
        self.to_do = deque[Any]()
        self.process = Process(self.clock, self._main)
        host = Host(around, self.process, lambda: "member-1", lambda: None)
        self.consumer = Consumer(host, lambda: False, self._revoked, lambda homes: self.heard.append(("lost", homes)))

    def _main(self) -> None:
        while True:
            self.polls.append(self.consumer.poll(100, POLL_IDLE_S))
            while self.to_do:
                self.to_do.popleft()()

    def _revoked(self, homes: tuple[Home, ...]) -> None:
        self.process.sleep(1.0)
        self.heard.append(("revoked", homes))

    def records(self, home: Home) -> list[Record]:
        given = [each for poll in self.polls for each in poll if isinstance(each, Records)]
        return [record for each in given for record in each.records if record.home == home]


def test_a_partition_arrives_paused_with_its_claim_and_is_read_once_it_is_resumed() -> None:
    rig = Rig()
    rig.consumer.assign(ONE, "nonce", topic_id="topic")
    run(rig.clock, 5.0)
    claims = [each for poll in rig.polls for each in poll if isinstance(each, Assigned)]
    assert [(claim.home, claim.committed, claim.high) for claim in claims] == [(ONE, None, 10)]
    assert rig.records(ONE) == []
    rig.to_do.append(lambda: rig.consumer.resume((ONE,)))
    run(rig.clock, 20.0)
    assert [record.offset for record in rig.records(ONE)] == list(range(10))


def test_a_partition_is_let_go_of_after_the_callback_and_nothing_of_it_comes_then() -> None:
    rig = Rig()
    released: list[float] = []
    rig.consumer.assign(ONE, "nonce", topic_id="topic")
    rig.to_do.append(lambda: rig.consumer.resume((ONE,)))
    rig.consumer.revoke((ONE,), lambda: released.append(rig.clock.now_s))
    run(rig.clock, 10.0)
    assert rig.heard == [("revoked", (ONE,))]
    assert released
    assert released[0] >= 1.0
    assert rig.consumer.assigned == frozenset()
    assert rig.records(ONE) == []
    assert not any(isinstance(each, Assigned) for poll in rig.polls for each in poll)


@pytest.mark.parametrize("seed", range(20))
def test_one_poll_may_lose_all_and_bring_new_claims_and_no_record_of_before(seed: int) -> None:
    rig = Rig(seed)
    rig.consumer.assign(ONE, "first", topic_id="topic")
    rig.to_do.append(lambda: rig.consumer.resume((ONE,)))
    run(rig.clock, 0.3)
    rig.polls.clear()
    rig.consumer.lose(lambda: rig.consumer.assign(ONE, "second", topic_id="topic"))
    run(rig.clock, 5.0)
    assert rig.heard == [("lost", (ONE,))]
    with_claim = [poll for poll in rig.polls if any(isinstance(each, Assigned) for each in poll)]
    assert len(with_claim) == 1
    assert [type(each) for each in with_claim[0]] == [Assigned]  # and nothing that was fetched before it
