"""The loop: poll -> engine -> perform -> commit. It decides nothing.

One thread owns the consumer, the engine and the commits; Kafka's callbacks run inside `poll`, so nothing needs a
lock. What waits for Tiled waits in `lanes`.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any, ClassVar

from .core import effects as fx
from .core.engine import Engine
from .core.errors import BreakerOpen, IngestError
from .core.record import Home
from .kafka.announcements import Announcements
from .kafka.dead_letters import DeadLetters
from .kafka.errors import CommitError
from .kafka.source import Source
from .lanes import Lanes
from .observe.watch import Watch

POLL_RECORDS_MAX = 4_096
LOOK_AT_OTHERS_S = 1.0
TELL_ENDS_S = 1.0
POLL_BUSY_S = 0.005  # answers of Tiled are awaited: look soon
POLL_IDLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Ended:
    """How the loop ended: `reason` is empty when all was well, else the class of the error."""

    reason: str = ""
    detail: str = ""


class Ingestor:
    """Runs the engine in the world.

    Parameters
    ----------
    drain_s_max
        How long a revoke, or the end, may wait for writes under way.
    announcements
        Needed where the engine's policy announces runs.
    now_s
        Monotonic time in seconds.
    """

    slice_records_max: ClassVar[int] = 4_096  # given to the engine at once, between two looks at memory and answers
    slice_bytes_max: ClassVar[int] = 2_000_000

    def __init__(
        self,
        engine: Engine,
        lanes: Lanes,
        letters: DeadLetters,
        watch: Watch,
        drain_s_max: float,
        announcements: Announcements | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._lanes = lanes
        self._letters = letters
        self._announcements = announcements
        self._watch = watch
        self._drain_s_max = drain_s_max
        self._now_s = now_s
        self._source: Source | None = None
        self._inbox: deque[fx.Input] = deque()  # what effects answered at once
        self._ended: Ended | None = None
        self._unread: deque[fx.Input] = deque()  # polled, and not given to the engine yet
        self._ends: dict[Home, int] | None = None
        self._looked_s = 0.0
        self._ends_told_s = float("-inf")
        self._asked_to_end = False

    # ------------------------------------------------------------ the loop

    def run(self, source: Source, *, until_end: bool = False) -> Ended:
        """Ingest until `end` is called, the engine stops, or (`until_end`) the ends of now are reached.

        Where the breaker has stopped the engine, it stays until `end` is called, reading nothing; not with `until_end`.
        """
        self._source = source
        if until_end:
            self._ends = source.end_offsets()
            if not self._ends:
                return Ended("NothingToRead", "kafka.topics names no topic that exists")
        while self._ended is None and not self._engine.finished:
            self._turn(source)
            if self._asked_to_end or self._has_reached_ends():
                self._drain()
        if self._ended is not None and self._ended.reason == BreakerOpen.reason and not until_end:
            self._stay(source, self._ended)
        return self._ended or Ended()

    def _stay(self, source: Source, ended: Ended) -> None:
        """Take nothing more, and keep the partitions, until asked to end.

        A supervisor would start the process again, to refuse as many more; so would the member that got the partitions.
        """
        self._unread.clear()
        while not self._asked_to_end:
            source.pause(source.assigned)
            source.poll(POLL_RECORDS_MAX, POLL_IDLE_S)
            self._watch.moved()
            self._watch.stays(f"{ended.reason}: {ended.detail}", self._engine, source)

    def end(self) -> None:
        """Ask the loop to drain and end; may be called from a signal handler."""
        self._asked_to_end = True

    def _turn(self, source: Source) -> None:
        polled = source.poll(POLL_RECORDS_MAX, self._poll_s)  # first: what runs in it puts another deque in place
        self._unread.extend(polled)
        self._watch.moved()
        self._take_in()
        self._pump()
        self._tell_ends(source)
        self._step(fx.Tick())
        self._watch.turned(self._engine, source)

    def _take_in(self) -> None:
        """Give the engine what was polled, as far as there is memory: a record takes many times more once decoded."""
        while self._unread and not self._engine.full and self._ended is None:
            given = self._unread.popleft()
            if isinstance(given, fx.Records):
                given, rest = self._sliced(given)
                if rest.records:
                    self._unread.appendleft(rest)
            self._watch.came(given)
            self._step(given)
            self._pump()

    def _sliced(self, given: fx.Records) -> tuple[fx.Records, fx.Records]:
        """Return the first records, and the rest."""
        nbytes, end = 0, 0
        for record in given.records[: self.slice_records_max]:
            nbytes += len(record.value or b"")
            end += 1
            if nbytes >= self.slice_bytes_max:
                break
        return fx.Records(given.records[:end]), fx.Records(given.records[end:])

    def _tell_ends(self, source: Source) -> None:
        if self._now_s() - self._ends_told_s >= TELL_ENDS_S:
            self._ends_told_s = self._now_s()
            self._step(fx.Ends({home: end for home, (_, end) in source.lag().items()}))

    @property
    def _poll_s(self) -> float:
        """How long to wait for the next record, at most."""
        if self._engine.busy or self._unread:
            return POLL_BUSY_S
        return min(POLL_IDLE_S, max(POLL_BUSY_S, self._engine.idle_s(self._now_s())))

    def _drain(self) -> None:
        """Finish what is under way, within the limit; nothing new is taken meanwhile."""
        self._step(fx.Drain())
        self._pump_until(lambda: self._engine.finished)
        self._ended = self._ended or Ended()

    def _has_reached_ends(self) -> bool:
        if self._ends is None or self._unread:
            return False
        return self._engine.has_settled(self._ends) or self._others_have(self._ends)

    def _others_have(self, ends: dict[Home, int]) -> bool:
        """Look now and then whether other members of the group have committed what we do not own."""
        if self._member.assigned or self._now_s() - self._looked_s < LOOK_AT_OTHERS_S:
            return False
        self._looked_s = self._now_s()
        committed = self._member.committed(list(ends))
        return all(committed[home] >= end for home, end in ends.items())

    # ------------------------------------------------------------ rebalances (called inside poll)

    def revoked(self, homes: tuple[Home, ...]) -> None:
        """Drain and commit what the group takes back, while it is still ours."""
        self._forget(homes)
        self._step(fx.Revoked(homes))
        self._pump_until(lambda: self._engine.drained(homes))
        self._step(fx.Released(homes))

    def lost(self, homes: tuple[Home, ...]) -> None:
        """Forget what may have another owner already."""
        self._forget(homes)
        self._step(fx.Released(homes))

    def _forget(self, homes: tuple[Home, ...]) -> None:
        """Leave to their next owner what was polled of these partitions and not taken in."""
        self._unread = deque(kept for given in self._unread if (kept := _without(given, homes)) is not None)

    def _pump_until(self, done: Any) -> None:
        until_s = self._now_s() + self._drain_s_max
        while self._ended is None and not done() and self._now_s() < until_s:
            self._pump(wait_s=0.02)
            self._step(fx.Tick())
            self._watch.alive()

    # ------------------------------------------------------------ answers

    def _pump(self, wait_s: float = 0.0) -> None:
        """Give the engine every answer that is there."""
        for result in self._lanes.results(0.0 if self._inbox else wait_s):
            self._step(result)
        for confirmation in self._letters.poll():
            self._step(confirmation)
        for answer in self._announcements.poll() if self._announcements else ():
            self._step(answer)

    def _step(self, given: fx.Input) -> None:
        if self._ended is not None:
            return
        self._inbox.append(given)
        while self._inbox and self._ended is None:
            for effect in self._engine.step(self._now_s(), self._inbox.popleft()):
                self._perform(effect)
                self._watch.moved()

    # ------------------------------------------------------------ effects

    @singledispatchmethod
    def _perform(self, effect: Any) -> None:
        raise TypeError(f"no effect: {effect!r}")

    @_perform.register
    def _(self, effect: fx.Ask) -> None:
        self._lanes.ask(effect)

    @_perform.register
    def _(self, effect: fx.ReadLog) -> None:
        self._lanes.read(effect)

    @_perform.register
    def _(self, effect: fx.DeadLetter) -> None:
        self._letters.send(effect)

    @_perform.register
    def _(self, effect: fx.Announce) -> None:
        if self._announcements is None:
            raise IngestError("the engine announces a run, and there is no topic for it")
        self._announcements.send(effect)

    @_perform.register
    def _(self, effect: fx.Commit) -> None:
        try:
            self._member.commit(effect.home, effect.offset, effect.metadata)
        except CommitError as error:
            self._inbox.append(fx.CommitFailed(effect.ticket, str(error), error.fenced))
        else:
            self._inbox.append(fx.Committed(effect.ticket))

    @_perform.register
    def _(self, effect: fx.Pause) -> None:
        self._member.pause(effect.homes)
        self._watch.paused(effect.homes)

    @_perform.register
    def _(self, effect: fx.Resume) -> None:
        self._member.resume(effect.homes)
        self._watch.resumed(effect.homes)

    @_perform.register
    def _(self, effect: fx.Tell) -> None:
        self._watch.told(effect)

    @_perform.register
    def _(self, effect: fx.Stop) -> None:
        self._ended = Ended(effect.reason, effect.detail)

    @property
    def _member(self) -> Source:
        if self._source is None:
            raise IngestError("the loop has no consumer yet")
        return self._source


def _without(given: fx.Input, homes: tuple[Home, ...]) -> fx.Input | None:
    if isinstance(given, fx.Records):
        return fx.Records([record for record in given.records if record.home not in homes])
    return None if isinstance(given, fx.Assigned | fx.EndReached) and given.home in homes else given
