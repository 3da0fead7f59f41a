"""The switch: a table node gets a dataset of our own, filled anew, in one step that readers see as none.

A dataset in Tiled has exactly one writer, ever: the claim that made it. A dataset of anyone else (an earlier claim, or
ourselves before a restart) is never appended to, because an append of its dead owner may still land in it. Instead a
child of the table node gets a dataset of our own, with the columns in an order that no other dataset of this node had;
the rows are written there again, from the log (where no log holds them, from what Tiled shows), and compared; then one
PUT makes the node point to it, and a second one gives the child the old dataset. An old owner's append that lands later
is either in the old dataset, where nobody looks, or is refused, since Tiled casts by names in order.

Nothing is ever deleted: SQL tables are shared by all streams of one schema.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import pyarrow as pa

from tiled_ingest.core.errors import TiledRejected, TooLarge
from tiled_ingest.core.rows.batches import Batch, TableResult
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.runs.documents import access_tags
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.runs.stream import Part, Stream
from tiled_ingest.core.steps import Procedure, Sleep, Surroundings
from tiled_ingest.core.writes import (
    Append,
    CreateTable,
    Done,
    Exists,
    GetNode,
    Keys,
    Missing,
    Path,
    PutSource,
    TableSource,
    Unknown,
)

from .datasets import OURS, check_epoch, facts_of, orders_to_try, packed, unpacked
from .patience import Patience, insist
from .reconcile import look_for, once, tally_at
from .refill import Logged
from .reread import NO_KEYS, Confirmed, Portion, Reread

MISMATCHES_MAX = 5  # children that hold other rows than were written: another one does not cure what is wrong


@dataclass(frozen=True, slots=True)
class Child:
    """A dataset of our own under a child of the table node, on its way to the node itself."""

    path: Path
    source: TableSource


def note_rounded(run: Run, stream: Stream, columns: Collection[str]) -> None:
    """Note for a person that these columns do not hold all digits."""
    for name in sorted(columns):
        note = f"Column '{name}' of stream '{stream.name}' holds floats: integers in it lost digits."
        if note not in run.notes:
            run.notes.append(note)


class Switch:
    """One switch of one table.

    Parameters
    ----------
    part
        Which of the stream's tables.
    build
        Makes a table of a batch in these columns; `None` if its values asked for other columns, which are planned now.
    """

    def __init__(
        self,
        around: Surroundings,
        run: Run,
        stream: Stream,
        part: Part,
        build: Callable[[Batch], TableResult | None],
    ) -> None:
        self._around = around
        self._run = run
        self._stream = stream
        self._part = part
        self._path = part.path
        self._build = build
        self._mismatches = 0
        self._losses = Patience(around, run.uid)

    def run(self, upto: int, doubtful: Keys | None = None) -> Procedure[None]:
        """Give the node a dataset of our own that holds every accepted row before offset `upto`.

        `doubtful` names rows that may be in the old dataset, or may come to be, and shall not be in ours.

        Raises
        ------
        TiledRejected
            Neither the log nor Tiled holds these rows any more, or Tiled refuses them.
        Superseded
            A later claim was here.
        """
        patience = Patience(self._around, self._run.uid)
        while True:
            live = yield from self._live()
            child = yield from self._make_child(live)
            source = self._rows(child, live, upto, doubtful)
            if (yield from self._fill(child, source, patience)):
                yield from self._point_to(child, live)
                rows = self._part.confirmed.count
                self._around.tell("switched", run=self._run.uid, stream=self._stream.name, rows=rows)
                return

    @property
    def _where(self) -> str:
        return "/".join(self._path)

    def _live(self) -> Procedure[TableSource]:
        node = yield from insist(self._around, self._run.uid, GetNode(self._path))
        if not isinstance(node, Done) or node.value.source is None:
            raise TiledRejected(f"the table {self._where} is gone")
        source: TableSource = node.value.source
        check_epoch(self._around, self._where, source)
        yield from self.finish_earlier(source)
        return source

    def finish_earlier(self, live: TableSource) -> Procedure[None]:
        """If an owner died between its two PUTs, the child still names the live dataset: give it the old one."""
        facts = facts_of(live)
        replaced, key = facts.get("replaced"), facts.get("child")
        if replaced is None or key is None:
            return
        path = (*self._path, key)
        node = yield from insist(self._around, self._run.uid, GetNode(path))
        if isinstance(node, Done) and node.value.source and node.value.source.dataset == live.dataset:
            old = unpacked(replaced, node.value.source)
            yield from insist(self._around, self._run.uid, PutSource(path, old))

    # ------------------------------------------------------------ the child

    def _make_child(self, live: TableSource) -> Procedure[Child]:
        # A zombie's late PUT may show an older dataset, which does not know the orders that we have used since.
        used = sorted({*facts_of(live).get("orders", [0]), *self._part.orders})
        order = yield from self._unused_order(used)
        self._part.orders.add(order)
        while True:
            key = f"rebuild-{self._around.epoch}-{self._around.fresh_nonce()}"
            child = yield from self._created(key, [*used, order], live)
            if child is not None:
                return child

    def _created(self, key: str, orders: list[int], live: TableSource) -> Procedure[Child | None]:
        around, path = self._around, (*self._path, key)
        facts = {"epoch": around.epoch, "nonce": around.nonce, "orders": orders, "child": key, "replaced": packed(live)}
        schema = self._part.columns.permuted(orders[-1])
        request = CreateTable(self._path, key, schema, {}, access_tags(self._run.start), {OURS: facts})
        answer = yield from insist(around, self._run.uid, request)
        if isinstance(answer, Exists):  # our own request, whose reply was lost: the nonce is nobody else's
            answer = yield from insist(around, self._run.uid, GetNode(path))
            return Child(path, answer.value.source) if isinstance(answer, Done) and answer.value.source else None
        if isinstance(answer, Missing):
            raise TiledRejected(f"the table {self._where} is gone")
        return Child(path, answer.value)

    def _unused_order(self, used: list[int]) -> Procedure[int]:
        """An order that no dataset of this node had; when all are used up, wait until nothing old can land any more."""
        count = self._part.columns.permutations
        taken = {order % count for order in used}
        for order in orders_to_try(self._around.epoch, count):
            if order not in taken:
                return order
        yield Sleep(self._around.policy.late_write_s_max, down=False)
        return max(used) + 1

    # ------------------------------------------------------------ its rows

    def _rows(self, child: Child, live: TableSource, upto: int, doubtful: Keys | None) -> "FromLog | Reread":
        policy, part = self._around.policy, self._part
        if policy.log_holds_runs:
            return FromLog(Logged(self._around, self._run, self._stream.name, upto), self._build)
        columns = {column.name: column.type for column in live.schema}
        schema = child.source.schema
        expected = Confirmed(part.confirmed, doubtful, part.counted_by is None)
        return Reread(self._around, self._run.uid, self._path, schema, columns, expected, policy.rows_max)

    def _fill(self, child: Child, source: "FromLog | Reread", patience: Patience) -> Procedure[bool]:
        """Write all accepted rows into the child; `False` if it must be begun anew."""
        written = Tally()
        while not source.done:
            portion = yield from source.next()
            if portion is None or not (yield from self._append(child, portion, written, patience)):
                return False
            written += self._part.tally(portion.keys)
            note_rounded(self._run, self._stream, portion.rounded)
        self._check_complete(written)
        found = yield from tally_at(self._around, self._run.uid, child.path, self._part.counted_by)
        if found == written:
            return True
        there = "they cannot be read" if found is None else f"{found.count} are there"
        told = f"{self._where}: {written.count} rows were confirmed, {there}"
        if found is None or found.count < written.count:
            yield self._losses.after_loss(told)
            return False
        self._mismatches += 1
        if self._mismatches > MISMATCHES_MAX:
            raise TiledRejected(f"{told}, or others")
        return False

    def _check_complete(self, written: Tally) -> None:
        expected = self._part.confirmed
        if written != expected:
            found = f"{written.count} accepted rows of {self._where} were found again"
            raise TiledRejected(f"{found}, {expected.count} were expected")

    def _append(self, child: Child, portion: Portion, written: Tally, patience: Patience) -> Procedure[bool]:
        """Append to the child; `False` if nobody knows whether it arrived: then another child must be begun."""
        weather = self._around.weather
        while portion.table.num_rows:
            first, rest = portion.divided(weather.rows_fitting(portion.table))
            try:
                arrived = yield from self._send(child, first, written, patience)
            except TooLarge:
                if first.table.num_rows == 1:
                    raise
                weather.refused(first.table.nbytes)
                continue
            if not arrived:
                return False
            portion, written = rest, written + self._part.tally(first.keys)
        return True

    def _send(self, child: Child, portion: Portion, written: Tally, patience: Patience) -> Procedure[bool]:
        around, lane, counted_by = self._around, self._run.uid, self._part.counted_by
        expected = written + self._part.tally(portion.keys)

        def has_arrived(_: Unknown) -> Procedure[bool]:
            return look_for(around, lane, child.path, expected, counted_by)

        request = Append(child.path, portion.table.select(child.source.schema.names))
        return (yield from once(request, patience, has_arrived, f"the table {'/'.join(child.path)}"))

    # ------------------------------------------------------------ the two PUTs

    def _point_to(self, child: Child, live: TableSource) -> Procedure[None]:
        """The node takes the child's dataset; the child keeps the old one, and goes with the run."""
        ours = replace(child.source, id=live.id)
        yield from insist(self._around, self._run.uid, PutSource(self._path, ours))
        self._part.source = ours
        old = replace(live, id=child.source.id)
        yield from insist(self._around, self._run.uid, PutSource(child.path, old))


class FromLog:
    """The rows of a dataset of our own, from the log, batch by batch.

    Parameters
    ----------
    build
        Makes a table of a batch; `None` if its values asked for other columns, which are planned now.
    """

    def __init__(self, batches: Logged, build: Callable[[Batch], TableResult | None]) -> None:
        self._batches = batches
        self._build = build

    @property
    def done(self) -> bool:
        """Whether all of the log was taken."""
        return self._batches.done

    def next(self) -> Procedure[Portion | None]:
        """Return the next rows, maybe none; `None` if the child must be begun anew, in other columns."""
        batch = yield from self._batches.next()
        if batch is None:
            return Portion(pa.table({}), NO_KEYS)
        built = self._build(batch)
        return Portion(built.table, batch.keys, built.rounded) if built is not None else None
