"""The array of one data key: rows go in exactly once, and all claims agree on what they are.

The node is made with the first value. Its rows are those accepted events that have the key, in their order. What holds
them is a store of ours (see `stores`): whenever the one there is not, or nobody knows what is in it, or it is too
narrow, another one is filled from the log, and the node shows that.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from tiled_ingest.core.errors import TiledRejected, TooLarge
from tiled_ingest.core.rows.batches import Batch
from tiled_ingest.core.rows.blocks import ArrayPlan
from tiled_ingest.core.rows.ragged import CHUNK, RaggedPlan
from tiled_ingest.core.rows.sizes import REQUEST_NBYTES_MAX
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.runs.documents import access_tags, clipped
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.runs.stream import ArrayState, Stream
from tiled_ingest.core.steps import Procedure, Surroundings
from tiled_ingest.core.writes import (
    Append,
    ArraySource,
    CreateArray,
    Done,
    GetNode,
    Json,
    Missing,
    Node,
    PatchArray,
    Path,
    PutArray,
    Unknown,
    UpdateMetadata,
)

from .datasets import OURS, Superseded, check_epoch, facts_of
from .patience import Bare, Patience, create, insist
from .reconcile import look_until, once, tally_at
from .refill import Logged
from .stores import (
    Converted,
    Plan,
    RaggedStore,
    RegularStore,
    Store,
    asset_of,
    converted,
    creation,
    empty_source,
    epoch_of,
)

REPAIRS_MAX = 3  # at stop; more would not help


class Array:
    """Procedures for the array of one data key, in one lane."""

    def __init__(self, around: Surroundings, run: Run, stream: Stream, state: ArrayState) -> None:
        self._around = around
        self._run = run
        self._stream = stream
        self._state = state
        self._path: Path = (*stream.path, state.key)
        self._misfits: set[int] = set()  # offsets, of what was read again

    @property
    def _where(self) -> str:
        return "/".join(self._path)

    # ------------------------------------------------------------ append

    def append(self, batch: Batch) -> Procedure[set[int]]:
        """Bring the values of a batch into the array exactly once, and show them.

        Returns, when Tiled has confirmed, which rows of the batch have a value that is none of the array's.

        Raises
        ------
        TiledRejected
            Tiled refuses these rows.
        """
        positions, values = self._present(batch)
        if not values:
            return set()
        patience = Patience(self._around, self._run.uid)
        yield from self._find(values[0])
        while True:
            rows = self._fitted(values)
            store = yield from self._own(batch.first_offset, patience)
            if store.plan != rows.plan:
                continue  # earlier rows had asked for a wider one
            if (yield from self._write(store, rows, patience)):
                break
            self._state.store = None
        self._note(rows)
        yield from self._show(store)
        return {positions[position] for position, _ in rows.misfits}

    def _present(self, batch: Batch) -> tuple[list[int], list[object]]:
        return batch.present(self._state.key, external=self._state.external)

    def _fitted(self, values: list[object]) -> Converted:
        """Convert the values; where they prove the plan too narrow, widen it."""
        while True:
            rows = converted(values, self._plan, self._nbytes_max)
            if rows.plan == self._plan:
                return rows
            self._state.plan = rows.plan

    @property
    def _plan(self) -> Plan:
        if self._state.plan is None:
            raise AssertionError(f"no plan for {self._where}")
        return self._state.plan

    def _note(self, rows: Converted) -> None:
        where = f"key '{self._state.key}' in stream '{self._stream.name}'"
        lengths = getattr(rows, "padded", None)
        if lengths:
            # TiledWriter's words; the numbers are those of all batches together.
            least, most = self._state.lengths or lengths
            self._state.lengths = least, most = min(least, lengths[0]), max(most, lengths[1])
            text = f"Array lengths for {where} are not consistent: min={least}, max={most}"
            self._say("lengths", f"{text}; the arrays are padded with NaNs.")
        if getattr(rows, "rounded", False):
            self._say("rounded", f"Integers of {where} lost digits: the array became one of floats.")

    def _say(self, about: str, note: str) -> None:
        """Note it for the run; tell it, too, once in each wording."""
        if self._state.notes.get(about) != note:
            self._around.tell("array_changed", run=self._run.uid, stream=self._stream.name, detail=note)
        self._state.notes[about] = note

    def write_anew(self, upto: int) -> Procedure[set[int]]:
        """Show a store of our own with the values of all accepted events before offset `upto`.

        Returns the offsets of those whose value is none of the array's.
        """
        first = yield from self._first_value(upto)
        if first is not None:
            yield from self._find(first)
            store = yield from self._own(upto, Patience(self._around, self._run.uid))
            yield from self._show(store)
        return self._misfits

    def _first_value(self, upto: int) -> Procedure[object | None]:
        batches = Logged(self._around, self._run, self._stream.name, upto)
        while self._state.rows and (batch := (yield from batches.next())) is not None:
            values = self._present(batch)[1]
            if values:
                return values[0]
        return None

    # ------------------------------------------------------------ the node

    def _find(self, first: object) -> Procedure[None]:
        """Make the node, or learn from the one that is there how wide the array is already."""
        if self._state.node is not None:
            return
        if self._state.plan is None:
            self._state.plan = self._state.begin(first)
        made = (yield from self._create()) if self._stream.fresh else None
        while made is None:
            answer = yield from insist(self._around, self._run.uid, GetNode(self._path))
            made = self._inherit(answer.value) if isinstance(answer, Done) else (yield from self._create())
        self._state.node = made

    def _create(self) -> Procedure[ArraySource | None]:
        around = self._around
        source = empty_source(self._plan, self._properties())
        tags = access_tags(self._run.start)
        request = CreateArray(self._path[:-1], self._path[-1], source, self._metadata(), tags)
        answer = yield from create(around, self._run.uid, request, replace(request, metadata={}))
        if isinstance(answer, Missing):
            raise TiledRejected(f"the stream {'/'.join(self._path[:-1])} is gone")
        if isinstance(answer, Bare):
            yield from insist(around, self._run.uid, UpdateMetadata(self._path, self._metadata()))
        return answer.value if isinstance(answer, Done) else None

    def _inherit(self, node: Node) -> ArraySource:
        source, plan = node.array, self._plan
        if source is None or (source.family == "ragged") != isinstance(plan, RaggedPlan):
            raise TiledRejected(f"{self._where} is no array of this kind")
        self._check_epoch(source)
        if isinstance(plan, RaggedPlan):
            self._state.plan = plan.joined(source.dtype)
        else:
            limit = facts_of(source).get("row_nbytes_max")
            known = (plan.limit, plan.proven) if limit is None else (limit, True)
            self._state.plan = ArrayPlan(source.dtype, _sizes(source.shape[1:]), *known).joined(plan)
        return source

    def _check_epoch(self, source: ArraySource) -> None:
        check_epoch(self._around, self._where, source)
        if (epoch := epoch_of(source)) > self._around.epoch:
            raise Superseded(f"{self._where} shows what claim {epoch} wrote, ours is {self._around.epoch}")

    def _properties(self) -> Json:
        facts: Json = {"epoch": self._around.epoch, "nonce": self._around.nonce}
        if isinstance(self._plan, ArrayPlan) and self._plan.proven:  # so that the next owner pads as far as we do
            facts["row_nbytes_max"] = self._plan.limit
        return {OURS: facts}

    def _metadata(self) -> Json:
        metadata: Json = clipped(self._state.spec)
        if isinstance(self._plan, RaggedPlan):
            return metadata
        dtype = self._plan.dtype
        return {**metadata, "dtype_numpy": clipped(dtype.descr) if dtype.names else str(dtype)}

    def _show(self, store: Store) -> Procedure[None]:
        node = self._state.node
        if node is None:
            raise AssertionError(f"rows without a node in {self._where}")
        self._state.rows = store.rows
        source = store.shown_by(node)
        yield from insist(self._around, self._run.uid, PutArray(self._path, source, known=node.assets))
        if source.dtype != node.dtype:
            yield from insist(self._around, self._run.uid, UpdateMetadata(self._path, self._metadata()))
        self._state.node = source
        self._state.shown = store

    # ------------------------------------------------------------ the store

    def _own(self, upto: int, patience: Patience) -> Procedure[Store]:
        """Return a store of ours that holds the values of all accepted events before offset `upto`."""
        while self._state.store is None or self._state.store.plan != self._plan:
            store = yield from self._make_store()
            if (yield from self._fill(store, upto, patience)):
                self._state.store = store
        return self._state.store

    def _make_store(self) -> Procedure[Store]:
        around, plan = self._around, self._plan
        while True:
            self._state.stores += 1
            key = f"rebuild-{around.epoch}-{around.fresh_nonce()}"
            request = creation(self._path, key, plan, self._properties(), access_tags(self._run.start))
            answer = yield from insist(around, self._run.uid, request)
            if isinstance(answer, Missing):
                raise TiledRejected(f"the array {self._where} is gone")
            if isinstance(answer, Done):  # else it is our own, whose reply was lost: another one is as good
                break
        path, made = (*self._path, key), answer.value
        if isinstance(plan, RaggedPlan):
            return RaggedStore(path, plan, dict(made.parameters), self._properties())
        asset = asset_of(made, around.epoch, self._state.stores)
        return RegularStore(path, plan, asset, self._properties())

    def _fill(self, store: Store, upto: int, patience: Patience) -> Procedure[bool]:
        """Write all earlier values into the store, from the log; `False` if it must be begun anew."""
        if not self._around.policy.log_holds_runs:
            return (yield from self._copy(store, patience))
        expected = self._stream.confirmed
        if not expected.count:
            return True
        written, batches = Tally(), Logged(self._around, self._run, self._stream.name, upto)
        while (batch := (yield from batches.next())) is not None:
            written += Tally.of(batch.keys)
            positions, values = self._present(batch)
            rows = converted(values, store.plan, self._nbytes_max) if values else None
            if rows is not None and not (yield from self._put(store, rows, patience)):
                return False
            misfits = rows.misfits if rows is not None else ()
            self._misfits.update(int(batch.offsets[positions[at]]) for at, _ in misfits)
        if written != expected:
            found = f"the log holds {written.count} accepted rows of {self._where}"
            raise TiledRejected(f"{found}, {expected.count} were expected")
        return True

    def _copy(self, store: Store, patience: Patience) -> Procedure[bool]:
        """Write into the store what the node shows: no log holds it."""
        shown = self._state.shown
        for request in shown.reads() if shown is not None else ():
            answer = yield from insist(self._around, self._run.uid, request)
            if shown is None or not isinstance(answer, Done):
                raise TiledRejected(f"the array {self._where} is gone")
            for rows in shown.read(answer.value, store.plan):
                if not (yield from self._put(store, rows, patience)):
                    return False
        return True

    def _put(self, store: Store, rows: Converted, patience: Patience) -> Procedure[bool]:
        """Write earlier rows; if they ask for a wider store (shorter ones have gaps), plan it, and write nothing."""
        if rows.plan != store.plan:
            self._state.plan = rows.plan
            return False
        if not (yield from self._write(store, rows, patience)):
            return False
        self._note(rows)
        return True

    def _write(self, store: Store, rows: Converted, patience: Patience) -> Procedure[bool]:
        for request in store.writes(rows, self._nbytes_max):
            looking = partial(self._look_for, store, request)
            try:
                arrived = yield from once(request, patience, looking, f"the array {self._where}")
            except TooLarge:
                self._take_less(store, request)
                return False
            if not arrived:
                return False
        store.wrote(rows)
        return True

    @property
    def _nbytes_max(self) -> int:
        """Of the rows in one request."""
        return min(REQUEST_NBYTES_MAX, self._around.weather.body_bytes_max)

    def _take_less(self, store: Store, request: PatchArray | Append) -> None:
        """After a refusal for its size: let requests be smaller, and the store be begun anew; if they can."""
        nbytes = request.array.nbytes if isinstance(request, PatchArray) else request.table.nbytes
        if store.rows_of(request) == 1 or nbytes > 2 * self._nbytes_max:
            raise TooLarge(f"{nbytes} bytes of rows for {self._where} are refused, and cannot be divided")
        self._around.weather.refused(nbytes)

    def _look_for(self, store: Store, request: PatchArray | Append, outcome: Unknown) -> Procedure[bool]:
        found = yield from look_until(self._around, partial(store.arrived, self._around, self._run.uid, request))
        self._around.tell("ambiguous", outcome="present" if found else "absent", detail=outcome.detail)
        return found

    # ------------------------------------------------------------ the audit

    def audit(self, upto: int) -> Procedure[None]:
        """At stop: the node shows our store, or as many rows as were accepted with this key; no chunk of it is lost.

        Raises
        ------
        TiledRejected
            Repairs did not help.
        """
        if not self._state.rows:
            return
        repairs, losses = 0, Patience(self._around, self._run.uid)
        while True:
            found = yield from self._shown()
            if self._is_right(found):
                lost = yield from self._lost(found)
                if not lost:
                    return
                self._state.store = None
                yield losses.after_loss(lost)
            elif repairs == REPAIRS_MAX:
                raise TiledRejected(f"{self._where} does not hold what was written to it")
            else:
                repairs += 1
            self._around.tell("audit_mismatch", run=self._run.uid, stream=self._stream.name)
            yield from self._repair(upto)

    def _shown(self) -> Procedure[ArraySource]:
        answer = yield from insist(self._around, self._run.uid, GetNode(self._path))
        found: ArraySource | None = answer.value.array if isinstance(answer, Done) else None
        if found is None:
            raise TiledRejected(f"the array {self._where} is gone")
        self._check_epoch(found)
        return found

    def _is_right(self, found: ArraySource) -> bool:
        store, node = self._state.store, self._state.node
        if store is None or node is None:
            return found.shape[0] == self._state.rows
        return found.seen == store.shown_by(node).seen

    def _lost(self, found: ArraySource) -> Procedure[str]:
        """Say which chunks of a ragged array its table lacks, if any: DuckDB may lose what it has confirmed."""
        child = facts_of(found).get("child")
        if found.family != "ragged":
            return ""
        wanted, told = len(found.chunks[0] or ()), f"{self._where}: chunks were confirmed"
        if not child:
            return f"{told}, by a version that does not tell where they are"
        held = yield from tally_at(self._around, self._run.uid, (*self._path, child), CHUNK)
        if held is None:
            return f"{told} that cannot be read"
        return "" if held.count == wanted else f"{told}, {wanted} in all, {held.count} are there"

    def _repair(self, upto: int) -> Procedure[None]:
        yield from self._find(np.zeros(0))
        store = yield from self._own(upto, Patience(self._around, self._run.uid))
        yield from self._show(store)


def _sizes(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(size or 1 for size in shape)
