"""The table of a stream: rows go in exactly once, whatever becomes of the replies.

How an append whose outcome nobody knows is resolved stands in `reconcile`, how a dataset becomes ours in `switch`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa

from tiled_ingest.core.errors import TiledRejected, TooLarge
from tiled_ingest.core.rows.batches import Batch, Share, TableResult
from tiled_ingest.core.rows.cells import is_ours, wider
from tiled_ingest.core.rows.columns import Columns, column_type
from tiled_ingest.core.runs.documents import access_tags, clipped
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.runs.stream import Part, Stream
from tiled_ingest.core.steps import Procedure, Surroundings
from tiled_ingest.core.writes import (
    Append,
    CreateTable,
    Done,
    Exists,
    GetNode,
    Json,
    Missing,
    Node,
    Outcome,
    PutSource,
    Rejected,
    TableSource,
    Unknown,
    Unprocessed,
    UpdateMetadata,
)

from .datasets import OURS, check_epoch, facts_of, same_types
from .patience import Bare, Patience, create, insist
from .reconcile import look_for, tally_at
from .switch import Switch, note_rounded

REPAIRS_MAX = 3  # at stop; more would not help
# Columns that every storage can have.
_SEED_TYPES: dict[str, pa.DataType] = {"seq_num": pa.int64(), "time": pa.float64()}
SEED = pa.schema(_SEED_TYPES)


class Table:
    """Procedures for one table of a stream, in one lane.

    Parameters
    ----------
    around
        The claim, its policy and its ways to speak.
    """

    def __init__(self, around: Surroundings, run: Run, stream: Stream, part: Part) -> None:
        self._around = around
        self._run = run
        self._stream = stream
        self._part = part
        self._path = part.path
        self._switch = Switch(around, run, stream, part, self._built_or_widened)
        self._misfits: set[int] = set()  # offsets, of what is written anew

    @property
    def _where(self) -> str:
        return "/".join(self._path)

    # ------------------------------------------------------------ append

    def append(self, batch: Batch) -> Procedure[set[int]]:
        """Bring a batch into the table exactly once.

        Returns, when Tiled has confirmed, which rows have values that fit no column: these became null.

        Raises
        ------
        TiledRejected
            Tiled refuses these rows.
        """
        patience = Patience(self._around, self._run.uid)
        misfits: set[int] = set()
        row = 0
        while row < batch.rows:
            built = self._built(batch)
            columns = self._columns
            share = batch.share(row, self._around.weather.rows_fitting(built.table))
            yield from self._own(share.first_offset)
            if self._columns is not columns:
                continue  # an earlier claim had widened a column
            if (yield from self._send(batch, share, built, patience)):
                note_rounded(self._run, self._stream, built.rounded)
                self._part.confirmed += self._part.tally(share.keys)
                found = self._misfits_of(batch, built)
                misfits.update(misfit for misfit in found if share.start <= misfit < share.stop)
                row = share.stop
        return misfits

    def _send(self, batch: Batch, share: Share, built: TableResult, patience: Patience) -> Procedure[bool]:
        """Append a share of a batch; `False` if it must be tried once more, perhaps with fewer rows."""
        request = self._request(share, built)
        outcome: Outcome = yield request
        if isinstance(outcome, Done) or (yield from self._arrived(share, outcome)):
            return True
        try:
            yield from self._after_failure(patience, request, outcome, share)
        except TooLarge:
            if not share.divisible:
                raise
            self._around.weather.refused(request.table.nbytes)
        except TiledRejected as error:
            if not isinstance(outcome, Rejected | Unknown):
                raise
            raise TiledRejected(f"{error}{(yield from self._guilty(batch, share, built))}") from error
        return False

    def _request(self, share: Share, built: TableResult) -> Append:
        rows = built.table.slice(share.start, share.stop - share.start)
        return Append(self._path, rows.select(self._source.schema.names))

    def _guilty(self, batch: Batch, share: Share, built: TableResult) -> Procedure[str]:
        """Halve rows that Tiled refuses until one document's are left, and name it; nothing, where that is not sure.

        The run fails anyway: this is for who asks why.
        """
        refused = True
        while share.divisible:
            first = batch.share(share.start, max(1, (share.stop - share.start) // 2))
            outcome: Outcome = yield self._request(first, built)
            refused = _is_refusal(outcome)
            if not refused and not isinstance(outcome, Done):
                return ""
            share = first if refused else batch.share(first.stop, share.stop - first.stop)
        refused = refused or _is_refusal((yield self._request(share, built)))
        return f" (rows of the document at offset {share.first_offset})" if refused else ""

    def write_anew(self, upto: int) -> Procedure[set[int]]:
        """Show a dataset of our own with all accepted rows before offset `upto`, whatever the node showed before.

        Returns the offsets of those with a value that fits no column: it is null.
        """
        if self._part.confirmed.count:
            node = yield from insist(self._around, self._run.uid, GetNode(self._path))
            if not isinstance(node, Done):
                yield from self._create()
            switch = Switch(self._around, self._run, self._stream, self._part, self._built_noting)
            yield from switch.run(upto)
        return self._misfits

    def _built_noting(self, batch: Batch) -> TableResult | None:
        built = self._built_or_widened(batch)
        if built is not None:
            note_rounded(self._run, self._stream, built.rounded)
            self._misfits.update(int(batch.offsets[row]) for row in self._misfits_of(batch, built))
        return built

    def _misfits_of(self, batch: Batch, built: TableResult) -> set[int]:
        """Return the rows with values that are not in the table though they are not null."""
        lost = built.unplanned
        if self._around.policy.leaves_out_strays:
            strays = lost - self._stream.data_keys.keys()
            for key in sorted(strays):
                note = f"no descriptor names '{key}'; what events say of it is not in Tiled."
                self._run.notes.append(f"Stream '{self._stream.name}': {note}")
            lost -= strays
        return {*(misfit.row_index for misfit in built.misfits), *_rows_with(batch, lost)}

    def _arrived(self, share: Share, outcome: Outcome) -> Procedure[bool]:
        """Look for an append whose reply was lost."""
        if not isinstance(outcome, Unknown):
            return False
        expected = self._part.confirmed + self._part.tally(share.keys)
        found = yield from look_for(self._around, self._run.uid, self._path, expected, self._part.counted_by)
        found = found and (yield from self._is_ours())
        self._around.tell("ambiguous", outcome="present" if found else "absent", detail=outcome.detail)
        return found

    def _is_ours(self) -> Procedure[bool]:
        """Whether the rows that were just seen are those of our dataset: a zombie's switch may show its own."""
        node = yield from insist(self._around, self._run.uid, GetNode(self._path))
        source = node.value.source if isinstance(node, Done) else None
        return source is not None and source.dataset == self._source.dataset

    def _after_failure(self, patience: Patience, request: Append, outcome: Outcome, share: Share) -> Procedure[None]:
        """Wait, if the rows certainly are not there and never will be; else switch, so that they cannot hurt."""
        if isinstance(outcome, Exists | Missing):
            raise TiledRejected(f"the table {self._where} is gone")
        pause = patience.after(outcome)
        if isinstance(outcome, Unprocessed):
            yield pause
            return
        yield from patience.examine(request)
        yield from self._switch.run(share.first_offset, share.keys)
        self._around.tell("ambiguous", outcome="switched", detail=self._where)

    # ------------------------------------------------------------ columns

    @property
    def _columns(self) -> Columns:
        return self._part.columns

    def _built(self, batch: Batch) -> TableResult:
        """Convert the batch; where its values prove a column too narrow, widen the plan and convert again."""
        while True:
            built = self._built_or_widened(batch)
            if built is not None:
                return built

    def _built_or_widened(self, batch: Batch) -> TableResult | None:
        built = batch.to_table(self._columns)
        late = self._add_columns(built.unplanned)
        if not built.widen and not late:
            return built
        for name, data_type in built.widen.items():
            self._part.columns = self._columns.widened(name, data_type)
            self._note_type(name, data_type)
        return None

    def _add_columns(self, unplanned: Iterable[str]) -> bool:
        """Columns for keys that the descriptor knows but the first event did not have (or not filled)."""
        late = [key for key in self._stream.data_keys if key in unplanned and self._stream.add_columns(key)]
        for key in late:
            self._note_type(key, column_type(self._stream.data_keys[key]))
        return bool(late)

    def _note_type(self, name: str, data_type: pa.DataType) -> None:
        note = f"Column '{name}' of stream '{self._stream.name}' became {data_type}: its values ask for it."
        self._run.notes.append(note)

    def _inherit_types(self, node: Node) -> None:
        """A column that an earlier claim widened, or added, stays so."""
        columns = self._columns
        for column in node.source.schema if node.source else ():
            planned = columns.types.get(column.name)
            if planned is None or not is_ours(column.type, text=column.name in columns.untyped):
                continue
            if (both := wider(planned, column.type)) != planned:
                columns = columns.widened(column.name, both)
        self._part.columns = columns

    # ------------------------------------------------------------ ownership

    @property
    def _source(self) -> TableSource:
        source = self._part.source
        if source is None:
            raise AssertionError(f"no dataset of our own in {self._where}")
        return source

    def _own(self, upto: int) -> Procedure[None]:
        """See to it that the node points to a dataset that this claim made, wide enough for the columns."""
        if self._part.source is None:
            yield from self._make_or_inherit(upto)
        if not same_types(self._source.schema, self._columns):
            yield from self._switch.run(upto)

    def _make_or_inherit(self, upto: int) -> Procedure[None]:
        if not self._stream.fresh:
            node = yield from insist(self._around, self._run.uid, GetNode(self._path))
            if isinstance(node, Done):
                self._inherit_types(node.value)
                yield from self._switch.run(upto)
                return
        if not (yield from self._create()):
            yield from self._switch.run(upto)

    def _create(self) -> Procedure[bool]:
        """Make the table; `False` if it exists and is not the one that this claim made a moment ago."""
        around = self._around
        facts = {"epoch": around.epoch, "nonce": around.nonce, "orders": [0]}
        schema, metadata = self._columns.permuted(0), self._metadata()
        tags = access_tags(self._run.start)
        request = CreateTable(self._path[:-1], self._path[-1], schema, metadata, tags, {OURS: facts})
        bare = replace(request, schema=SEED, metadata={}, properties={OURS: {**facts, "orders": []}})
        answer = yield from create(around, self._run.uid, request, bare)
        if isinstance(answer, Missing):
            raise TiledRejected(f"the stream {'/'.join(self._path[:-1])} is gone")
        if isinstance(answer, Bare):
            yield from insist(around, self._run.uid, UpdateMetadata(self._path, metadata))
            return False
        source = answer.value if isinstance(answer, Done) else (yield from self._own_existing())
        if source is None:
            return False
        self._part.source = source
        return True

    def _own_existing(self) -> Procedure[TableSource | None]:
        node = yield from insist(self._around, self._run.uid, GetNode(self._path))
        source: TableSource | None = node.value.source if isinstance(node, Done) else None
        return source if source and facts_of(source).get("nonce") == self._around.nonce else None

    def _metadata(self) -> Json:
        data_keys = self._stream.data_keys
        metadata: Json = clipped({key: data_keys[key] for key in self._columns.data if key in data_keys})
        return metadata

    # ------------------------------------------------------------ the audit

    def audit(self, upto: int) -> Procedure[None]:
        """At stop: the node points to the dataset that we know, and it holds exactly the accepted rows.

        Raises
        ------
        TiledRejected
            Repairs did not help.
        """
        for repairs in range(REPAIRS_MAX + 1):
            answer = yield from insist(self._around, self._run.uid, GetNode(self._path))
            if isinstance(answer, Missing) and not self._part.confirmed.count:
                return
            if not isinstance(answer, Done):
                raise TiledRejected(f"the table {self._where} is gone")
            yield from self._put_back(answer.value.source)
            found = yield from tally_at(self._around, self._run.uid, self._path, self._part.counted_by)
            if found == self._part.confirmed:
                return
            self._around.tell("audit_mismatch", run=self._run.uid, stream=self._stream.name)
            if repairs == REPAIRS_MAX:
                raise TiledRejected(f"{self._where} does not hold what was written to it")
            self._inherit_types(answer.value)
            yield from self._switch.run(upto)

    def _put_back(self, found: TableSource | None) -> Procedure[None]:
        """A zombie's switch that landed late hides our dataset: put ours back."""
        if found is None:
            return
        check_epoch(self._around, self._where, found)
        ours = self._part.source
        if ours is None:
            yield from self._switch.finish_earlier(found)
        elif found.dataset != ours.dataset:
            self._around.tell("put_back", run=self._run.uid, stream=self._stream.name)
            yield from insist(self._around, self._run.uid, PutSource(self._path, replace(ours, id=found.id)))


def _is_refusal(outcome: Outcome) -> bool:
    return isinstance(outcome, Rejected) or (isinstance(outcome, Unknown) and outcome.may_be_for_ever)


def _rows_with(batch: Batch, keys: Iterable[str]) -> Iterator[int]:
    for key in keys:
        yield from (row for row, value in enumerate(batch.values(key)) if value is not None)
