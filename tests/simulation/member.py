"""A process of the service in virtual time: the real loop and its engine, between models of what is around them."""

from collections.abc import Callable, Iterable
from typing import Any

from tiled_ingest.core.effects import Effect, Input, Stop
from tiled_ingest.core.record import Home
from tiled_ingest.ingestor import Ingestor

from .consumer import Consumer, Homes
from .ending import Begun
from .faults import Fault
from .outlets import Announcements, DeadLetters, Lanes
from .process import Process
from .surroundings import EngineLike, Host, Surroundings

DRAIN_S_MAX = 60.0
OVERRUN_S_MAX = 0.3
LOOKED_AFTER_S = (0.0, 30.0)  # how long one may stay whose breaker opened


class SmallSlices(Ingestor):
    """The loop, with limits that a short history meets."""

    slice_records_max = 7
    slice_bytes_max = 2_000


class Member:
    """One process.

    Parameters
    ----------
    died
        Called once when the process ends, by whatever cause.
    """

    def __init__(
        self, name: str, engine: EngineLike, around: Surroundings, threads: int, died: Callable[[], None]
    ) -> None:
        self.name = name  # its identity in the group; a new one when it joins again
        self.alive = True
        self.draining = False  # asked to end: it does not poll any more, so the group can neither give nor take
        self.ended_in_order = False
        self._around, self._died = around, died
        self._frozen_from_next_effect_on: Callable[[], None] | None = None
        self._process = Process(around.clock, self._run)
        host = Host(around, self._process, lambda: self.name, self._before_effect)
        self._lanes, announcements = Lanes(host, threads), Announcements(host)
        self._letters = DeadLetters(host, lambda: self.alive)
        outlets = (self._lanes, self._letters, announcements)
        self.consumer = Consumer(host, lambda: any(each.has_mail for each in outlets), self._revoked, self._lost)
        parts: dict[str, Any] = {
            "engine": Door(engine, self),
            "lanes": self._lanes,
            "letters": self._letters,
            "watch": Silence(),
            "announcements": announcements,
        }
        self._loop = SmallSlices(**parts, drain_s_max=DRAIN_S_MAX, now_s=lambda: around.clock.now_s)

    # ------------------------------------------------------------ its life

    def _run(self) -> None:
        source: Any = self.consumer
        ended = self._loop.run(source)
        if not ended.reason and not self.draining:
            self._around.fail(f"{self.name} ended, and nobody had asked it to")
        self.ended_in_order = not ended.reason
        self._end(str(ended))

    def stops(self, effect: Stop) -> None:
        """Take note that its engine wants to end: whoever finds that another one owns the run may, and who has no dead
        letter confirmed; and who refuses too much, where it has finished what was begun.
        """
        match effect.reason:
            case "Superseded":  # its detail begins with the node's path
                path = tuple(effect.detail.split(maxsplit=1)[0].split("/"))
                excused = self._around.owner_of(path) != self.name
            case "DeadLetterFailed":
                excused = self._letters.refused
            case "BreakerOpen":
                excused = self._around.breaker_end_s is not None
                self._around.faults.hit[Fault.BREAKER_OPEN] += 1
                # It stays, with its partitions, until somebody has looked after it.
                self._around.clock.after(self._around.rng.uniform(*LOOKED_AFTER_S), self._restart)
            case _:
                excused = False
        if not excused:
            self._around.fail(f"{self.name} stopped without a cause: {effect.reason}: {effect.detail}")

    def _restart(self) -> None:
        if self.alive:
            self.drain(DRAIN_S_MAX)

    def finishes(self, begun: Begun) -> None:
        """Judge it as its breaker ends it."""
        around = self._around
        for what in begun.unfinished(around.group, self.name, self.consumer.fenced, around.clock.now_s):
            around.fail(f"{self.name} ended by its breaker, and had not finished what was begun: {what}")

    def _end(self, why: str) -> None:
        self.alive = False
        self._around.trace(self.name, "died", why)
        self._around.wire.client_died(self.name)
        self._died()

    def _before_effect(self) -> None:
        if self._around.faults.strikes(Fault.CRASH_IN_EFFECTS):
            self.crash()
        if self._frozen_from_next_effect_on is not None:
            freeze, self._frozen_from_next_effect_on = self._frozen_from_next_effect_on, None
            freeze()
            self._process.sleep(0.0)

    # ------------------------------------------------------------ what others do to it

    @property
    def hung(self) -> bool:
        """Whether it is frozen."""
        return self._process.frozen

    def assign(self, home: Home, nonce: str, *, topic_id: str) -> None:
        """Give it a partition."""
        self.consumer.assign(home, nonce, topic_id=topic_id)

    def revoke(self, homes: Homes, released: Callable[[], None]) -> None:
        """Take partitions back; `released` is called when it let go."""
        self.consumer.revoke(homes, released)

    def lose(self, join: Callable[[], None]) -> None:
        """Let it hear that its partitions are gone."""
        self.consumer.lose(join)

    def drain(self, limit_s: float) -> None:
        """Ask it to end in order."""
        self.draining = True
        self._loop._drain_s_max = limit_s
        self._loop.end()

    def crash(self) -> None:
        """End at once, in the middle of whatever it does."""
        if self.alive:
            self._end("")
            self._process.end()

    def discard(self) -> None:
        """End it with its history: nobody is told."""
        self._process.end()

    def hang(self, frozen: Callable[[], None], *, in_effects: bool) -> None:
        """Freeze it, at once or before the next effect; `frozen` is called then."""

        def freeze() -> None:
            self._around.trace(self.name, "frozen", "")
            self._process.freeze()
            frozen()

        if in_effects:
            self._frozen_from_next_effect_on = freeze
        else:
            freeze()

    def wake(self) -> None:
        """Go on after a hang, with what came in meanwhile."""
        if self.alive:
            self._around.trace(self.name, "awake", "")
            self._process.thaw()

    # ------------------------------------------------------------ what it hears in its polls

    def _revoked(self, homes: Homes) -> None:
        if not self.draining:
            overrun = self._around.faults.strikes(Fault.OVERRUN)
            self._loop._drain_s_max = self._around.rng.uniform(0.0, OVERRUN_S_MAX) if overrun else DRAIN_S_MAX
        self._loop.revoked(homes)

    def _lost(self, homes: Homes) -> None:
        self._loop.lost(homes)


class Door:
    """The engine, overheard."""

    def __init__(self, engine: EngineLike, member: Member) -> None:
        self._engine, self._member = engine, member
        limit_s = member._around.breaker_end_s
        self._begun = Begun(limit_s) if limit_s is not None else None

    def step(self, now_s: float, input: Input) -> list[Effect]:  # noqa: A002
        around, name = self._member._around, self._member.name
        around.steps += 1
        around.trace(name, "<-", input)
        effects = self._engine.step(now_s, input)
        if self._begun is not None:
            self._begun.heard(input, effects, now_s, ending=self.snapshot().ending)
        for effect in effects:
            around.trace(name, "->", effect)
            if isinstance(effect, Stop):
                self._member.stops(effect)
                if self._begun is not None and effect.reason == "BreakerOpen":
                    self._member.finishes(self._begun)
        return effects

    def drained(self, homes: Iterable[Home]) -> bool:
        return self._engine.drained(homes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Silence:
    """A watch that nobody looks at."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None
