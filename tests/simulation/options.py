"""What distinguishes one history from another, and what is known of it afterwards."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home
from tiled_ingest.core.writes import Path

from .faults import Fault

IDLE_S_MAX = 900.0
IMPATIENT_SHARE = 0.25  # of the histories: their runs are given up while the beamline still speaks and faults strike
IMPATIENT_S = (3.0, 6.0)
BREAKER_SHARE = 0.15  # of the histories: their breaker opens soon
BREAKER_SHARE_IN_STORMS = 0.5
BREAKER_END_S = 60.0  # long enough to read a run again in the smallest pieces: else each restart ends there


@dataclass(frozen=True)
class Options:
    """Everything that a history depends on; all but the seed make it smaller."""

    seed: int
    strikes_max: int | None = None
    without: frozenset[Fault] = frozenset()
    runs_max: int | None = None
    arrays: bool = True
    policy: dict[str, float] = field(default_factory=dict)
    external: bool = True  # detectors write files, too
    refused_share: float = 0.03  # of the runs: Tiled takes none of their rows
    rates: dict[Fault, float] = field(default_factory=dict)  # in place of those that are drawn
    brief: bool = False  # one or two runs, and faults for eight seconds instead of half a minute
    storm: bool = False  # every kind of fault at once, runs that are given up early, mostly on DuckDB

    @classmethod
    def of(cls, seed: int) -> "Options":
        """Draw what a campaign plays: one long history after seven brief ones, which cost a third of it each.

        Every other long one is a storm: in it what is rare meets what is rare.
        """
        return cls(seed, brief=bool(seed % 8), storm=seed % 16 == 8)

    @property
    def idle_s_max(self) -> float:
        """How long nothing may be heard of a run before it is given up."""
        rng = random.Random(f"{self.seed}/idle")
        return rng.choice(IMPATIENT_S) if self.storm or rng.random() < IMPATIENT_SHARE else IDLE_S_MAX

    @property
    def impatient(self) -> bool:
        """Whether runs are given up in the midst of the history, and not only at its end."""
        return self.idle_s_max < IDLE_S_MAX

    @property
    def heal_s(self) -> float:
        """When faults cease; later where runs shall be given up before."""
        return (20.0 if self.impatient else 8.0) if self.brief else 30.0

    @property
    def runs_limit(self) -> int | None:
        """How many runs there may be, counted over all partitions."""
        return self.runs_max if self.runs_max is not None or not self.brief else 2


@dataclass(frozen=True)
class Report:
    """What became of a history."""

    options: Options
    steps: int
    hit: Counter[Fault]
    violations: list[str]
    residual: set[str]
    storage: str
    protocol: str


def draw_homes(rng: random.Random) -> list[Home]:
    return [Home("xyz.bluesky.runengine.documents", number) for number in range(rng.choice((1, 2)))]


def draw_parent(rng: random.Random) -> Path:
    """Below which node the runs come."""
    return rng.choice(((), (), ("raw",)))


def draw_policy(rng: random.Random, options: Options, parent: Path) -> Policy:
    """Small limits, so that they are all met, in times that suit a short history."""
    drawn: dict[str, Any] = {
        "rows_max": rng.choice((1, 3, 10, 50_000)),
        "age_s_max": rng.choice((0.0, 0.2, 1.0)),
        "requests_max": rng.choice((1, 4)),
        "commit_interval_s": rng.choice((0.0, 0.5, 2.0)),
        "log_chunk_bytes": rng.choice((300, 4_000_000)),
        "memory_bytes_max": rng.choice((5_000, 256_000_000)),
        "array_size_max": 2,
        "layout_rows_min": rng.choice((1, 3, 50)),
        "table_columns_max": 7,  # splits the widest; a part of less than four columns soon runs out of orders
        "late_write_s_max": rng.choice((0.5, 3.0)),
        "backoff_s_max": 1.0,
        "idle_s_max": options.idle_s_max,
        "routes": ((".*", "/".join(parent)),) if parent else (),
    }
    drawn["dormant_max"] = random.Random(f"{options.seed}/dormant").choice((1, 200, 200))
    if options.storm:
        drawn["commit_interval_s"] = 2.0  # long enough for runs to end, and be delivered again
    drawn["announces"] = random.Random(f"{options.seed}/announces").random() < 0.7
    return Policy(**{**drawn, **draw_breaker(options), **options.policy})


def draw_breaker(options: Options) -> dict[str, Any]:
    """Limits with which the few documents and runs of a history can open the breaker."""
    rng = random.Random(f"{options.seed}/breaker")
    share = BREAKER_SHARE_IN_STORMS if options.storm else BREAKER_SHARE
    if rng.random() >= share or Fault.BREAKER_OPEN in options.without:
        return {}
    return {
        "breaker_window": rng.choice((1, 3, 6)),
        "breaker_share_max": rng.choice((0.2, 0.5)),
        "end_s_max": BREAKER_END_S,
    }
