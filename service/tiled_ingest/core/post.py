"""Dead letters on their way: each is confirmed before anybody acts on it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .breaker import Breaker
from .claim import Claim
from .decoding.decode import kind_of
from .effects import DeadLetter, DeadLettered
from .errors import InvalidDocument
from .outbox import Outbox
from .record import Home, Record
from .runs.letters import letter
from .schedule import Lane
from .steps import Letter, Letters, RefusalsOut


@dataclass(slots=True)
class _Refused:
    """A document that was refused by itself: where it stands, and who waits for its letter."""

    home: Home
    offset: int
    lanes: list[Lane] = field(default_factory=list)


class Post:
    """Dead letters under way, and who waits for them."""

    def __init__(self, out: Outbox, breaker: Breaker, resume: Callable[[Lane], None]) -> None:
        self._out = out
        self._breaker = breaker
        self._resume = resume
        self._under_way: dict[int, tuple[float, Callable[[], object]]] = {}  # by ticket: since when, and what follows
        self._refused: dict[int, _Refused] = {}  # by ticket

    @property
    def busy(self) -> bool:
        """Whether a confirmation is awaited."""
        return bool(self._under_way)

    @property
    def since_s(self) -> float | None:
        """Since when the oldest of them waits for its confirmation."""
        return next((since_s for since_s, _ in self._under_way.values()), None)

    def refuse(self, claim: Claim, record: Record, error: InvalidDocument) -> None:
        """Send a document that is refused by itself; its offset is held until the topic has confirmed."""
        hold = claim.hold(record.offset)
        ticket = self._send(letter(record, error), lambda: claim.release(hold))
        self._refused[ticket] = _Refused(record.home, record.offset)
        self._breaker.refused(error)

    def send_all(self, lane: Lane, step: Letters) -> None:
        """Send the letters of a procedure, which goes on when all are confirmed."""
        lane.letters = len(step.letters)
        for sent in step.letters:
            self._send(sent, lambda: self._one_out(lane))
        if not step.letters:
            self._resume(lane)

    def await_refusals(self, lane: Lane, step: RefusalsOut) -> None:
        """Let a procedure go on when all letters of documents refused in this part of its log are confirmed."""
        home, first, last = lane.claim.home, step.first, step.last
        awaited = [each for each in self._refused.values() if each.home == home and first <= each.offset <= last]
        for refused in awaited:
            refused.lanes.append(lane)
        lane.letters = len(awaited)
        if not awaited:
            self._resume(lane)

    def _one_out(self, lane: Lane) -> None:
        lane.letters -= 1
        if not lane.letters:
            self._resume(lane)

    def _send(self, sent: Letter, confirmed: Callable[[], object]) -> int:
        ticket = self._out.ticket()
        self._under_way[ticket] = self._out.now_s, lambda: self._tell(sent, confirmed)
        self._out.put(DeadLetter(ticket, sent.record, sent.reason, sent.code, sent.error, sent.run))
        return ticket

    def _tell(self, sent: Letter, confirmed: Callable[[], object]) -> None:
        self._out.count(kind_of(sent.record), "dead_letter")
        where = {"topic": sent.record.topic, "partition": sent.record.partition, "offset": sent.record.offset}
        self._out.tell("dead_letter", reason=sent.reason, code=sent.code, run=sent.run, error=sent.error, **where)
        confirmed()

    def confirmed(self, given: DeadLettered) -> None:
        """Note that the topic has confirmed a letter."""
        _, follow = self._under_way.pop(given.ticket)
        follow()
        refused = self._refused.pop(given.ticket, None)
        for lane in refused.lanes if refused else ():
            self._one_out(lane)
