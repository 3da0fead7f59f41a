"""Which offset may be committed: the unbroken settled prefix of what was received, and where to resume.

An offset is committable when everything received before it is settled. Instead of crossing off every record, the
ledger keeps *holds*: whoever still has to bring a record's effect to Tiled (or to the dead letters) holds its offset;
a record that nobody holds is settled. One hold covers a whole batch, at the offset of its first record.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from .record import Home

METADATA_VERSION = 1
METADATA_BYTES_MAX = 4_000  # brokers take 4 096 bytes by default


class Hold(NamedTuple):
    """Keeps an offset, and all after it, from being committed, until it is released."""

    offset: int
    token: int


class Ledger:
    """Holds of one partition.

    Parameters
    ----------
    next_offset
        Where the claim began to consume: everything before it was settled by earlier claims.
    """

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self._timestamp_ms = -1  # of the record received last
        self._held: dict[int, int] = {}  # token -> broker's timestamp of its record
        self._order: list[Hold] = []  # a heap; released ones are dropped lazily
        self._tokens = 0

    def received(self, offset: int, timestamp_ms: int = -1) -> None:
        """Note that the record at `offset` arrived; offsets between it and the last one do not exist."""
        if offset >= self.next_offset:
            self.next_offset = offset + 1
        self._timestamp_ms = timestamp_ms

    def passed(self, next_offset: int) -> None:
        """Note that nothing exists before `next_offset` that did not arrive (transaction markers, compaction)."""
        self.next_offset = max(self.next_offset, next_offset)

    def hold(self, offset: int, timestamp_ms: int | None = None) -> Hold:
        """Keep `offset`, and all after it, from being committed.

        `timestamp_ms` is the broker's timestamp of the record there; by default, that of the record received last.
        """
        self._tokens += 1
        hold = Hold(offset, self._tokens)
        self._held[hold.token] = self._timestamp_ms if timestamp_ms is None else timestamp_ms
        heapq.heappush(self._order, hold)
        return hold

    def release(self, hold: Hold) -> int:
        """What the hold stood for is settled; returns the broker's timestamp (ms) of its record, -1 if there is none.

        A hold is released once: a second time is a bug (`KeyError`).
        """
        return self._held.pop(hold.token)

    @property
    def committable(self) -> int:
        """One past the unbroken settled prefix of the records received.

        Rows may be held behind a record at which the breaker opened: what lies between comes again.
        """
        while self._order and self._order[0].token not in self._held:
            heapq.heappop(self._order)
        return min(self._order[0].offset, self.next_offset) if self._order else self.next_offset

    @property
    def oldest_timestamp_ms(self) -> int:
        """The broker's timestamp of the oldest record that is held, else of the last received; -1 if there is none."""
        if self.committable == self.next_offset:  # the heap's top is not a released one any more
            return self._timestamp_ms
        return self._held[self._order[0].token]

    @property
    def settled(self) -> bool:
        """Whether nothing is held."""
        return not self._held


class Commitment(NamedTuple):
    """What is committed: C, S, and the runs that are being opened again (see `ResumePoint`)."""

    committable: int
    start: int
    reopening: tuple[int, ...] = ()


class ResumePoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What travels in the commit's metadata string. Unknown fields are ignored, so that the version before ours and
    the one after can read it.

    Attributes
    ----------
    start
        S: the offset of the earliest document that an open run of the partition still needs.
    epoch, nonce
        The claim that committed: epochs grow with every assignment.
    topic_id
        The topic's own id: a topic created again under its name has another.
    rules
        Version of the rules that decide which documents are accepted.
    limits
        Under which limits the log was read, from which offset on (see `eras`).
    partitions
        How many partitions the topic had when the group first claimed one of them; 0 if that is not known.
    reopening
        Runs that Tiled may still call abandoned, and that go on: each by the offset of its start.
    """

    start: int = msgspec.field(name="s")
    epoch: int = msgspec.field(name="e")
    nonce: str = msgspec.field(name="n")
    topic_id: str = msgspec.field(name="t")
    rules: int = msgspec.field(name="r", default=1)
    limits: list[tuple[int, int, int, int]] = msgspec.field(name="l", default_factory=list)
    partitions: int = msgspec.field(name="p", default=0)
    reopening: list[int] = msgspec.field(name="o", default_factory=list)
    version: int = msgspec.field(name="v", default=METADATA_VERSION)

    def encode(self) -> str:
        """The metadata string, at most `METADATA_BYTES_MAX` long.

        Where there are too many limits, the two oldest become one that lets pass what either did: a document that was
        refused then may be in Tiled, too, if its run is ever written anew; none that was accepted is lost.
        """
        spelled = msgspec.json.encode({"v": self.version, **msgspec.to_builtins(self)})
        if len(spelled) <= METADATA_BYTES_MAX or len(self.limits) < 2:
            return spelled.decode()
        (start, *older), (_, *newer), *rest = self.limits
        nbytes, nesting, elements = map(max, older, newer)
        return msgspec.structs.replace(self, limits=[(start, nbytes, nesting, elements), *rest]).encode()

    @classmethod
    def decode(cls, text: str) -> "ResumePoint | None":
        """Read a metadata string; `None` for one that is empty or not ours (a tool reset the offsets)."""
        try:
            return msgspec.json.decode(text, type=cls) if text else None
        except msgspec.MsgspecError:
            return None


def partitions_at_first(metadata: Iterable[str], now: int) -> int:
    """How many partitions a topic had when the group first claimed one, by what was committed for any of them.

    As many as it has `now` if nothing was committed, or only by a version that did not note it.
    """
    points = map(ResumePoint.decode, metadata)
    return min((point.partitions for point in points if point and point.partitions > 0), default=now)


def out_of_range(home: Home, committed: int, low: int, high: int) -> str | None:
    """Why a committed offset cannot be consumed from, as a sentence; `None` if it can."""
    if committed < low:
        return (
            f"{home}: the committed offset {committed} is gone, the log begins at {low}: {low - committed} offsets "
            "were deleted before they were read. To go on without them: `tiled-ingest run --accept-gap`, once."
        )
    if committed > high:
        return f"{home}: the committed offset {committed} is beyond the log's end {high}: the log was cut or replaced."
    return None
