"""Where the loop's effects go, and where their answers come from, in virtual time: as the real lanes, dead letters and
announcements do it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from tiled_ingest.core.effects import (
    Announce,
    Announced,
    Answered,
    Ask,
    DeadLetter,
    DeadLettered,
    DeadLetterRefused,
    Input,
    LogRead,
    LogUnreadable,
    ReadLog,
)
from tiled_ingest.core.record import Home

from .faults import Fault
from .kafka_model import Letter, OrderedProducer
from .surroundings import Host

SLOW_S_MAX = 10.0  # of a dead letter: members die, are counted out, and runs end meanwhile
PUMP_S_MAX = 1.0  # a loop that waits for answers looks so often at least


class Outlet:
    """What all of them have: answers that wait for the loop."""

    def __init__(self, host: Host) -> None:
        self._around, self._process, self._name, self._effect = host.around, host.process, host.name, host.before_effect
        self._mail: deque[Input] = deque()

    @property
    def has_mail(self) -> bool:
        """Whether answers wait."""
        return bool(self._mail)

    def poll(self) -> Iterator[Input]:
        """Yield what has come."""
        while self._mail:
            yield self._mail.popleft()

    def _deliver(self, answer: Input) -> None:
        self._process.happens(lambda: self._mail.append(answer))
        self._process.nudge()


class Lanes(Outlet):
    """Threads: requests are begun in their order, so many at once, and one read of the log."""

    def __init__(self, host: Host, threads: int) -> None:
        super().__init__(host)
        self._asking, self._reading = _Pool(threads), _Pool(1)

    def ask(self, effect: Ask) -> None:
        """Have a request performed."""
        self._effect()
        knew = self._around.wire.knows_embedded(self._name())
        self._asking.submit(partial(self._ask, effect, knew=knew))

    def read(self, effect: ReadLog) -> None:
        """Have a part of the log read."""
        self._effect()
        self._reading.submit(partial(self._read, effect))

    def results(self, wait_s: float = 0.0) -> Iterator[Input]:
        """Yield what has come; waits for the first, if it should."""
        if wait_s and not self._mail:
            self._process.sleep(min(max(wait_s, self._around.poll_s), PUMP_S_MAX), light=True)
        yield from self.poll()

    def _ask(self, effect: Ask, done: Callable[[], None], *, knew: bool) -> None:
        def answered(answer: Input) -> None:
            self._process.happens(done)
            self._deliver(answer)

        self._around.wire.send(
            self._name(), effect.request, lambda outcome: answered(Answered(effect.ticket, outcome)), knew=knew
        )

    def _read(self, effect: ReadLog, done: Callable[[], None]) -> None:
        def read() -> None:
            self._process.happens(done)
            self._deliver(self._found(effect))

        self._around.clock.after(self._around.rng.uniform(0.0, 0.05), read)

    def _found(self, effect: ReadLog) -> Input:
        if self._around.faults.strikes(Fault.LOG_UNREADABLE):
            return LogUnreadable(effect.ticket, "broker away")
        partition = self._around.partitions[effect.home]
        size_max = self._around.rng.choice((1, effect.bytes_max))
        records, position = partition.read(effect.start, effect.stop, size_max)
        return LogRead(effect.ticket, records, position, partition.low)


class _Pool:
    """So many tasks at once, each begun in its turn; a task is given what tells that it is done."""

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._waiting: deque[Callable[[Callable[[], None]], None]] = deque()

    def submit(self, task: Callable[[Callable[[], None]], None]) -> None:
        self._waiting.append(task)
        self._begin()

    def _begin(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            self._waiting.popleft()(self._done)

    def _done(self) -> None:
        self._free += 1
        self._begin()


class DeadLetters(Outlet):
    """The producer of dead letters.

    Attributes
    ----------
    refused
        Whether the topic has refused any.
    """

    def __init__(self, host: Host, alive: Callable[[], bool]) -> None:
        super().__init__(host)
        self._alive = alive
        self._producer = OrderedProducer()
        self._arrives_s: dict[Home, float] = {}  # the last that is under way
        self._lost = set[Home]()
        self.refused = False

    def send(self, effect: DeadLetter) -> None:
        """Produce one."""
        self._effect()
        letter = Letter(effect.record, effect.reason, effect.code, effect.run)
        home, survives = effect.record.home, self._around.rng.random() < 0.5
        self._producer.send(home, lambda: self._arrives(letter, effect.ticket), survives=survives)
        slow = self._around.faults.strikes(Fault.DEAD_LETTER_SLOW)
        arrives_s = self._around.clock.now_s + self._around.rng.uniform(0.0, SLOW_S_MAX if slow else 0.05)
        self._arrives_s[home] = arrives_s = max(arrives_s, self._arrives_s.get(home, 0.0))
        delay_s = arrives_s - self._around.clock.now_s
        self._around.clock.after(delay_s, lambda: self._producer.deliver(home, alive=self._alive()))

    def _arrives(self, letter: Letter, ticket: int) -> None:
        home = letter.record.home
        if lost := home in self._lost or self._around.faults.strikes(Fault.DEAD_LETTER_LOST):
            self._lost.add(home)  # what comes after it would be out of order
        else:
            self._write(letter)
        if lost or self._around.faults.strikes(Fault.DEAD_LETTER_UNCONFIRMED):
            self.refused = True
            self._deliver(DeadLetterRefused(ticket, "timed out"))
        else:
            self._deliver(DeadLettered(ticket))

    def _write(self, letter: Letter) -> None:
        owned = self._alive() and self._around.group.owners.get(letter.record.home) == self._name()
        self._around.dead_letters.write(letter, owned=owned)
        if owned:
            self._around.refused(letter)


class Announcements(Outlet):
    """The producer of the topic of completed runs."""

    def send(self, effect: Announce) -> None:
        """Produce one."""
        self._effect()
        delay_s, written, confirmed = self._around.completed.draw(healed=self._around.faults.healed)
        self._around.announced(self._name(), effect.path, effect.state)

        def produce() -> None:
            if written:
                self._around.completed.write(effect.path, effect.state)
            self._deliver(Announced(effect.ticket, "" if written and confirmed else "timed out"))

        self._around.clock.after(delay_s, produce)
