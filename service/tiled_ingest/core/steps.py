"""How a piece of work with Tiled is written down: as a generator that yields what it wants next and gets the answer.

A *procedure* reads like the sequence of requests that it is; it holds no socket, thread or clock, and the engine
resumes it with the answer of each step. One procedure at a time runs in the lane of a run, so work on one run is in
order, and a crash is simply a procedure that is never resumed.

Retrying is decided here, for every request that may be repeated (`insist`). What may not be repeated, the append,
has its own rules in `tables`.
"""

import zlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .effects import LogRead
from .eras import Decode
from .errors import Forbidden, TiledRejected
from .policy import Policy
from .record import Home, Record
from .writes import (
    Append,
    CountRows,
    Denied,
    Done,
    Exists,
    FindOpenRuns,
    GetNode,
    Missing,
    Outcome,
    PatchArray,
    Path,
    ReadArray,
    ReadKeys,
    ReadRows,
    RegisterExternal,
    Rejected,
    Request,
    Unknown,
    Unprocessed,
)


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
class Claiming:
    """Commit the claim itself; answered by `None` when the broker has confirmed it."""

    offset: int
    metadata: str


Step = Request | Sleep | LogChunk | Letters | Claiming
# A registration may find that all is there already.
READS = GetNode | ReadKeys | CountRows | ReadRows | ReadArray | FindOpenRuns | RegisterExternal
LOG_RETRY_S = 0.5
PARENTS_MAX = 1_000  # that are remembered
WITNESSES_MIN = 2  # an outage may end between our failure and the success of others; hardly twice

T = TypeVar("T")
Procedure = Generator[Step, Any, T]


@dataclass
class Weather:
    """What all lanes know about Tiled's state.

    Attributes
    ----------
    written, appended
        How many writes, and how many appends among them, Tiled has confirmed since the start. (That it can be read
        proves nothing about writes, a registration may have had nothing to write, and that its catalog takes writes
        proves nothing about the storage of rows.)
    storage
        The dialect that holds the rows, once a table was seen.
    parents
        Nodes in which runs were created: they need not be looked for with each run.
    """

    written: int = 0
    appended: int = 0
    storage: str = ""
    parents: set[Path] = field(default_factory=set)

    def saw_parent(self, path: Path) -> None:
        """Remember a node in which runs can be created."""
        if len(self.parents) >= PARENTS_MAX:
            self.parents.clear()
        self.parents.add(path)

    def note(self, request: Request, outcome: Outcome) -> None:
        """Learn from an answer."""
        if isinstance(outcome, Done) and not isinstance(request, READS):
            self.written += 1
            self.appended += isinstance(request, Append | PatchArray)


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

    def tell(self, event: str, **fields: Any) -> None:
        """Let the operators know."""


@dataclass
class Patience:
    """Consecutive failures of one request, and how long to wait after each."""

    around: Surroundings
    lane: str
    appending: bool = False  # then only appends of others show that ours is at fault
    failures: int = 0
    server_errors: int = 0
    witnessed: int = 0  # server errors that came after a success of others since the one before
    _confirmed_before: int = field(init=False)

    def __post_init__(self) -> None:
        self._confirmed_before = self._confirmed

    @property
    def _confirmed(self) -> int:
        weather = self.around.weather
        return weather.appended if self.appending else weather.written

    def after(self, outcome: Outcome) -> Sleep:
        """Count a failure and say how long to wait; jitter is drawn from the lane's name, so that it can be replayed.

        Raises
        ------
        TiledRejected
            Tiled refuses this write, or answers it with server errors while other writes succeed.
        Forbidden
            We may not write here at all.
        """
        refuse(outcome)
        self.failures += 1
        self._count_server_error(outcome)
        asked = outcome.retry_after_s if isinstance(outcome, Unprocessed) else None
        return Sleep(max(self._backoff(), asked or 0.0), why=getattr(outcome, "detail", ""))

    def _count_server_error(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Unknown) or outcome.status != 500:
            return
        self.server_errors += 1
        self.witnessed += self._confirmed > self._confirmed_before
        self._confirmed_before = self._confirmed
        if self.server_errors >= self.around.policy.server_errors_max and self.witnessed >= WITNESSES_MIN:
            raise TiledRejected(
                f"{self.server_errors} server errors in a row, while other writes succeed: {outcome.detail}"
            )

    def saw_success(self) -> None:
        """Note that another write, made to see whether Tiled takes any, went through."""
        self._confirmed_before = min(self._confirmed_before, self._confirmed - 1)

    def _backoff(self) -> float:
        policy = self.around.policy
        longest = min(policy.backoff_s_max, policy.backoff_s_min * 2.0 ** min(self.failures - 1, 30))
        jitter: float = zlib.crc32(f"{self.lane}/{self.failures}".encode()) / 2**32
        return longest * (0.5 + 0.5 * jitter)


def refuse(outcome: Outcome) -> None:
    """Raise for an answer that waiting cannot change.

    A 403 that speaks of access tags is about this run; any other 401 or 403 is about us.
    """
    if isinstance(outcome, Denied) and not (outcome.status == 403 and "access tag" in outcome.detail.lower()):
        raise Forbidden(outcome.detail)
    if isinstance(outcome, Rejected | Denied):
        raise TiledRejected(outcome.detail)


def read_log(start: int, stop: int) -> Procedure[LogRead]:
    """Read a part of the home partition's log, and try again until it can be read."""
    while (chunk := (yield LogChunk(start, stop))) is None:
        yield Sleep(LOG_RETRY_S, down=False)
    read: LogRead = chunk
    return read


def insist(around: Surroundings, lane: str, request: Request) -> Procedure[Done | Exists | Missing]:
    """Perform a request that may be repeated until Tiled gives an answer to it."""
    patience = Patience(around, lane)
    while True:
        outcome: Outcome = yield request
        if isinstance(outcome, Done | Exists | Missing):
            return outcome
        yield patience.after(outcome)
