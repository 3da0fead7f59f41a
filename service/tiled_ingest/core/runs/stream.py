"""One stream of a run: its rows on their way to Tiled, and the table that is ours to append to."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.rows import names
from tiled_ingest.core.rows.batches import Batch, RowBuffer
from tiled_ingest.core.rows.blocks import ArrayPlan
from tiled_ingest.core.rows.columns import Columns, column_type, store
from tiled_ingest.core.rows.ragged import RaggedPlan, ragged_in_sql
from tiled_ingest.core.rows.sizes import rows_at_once
from tiled_ingest.core.rows.stretch import Stretch
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.writes import ArraySource, Json, Keys, Path, TableSource
from tiled_ingest.core.writing.stores import Plan, Store

from .documents import Normalised, config_update

DEFAULTS = Policy()


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
    """

    batch: Batch
    hold: Hold
    since_s: float
    timestamp_ms: int
    reason: str

    @property
    def nbytes(self) -> int:
        """What it counts in memory."""
        return self.batch.nbytes


@dataclass(slots=True)
class Part:
    """One table of the stream: the only one, or one of those that share the columns.

    Attributes
    ----------
    source
        The dataset that this claim made and alone may append to.
    orders
        Of columns, in all datasets that this claim made for it.
    confirmed
        What it must hold: accepted and written, by us or by earlier claims.
    """

    path: Path
    columns: Columns
    source: TableSource | None = None
    orders: set[int] = field(default_factory=set)
    confirmed: Tally = field(default_factory=Tally)

    def tally(self, keys: Keys) -> Tally:
        """Return the tally of rows in this table; without `seq_num` and `time` they can only be counted."""
        return Tally.of(keys) if self.columns.has_keys else Tally(len(keys.seq_num))

    @property
    def counted_by(self) -> str | None:
        """The column by which rows are counted; `None` where they can be told from each other."""
        return None if self.columns.has_keys else next(iter(self.columns.types))


