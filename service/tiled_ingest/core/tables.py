"""The table of a stream: one owner for every dataset, and what to do when nobody knows whether rows arrived.

A dataset in Tiled has exactly one writer, ever: the claim that made it. A dataset of anyone else (an earlier claim, or
ourselves before a restart) is never appended to, because an append of its dead owner may still land in it. Instead
the node is *switched*: a child of the table node gets a dataset of our own, with the columns in an order that no other
dataset of this node had; the rows are written there again, from the log, and compared; then one PUT makes the node
point to it. Readers see the old rows or the new, never a hole. An old owner's append that lands later is either in the
old dataset, where nobody looks, or is refused, since Tiled casts by names in order.

The same switch repairs an append that stays absent, and widens a column.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from .columns import Columns, column_type
from .documents import access_tags, clipped
from .errors import IngestError, TiledRejected
from .refill import Refill
from .rows import Batch, TableResult
from .run import Run
from .steps import LogChunk, Patience, Procedure, Sleep, Surroundings, insist
from .stream import Stream
from .tally import Tally
from .writes import (
    Append,
    CreateTable,
    Done,
    Exists,
    GetNode,
    Json,
    Keys,
    Missing,
    Node,
    Outcome,
    PutSource,
    ReadKeys,
    TableSource,
    Unknown,
    Unprocessed,
    UpdateMetadata,
)

OURS = "tiled_ingest"
LOOK_S_MIN, LOOK_S_MAX = 0.05, 2.0  # how often a late append is looked for
SWITCHES_MAX = 20  # of one table for one batch: then something is wrong that switching does not cure


class Superseded(IngestError):
    """Tiled shows that a later claim owns this partition: we are the zombie, and write nothing more."""

    reason = "Superseded"


class Table:
    """Procedures for the table of one stream, in one lane.

    Parameters
    ----------
    around
        The claim, its policy and its ways to speak.
    """

    def __init__(self, around: Surroundings, run: Run, stream: Stream) -> None:
        self._around = around
        self._run = run
        self._stream = stream
        self._path = stream.table_path

    # ------------------------------------------------------------ append

    def append(self, batch: Batch) -> Procedure[set[int]]:
        """Bring a batch into the table exactly once; returns, when Tiled has confirmed, which rows have values that fit
        no column: these became null.

        Raises
        ------
        TiledRejected
            Tiled refuses these rows.
        """
        patience = Patience(self._around, self._run.uid)
        switches = 0
        while True:
            built = self._built(batch)
            columns = self._columns
            yield from self._own(batch.first_offset)
            if self._columns is not columns:
                continue  # an earlier claim had widened a column
            outcome: Outcome = yield Append(self._path, built.table.select(self._source.schema.names))
            if isinstance(outcome, Unknown) and (yield from self._arrived(batch, outcome)):
                outcome = Done()
            if isinstance(outcome, Done):
                self._stream.confirmed += Tally.of(batch.keys)
                return {*(misfit.row_index for misfit in built.misfits), *_rows_with(batch, built.unplanned)}
            if isinstance(outcome, Exists | Missing):
                raise TiledRejected(f"the table {'/'.join(self._path)} is gone")
            if isinstance(outcome, Unprocessed):
                yield patience.after(outcome)
                continue
            yield from self._consider_poison(patience, outcome)
            switches += 1
            if switches > SWITCHES_MAX:
                raise TiledRejected(f"{switches} tries to append failed, the last with: {outcome.detail}")
            yield from self._switch(batch.first_offset)

    def _built(self, batch: Batch) -> TableResult:
        """Convert the batch; where its values prove a column too narrow, widen the plan and convert again."""
        while True:
            columns = self._columns
            built = batch.to_table(columns)
            wanted = built.widen | self._late_columns(built.unplanned)
            if not wanted:
                return built
            self._widen(wanted)

    def _late_columns(self, unplanned: Iterable[str]) -> dict[str, pa.DataType]:
        """Columns for keys that the descriptor knows but the first event did not have (or not filled)."""
        data_keys = self._stream.data_keys
        return {key: column_type(data_keys[key]) for key in unplanned if key in data_keys}

    def _widen(self, wanted: Mapping[str, pa.DataType]) -> None:
        columns = self._columns
        for name, data_type in wanted.items():
            columns = columns.widened(name, data_type)
            self._run.notes.append(
                f"Column '{name}' of stream '{self._stream.name}' became {data_type}: its values ask for it."
            )
        self._stream.columns = columns

    def _consider_poison(self, patience: Patience, outcome: Outcome) -> Procedure[None]:
        """Count a failed append; after too many server errors, see whether Tiled takes a write that cannot do harm."""
        patience.after(outcome)
        if patience.server_errors < self._around.policy.server_errors_max:
            return
        probe: Outcome = yield UpdateMetadata(self._path[:-1], {})
        if isinstance(probe, Done):
            detail = getattr(outcome, "detail", "")
            raise TiledRejected(f"{patience.server_errors} appends failed while Tiled takes other writes: {detail}")

    # ------------------------------------------------------------ ambiguity

    def _arrived(self, batch: Batch, outcome: Unknown) -> Procedure[bool]:
        """Look for an append whose reply was lost. Presence is proof; absence means "not yet", up to a limit."""
        expected = self._stream.confirmed + Tally.of(batch.keys)
        found = yield from self._look_for(self._path, expected)
        self._around.tell("ambiguous", outcome="present" if found else "absent", detail=outcome.detail)
        return found

    def _look_for(self, path: tuple[str, ...], expected: Tally) -> Procedure[bool]:
        waited, pause = 0.0, LOOK_S_MIN
        while True:
            if (yield from self._tally(path)) == expected:
                return True
            if waited >= self._around.policy.late_write_s_max:
                return False
            yield Sleep(pause, down=False)
            waited, pause = waited + pause, min(pause * 2, LOOK_S_MAX)

    def _tally(self, path: tuple[str, ...]) -> Procedure[Tally]:
        answer = yield from insist(self._around, self._run.uid, ReadKeys(path))
        return Tally.of(answer.value) if isinstance(answer, Done) else Tally()

    # ------------------------------------------------------------ ownership

    @property
    def _columns(self) -> Columns:
        columns = self._stream.columns
        if columns is None:
            raise AssertionError(f"rows without columns in {self._path}")
        return columns

    @property
    def _source(self) -> TableSource:
        source = self._stream.source
        if source is None:
            raise AssertionError(f"no dataset of our own in {self._path}")
        return source

    def _own(self, upto: int) -> Procedure[None]:
        """See to it that the node points to a dataset that this claim made, wide enough for the columns."""
        if self._stream.source is None:
            yield from self._make_or_inherit(upto)
        if not _same_types(self._source.schema, self._columns):
            yield from self._switch(upto)

    def _make_or_inherit(self, upto: int) -> Procedure[None]:
        if not self._stream.fresh:
            node = yield from insist(self._around, self._run.uid, GetNode(self._path))
            if isinstance(node, Done):
                self._inherit_types(node.value)
                yield from self._switch(upto)
                return
        if not (yield from self._create()):
            yield from self._switch(upto)

    def _inherit_types(self, node: Node) -> None:
        """A column that an earlier claim widened stays wide."""
        columns = self._columns
        for column in node.source.schema if node.source else ():
            planned = columns.types.get(column.name)
            if planned is not None and _wider(column.type, planned):
                columns = columns.widened(column.name, column.type)
        self._stream.columns = columns

    def _create(self) -> Procedure[bool]:
        """Make the table; `False` if it exists and is not the one that this claim made a moment ago."""
        around = self._around
        facts = {"epoch": around.epoch, "nonce": around.nonce, "orders": [0]}
        schema = self._columns.permuted(0)
        tags = access_tags(self._run.start)
        request = CreateTable(self._path[:-1], self._path[-1], schema, self._table_metadata(), tags, {OURS: facts})
        answer = yield from insist(around, self._run.uid, request)
        if isinstance(answer, Missing):
            raise TiledRejected(f"the stream {'/'.join(self._path[:-1])} is gone")
        if isinstance(answer, Done):
            self._adopt(answer.value)
            return True
        node = yield from insist(around, self._run.uid, GetNode(self._path))
        source = node.value.source if isinstance(node, Done) else None
        if source is None or _facts(source).get("nonce") != around.nonce:
            return False
        self._adopt(source)
        return True

    def _table_metadata(self) -> Json:
        data_keys = self._stream.data_keys
        metadata: Json = clipped({key: data_keys[key] for key in self._columns.data if key in data_keys})
        return metadata

    def _adopt(self, source: TableSource) -> None:
        self._stream.source = source
        if source.storage:
            self._around.weather.storage = source.storage

    # ------------------------------------------------------------ the switch

    def _switch(self, upto: int) -> Procedure[None]:
        """Give the node a dataset of our own that holds every accepted row before offset `upto`."""
        for _ in range(SWITCHES_MAX):
            live = yield from self._live()
            child = yield from self._child(live)
            if (yield from self._fill(child, upto)):
                yield from self._point_to(child, live)
                self._around.tell(
                    "switched", run=self._run.uid, stream=self._stream.name, rows=self._stream.confirmed.count
                )
                return
        raise TiledRejected(f"no dataset of our own could be filled for {'/'.join(self._path)}")

    def _live(self) -> Procedure[TableSource]:
        node = yield from insist(self._around, self._run.uid, GetNode(self._path))
        if not isinstance(node, Done) or node.value.source is None:
            raise TiledRejected(f"the table {'/'.join(self._path)} is gone")
        source: TableSource = node.value.source
        self._check_epoch(source)
        yield from self._finish_earlier_switch(source)
        return source

    def _check_epoch(self, source: TableSource) -> None:
        facts = _facts(source)
        later = facts.get("epoch", 0) > self._around.epoch
        twin = facts.get("epoch") == self._around.epoch and facts.get("nonce") != self._around.nonce
        if later or twin:
            raise Superseded(
                f"{'/'.join(self._path)} belongs to claim {facts.get('epoch')}, ours is {self._around.epoch}"
            )

    def _finish_earlier_switch(self, live: TableSource) -> Procedure[None]:
        """If its owner died between the two PUTs, the child still names the live dataset: give it the old one."""
        facts = _facts(live)
        replaced, key = facts.get("replaced"), facts.get("child")
        if replaced is None or key is None:
            return
        node = yield from insist(self._around, self._run.uid, GetNode((*self._path, key)))
        if isinstance(node, Done) and node.value.source and node.value.source.dataset == live.dataset:
            old = _unpacked(replaced, node.value.source)
            yield from insist(self._around, self._run.uid, PutSource((*self._path, key), old))

    def _child(self, live: TableSource) -> Procedure[tuple[str, TableSource]]:
        around = self._around
        used = list(_facts(live).get("orders", [0]))
        order = yield from self._unused_order(used)
        while True:
            nonce = around.fresh_nonce()
            key = f"rebuild-{around.epoch}-{nonce}"
            facts = {
                "epoch": around.epoch,
                "nonce": around.nonce,
                "orders": [*used, order],
                "child": key,
                "replaced": _packed(live),
            }
            request = CreateTable(
                self._path,
                key,
                self._columns.permuted(order),
                {},
                access_tags(self._run.start),
                {OURS: facts},
            )
            answer = yield from insist(around, self._run.uid, request)
            if isinstance(answer, Missing):
                raise TiledRejected(f"the table {'/'.join(self._path)} is gone")
            if isinstance(answer, Exists):  # our own request, whose reply was lost: the nonce is nobody else's
                answer = yield from insist(around, self._run.uid, GetNode((*self._path, key)))
                if isinstance(answer, Done) and answer.value.source is not None:
                    return key, answer.value.source
                continue
            return key, answer.value

    def _unused_order(self, used: list[int]) -> Procedure[int]:
        """Choose an order that no dataset of this node had; claims differ by their epoch, so that two that switch at
        the same time choose differently. When all are used up, wait until nothing of the past can land any more.
        """
        count = self._columns.permutations
        taken = {order % count for order in used}
        for order in _candidates(self._around.epoch, count):
            if order not in taken:
                return order
        yield Sleep(self._around.policy.late_write_s_max, down=False)
        return max(used) + 1

    def _fill(self, child: tuple[str, TableSource], upto: int) -> Procedure[bool]:
        """Write all accepted rows before `upto` into the child, from the log; `False` if it must be begun anew."""
        key, source = child
        path = (*self._path, key)
        refill = Refill(self._run, self._stream.name, upto)
        written = Tally()
        while not refill.done:
            batch = yield from self._next_of_log(refill)
            if batch is None:
                continue
            built = batch.to_table(self._columns)
            if wanted := built.widen | self._late_columns(built.unplanned):
                self._widen(wanted)
                return False
            if not (yield from self._append_to_child(path, source, built.table, written, batch.keys)):
                return False
            written += Tally.of(batch.keys)
        if written != self._stream.confirmed:
            raise TiledRejected(
                f"the log holds {written.count} accepted rows of {'/'.join(self._path)}, "
                f"{self._stream.confirmed.count} were expected"
            )
        return (yield from self._tally(path)) == written

    def _next_of_log(self, refill: Refill) -> Procedure[Batch | None]:
        chunk = yield LogChunk(refill.next_offset, refill.stop)
        if chunk.low > refill.next_offset:
            raise TiledRejected(f"the log begins at {chunk.low}, after the run's documents at {refill.next_offset}")
        return refill.take(chunk, self._around.decode)

    def _append_to_child(
        self, path: tuple[str, ...], source: TableSource, table: pa.Table, written: Tally, keys: Keys
    ) -> Procedure[bool]:
        patience = Patience(self._around, self._run.uid)
        while True:
            outcome: Outcome = yield Append(path, table.select(source.schema.names))
            if isinstance(outcome, Done):
                return True
            if isinstance(outcome, Unknown) and (yield from self._look_for(path, written + Tally.of(keys))):
                return True
            if isinstance(outcome, Exists | Missing):
                raise TiledRejected(f"the table {'/'.join(path)} is gone")
            yield patience.after(outcome)
            if isinstance(outcome, Unknown):
                return False

    def _point_to(self, child: tuple[str, TableSource], live: TableSource) -> Procedure[None]:
        """The two PUTs: the node takes the child's dataset; the child keeps the old one, and goes with the run."""
        key, source = child
        ours = replace(source, id=live.id)
        yield from insist(self._around, self._run.uid, PutSource(self._path, ours))
        self._stream.source = replace(ours, storage=source.storage)
        old = replace(live, id=source.id)
        yield from insist(self._around, self._run.uid, PutSource((*self._path, key), old))

    # ------------------------------------------------------------ the audit

    def audit(self, upto: int) -> Procedure[None]:
        """At stop: the node points to the dataset that we know, and it holds exactly the accepted rows.

        Raises
        ------
        TiledRejected
            Repairs did not help.
        """
        for _ in range(3):
            answer = yield from insist(self._around, self._run.uid, GetNode(self._path))
            if isinstance(answer, Missing) and not self._stream.confirmed.count:
                return
            if isinstance(answer, Done):
                yield from self._put_back(answer.value.source)
            if (yield from self._tally(self._path)) == self._stream.confirmed:
                return
            self._around.tell("audit_mismatch", run=self._run.uid, stream=self._stream.name)
            yield from self._repair(answer, upto)
        raise TiledRejected(f"{'/'.join(self._path)} does not hold what was written to it")

    def _repair(self, answer: Done | Exists | Missing, upto: int) -> Procedure[None]:
        if not isinstance(answer, Done):
            raise TiledRejected(f"the table {'/'.join(self._path)} is gone")
        self._inherit_types(answer.value)
        yield from self._switch(upto)

    def _put_back(self, found: TableSource | None) -> Procedure[None]:
        """A zombie's switch that landed late hides our dataset: put ours back."""
        if found is None:
            return
        self._check_epoch(found)
        ours = self._stream.source
        if ours is None:
            yield from self._finish_earlier_switch(found)
        elif found.dataset != ours.dataset:
            self._around.tell("put_back", run=self._run.uid, stream=self._stream.name)
            yield from insist(self._around, self._run.uid, PutSource(self._path, replace(ours, id=found.id)))


