"""What can be seen of the engine from outside: plain numbers, for metrics, probes and the status page."""

from collections.abc import Iterable
from dataclasses import dataclass

from .claim import Claim
from .runs.run import Run


@dataclass(frozen=True, slots=True)
class RunView:
    """One open run."""

    uid: str
    state: str
    rows: int
    waiting_bytes: int
    idle_s: float
    age_s: float


@dataclass(frozen=True, slots=True)
class PartitionView:
    """One partition of ours."""

    topic: str
    partition: int
    live: bool
    next_offset: int
    committable: int
    committed: int | None
    oldest_timestamp_ms: int  # broker's time of the oldest record that is not settled, or of the last one; -1: none


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """The state at one moment. Ages and durations in seconds."""

    partitions: tuple[PartitionView, ...]
    runs: tuple[RunView, ...]
    buffered_bytes: int
    down_s: float | None
    silent_s: float | None  # how long Tiled has not answered anything that was asked since its last answer
    letters_s: float | None  # how long the oldest dead letter has waited for its confirmation
    paused: bool
    ending: bool


def snapshot_of(
    claims: Iterable[Claim],
    now_s: float,
    *,
    down_since_s: float | None,
    silent_since_s: float | None,
    letters_since_s: float | None,
    paused: bool,
    ending: bool,
) -> EngineSnapshot:
    """Return the snapshot."""
    claims = tuple(claims)
    runs = tuple(_run(run, now_s) for claim in claims for run in claim.runs)
    return EngineSnapshot(
        tuple(_partition(claim) for claim in claims),
        runs,
        sum(claim.nbytes for claim in claims),
        _seconds_since(down_since_s, now_s),
        _seconds_since(silent_since_s, now_s),
        _seconds_since(letters_since_s, now_s),
        paused,
        ending,
    )


def _seconds_since(since_s: float | None, now_s: float) -> float | None:
    return None if since_s is None else now_s - since_s


def _partition(claim: Claim) -> PartitionView:
    committed = claim.committed[0] if claim.committed else None
    return PartitionView(
        *claim.home,
        claim.live,
        claim.ledger.next_offset,
        claim.ledger.committable,
        committed,
        claim.ledger.oldest_timestamp_ms,
    )


def _run(run: Run, now_s: float) -> RunView:
    return RunView(run.uid, run.state, sum(run.rows.values()), run.nbytes, now_s - run.heard_s, now_s - run.opened_s)