@dataclass(slots=True)
class ArrayState:
    """The array of one data key.

    Attributes
    ----------
    external
        Whether the descriptor calls it external: only what an event says it has filled in is a value.
    plan
        What its rows are; `None` before the first one came.
    node
        What the node showed last, once this claim has seen it.
    store
        Where this claim keeps the rows; `None` before it wrote any.
    shown
        The store whose rows the node shows, if it is of this claim.
    stores
        How many stores this claim has made.
    rows
        How many rows Tiled must show: accepted events with this key, written by us or by earlier claims.
    lengths
        The shortest and longest first dimension, if they differ.
    notes
        For the run, by what they are about.
    """

    key: str
    spec: dict[str, Any]
    ragged: bool
    untyped: bool = False
    external: bool = False
    plan: Plan | None = None
    node: ArraySource | None = None
    store: Store | None = None
    shown: Store | None = None
    stores: int = 0
    rows: int = 0
    lengths: tuple[int, int] | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def has(self, event: Event) -> bool:
        """Whether the event has a value for it, or says that it has none: then there is a row."""
        if self.external:
            return bool(event.filled.get(self.key)) and event.data.get(self.key) is not None
        return self.key in event.data

    def begin(self, first: Any) -> Plan:
        """Return the plan by the data key and the first value."""
        kind: type[RaggedPlan | ArrayPlan] = RaggedPlan if self.ragged else ArrayPlan
        return kind.begin(self.spec, first, untyped=self.untyped)


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
    policy
        Says which arrays have a node of their own, and how wide a table may be.
    """

    def __init__(self, path: Path, normalised: Normalised, *, fresh: bool, policy: Policy = DEFAULTS) -> None:
        self.path = path
        self.data_keys: dict[str, Any] = dict(normalised.doc["data_keys"])
        self.renames = dict(normalised.renames)
        originals = {new: old for old, new in self.renames.items()}
        self._stored = {originals.get(name, name): name for name in self.data_keys}  # by the key that events use
        self.external_keys = external_keys(self.data_keys)
        self._untyped = set(normalised.untyped)
        self.updates: list[Json] = []  # what the node keeps of later descriptors
        self.fresh = fresh
        self.parts: list[Part] = []  # its tables, once the first event came
        self.arrays: dict[str, ArrayState] = {}
        self._policy = policy
        for key in self.data_keys:
            self._note_array(key)
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
    def value_paths(self) -> list[Path]:
        """The nodes that hold values, as far as there are any."""
        tables = [part.path for part in self.parts if self.confirmed.count]
        return [*tables, *((*self.path, key) for key, array in self.arrays.items() if array.rows)]

    @property
    def array_rows(self) -> dict[str, int]:
        """How many rows each array has that has a node."""
        return {key: array.rows for key, array in self.arrays.items() if array.rows}

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
            stored = self._stored[original] = names.beside(name, spec, self.data_keys)
            self.data_keys[stored] = spec if stored == original else {**spec, names.ORIGINAL: original}
            if stored != original:
                self.renames[original] = stored
            if name in normalised.untyped:
                self._untyped.add(stored)
            self._note_array(stored)
        self.external_keys = external_keys(self.data_keys)
        self.updates.append(config_update(normalised.doc))

    def _note_array(self, key: str) -> None:
        """Give an array that is not kept in the table a state of its own; of a late one, the time stamps a column."""
        spec = self.data_keys[key]
        kind = _store(spec, self._policy)
        if kind not in {"zarr", "ragged"}:
            return
        self.arrays[key] = ArrayState(key, spec, kind == "ragged", key in self._untyped)
        for part in self.parts:
            last = part is self.parts[-1]
            part.columns = part.columns.with_array(key) if last else part.columns.beside(key)

    def plan(self, event: Event, registered: Collection[str] = ()) -> None:
        """Fix the tables' columns by the first accepted event; later ones change nothing.

        `registered` are the external keys that have rows in files already.
        """
        if self.parts:
            return
        for key in self.external_keys:
            if event.filled.get(key) and key not in registered:
                self._note_filled(key)
        columns = Columns.plan({"data_keys": self.data_keys}, event, self.arrays, self._untyped)
        parts = columns.split(self._policy.table_columns_max)
        names = ["internal"] if len(parts) == 1 else [f"internal_{number}" for number in range(len(parts))]
        self.parts = [Part((*self.path, name), columns) for name, columns in zip(names, parts, strict=True)]

    def _note_filled(self, key: str) -> None:
        """Give external data that events hold themselves a node of its own, if no column can hold what it is."""
        spec = {name: value for name, value in self.data_keys[key].items() if name != "external"}
        kind = _store(spec, self._policy)
        if kind in {"zarr", "ragged"} and len(spec.get("shape") or ()) > 1:
            untyped = key in self._untyped
            self.arrays[key] = ArrayState(key, self.data_keys[key], kind == "ragged", untyped, external=True)

    def add_columns(self, key: str) -> bool:
        """Give a data key that the first event did not have its columns, in the last table, if there is room."""
        data_type = column_type(self.data_keys[key])
        wider = self.parts[-1].columns.with_key(key, data_type, untyped=key in self._untyped)
        if wider is None:
            return False
        self.parts[-1].columns = wider
        for part in self.parts[:-1]:
            part.columns = part.columns.beside(key)
        return True

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

    def extend(self, rows: Stretch) -> None:
        """Add accepted rows to the open batch; no more than `room`."""
        self._buffer.extend(rows.packed, rows.nbytes)

    def room(self, rows: Stretch, policy: Policy) -> int:
        """How many of these rows may follow in the open batch: at least one, and with the last of them it is full."""
        left = policy.bytes_max - self._buffer.bytes
        until_full = len(rows) if rows.nbytes < left else int(np.searchsorted(np.cumsum(rows.weights), left)) + 1
        rows_max = min(policy.rows_max, self.laid_rows_max(policy))
        return max(1, min(rows_max - self._buffer.rows, until_full))

    def laid_rows_max(self, policy: Policy) -> int:
        """How many rows may become tables together: those of wide tables weigh more there than in their messages."""
        return rows_at_once(sum(part.columns.row_nbytes for part in self.parts), policy.bytes_max)

    def seal_if_full(self, policy: Policy) -> int:
        """Close the open batch when a further record would make it too large. A record's rows stay together.

        A full batch is made into tables now, while the one before it is under way: Tiled need not wait for them then.
        Returns how many bytes these take beside the rows.
        """
        if self._buffer.rows >= policy.rows_max:
            self._seal("rows")
        elif self._buffer.bytes >= policy.bytes_max or self._buffer.rows >= self.laid_rows_max(policy):
            self._seal("bytes")
        else:
            return 0
        batch = self._sealed[-1].batch
        for part in self.parts:
            batch.to_table(part.columns)
        return batch.nbytes - batch.bytes

    def _seal(self, reason: str) -> None:
        self._sealed.append(Sealed(self._buffer.take(), self._hold, self._since_s, self._timestamp_ms, reason))

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
        for array in self.arrays.values():
            array.rows += array.has(event)
        if len(self._old_times) >= 65_536:
            self.recalled()

    def recall_all(self, rows: Stretch) -> None:
        """Count rows that an earlier claim has written."""
        for packed, _ in rows.packed:
            self._note_old(Keys(packed.seq_num, packed.time))
            for key, array in self.arrays.items():
                array.rows += len(packed) * (key in packed.keys)

    def recalled(self) -> None:
        """Fold the recalled rows into `confirmed`."""
        if self._old_times:
            self._note_old(Keys(np.array(self._old_seq_nums, np.int64), np.array(self._old_times, np.float64)))
            self._old_seq_nums, self._old_times = [], []

    def _note_old(self, keys: Keys) -> None:
        self.confirmed += Tally.of(keys)
        for part in self.parts:
            part.confirmed += part.tally(keys)


def _store(spec: Mapping[str, Any], policy: Policy) -> str:
    kind = store(spec, policy.array_size_max)
    return "table" if kind == "ragged" and not ragged_in_sql(spec) else kind


def external_keys(data_keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the data keys whose values are in files; events hold ids of datums for them, or nothing."""
    return tuple(key for key, spec in data_keys.items() if "external" in spec)
