"""The group's consumer, as the loop knows it (`tiled_ingest.kafka.source.Source`), in virtual time.

What the group decides reaches a member only when it polls, in callbacks inside the poll; and a poll may bring several
such decisions, and what was fetched before them.
"""

from collections import deque
from collections.abc import Callable, Iterable

from tiled_ingest.core.effects import Assigned, EndReached, Input, Records
from tiled_ingest.core.record import Home, Record
from tiled_ingest.ingestor import POLL_BUSY_S, POLL_IDLE_S
from tiled_ingest.kafka.errors import CommitError
from tiled_ingest.kafka.messages import Arrivals, only

from .faults import Fault
from .surroundings import Fetch, Host

POLL_RECORDS_MAX = 20  # of one partition
POLL_LATE_MAX = 3  # times the mean: else a process that is well may see nothing of the time after all faults
LOADED_S = 0.3  # on average, a poll of a loop that has something to do, on a machine that has too much to do
FETCHED_BEFORE_RATE = 0.3  # of the polls
PROMPT_RATE = 0.7  # of the polls of a busy loop end when an answer has come
COMMIT_S = (0.0, 0.0, 0.02)
LOOK_UP_S_MAX = 0.1

Homes = tuple[Home, ...]


class Consumer:
    """A member's consumer.

    Parameters
    ----------
    has_mail
        Whether answers wait for the loop.
    on_revoke, on_lost
        As the real consumer calls them.
    """

    def __init__(
        self,
        host: Host,
        has_mail: Callable[[], bool],
        on_revoke: Callable[[Homes], None],
        on_lost: Callable[[Homes], None],
    ) -> None:
        self._around, self._process, self._name, self._effect = host.around, host.process, host.name, host.before_effect
        self._has_mail, self._on_revoke, self._on_lost = has_mail, on_revoke, on_lost
        self._decided: deque[Callable[[], None]] = deque()  # by the group, and not heard of yet
        self._fetches: dict[Home, Fetch] = {}
        self._claims: list[Assigned] = []
        self.fenced: set[Home] = set()  # claims whose last commit was refused: as of no member, or an old generation

    # ------------------------------------------------------------ what the group decides

    def assign(self, home: Home, nonce: str, *, topic_id: str) -> None:
        """Give it a partition."""
        self._decide(lambda: self._take(home, nonce, topic_id))

    def revoke(self, homes: Homes, released: Callable[[], None]) -> None:
        """Take partitions back; `released` is called when it let go."""
        self._decide(lambda: self._give_back(homes, released))

    def lose(self, join: Callable[[], None]) -> None:
        """Tell it that its partitions are gone; then it joins again."""
        self._decide(lambda: self._lose(join))

    def _decide(self, heard: Callable[[], None]) -> None:
        self._decided.append(heard)
        self._process.nudge()

    def _take(self, home: Home, nonce: str, topic_id: str) -> None:
        self._process.sleep(self._around.rng.uniform(0.0, LOOK_UP_S_MAX))
        partition = self._around.partitions[home]
        stored = self._around.group.commits.get(home)
        position = partition.low if stored is None else stored.offset
        self._fetches[home] = Fetch(position, position)
        committed, metadata = (None, "") if stored is None else (stored.offset, stored.metadata)
        self._claims.append(Assigned(home, topic_id, committed, metadata, partition.low, partition.high, nonce))

    def _give_back(self, homes: Homes, released: Callable[[], None]) -> None:
        self._on_revoke(homes)
        self._let_go(homes)
        released()

    def _lose(self, join: Callable[[], None]) -> None:
        homes = tuple(self._fetches)
        if homes:
            self._on_lost(homes)
        self._let_go(homes)
        join()

    def _let_go(self, homes: Homes) -> None:
        self.fenced -= set(homes)
        for home in homes:
            self._fetches.pop(home, None)
        self._claims = [claim for claim in self._claims if claim.home not in homes]

    # ------------------------------------------------------------ what the loop does

    @property
    def assigned(self) -> frozenset[Home]:
        """The partitions that are its own, as far as it knows."""
        return frozenset(self._fetches)

    def poll(self, _records_max: int, timeout_s: float) -> list[Input]:
        """Return claims first, then records and ends; whatever the group decided is heard meanwhile."""
        rng, clock = self._around.rng, self._around.clock
        before = self._fetched() if rng.random() < FETCHED_BEFORE_RATE else []
        prompt = timeout_s <= POLL_BUSY_S and rng.random() < PROMPT_RATE
        mean_s = self._around.poll_s if timeout_s >= POLL_IDLE_S else min(self._around.poll_s, LOADED_S)
        until_s = clock.now_s + min(rng.expovariate(1 / mean_s), POLL_LATE_MAX * mean_s)
        kept = set(self._fetches)
        while clock.now_s < until_s and not (prompt and self._has_mail()):
            self._process.sleep(until_s - clock.now_s, light=True)
            while self._decided:
                self._decided.popleft()()
                kept &= set(self._fetches) - {claim.home for claim in self._claims}
        claims, self._claims = self._claims, []
        return [*claims, *only(before, kept), *self._fetched()]

    def _fetched(self) -> Arrivals:
        homes = [home for home, fetch in self._fetches.items() if not fetch.paused]
        self._around.rng.shuffle(homes)
        records: list[Record] = []
        ends: Arrivals = []
        for home in homes:
            fetch, count = self._fetches[home], self._around.rng.randint(1, POLL_RECORDS_MAX)
            try:
                found, fetch.position = self._around.partitions[home].fetch(fetch.position, count)
            except LookupError as error:
                if self._around.group.owners.get(home) == self._name():  # a zombie may well read too late
                    self._around.fail(str(error))
                continue
            records += found
            fetch.delivered = found[-1].offset + 1 if found else fetch.delivered
            if fetch.position > fetch.delivered:
                fetch.delivered = fetch.position
                ends.append(EndReached(home, fetch.position))
        return [*([Records(records)] if records else []), *ends]

    def pause(self, homes: Iterable[Home]) -> None:
        """Fetch nothing of these for now."""
        self._set_paused(homes, paused=True)

    def resume(self, homes: Iterable[Home]) -> None:
        """Fetch these again, from where they stand."""
        self._set_paused(homes, paused=False)

    def _set_paused(self, homes: Iterable[Home], *, paused: bool) -> None:
        self._effect()
        for home in homes:
            if home in self._fetches:
                self._fetches[home].paused = paused

    def lag(self) -> dict[Home, tuple[int | None, int]]:
        """Each partition's position and the end of its log."""
        return {home: (fetch.position, self._around.partitions[home].high) for home, fetch in self._fetches.items()}

    def commit(self, home: Home, offset: int, metadata: str) -> None:
        """Commit; raises `CommitError` when it is not confirmed. Time passes before, and after it is stored."""
        self._effect()
        around = self._around
        self._process.sleep(around.rng.choice(COMMIT_S))
        if around.faults.strikes(Fault.COMMIT_LOST):
            self.fenced.discard(home)
            raise CommitError("timed out", fenced=False)
        if around.faults.strikes(Fault.COMMIT_STALE):
            self.fenced.add(home)
            raise CommitError("illegal generation", fenced=True)
        if not around.group.commit(self._name(), home, offset, metadata):
            around.faults.hit[Fault.COMMIT_FENCED] += 1
            self.fenced.add(home)
            raise CommitError("unknown member", fenced=True)
        self.fenced.discard(home)
        around.committed(home, offset)
        self._process.sleep(around.rng.choice(COMMIT_S))
        if around.faults.strikes(Fault.COMMIT_UNCONFIRMED):
            raise CommitError("timed out", fenced=False)
