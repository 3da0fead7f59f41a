"""What a fault run will do: which faults, on which parts, in which order. A seed and the arguments decide all of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of faults, as the report names them."""

    SERVICE_SIGKILL = "service SIGKILL"
    SERVICE_SIGTERM = "service SIGTERM"
    SERVICE_ZOMBIE = "service SIGSTOP beyond its session, then awake"
    TWO_TAKEOVERS = "two takeovers in a row"
    BROKER_SIGKILL = "broker SIGKILL, restart"
    LEADER_CHANGE = "leader change (its broker ends)"
    KAFKA_CUT = "network cut to Kafka"
    JOIN = "instance joins"
    LEAVE = "instance leaves"
    DUPLICATES = "producer sends twice"
    TILED_SIGKILL = "Tiled SIGKILL, restart"
    POSTGRES_RESTART = "PostgreSQL SIGKILL, restart"
    TILED_CUT = "network cut to Tiled"
    REPLY_SWALLOWED = "reply swallowed after the append"
    OTHER_REPLY_SWALLOWED = "reply swallowed after another write"
    LATE_AFTER_TIMEOUT = "append applied after its sender gave up"
    LATE_AFTER_READ_BACK = "append applied after a successor read back"
    RESET = "reset in mid-request"
    STATUS_500 = "500"
    STATUS_502 = "502"
    STATUS_503 = "503 with Retry-After"
    STATUS_429 = "429 with Retry-After"
    SQLITE_LOCKED = "SQLite: database is locked"
    DISK_FULL = "disk full at Tiled, restart"


@dataclass(frozen=True)
class Parts:
    """What one act is played on.

    Attributes
    ----------
    storage
        `duckdb` (SQLite catalog) or `postgresql`.
    brokers
        One, or three.
    services
        How many service processes are there at first.
    membership
        `static`, `cooperative-sticky` or `consumer`.
    timeout_s
        The service's `tiled.timeout_s`: shorter than SQLite's patience (5 s), or longer.
    """

    storage: str
    brokers: int
    services: int
    membership: str
    timeout_s: float = 3.0

    @property
    def kinds(self) -> frozenset[Kind]:
        """The faults that are possible here."""
        found = set(Kind)
        found -= {Kind.LEADER_CHANGE} if self.brokers == 1 else {Kind.BROKER_SIGKILL}
        if self.storage == "duckdb":
            found -= {Kind.POSTGRES_RESTART}
        else:
            found -= {Kind.SQLITE_LOCKED, Kind.DISK_FULL}
        if self.services == 1:  # Tiled on DuckDB is for one client at a time
            found -= {Kind.JOIN, Kind.LEAVE}
        if self.timeout_s > 5:
            found -= {Kind.LATE_AFTER_TIMEOUT}
        else:
            found -= {Kind.SQLITE_LOCKED}
        return frozenset(found)

    def __str__(self) -> str:
        return f"{self.storage}, {_many(self.brokers, 'broker')}, {_many(self.services, 'service')}, {self.membership}"


ALL_PARTS = (
    Parts("postgresql", 1, 2, "cooperative-sticky"),
    Parts("duckdb", 1, 1, "static"),
    Parts("postgresql", 3, 2, "consumer"),
    Parts("duckdb", 3, 1, "cooperative-sticky", timeout_s=8.0),
    Parts("postgresql", 1, 1, "static"),
    Parts("duckdb", 1, 1, "consumer", timeout_s=8.0),
)
FAULTS_PER_ACT = 50


@dataclass(frozen=True)
class Act:
    """Faults that follow each other on the same parts, with one topic; then all must settle, and is compared."""

    number: int
    parts: Parts
    seed: int
    kinds: tuple[Kind, ...]


def plan(seed: int, faults: int, storages: Sequence[str], faults_per_act: int = FAULTS_PER_ACT) -> list[Act]:
    """Return the acts: every kind that the storages allow about as often as every other."""
    chance = random.Random(seed)
    usable = [parts for parts in ALL_PARTS if parts.storage in storages]
    count = -(-faults // faults_per_act)
    played = [usable[number % len(usable)] for number in range(count)]
    shares = [faults // count + (number < faults % count) for number in range(count)]
    chosen: list[list[Kind]] = [[] for _ in played]
    so_far: Counter[Kind] = Counter()
    # The rare ones first, or there would be no room for them where alone they are possible.
    homes = {kind: sum(kind in parts.kinds for parts in played) for kind in Kind}
    for _ in range(faults):
        open_acts = [number for number, share in enumerate(shares) if len(chosen[number]) < share]
        possible = {kind for number in open_acts for kind in played[number].kinds}
        kind = min(possible, key=lambda kind: (so_far[kind], homes[kind], kind))
        number = chance.choice([number for number in open_acts if kind in played[number].kinds])
        chosen[number].append(kind)
        so_far[kind] += 1
    acts = []
    for number, kinds in enumerate(chosen):
        chance.shuffle(kinds)
        acts.append(Act(number, played[number], chance.randrange(1 << 30), tuple(kinds)))
    return acts


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
