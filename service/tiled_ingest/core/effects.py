"""What goes into the engine and what comes out of it: the whole contract between decisions and the world.

`engine.step(now_s, input) -> list[Effect]`. `now_s` is monotonic time in seconds. Every effect that can be answered
carries a ticket; its answer comes back as an input with the same ticket, once, in any order. Effects of one list are
performed in its order; requests and reads overlap. A lane names work that goes on in order: the engine asks nothing in
it before the last answer came. Only what was lost with a partition may still be under way when that is ours again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .record import Home, Record
from .writes import Outcome, Path, Request

# ---------------------------------------------------------------- inputs


@dataclass(frozen=True, slots=True)
class Assigned:
    """The group gave us a partition. Until the engine resumes it, no record of it may arrive.

    Attributes
    ----------
    topic_id
        The topic's own id: a topic that was deleted and created again has another.
    committed
        The committed offset, `None` if the group never committed here.
    metadata
        The string committed with it (empty if there is none).
    low, high
        First offset that the log still holds, and one past its last.
    nonce
        A fresh random word that names this claim.
    partitions
        How many partitions the topic had when the group first claimed one of them; 0 if that is not known.
    """

    home: Home
    topic_id: str
    committed: int | None
    metadata: str
    low: int
    high: int
    nonce: str
    partitions: int = 0

    def begins_at(self, *, start_latest: bool) -> int:
        """Where a partition without a commit begins.

        One that was added to the topic begins at its beginning in any case: what was published before we knew of it is
        as new as all that comes.
        """
        was_added = 0 < self.partitions <= self.home.partition
        return self.high if start_latest and not was_added else self.low


@dataclass(frozen=True, slots=True)
class Revoked:
    """The group takes partitions back: flush and finish what is under way, start nothing else."""

    homes: tuple[Home, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """The partitions are gone, drained or not (deadline passed, lost): drop their state, do nothing for them."""

    homes: tuple[Home, ...]


@dataclass(frozen=True, slots=True)
class Condemned:
    """Somebody else decided that a run may not be written any further: it shall fail, for the reasons given."""

    home: Home
    run: str
    reason: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Records:
    """Records in the order of their partitions' logs."""

    records: list[Record]


@dataclass(frozen=True, slots=True)
class EndReached:
    """The consumer stands at `next_offset` though it delivered no record up to it (transaction markers, compaction)."""

    home: Home
    next_offset: int


@dataclass(frozen=True, slots=True)
class Ends:
    """Where logs end, as far as it is known without asking: one past the last offset of each partition."""

    ends: Mapping[Home, int]


@dataclass(frozen=True, slots=True)
class Answered:
    """The outcome of an `Ask`."""

    ticket: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LogRead:
    """The answer of a `ReadLog`: records from its `start`, in order; `next_offset` is where to read on.

    `next_offset >= stop` means that all of it was read. `low` is the first offset that the log still holds.
    """

    ticket: int
    records: list[Record]
    next_offset: int
    low: int


@dataclass(frozen=True, slots=True)
class LogUnreadable:
    """A `ReadLog` failed for now (broker away); it may be asked again."""

    ticket: int
    detail: str


@dataclass(frozen=True, slots=True)
class Committed:
    """A `Commit` was confirmed by the broker."""

    ticket: int


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """A `Commit` was not confirmed. `fenced`: the group went on without us, or we do not know its generation yet."""

    ticket: int
    detail: str
    fenced: bool


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The dead-letter topic confirmed a record."""

    ticket: int


@dataclass(frozen=True, slots=True)
class DeadLetterRefused:
    """The dead-letter topic did not confirm a record."""

    ticket: int
    detail: str


@dataclass(frozen=True, slots=True)
class Announced:
    """The answer of an `Announce`: `refusal` is empty when the topic has confirmed, else it says why not."""

    ticket: int
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The service is asked to end: flush everything, take nothing more."""


Input = (
    Assigned
    | Revoked
    | Released
    | Condemned
    | Records
    | EndReached
    | Ends
    | Answered
    | LogRead
    | LogUnreadable
    | Committed
    | CommitFailed
    | DeadLettered
    | DeadLetterRefused
    | Announced
    | Tick
    | Drain
)

# ---------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Ask:
    """Perform `request` against Tiled, once. `lane` names the run (or the partition)."""

    ticket: int
    lane: str
    request: Request


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read records of a partition beside the group, from `start` up to (not including) `stop`, at most about
    `bytes_max` bytes at once.
    """

    ticket: int
    lane: str
    home: Home
    start: int
    stop: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit the offset with its metadata string, synchronously."""

    ticket: int
    home: Home
    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Produce the record, as it was, to the dead-letter topic, with headers that say why."""

    ticket: int
    record: Record
    reason: str
    code: str
    error: str
    run: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the topic of completed runs that Tiled holds this one, and that nothing more of it will come.

    Attributes
    ----------
    path
        The run's node, below that of `tiled.uri`.
    state
        `complete`, `incomplete` or `abandoned`, as in the run's metadata.
    rows
        Of each stream.
    """

    ticket: int
    run: str
    path: Path
    state: str
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop fetching these partitions; they stay ours."""

    homes: tuple[Home, ...]


@dataclass(frozen=True, slots=True)
class Resume:
    """Fetch these partitions (again)."""

    homes: tuple[Home, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the process with an error: `reason` is a class of `errors`, `detail` a sentence for a person."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Something that an operator may want to know: a log line, and what the metrics count.

    `event` is a stable word (`run_opened`, `run_closed`, `flush`, `dead_letter`, `switched`, ...).
    """

    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Effect = Ask | ReadLog | Commit | DeadLetter | Announce | Pause | Resume | Stop | Tell
