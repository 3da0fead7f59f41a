"""The way to Tiled and back: how long a request takes, and all that can happen to it underway."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tiled_ingest.core.writes import (
    Append,
    CountRows,
    Done,
    GetNode,
    Outcome,
    Path,
    ReadKeys,
    Rejected,
    Request,
    TableSource,
    Unknown,
    Unprocessed,
)

from .clock import Clock
from .faults import Fault, Faults
from .tiled_model import COLUMNS_FENCED_MIN, Resolved, TiledModel

TIMEOUT_S = 1.0
LATE_S_MAX = 20.0
SWALLOWED_RATE = 0.7  # of the appends that are confirmed while another client's is under way; far more than measured
DEADLY_RATE = 0.8  # of the tables of which an append is refused; far more than measured (two of twelve refusals)
SERVER_ERRORS_MAX = 2  # in a row: more would say that the data is at fault, which it is not

# In this order one fault at most is drawn per request.
REQUEST_FAULTS = (
    Fault.UNSENT,
    Fault.BUSY,
    Fault.SERVER_ERROR,
    Fault.LATE_APPLIED,
    Fault.LATE_RESOLVED,
    Fault.REPLY_LOST,
)


@dataclass(eq=False)
class Call:
    """A request underway. `answered`: its client has an outcome; `cancelled`: it will have no effect."""

    client: str
    request: Request
    answer: Callable[[Outcome], None]
    knew_embedded: bool  # its client knew, when it decided on the request, that the storage takes one at a time
    answered: bool = False
    cancelled: bool = False
    orphaned: bool = False


class Wire:
    """Carries requests to the model in virtual time.

    Parameters
    ----------
    owner_of
        The member that owns the run at a path; a write by anyone else is stale.
    late_write_s_max
        The longest that an append of a table without enough orders of columns may be late: what the service waits.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        faults: Faults,
        tiled: TiledModel,
        owner_of: Callable[[Path], str | None],
        late_write_s_max: float,
    ) -> None:
        self._clock, self._rng, self._faults, self._tiled, self._owner_of = (
            clock,
            rng,
            faults,
            tiled,
            owner_of,
        )
        self._late_write_s_max = late_write_s_max
        self._slowness_s = rng.choice((0.005, 0.02, 0.1))
        self._calls: dict[Call, None] = {}  # not answered yet, in the order of sending
        self._embedded: set[str] = set()  # clients that were told: DuckDB
        self._appending: list[Call] = []  # that have entered the server, and are not applied
        self._deadly: dict[Path, int] = {}  # how often the next refused append to it ends the server
        self._errors: dict[tuple[str, Path], int] = {}  # in a row, by what was asked
        self.pending = 0  # applications to come, answered or not
        self.down_until_s = 0.0
        self.broken_until_s = 0.0  # it answers, and its database does not
        self.routeless_until_s = 0.0  # a proxy answers for it
        self.rows_max: int | None = None  # of one append that the proxy lets through
        self.append_s = 0.0  # how long an append takes at least, on average
        self.vices = random.Random(0)  # what DuckDB does; by itself, so that other histories stay what they are
        self.violations: list[str] = []

    def knows_embedded(self, client: str) -> bool:
        """Whether Tiled told this client that its storage takes one request at a time."""
        return client in self._embedded

    def send(self, client: str, request: Request, answer: Callable[[Outcome], None], *, knew: bool) -> None:
        """Perform a request; `answer` is called once, unless the client dies."""
        call = Call(client, request, answer, knew)
        self._check_alone(call)
        self._calls[call] = None
        fault = self._draw(request)
        if fault is Fault.UNSENT:
            self._answer_later(call, Unprocessed("connection reset before the request was sent"))
        elif fault is Fault.BUSY:
            self._answer_later(call, Unprocessed("503", retry_after_s=self._rng.uniform(0.1, 2.0)))
        elif fault is Fault.SERVER_ERROR:
            self._answer_later(call, Unknown("500", 500))
        elif fault in (Fault.LATE_APPLIED, Fault.LATE_RESOLVED):
            self._send_late(call, resolve_at_once=fault is Fault.LATE_APPLIED)
        else:
            self.pending += 1
            lost = fault is Fault.REPLY_LOST
            self._clock.after(self._latency_s(), lambda: self._enter(call, reply_lost=lost))

    def _draw(self, request: Request) -> Fault | None:
        fault = next((kind for kind in REQUEST_FAULTS if self._faults.strikes(kind)), None)
        about = (type(request).__name__, _node(_path(request)))
        self._errors[about] = self._errors.get(about, 0) + 1 if fault is Fault.SERVER_ERROR else 0
        return None if self._errors[about] > SERVER_ERRORS_MAX else fault

    def client_died(self, client: str) -> None:
        """Its requests go on by themselves, or never arrived, or come much later; nobody hears of them."""
        for call in list(self._calls):
            if call.client == client:
                call.answered = True
                self._calls.pop(call, None)
                call.orphaned = self._faults.strikes(Fault.ORPHANED_REQUEST)
                call.cancelled = not call.orphaned and self._rng.random() < 0.5
        self._embedded.discard(client)

    def client_renamed(self, client: str) -> None:
        """Forget what it knew: it joined the group anew, under another name."""
        self._embedded.discard(client)

    def break_off(self, *, down_s: float) -> None:
        """Tiled goes away: whoever waits does not know, and new requests are refused for `down_s`."""
        self.down_until_s = self._clock.now_s + down_s
        for call in list(self._calls):
            call.cancelled = self._rng.random() < 0.5
            self._answer(call, Unknown("connection reset by peer"))

    # ------------------------------------------------------------ underway

    def _latency_s(self) -> float:
        return self._rng.expovariate(1 / self._slowness_s)

    def _late_s_max(self, request: Request) -> float:
        unfenced = isinstance(request, Append) and request.table.num_columns < COLUMNS_FENCED_MIN
        return min(LATE_S_MAX, self._late_write_s_max) if unfenced else LATE_S_MAX

    def _enter(self, call: Call, *, reply_lost: bool) -> None:
        if self._clock.now_s < self.down_until_s:
            self.pending -= 1
            self._answer(call, Unprocessed("connection refused"))
            return
        if self._clock.now_s < self.broken_until_s:
            self.pending -= 1
            self._answer_later(call, Unknown("Internal Server Error", 500))
            return
        if (refusal := self._refusal(call.request)) is not None:
            self.pending -= 1
            self._answer_later(call, refusal)
            return
        resolved = self._tiled.resolve(call.request)
        delay_s = self._rng.uniform(0.0, LATE_S_MAX) if call.orphaned else self._latency_s()
        if isinstance(call.request, Append):
            self._appending.append(call)
            if self.append_s and not call.orphaned and not self._faults.healed:
                delay_s = self._rng.expovariate(1 / self.append_s)
        self._clock.after(delay_s, lambda: self._apply(call, resolved, reply_lost=reply_lost))

    def _refusal(self, request: Request) -> Outcome | None:
        """What a proxy says to a request that does not reach Tiled."""
        if self._clock.now_s < self.routeless_until_s:
            return Unknown("404 page not found", 404)
        limit, rows = self.rows_max, request.table.num_rows if isinstance(request, Append) else 0
        if limit is not None and rows > limit and self._faults.allows(Fault.BODY_LIMIT):
            return Rejected("413", 413)
        return None

    def _send_late(self, call: Call, *, resolve_at_once: bool) -> None:
        self.pending += 1
        delay_s = self._rng.uniform(0.0, self._late_s_max(call.request))
        if resolve_at_once:
            resolved = self._tiled.resolve(call.request)
            self._appending += [call] * isinstance(call.request, Append)
            self._clock.after(delay_s, lambda: self._apply(call, resolved, reply_lost=True))
        else:
            self._clock.after(delay_s, lambda: self._apply(call, self._tiled.resolve(call.request), reply_lost=True))
        self._clock.after(TIMEOUT_S, lambda: self._answer(call, Unknown("read timeout")))

    def _apply(self, call: Call, resolved: Resolved, *, reply_lost: bool) -> None:
        self.pending -= 1
        if call in self._appending:
            self._appending.remove(call)
        if call.cancelled:
            self._answer_later(call, Unknown("connection reset by peer"))
            return
        stale = call.answered or self._owner_of(_path(call.request)) != call.client
        outcome = self._tiled.apply(resolved, stale=stale)
        if self._tiled.storage == "duckdb" and isinstance(call.request, Append):
            self._share_connection(call, call.request, resolved, outcome)
        when = self._tiled.applied
        if reply_lost:
            outcome = Unknown("read timeout")
        self._clock.after(self._latency_s(), lambda: self._answer(call, outcome, when))

    def _share_connection(self, call: Call, request: Append, resolved: Resolved, outcome: Outcome) -> None:
        """What DuckDB's one connection does to those who use it: both were measured."""
        if not isinstance(outcome, Done):
            if self._kills(_node(request.path)):
                self.break_off(down_s=self._rng.uniform(0.1, 3.0))
            return
        others = any(other.client != call.client for other in self._appending)
        if others and self.vices.random() < SWALLOWED_RATE and self._faults.allows(Fault.TWO_WRITERS):
            self._tiled.swallow(resolved)

    def _kills(self, path: Path) -> bool:
        """Whether a refused append ends the server; if it does, so do some of its repetitions."""
        left = self._deadly.get(path)
        if left is None:
            left = self.vices.choice((1, 2, 4)) if self.vices.random() < DEADLY_RATE else 0
        self._deadly[path] = max(0, left - 1)
        return left > 0 and self._faults.allows(Fault.DEADLY_REFUSAL)

    def _answer_later(self, call: Call, outcome: Outcome) -> None:
        self._clock.after(self._latency_s(), lambda: self._answer(call, outcome))

    def _answer(self, call: Call, outcome: Outcome, when: int = 0) -> None:
        if call.answered:
            return
        call.answered = True
        self._calls.pop(call, None)
        if isinstance(outcome, Done):
            self._learn(call, outcome, when)
        call.answer(outcome)

    def _learn(self, call: Call, outcome: Done, when: int) -> None:
        source = getattr(outcome.value, "source", outcome.value)
        if isinstance(source, TableSource) and source.storage == "duckdb":
            self._embedded.add(call.client)
        if (
            isinstance(call.request, GetNode | ReadKeys | CountRows)
            and self._owner_of(call.request.path) == call.client
        ):
            self._tiled.saw(_path(call.request), when)

    def _check_alone(self, call: Call) -> None:
        if not call.knew_embedded:
            return
        for other in list(self._calls):
            if other.client == call.client and Append in (type(call.request), type(other.request)):
                kinds = f"{type(other.request).__name__} and {type(call.request).__name__}"
                self.violations.append(f"{call.client} has two requests at DuckDB at once: {kinds}")


def _node(path: Path) -> Path:
    """Return the node that a request is about: each attempt to build it anew has a child of its own."""
    return tuple(key for key in path if not key.startswith("rebuild-"))


def _path(request: Request) -> Path:
    path: Path = getattr(request, "path", getattr(request, "parent", ()))
    return path
