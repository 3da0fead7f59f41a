"""How the service stands at one moment: what gauges, the health checks and the status page show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiled_ingest.core.snapshot import PartitionView, RunView


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Made by the loop that owns the state, read by anyone; ages are in seconds, 0 where there is nothing.

    Attributes
    ----------
    lag
        Records that the log holds beyond the committed offset, by partition (`topic[0]`).
    unread_since_ms
        Since when, in ms since 1970, nothing was read of a partition that has records to read; by partition, as `lag`.
    oldest_unsettled_age_s
        Age of the oldest record received and not yet settled, by the broker's timestamp; of what is not even read, how
        long nothing of it was.
    retry_s
        Since when the oldest request that waits for Tiled is being retried.
    tiled_reachable
        False while requests fail because Tiled is away or refuses us.
    tiled_silent_s
        How long Tiled has not answered anything that it was asked.
    dead_letters_ok
        False once a dead letter was not confirmed.
    kafka_error
        What Kafka's client complained of last, empty if of nothing.
    stopping
        Why the service is ending, empty while it is not.
    stopped
        Why nothing is read any more though the process stays, empty while it reads.
    runs
        The open runs, the oldest first; at most as many as a page can show (`open_runs` counts all).
    partitions
        The partitions that are ours.
    closed, letters
        What the log said of the last closed runs and the last dead letters, the newest first; `at` is in seconds since
        1970.
    """

    assigned_partitions: int = 0
    paused_partitions: int = 0
    open_runs: int = 0
    oldest_open_run_age_s: float = 0.0
    buffered_bytes: int = 0
    oldest_unsettled_age_s: float = 0.0
    retry_s: float = 0.0
    tiled_reachable: bool = True
    tiled_silent_s: float = 0.0
    dead_letters_ok: bool = True
    kafka_error: str = ""
    stopping: str = ""
    stopped: str = ""
    lag: Mapping[str, int] = field(default_factory=dict)
    unread_since_ms: Mapping[str, float] = field(default_factory=dict)
    runs: tuple[RunView, ...] = ()
    partitions: tuple[PartitionView, ...] = ()
    closed: tuple[Mapping[str, Any], ...] = ()
    letters: tuple[Mapping[str, Any], ...] = ()
