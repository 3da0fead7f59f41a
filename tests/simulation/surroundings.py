"""What a member is given: its engine's shape, and the world it shares with the others."""

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tiled_ingest.core.effects import Effect, Input
from tiled_ingest.core.record import Home
from tiled_ingest.core.writes import Path

from .clock import Clock
from .faults import Faults
from .kafka_model import CompletedTopic, DeadLetterTopic, Group, Letter, Partition
from .wire import Wire


class EngineLike(Protocol):
    """What a member needs of an engine, broken or not."""

    def step(self, now_s: float, input: Input) -> list[Effect]: ...  # noqa: A002

    def drained(self, homes: Iterable[Home]) -> bool: ...

    @property
    def finished(self) -> bool: ...


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
    announced: Callable[[Path, str], None]  # a run was said to be over
    refused: Callable[[Letter], None]  # a partition's owner has written a dead letter
    fail: Callable[[str], None]  # something that must never happen
    trace: Callable[[str, str, object], None]
    poll_s: float = 0.1
    steps: int = 0


@dataclass
class Fetch:
    """Where the consumer of one partition stands."""

    position: int
    delivered: int  # one past what the engine was told of
    paused: bool = True


@dataclass
class Lane:
    """Effects that are performed one after the other."""

    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    busy: bool = False
