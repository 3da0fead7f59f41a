"""Kafka as a sink sees it: partitions with gaps, a group's commits, a dead-letter topic.

A read within a claim never delivers a record twice: what arrives twice was published twice.
"""

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.writes import Path

METADATA_BYTES_MAX = 4_096  # the broker's default


class Partition:
    """One partition's log.

    Attributes
    ----------
    low, high
        First offset that the log still holds; one past its last, be it a record or a transaction's marker.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.low = 0
        self.high = 0
        self._records: list[Record] = []
        self._offsets: list[int] = []

    def publish(self, value: bytes | None, *, gap: int, timestamp_ms: int = 0) -> Record:
        """Append a record, `gap` offsets after the end: those between hold nothing that is delivered."""
        record = Record(self.home.topic, self.home.partition, self.high + gap, timestamp_ms, b"session", value)
        self._records.append(record)
        self._offsets.append(record.offset)
        self.high = record.offset + 1
        return record

    def mark(self, count: int) -> None:
        """End with `count` offsets that are never delivered."""
        self.high += count

    def truncate(self, low: int) -> None:
        """Lose every record before `low`."""
        self.low = max(self.low, low)

    def fetch(self, position: int, count: int) -> tuple[list[Record], int]:
        """Deliver at most `count` records; where the consumer then stands (the end, after all)."""
        if position < self.low:
            raise LookupError(f"{self.home}: {position} is out of range, the log begins at {self.low}")
        first = bisect_left(self._offsets, position)
        records = self._records[first : first + count]
        all_seen = first + count >= len(self._records)
        return records, self.high if all_seen else records[-1].offset + 1

    def read(self, start: int, stop: int, bytes_max: int) -> tuple[list[Record], int]:
        """Read what is left in [start, stop): a record, and more if they fit; where to read on."""
        first = bisect_left(self._offsets, max(start, self.low))
        last = bisect_left(self._offsets, stop)
        size = 0
        for index in range(first, last):
            size += len(self._records[index].value or b"")
            if size >= bytes_max and index + 1 < last:
                return self._records[first : index + 1], self._offsets[index] + 1
        return self._records[first:last], stop


@dataclass(frozen=True, slots=True)
class Stored:
    """A committed offset with its metadata string."""

    offset: int
    metadata: str


class Group:
    """The consumer group: its members of the current generation, who owns what, and what was committed."""

    def __init__(self) -> None:
        self.members: set[str] = set()
        self.owners: dict[Home, str] = {}
        self.commits: dict[Home, Stored] = {}
        self.violations: list[str] = []

    def commit(self, member: str, home: Home, offset: int, metadata: str) -> bool:
        """Store a commit; false if `member` is none any more.

        Like Kafka it takes a commit from any current member for any partition; that we send one is a
        violation.
        """
        if member not in self.members:
            return False
        if self.owners.get(home) != member:
            self.violations.append(f"{member} committed {home} at {offset}, which it does not own")
        if len(metadata.encode()) > METADATA_BYTES_MAX:
            self.violations.append(f"commit metadata of {len(metadata)} characters is too large for a broker")
        stored = self.commits.get(home)
        if stored is not None and offset < stored.offset:
            self.violations.append(f"{member} moved the commit of {home} back from {stored.offset} to {offset}")
        self.commits[home] = Stored(offset, metadata)
        return True

    def committed(self, home: Home) -> int | None:
        """Give the committed offset."""
        stored = self.commits.get(home)
        return None if stored is None else stored.offset


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: the record as it was, and why."""

    record: Record
    reason: str
    code: str
    run: str


class DeadLetterTopic:
    """At least once: the same record may be here several times; its position says which it is.

    Nothing keeps a zombie from writing into it: what the owner of the partition has written, too, is in `owned`.

    Attributes
    ----------
    log
        All letters, as they came.
    letters
        The first of each position.
    """

    def __init__(self) -> None:
        self.log: list[Letter] = []
        self.letters: dict[tuple[Home, int], Letter] = {}
        self.owned: set[tuple[Home, int]] = set()

    def write(self, letter: Letter, *, owned: bool) -> None:
        """Append a letter."""
        self.log.append(letter)
        position = letter.record.home, letter.record.offset
        self.letters.setdefault(position, letter)
        if owned:
            self.owned.add(position)


class OrderedProducer:
    """One process's idempotent producer: what it is given for one partition arrives in order.

    What its process leaves behind when it dies is a beginning of that, never one without what came before.
    """

    def __init__(self) -> None:
        self._waiting: dict[Home, deque[tuple[bool, Callable[[], None]]]] = {}

    def send(self, home: Home, arrive: Callable[[], None], *, survives: bool) -> None:
        """Hand over a record. `survives`: it arrives though its process dies before, if all before it do."""
        self._waiting.setdefault(home, deque()).append((survives, arrive))

    def deliver(self, home: Home, *, alive: bool) -> None:
        """Let the next one of a partition arrive: to be called once for each that was handed over."""
        waiting = self._waiting[home]
        if not alive and waiting and not waiting[0][0]:
            waiting.clear()
        if waiting:
            waiting.popleft()[1]()


class CompletedTopic:
    """The topic of completed runs, at least once, and a producer some of whose records or confirmations are lost.

    It draws by itself, so that histories stay what they are whether runs are announced or not.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lossy = rng.choice((0.0, 0.0, 0.3))
        self.states: dict[Path, set[str]] = {}

    def draw(self, *, healed: bool) -> tuple[float, bool, bool]:
        """Draw how long a record takes, whether it is written, and whether that is confirmed."""
        lossy = 0.0 if healed else self._lossy
        return self._rng.uniform(0.0, 0.5), self._rng.random() >= lossy / 2, self._rng.random() >= lossy

    def write(self, path: Path, state: str) -> None:
        """Keep what was said of a run."""
        self.states.setdefault(path, set()).add(state)
