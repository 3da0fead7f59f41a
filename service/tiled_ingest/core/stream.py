"""One stream of a run: its rows on their way to Tiled, and the table that is ours to append to."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import names
from .columns import Columns
from .documents import Normalised, config_update
from .events import Event
from .offsets import Hold
from .policy import Policy
from .rows import Batch, RowBuffer
from .tally import Tally
from .writes import Json, Keys, Path, TableSource


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch that waits for its turn in the lane.

    Attributes
    ----------
    hold
        What keeps its offsets from being committed.
    since_s
        When its first row came, on the engine's clock.
    timestamp_ms
        The broker's timestamp of its first row.
    nbytes
        What it counts in memory.
    """

    batch: Batch
    hold: Hold
    since_s: float
    timestamp_ms: int
    nbytes: int
    reason: str


class Stream:
    """Rows between acceptance and confirmation.

    Parameters
    ----------
    path
        The stream's node.
    normalised
        Its first descriptor.
    fresh
        Whether this claim creates the node: then no other owner's table can be under it.
    """

    def __init__(self, path: Path, normalised: Normalised, *, fresh: bool) -> None:
        self.path = path
        self.data_keys: dict[str, Any] = dict(normalised.doc["data_keys"])
        self.renames = dict(normalised.renames)
        originals = {new: old for old, new in self.renames.items()}
        self._stored = {originals.get(name, name): name for name in self.data_keys}  # by the key that events use
        self.updates: list[Json] = []  # what the node keeps of later descriptors
        self.fresh = fresh
        self.columns: Columns | None = None
        self.source: TableSource | None = None  # the dataset that this claim made and alone may append to
        self.orders: set[int] = set()  # of columns, in all datasets that this claim made for it
        self.confirmed = Tally()  # what Tiled must hold: accepted and written, by us or by earlier claims
        self.under_way = 0  # bytes of the batch that Tiled has not confirmed yet
        self._sealed: deque[Sealed] = deque()
        self._buffer = RowBuffer()
        self._hold = Hold(0, 0)
        self._since_s = 0.0
        self._timestamp_ms = 0
        self._old_seq_nums: list[int] = []  # of a rebuild, not yet tallied
        self._old_times: list[float] = []

    @property
    def name(self) -> str:
        """The stream's name, which is its node's key."""
        return self.path[-1]

    @property
    def table_path(self) -> Path:
        """The table's node."""
        return (*self.path, "internal")

    @property
    def waiting(self) -> bool:
        """Whether rows wait to be written."""
        return bool(self._sealed or self._buffer.rows)

    @property
    def since_s(self) -> float:
        """When the oldest waiting row came."""
        return self._sealed[0].since_s if self._sealed else self._since_s

    @property
    def first_offset(self) -> int:
        """The offset of the oldest waiting row."""
        return self._sealed[0].batch.first_offset if self._sealed else self._buffer.first_offset

    @property
    def nbytes(self) -> int:
        """Bytes of the rows that wait or are under way."""
        return self.under_way + self._buffer.bytes + sum(sealed.nbytes for sealed in self._sealed)

    def reconfigure(self, normalised: Normalised) -> None:
        """Take note of a later descriptor: it may describe keys that the first one did not have.

        A key keeps the name that it was stored under first; a new one gets a name that none of them has.
        """
        originals = {new: old for old, new in normalised.renames.items()}
        for name, spec in normalised.doc["data_keys"].items():
            original = originals.get(name, name)
            if original in self._stored:
                continue
            stored = self._stored[original] = names.beside(name, self.data_keys)
            self.data_keys[stored] = spec if stored == original else {**spec, names.ORIGINAL: original}
            if stored != original:
                self.renames[original] = stored
        self.updates.append(config_update(normalised.doc))

    def plan(self, event: Event) -> None:
        """Fix the table's columns by the first accepted event; later ones change nothing."""
        if self.columns is None:
            self.columns = Columns.plan({"data_keys": self.data_keys}, event)

    # ------------------------------------------------------------ live

    def begin(self, hold: Hold, now_s: float, timestamp_ms: int) -> None:
        """Open a batch: its first row is about to be added."""
        self._hold, self._since_s, self._timestamp_ms = hold, now_s, timestamp_ms

    @property
    def empty(self) -> bool:
        """Whether the open batch has no row."""
        return not self._buffer.rows

    def add(self, event: Event, offset: int, nbytes: int) -> None:
        """Add an accepted row to the open batch."""
        self._buffer.append(event, offset, nbytes)

    def seal_if_full(self, policy: Policy) -> None:
        """Close the open batch when a further record would make it too large. A record's rows stay together."""
        if self._buffer.rows >= policy.rows_max:
            self._seal("rows")
        elif self._buffer.bytes >= policy.bytes_max:
            self._seal("bytes")

    def _seal(self, reason: str) -> None:
        nbytes = self._buffer.bytes
        batch = self._buffer.take()
        self._sealed.append(Sealed(batch, self._hold, self._since_s, self._timestamp_ms, nbytes, reason))

    def is_due(self, now_s: float, policy: Policy, force: str | None) -> bool:
        """Whether a waiting batch is full, old enough, or forced."""
        if self._sealed:
            return True
        return bool(self._buffer.rows) and (force is not None or now_s - self._since_s >= policy.age_s_max)

    def take_due(self, now_s: float, policy: Policy, force: str | None) -> Sealed | None:
        """Take the next batch that is due: full, old enough, or forced for the reason given."""
        if self._buffer.rows and not self._sealed:
            if force is not None:
                self._seal(force)
            elif now_s - self._since_s >= policy.age_s_max:
                self._seal("age")
        return self._sealed.popleft() if self._sealed else None

    def drop(self) -> list[Hold]:
        """Forget all that waits; return its holds."""
        if self._buffer.rows:
            self._seal("dropped")
        holds = [sealed.hold for sealed in self._sealed]
        self.under_way = 0
        self._sealed.clear()
        return holds

    # ------------------------------------------------------------ rebuild

    def recall(self, event: Event) -> None:
        """Count a row that an earlier claim has written."""
        self._old_seq_nums.append(event.seq_num)
        self._old_times.append(event.time)
        if len(self._old_times) >= 65_536:
            self.recalled()

    def recalled(self) -> None:
        """Fold the recalled rows into `confirmed`."""
        if self._old_times:
            keys = Keys(np.array(self._old_seq_nums, np.int64), np.array(self._old_times, np.float64))
            self.confirmed += Tally.of(keys)
            self._old_seq_nums, self._old_times = [], []