def _candidates(epoch: int, count: int) -> Iterator[int]:
    for step in range(min(count, 10_000)):
        yield (epoch + step) % count


def _rows_with(batch: Batch, keys: Iterable[str]) -> Iterator[int]:
    for key in keys:
        yield from (row for row, value in enumerate(batch.values(key)) if value is not None)


def _facts(source: TableSource) -> Mapping[str, Any]:
    facts = source.properties.get(OURS)
    return facts if isinstance(facts, Mapping) else {}


def _same_types(schema: pa.Schema, columns: Columns) -> bool:
    return {column.name: column.type for column in schema} == dict(columns.types)


def _wider(stored: pa.DataType, planned: pa.DataType) -> bool:
    order = [pa.bool_(), pa.int64(), pa.float64()]
    return stored in order and planned in order and order.index(stored) > order.index(planned)


def _packed(source: TableSource) -> Json:
    """Spell a data source so that it can stand in another one's properties."""
    schema = base64.b64encode(source.schema.serialize().to_pybytes()).decode()
    facts = {key: value for key, value in _facts(source).items() if key != "replaced"}  # no chain of all its ancestors
    return {"schema": schema, "parameters": dict(source.parameters), "facts": facts}


def _unpacked(packed: Mapping[str, Any], node: TableSource) -> TableSource:
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed["schema"])))
    return TableSource(node.id, schema, packed["parameters"], {OURS: packed["facts"]}, node.storage)
