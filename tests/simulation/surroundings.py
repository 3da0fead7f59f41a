"""What a member is given: its engine's shape, and the world it shares with the others."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from tiled_ingest.core.effects import Effect, Input
from tiled_ingest.core.record import Home
from tiled_ingest.core.snapshot import EngineSnapshot
from tiled_ingest.core.writes import Path

from .clock import Clock
from .faults import Faults
from .kafka_model import CompletedTopic, DeadLetterTopic, Group, Letter, Partition
from .process import Process
from .wire import Wire


class EngineLike(Protocol):
    """What a member needs of an engine, broken or not."""

    def step(self, now_s: float, input: Input) -> list[Effect]: ...  # noqa: A002

    def drained(self, homes: Iterable[Home]) -> bool: ...

    def idle_s(self, now_s: float) -> float: ...

    def snapshot(self) -> EngineSnapshot: ...

    @property
    def finished(self) -> bool: ...

    @property
    def full(self) -> bool: ...

    @property
    def busy(self) -> bool: ...


@dataclass
class Surroundings:
    """What all members share, and whom they tell."""

    clock: Clock
    rng: random.Random
    faults: Faults
    wire: Wire
    group: Group
    partitions: dict[Home, Partition]
    dead_letters: DeadLetterTopic
    completed: CompletedTopic
    committed: Callable[[Home, int], None]  # a commit was stored
    announced: Callable[[str, Path, str], None]  # this member said that a run is over
    refused: Callable[[Letter], None]  # a partition's owner has written a dead letter
    fail: Callable[[str], None]  # something that must never happen
    trace: Callable[[str, str, object], None]
    owner_of: Callable[[Path], str | None]  # the member that owns the run at a path
    breaker_end_s: float | None  # how long one may take to end whose breaker opened; `None`: none opens
    poll_s: float = 0.1
    steps: int = 0


@dataclass
class Fetch:
    """Where the consumer of one partition stands."""

    position: int
    delivered: int  # one past what the engine was told of
    paused: bool = True


@dataclass(frozen=True)
class Host:
    """What the parts of one member share.

    Attributes
    ----------
    name
        Tells the member's identity in the group at this moment.
    before_effect
        Called before anything is done for the loop: the process may end there.
    """

    around: Surroundings
    process: Process
    name: Callable[[], str]
    before_effect: Callable[[], None]
