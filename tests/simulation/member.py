"""A process of the service in virtual time: it polls, steps its engine, performs the effects.

The engine's inputs and outputs are the contract of `tiled_ingest.core.effects`; what the real ingestor, lanes
and consumer do is done here by scheduling.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

from tiled_ingest.core.effects import (
    Announce,
    Announced,
    Answered,
    Ask,
    Assigned,
    Commit,
    CommitFailed,
    Committed,
    DeadLetter,
    DeadLettered,
    DeadLetterRefused,
    Drain,
    Effect,
    EndReached,
    Ends,
    Input,
    LogRead,
    LogUnreadable,
    Pause,
    ReadLog,
    Records,
    Released,
    Resume,
    Revoked,
    Stop,
    Tell,
    Tick,
)
from tiled_ingest.core.record import Home

from .faults import Fault
from .kafka_model import Letter, OrderedProducer
from .surroundings import EngineLike, Fetch, Lane, Surroundings

POLL_RECORDS_MAX = 20
POLL_LATE_MAX = 3  # times the mean: else a process that is well may see nothing of the time after all faults


class Member:
    """One process.

    Parameters
    ----------
    died
        Called once when the process ends, by whatever cause.
    """

    def __init__(self, name: str, engine: EngineLike, around: Surroundings, died: Callable[[], None]) -> None:
        self.name = name  # its identity in the group; a new one when it joins again
        self.engine = engine
        self.alive = True
        self.hung = False
        self.ended_in_order = False
        self.fetches: dict[Home, Fetch] = {}
        self._around = around
        self._died = died
        self._clock = around.clock
        self._lanes: dict[str, Lane] = {}
        self._inbox: deque[Input] = deque()
        self._revoking: dict[tuple[Home, ...], tuple[float, Callable[[], None]]] = {}
        self._draining_until_s: float | None = None
        self._excused: set[str] = set()  # reasons for which it may end with `Stop`
        self._producer = OrderedProducer()
        self._poll_later()

    @property
    def draining(self) -> bool:
        """Whether it was asked to end: it does not poll any more, so the group can neither give nor take."""
        return self._draining_until_s is not None

    # ------------------------------------------------------------ what others do to it

    def assign(self, home: Home, nonce: str, *, topic_id: str) -> None:
        """Give it a partition."""
        partition = self._around.partitions[home]
        stored = self._around.group.commits.get(home)
        position = partition.low if stored is None else stored.offset
        self.fetches[home] = Fetch(position, position)
        committed, metadata = (None, "") if stored is None else (stored.offset, stored.metadata)
        self.feed(Assigned(home, topic_id, committed, metadata, partition.low, partition.high, nonce))

    def revoke(self, homes: tuple[Home, ...], released: Callable[[], None]) -> None:
        """Take partitions back: it drains until its deadline; `released` is called when it let go."""
        overrun = self._around.faults.strikes(Fault.OVERRUN)
        limit_s = self._around.rng.uniform(0.0, 0.3) if overrun else 60.0
        self._revoking[homes] = (self._clock.now_s + limit_s, released)
        self.feed(Revoked(homes))
        self._clock.after(limit_s, self._settle_revokes)

    def lose(self) -> None:
        """Tell it at last that its partitions are gone."""
        homes = tuple(self.fetches)
        self._revoking.clear()
        self.fetches.clear()
        if homes:
            self.feed(Released(homes))

    def drain(self, limit_s: float) -> None:
        """Ask it to end in order."""
        self._draining_until_s = self._clock.now_s + limit_s
        self.feed(Drain())

    def crash(self) -> None:
        """End at once, in the middle of whatever it does."""
        if self.alive:
            self.alive = False
            self._around.trace(self.name, "died", "")
            self._around.wire.client_died(self.name)
            self._died()

    def wake(self) -> None:
        """Go on after a hang, with what came in meanwhile."""
        self.hung = False
        while self._inbox and self.alive:
            self.feed(self._inbox.popleft())

    # ------------------------------------------------------------ its loop

    def feed(self, stimulus: Input) -> None:
        """One step of the engine, and its effects."""
        if not self.alive:
            return
        if self.hung:
            self._inbox.append(stimulus)
            return
        self._around.steps += 1
        self._around.trace(self.name, "<-", stimulus)
        for effect in self.engine.step(self._clock.now_s, stimulus):
            if not isinstance(effect, Tell) and self._around.faults.strikes(Fault.CRASH_IN_EFFECTS):
                self.crash()
            if not self.alive:
                return
            self._around.trace(self.name, "->", effect)
            self._perform(effect)

    def _poll_later(self) -> None:
        poll_s = self._around.poll_s
        self._clock.after(min(self._around.rng.expovariate(1 / poll_s), POLL_LATE_MAX * poll_s), self._poll)

    def _poll(self) -> None:
        if not self.alive:
            return
        if not self.hung:
            if self._draining_until_s is None and not self._revoking:
                self._deliver()
            self.feed(Ends({home: self._around.partitions[home].high for home in self.fetches}))
            self.feed(Tick())
            self._settle_revokes()
            self._settle_drain()
        self._poll_later()

    def _deliver(self) -> None:
        homes = [home for home, fetch in self.fetches.items() if not fetch.paused]
        self._around.rng.shuffle(homes)
        count = self._around.rng.randint(1, POLL_RECORDS_MAX)
        for home in homes:
            fetch = self.fetches.get(home)
            if fetch is None or fetch.paused or not self.alive:
                continue  # an earlier delivery of this poll paused it
            try:
                records, fetch.position = self._around.partitions[home].fetch(fetch.position, count)
            except LookupError as error:
                if self._around.group.owners.get(home) == self.name:  # a zombie may well read too late
                    self._around.fail(str(error))
                return
            if records:
                fetch.delivered = records[-1].offset + 1
                self.feed(Records(records))
            if fetch.position > fetch.delivered and not fetch.paused:
                fetch.delivered = fetch.position
                self.feed(EndReached(home, fetch.position))

    def _settle_revokes(self) -> None:
        if not self.alive or self.hung:
            return
        for homes, (deadline_s, released) in list(self._revoking.items()):
            if self.engine.drained(homes) or self._clock.now_s >= deadline_s:
                del self._revoking[homes]
                for home in homes:
                    self.fetches.pop(home, None)
                released()  # first: when the engine hears of it, the partitions are gone
                self.feed(Released(homes))

    def _settle_drain(self) -> None:
        if self._draining_until_s is None or not self.alive:
            return
        if self.engine.finished:
            self.alive, self.ended_in_order = False, True
            self._around.trace(self.name, "ended", "in order")
            self._died()
        elif self._clock.now_s >= self._draining_until_s:
            self.crash()

    # ------------------------------------------------------------ effects

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Ask() | ReadLog():
                self._queue(effect)
            case Commit():
                self._commit(effect)
            case DeadLetter():
                self._dead_letter(effect)
            case Announce():
                self._announce(effect)
            case Pause(homes=homes) | Resume(homes=homes):
                for home in homes:
                    if home in self.fetches:
                        self.fetches[home].paused = isinstance(effect, Pause)
            case Stop():
                if not self._may_stop(effect):
                    self._around.fail(f"{self.name} stopped without a cause: {effect.reason}: {effect.detail}")
                self.crash()

    def _may_stop(self, effect: Stop) -> bool:
        """A zombie may end when it finds out; and anyone whose dead letter was not confirmed."""
        owners = self._around.group.owners
        zombie = any(owners.get(home) != self.name for home in self.fetches)
        return effect.reason in self._excused or (effect.reason == "Superseded" and zombie)

    def _queue(self, effect: Ask | ReadLog) -> None:
        lane = self._lanes.setdefault(effect.lane, Lane())
        knew = self._around.wire.knows_embedded(self.name)
        if isinstance(effect, ReadLog):
            lane.waiting.append(partial(self._read_log, effect, lane))
        else:
            lane.waiting.append(partial(self._ask, effect, lane, knew=knew))
        self._advance(lane)

    def _advance(self, lane: Lane) -> None:
        if self.alive and lane.waiting and not lane.busy:
            lane.busy = True
            lane.waiting.popleft()()

    def _free(self, lane: Lane, answer: Input) -> None:
        lane.busy = False
        self._advance(lane)
        self.feed(answer)

    def _ask(self, effect: Ask, lane: Lane, *, knew: bool) -> None:
        self._around.wire.send(
            self.name,
            effect.request,
            lambda outcome: self._free(lane, Answered(effect.ticket, outcome)),
            knew=knew,
        )

    def _read_log(self, effect: ReadLog, lane: Lane) -> None:
        def read() -> None:
            if self._around.faults.strikes(Fault.LOG_UNREADABLE):
                self._free(lane, LogUnreadable(effect.ticket, "broker away"))
                return
            partition = self._around.partitions[effect.home]
            size_max = self._around.rng.choice((1, effect.bytes_max))
            records, position = partition.read(effect.start, effect.stop, size_max)
            self._free(lane, LogRead(effect.ticket, records, position, partition.low))

        self._clock.after(self._around.rng.uniform(0.0, 0.05), read)

    def _commit(self, effect: Commit) -> None:
        around, answer = self._around, CommitFailed(effect.ticket, "timed out", fenced=False)
        if around.faults.strikes(Fault.COMMIT_LOST):
            self._soon(answer)
        elif around.faults.strikes(Fault.COMMIT_STALE):
            self._soon(CommitFailed(effect.ticket, "illegal generation", fenced=True))
        elif not around.group.commit(self.name, effect.home, effect.offset, effect.metadata):
            around.faults.hit[Fault.COMMIT_FENCED] += 1
            self._excused.add("Superseded")
            self._soon(CommitFailed(effect.ticket, "unknown member", fenced=True))
        else:
            around.committed(effect.home, effect.offset)
            unconfirmed = around.faults.strikes(Fault.COMMIT_UNCONFIRMED)
            self._soon(answer if unconfirmed else Committed(effect.ticket))

    def _dead_letter(self, effect: DeadLetter) -> None:
        letter = Letter(effect.record, effect.reason, effect.code, effect.run)
        home, survives = effect.record.home, self._around.rng.random() < 0.5

        def arrive() -> None:
            owned = self.alive and self._around.group.owners.get(home) == self.name
            self._around.dead_letters.write(letter, owned=owned)
            if owned:
                self._around.refused(letter)
            if self._around.faults.strikes(Fault.DEAD_LETTER_UNCONFIRMED):
                self._excused.add("DeadLetterFailed")
                self.feed(DeadLetterRefused(effect.ticket, "timed out"))
            else:
                self.feed(DeadLettered(effect.ticket))

        self._producer.send(home, arrive, survives=survives)
        self._clock.after(self._around.rng.uniform(0.0, 0.05), lambda: self._producer.deliver(home, alive=self.alive))

    def _announce(self, effect: Announce) -> None:
        delay_s, written, confirmed = self._around.completed.draw(healed=self._around.faults.healed)
        self._around.announced(effect.path, effect.state)

        def produce() -> None:
            if written:
                self._around.completed.write(effect.path, effect.state)
            self.feed(Announced(effect.ticket, "" if written and confirmed else "timed out"))

        self._clock.after(delay_s, produce)

    def _soon(self, answer: Input) -> None:
        """Answer a synchronous call: at once, or after other inputs that came meanwhile."""
        self._clock.after(self._around.rng.choice((0.0, 0.0, 0.02)), lambda: self.feed(answer))
