"""How a piece of work with Tiled is written down: as a generator that yields what it wants next and gets the answer.

A *procedure* reads like the sequence of requests that it is; it holds no socket, thread or clock, and the engine
resumes it with the answer of each step. One procedure at a time runs in the lane of a run, so work on one run is in
order, and a crash is simply a procedure that is never resumed.

How requests are retried stands in `patience`. What may not be repeated, the append, has its own rules in `tables`.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from .decoding.eras import Decode
from .effects import LogRead
from .errors import Forbidden, TiledRejected, TooLarge
from .policy import Policy
from .record import Home, Record
from .writes import Denied, Done, Json, Node, Outcome, Path, Rejected, Request, TableSource


@dataclass(frozen=True, slots=True)
class Sleep:
    """Go on after `seconds`; `down` says that this is a wait for Tiled, not for something of our own, and `why`."""

    seconds: float
    down: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Read a part of the home partition's log; answered by `effects.LogRead`, or `None` if it cannot be read now."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One record for the dead letters, with the reasons that its headers give."""

    record: Record
    reason: str
    code: str
    error: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Letters:
    """Produce dead letters in order; answered by `None` when the topic has confirmed each."""

    letters: tuple[Letter, ...]


@dataclass(frozen=True, slots=True)
class RefusalsOut:
    """Go on when no letter of a document that was refused by itself at these offsets waits any more; answer: `None`."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """Announce a run that is over; answered by "" when the topic has confirmed it, else by why not."""

    run: str
    path: Path
    state: str
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Naming:
    """Go on when the broker has confirmed a commit by which a successor knows that a run is being opened again.

    `first_offset` names the run. Answered by `True`.
    """

    first_offset: int


@dataclass(frozen=True, slots=True)
class Retaking:
    """Take these records of the run now, in order, as if they came only now; answered by `None`."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Claiming:
    """Commit the claim itself; answered by `None` when the broker has confirmed it."""

    offset: int
    metadata: str


Step = Request | Sleep | LogChunk | Letters | RefusalsOut | Announcement | Claiming | Naming | Retaking
LOG_RETRY_S = 0.5
PARENTS_MAX = 1_000  # that are remembered

T = TypeVar("T")
Procedure = Generator[Step, Any, T]


@dataclass
class Weather:
    """What all lanes know about Tiled.

    Attributes
    ----------
    storage
        The dialect that holds the rows, once a table was seen.
    parents
        Nodes in which runs were created: they need not be looked for with each run.
    body_bytes_max
        How many bytes of rows fit into one request, as far as refusals (413) have told: proxies have such limits.
    """

    storage: str = ""
    parents: set[Path] = field(default_factory=set)
    body_bytes_max: int = 1 << 62

    def rows_fitting(self, table: pa.Table) -> int:
        """How many rows of such a table fit into one request; at least one."""
        return max(1, self.body_bytes_max * table.num_rows // max(table.nbytes, 1))

    def refused(self, nbytes: int) -> None:
        """Learn that so many bytes of rows are too many for one request."""
        self.body_bytes_max = min(self.body_bytes_max, nbytes // 2)

    def saw_parent(self, path: Path) -> None:
        """Remember a node in which runs can be created."""
        if len(self.parents) >= PARENTS_MAX:
            self.parents.clear()
        self.parents.add(path)

    def note(self, outcome: Outcome) -> None:
        """Learn from an answer."""
        if isinstance(outcome, Done):
            source = outcome.value.source if isinstance(outcome.value, Node) else outcome.value
            self.storage = (source.storage if isinstance(source, TableSource) else "") or self.storage


@dataclass(frozen=True, slots=True)
class Standing:
    """A run's node that is in Tiled, ours: where a write of our own can show whether Tiled takes any.

    Attributes
    ----------
    facts
        What the node's metadata shall say under `tiled_ingest` until the run's end.
    tags
        Of every node below it.
    """

    path: Path
    facts: Json
    tags: tuple[str, ...] | None


class Surroundings(Protocol):
    """What a procedure may know of the claim in which it runs."""

    policy: Policy
    weather: Weather
    home: Home
    topic_id: str
    epoch: int
    nonce: str

    @property
    def decode(self) -> Decode:
        """Turns a record into a document, as when it was read first."""

    def fresh_nonce(self) -> str:
        """Return a new random word."""

    def standing(self, lane: str) -> Standing | None:
        """Return the node of the run that this lane works for; `None` if it is not there, or the lane is no run's."""

    def tell(self, event: str, **fields: Any) -> None:
        """Let the operators know."""


def refuse(outcome: Outcome) -> None:
    """Raise for an answer that waiting cannot change.

    A 403 that speaks of access tags is about this run; any other 401 or 403 is about us.
    """
    if isinstance(outcome, Denied) and not outcome.is_about_tags:
        raise Forbidden(outcome.detail)
    if isinstance(outcome, Rejected) and outcome.status == 413:
        raise TooLarge(outcome.detail)
    if isinstance(outcome, Rejected | Denied):
        raise TiledRejected(outcome.detail)


def read_log(start: int, stop: int) -> Procedure[LogRead]:
    """Read a part of the home partition's log, and try again until it can be read."""
    while (chunk := (yield LogChunk(start, stop))) is None:
        yield Sleep(LOG_RETRY_S, down=False)
    read: LogRead = chunk
    return read
