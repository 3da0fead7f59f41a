"""Tiled 0.2.20 as a writer sees it: what each request does, in two moments.

`resolve` is what the server looks up when a request enters it (the dataset that a node points to, the
metadata that a patch will be merged into); `apply` is when it writes. Other requests may come between the
two: that is where a late append finds itself in a dataset that nobody reads, and where two metadata updates
overwrite each other.

- SQL tables are shared by all datasets of one schema, names in order; a dataset is a number in one of them.
- An append is cast by name, in order, against the structure that was resolved: another order is a 500.
- Rows come back in insertion order on DuckDB, in any order on PostgreSQL.
- DuckDB has one connection for all clients: where two append at once, rows that were confirmed may be lost (`swallow`;
  the wire knows who is under way), and an append that is refused may end the server.
- A registration looks at the node first and then writes what it decided: two of them can overtake each other, so that
  a late one makes a node of external data smaller.
- A metadata update replaces top-level keys of what was resolved, without a lock.
"""

import copy
import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tiled_ingest.core.writes import (
    Append,
    ArraySource,
    CloseStreams,
    CountRows,
    CreateArray,
    CreateContainer,
    CreateTable,
    Done,
    EnsureContainer,
    Exists,
    FindOpenRuns,
    GetNode,
    Json,
    Keys,
    Missing,
    Node,
    OpenRun,
    Outcome,
    PatchArray,
    Path,
    PutArray,
    PutSource,
    ReadArray,
    ReadKeys,
    ReadRows,
    Registered,
    RegisterExternal,
    Rejected,
    Request,
    TableSource,
    Unknown,
    UpdateMetadata,
)

from .array_model import Folder, Folders, shown

OUR_COLUMNS = frozenset({"seq_num", "time", "probe"})
CREATES = CreateContainer | CreateTable | CreateArray
WRITES = Append | PutSource | UpdateMetadata | PatchArray | PutArray
Row = dict[str, Any]
Dataset = tuple[str, int]

COLUMNS_FENCED_MIN = 3  # in two, the orders run out at the third owner: then only waiting keeps late appends out


def table_name(schema: pa.Schema) -> str:
    """Name the SQL table that all datasets of this schema, with this order of columns, share."""
    signature = json.dumps([(field.name, str(field.type)) for field in schema])
    return "table_" + hashlib.md5(signature.encode()).hexdigest()


def as_json(value: Json) -> Json:
    """Through JSON and back, as a request's body goes; what is not JSON raises."""
    copied: Json = json.loads(json.dumps(value))
    return copied


@dataclass(frozen=True)
class DeleteNode:
    """What the service never asks for, and wrong engines do: delete a node, with the rows it points to.

    With `shared`, the SQL table that they are in goes, too, whoever else has rows there.
    """

    path: Path
    shared: bool = False


@dataclass
class NodeState:
    """A node; and when a late write last touched it, and when a live client last looked at it or wrote it."""

    metadata: Json
    source: TableSource | None = None
    external: RegisterExternal | None = None  # what was registered last
    array: ArraySource | None = None
    datasets: set[Dataset] = field(default_factory=set)  # all that it ever pointed to
    shown: list[ArraySource] = field(default_factory=list)  # all that it ever showed
    late_put: int = 0
    late_rows: int = 0
    strayed: bool = False  # rows of the owner went into the dataset of a late switch, which has the same columns
    own_put: int = 0
    late_update: int = 0
    late_keys: set[str] = field(default_factory=set)  # of the metadata: what a late update changed, and nobody mended
    seen: int = 0


@dataclass(frozen=True)
class Resolved:
    """A request that has entered the server, with what was looked up for it then."""

    request: Request | DeleteNode
    source: TableSource | None = None
    metadata: Json | None = None
    array: ArraySource | None = None
    folder: Folder | None = None
    external: RegisterExternal | None = None
    when: int = 0


class TiledModel:
    """The catalog and the storage behind it."""

    def __init__(self, storage: str, rng: random.Random) -> None:
        self.storage = storage
        self.nodes: dict[Path, NodeState] = {(): NodeState({})}
        self.rows: dict[Dataset, list[Row]] = {}
        self.schemas: dict[Dataset, pa.Schema] = {}
        self.folders = Folders()
        self.dropped: set[Dataset] = set()  # those whose SQL table is gone
        self.swallowed: dict[Dataset, list[Row]] = {}  # rows that were confirmed, and are not there
        self.rejects: set[str] = set()  # runs whose rows are refused
        self.poisons: dict[str, str] = {}  # runs of which one request is answered 500 for ever: which one
        self.violations: list[str] = []
        self.watch: Callable[[Path, Json, Json], None] = lambda _path, _before, _after: None  # hears of updates
        self.crossed: set[Path] = set()  # runs that were over when a late switch landed in them
        self.applied = 0  # counts applied requests: the order of events in this server
        self._rng = rng

    # ------------------------------------------------------------ what readers see

    def live_rows(self, path: Path) -> list[Row]:
        """Show the rows that a reader of the node sees; none if there is no such node."""
        node = self.nodes.get(path)
        return [] if node is None or node.source is None else self.rows[node.source.dataset]

    def frames(self, path: Path) -> list[tuple[str, int]]:
        """Show what a reader of an external node sees: (resource, index) of each row, in order."""
        node = self.nodes.get(path)
        plan = node.external.plan if node and node.external else ()
        uses = node.external.plan.uses if node and node.external else []
        return [(uses[part.use].resource.uid, index) for part in plan for index in range(*part.indices)]

    def live_values(self, path: Path) -> list[Any]:
        """Show the values that a reader of an array sees, as lists; none if there is no such node."""
        node = self.nodes.get(path)
        return [] if node is None or node.array is None else self._values(node.array)

    def all_values(self, path: Path) -> list[Any]:
        """Also those that the node once showed."""
        shown = self.nodes[path].shown if path in self.nodes else []
        return [value for source in shown for value in self._values(source)]

    def _values(self, source: ArraySource) -> list[Any]:
        if source.family == "array":
            return [value.tolist() for value in self.folders.read(source, 0, source.shape[0] or 0)]
        chunks = sorted(self.rows.get(source.dataset, []), key=lambda row: row["chunk_index"])
        return _ragged_rows(chunks[: len(source.chunks[0] or ())])

    def all_rows(self, path: Path) -> Iterator[Row]:
        """Also the rows of datasets that the node once had: what a late switch can hide, but not destroy."""
        for dataset in self.nodes[path].datasets if path in self.nodes else ():
            yield from self.rows[dataset]

    def swallow(self, appended: Resolved) -> None:
        """Lose the rows of an append that was just applied; whoever sent it is told that they are there."""
        assert isinstance(appended.request, Append)
        assert appended.source is not None
        rows = self.rows[appended.source.dataset]
        kept = len(rows) - appended.request.table.num_rows
        self.swallowed.setdefault(appended.source.dataset, []).extend(rows[kept:])
        del rows[kept:]

    def swallowed_rows(self, path: Path) -> list[Row]:
        """Show the rows that the dataset of this table, or ragged array, was said to have, and lost."""
        node = self.nodes.get(path)
        if node is None or (node.array and node.array.family == "array"):
            return []
        source = node.source or node.array
        return self.swallowed.get(source.dataset, []) if source else []

    def swallowed_values(self, path: Path) -> list[Any]:
        """Show the values that a ragged array was said to have, and lost."""
        node = self.nodes.get(path)
        return _ragged_rows(self.swallowed_rows(path)) if node and node.array else []

    def hidden(self, path: Path) -> bool:
        """Whether a late switch landed here since a live client last looked: the design's residual risk."""
        node = self.nodes.get(path)
        return node is not None and node.late_put > node.seen

    def displaced(self, path: Path) -> bool:
        """Whether a late switch landed here since the owner's last one: seen or not, it is not repaired yet."""
        node = self.nodes.get(path)
        return node is not None and node.late_put > node.own_put

    def unfenced(self, path: Path) -> bool:
        """Whether a zombie's rows landed here since the last switch, in a table with too few orders of columns."""
        node = self.nodes.get(path)
        return node is not None and node.late_rows > node.own_put

    def strayed(self, path: Path) -> bool:
        """Whether rows of the owner went into the dataset that a late switch shows: two columns have few orders."""
        node = self.nodes.get(path)
        return node is not None and node.strayed

    def overwritten(self, path: Path) -> bool:
        """Whether a late metadata update has changed something here that no live client has written since."""
        node = self.nodes.get(path)
        return node is not None and bool(node.late_keys)

    def saw(self, path: Path, when: int) -> None:
        """Note that a live client received what was read of the node at the count `when`."""
        if path in self.nodes:
            self.nodes[path].seen = max(self.nodes[path].seen, when)

    # ------------------------------------------------------------ the two moments of a request

    def perform(self, request: Request | DeleteNode) -> Outcome:
        """Both moments at once."""
        return self.apply(self.resolve(request))

    def resolve(self, request: Request | DeleteNode) -> Resolved:
        """Enter the server: look up what the request is about."""
        if isinstance(request, WRITES) and request.path in self.nodes:
            node = self.nodes[request.path]
            folder = self.folders.snapshot(node.array) if isinstance(request, PatchArray) and node.array else None
            return Resolved(request, node.source, copy.deepcopy(node.metadata), node.array, folder, when=self.applied)
        if isinstance(request, RegisterExternal) and request.path in self.nodes:
            return Resolved(request, external=self.nodes[request.path].external, when=self.applied)
        return Resolved(request)

    def apply(self, resolved: Resolved, *, stale: bool = False) -> Outcome:  # noqa: C901, PLR0911, PLR0912
        """Write (or read), and answer. `stale`: nobody waits for it any more, or its client lost the run."""
        self.applied += 1
        if not isinstance(resolved.request, DeleteNode) and self._is_poison(resolved.request):
            return Unknown("Internal Server Error", 500)
        match resolved.request:
            case CreateContainer() | CreateTable() | CreateArray() as request:
                return self._create(request)
            case PatchArray():
                return self._patch(resolved.request, resolved)
            case PutArray():
                return self._put_array(resolved.request, resolved, stale)
            case ReadArray(path=path) as request:
                array = self.nodes[path].array if path in self.nodes else None
                return self.folders.rows(request, array) if array else Missing(str(path))
            case CountRows(path=path):
                return Done(len(self.live_rows(path))) if path in self.nodes else Missing(str(path))
            case Append():
                return self._append(resolved.request, resolved, stale)
            case ReadKeys() | ReadRows() as request:
                return self._keys(request)
            case GetNode(path=path):
                return self._node(path)
            case PutSource():
                return self._put(resolved.request, resolved, stale)
            case UpdateMetadata():
                return self._update(resolved.request, resolved, stale)
            case CloseStreams(paths=paths):
                gone = [path for path in paths if path not in self.nodes]
                return Missing(str(gone[0])) if gone else Done()
            case EnsureContainer(path=path):
                return self._ensure(path)
            case RegisterExternal():
                return self._register(resolved.request, resolved, stale)
            case FindOpenRuns():
                return Done(tuple(self._open_runs(resolved.request)))
            case DeleteNode() as request:
                return self._delete(request)

    def _is_poison(self, request: Request) -> bool:
        """Whether the request holds what the database cannot store; what is of our own making never does."""
        path = (*request.parent, request.key) if isinstance(request, CREATES) else _paths(request)
        about = next((self.poisons[key] for key in path if key in self.poisons), None)
        match request:
            case CreateContainer(metadata=metadata) | UpdateMetadata(metadata=metadata):
                whole = metadata.get("start", {}).keys() > {"uid", "time"}
                stream = "data_keys" in metadata
                return about in {"start" * whole, "stream" * stream, "stop" * ("stop" in metadata)} - {""}
            case CreateTable(schema=schema):
                return about == "table" and not OUR_COLUMNS.issuperset(schema.names)
            case Append(table=table):
                return about == "rows" and not OUR_COLUMNS.issuperset(table.schema.names)
        return False

    def _create(self, request: CreateContainer | CreateTable | CreateArray) -> Outcome:
        path = (*request.parent, request.key)
        if request.parent not in self.nodes:
            return Missing(str(request.parent))
        if path in self.nodes:
            return Exists()
        if isinstance(request, CreateContainer):
            self.nodes[path] = NodeState(as_json(request.metadata))
            return Done()
        if self.rejects.intersection(path) and not self._accepts_at_first(request):
            return Rejected("this run's rows are refused", 422)
        if isinstance(request, CreateArray):
            made = self.folders.make("/".join(path), replace(request.source, id=2_000 + len(self.nodes)))
            self.nodes[path] = NodeState(as_json(request.metadata), array=made)
            return Done(made)
        number = len(self.rows) + 1
        dataset = (table_name(request.schema), number)
        self.rows[dataset] = []
        self.schemas[dataset] = request.schema
        parameters = {"table_name": dataset[0], "dataset_id": number}
        source = TableSource(1_000 + number, request.schema, parameters, as_json(request.properties), self.storage)
        self.nodes[path] = NodeState(as_json(request.metadata), source, datasets={dataset})
        return Done(source)

    def _accepts_at_first(self, request: CreateTable | CreateArray) -> bool:
        """Whether the table of a run whose rows are refused is made: there the append meets the refusal."""
        return self.storage == "duckdb" and isinstance(request, CreateTable)

    def _delete(self, request: DeleteNode) -> Outcome:
        """Remove a table with its rows; the SQL table is shared, and goes with the last row of all."""
        node = self.nodes.pop(request.path, None)
        if node is None or node.source is None:
            return Missing(str(request.path))
        beside = {dataset for dataset in self.rows if dataset[0] == node.source.dataset[0]}
        for dataset in beside if request.shared else {node.source.dataset}:
            self.rows[dataset] = []
        if not any(self.rows[dataset] for dataset in beside):
            self.dropped |= beside
        return Done()

    def _append(self, request: Append, resolved: Resolved, stale: bool) -> Outcome:
        if resolved.metadata is None:
            return Missing(str(request.path))
        if self.rejects.intersection(request.path):
            return Rejected("this run's rows are refused", 422)
        if resolved.source is None:
            return Rejected("not a table", 405)
        if resolved.source.dataset in self.dropped:
            return Unknown("Internal Server Error", 500)
        try:
            table = request.table.cast(resolved.source.schema)
        except (pa.ArrowInvalid, ValueError):
            return Unknown("Internal Server Error", 500)
        self.rows[resolved.source.dataset].extend(table.to_pylist())
        if table.num_columns < COLUMNS_FENCED_MIN:
            node = self.nodes[request.path]
            node.late_rows = self.applied if stale else node.late_rows
            node.strayed = node.strayed or (not stale and self.displaced(request.path))
        return Done()

    def _patch(self, request: PatchArray, resolved: Resolved) -> Outcome:
        node = self.nodes.get(request.path)
        if node is None or resolved.array is None or resolved.folder is None or node.array is None:
            return Missing(str(request.path))
        after = self.folders.patch(request, resolved.array, resolved.folder, node.array)
        if after is None:
            return Unknown("Internal Server Error", 500)
        node.array = after
        return Done()

    def _put_array(self, request: PutArray, resolved: Resolved, stale: bool) -> Outcome:
        node = self.nodes.get(request.path)
        if node is None or node.array is None or resolved.metadata is None:
            return Missing(str(request.path))
        if node.array.id != request.source.id:
            self.violations.append(f"PUT of another node's data source to {request.path}")
            return Rejected("no such data source", 404)
        after = shown(request.source, node.array)
        if not isinstance(after, ArraySource):
            return after
        node.array = replace(after, properties=as_json(dict(after.properties)))
        node.shown.append(node.array)
        if stale:
            node.late_put = self.applied
            self._note_crossed(request.path)
        else:
            node.seen = node.own_put = self.applied
        return Done()

    def _keys(self, request: ReadKeys | ReadRows) -> Outcome:
        assert isinstance(request, ReadKeys), "the service has a log: it never reads whole rows back from Tiled"
        path = request.path
        if path not in self.nodes:
            return Missing(str(path))
        rows = list(self.live_rows(path))
        if self.storage == "postgresql":
            self._rng.shuffle(rows)
        seq_num = np.array([row["seq_num"] for row in rows], dtype=np.int64)
        return Done(Keys(seq_num, np.array([row["time"] for row in rows], dtype=np.float64)))

    def _node(self, path: Path) -> Outcome:
        if path not in self.nodes:
            return Missing(str(path))
        node = self.nodes[path]
        return Done(Node(copy.deepcopy(node.metadata), node.source, node.array))

    def _put(self, request: PutSource, resolved: Resolved, stale: bool) -> Outcome:
        if resolved.metadata is None:
            return Missing(str(request.path))
        if request.path not in self.nodes:
            return Missing(str(request.path))
        node = self.nodes[request.path]
        source, dataset = request.source, request.source.dataset
        if node.source is None or node.source.id != source.id:
            self.violations.append(f"PUT of another node's data source to {request.path}")
            return Rejected("no such data source", 404)
        if dataset not in self.rows or not self.schemas[dataset].equals(source.schema):
            self.violations.append(f"PUT of a structure to {request.path} that its SQL table does not have")
        node.source = replace(source, properties=as_json(dict(source.properties)), storage=self.storage)
        node.datasets.add(dataset)
        if stale:
            node.late_put = self.applied
            self._note_crossed(request.path)
        else:
            node.seen = node.own_put = self.applied
        return Done()

    def _note_crossed(self, path: Path) -> None:
        for end in range(1, len(path)):
            facts = self.nodes[path[:end]].metadata.get("tiled_ingest") or {}
            if facts.get("state", "open") != "open":
                self.crossed.add(path[:end])

    def _update(self, request: UpdateMetadata, resolved: Resolved, stale: bool) -> Outcome:
        if resolved.metadata is None:
            return Missing(str(request.path))
        node = self.nodes[request.path]
        before, node.metadata = node.metadata, {**resolved.metadata, **as_json(request.metadata)}
        if stale:
            node.late_update = self.applied
            node.late_keys |= {key for key in before | node.metadata if before.get(key) != node.metadata.get(key)}
        elif resolved.when < node.late_update:
            node.late_keys.clear()  # it writes all keys as they were before the late one
        else:
            node.late_keys -= request.metadata.keys()  # who adds a stop document leaves the state as it is
        self.watch(request.path, before, node.metadata)
        return Done()

    def _register(self, request: RegisterExternal, resolved: Resolved, stale: bool) -> Outcome:
        if request.path[:-1] not in self.nodes:
            return Missing(str(request.path))
        rows, node = request.plan.rows, self.nodes.setdefault(request.path, NodeState({}))
        held = resolved.external or node.external  # created meanwhile: 409, and a second look
        size = request.known.size if request.known else held.plan.rows if held else -1
        wrong = rows > size or (request.exact and rows != size)
        if wrong:
            node.external = request
        if stale and wrong:
            node.late_put = self.applied
            self._note_crossed(request.path)
        elif not stale:
            node.seen = max(node.seen, self.applied if wrong else resolved.when)
            node.own_put = node.seen
        return Done(Registered(1, rows if wrong else max(size, rows), len(request.plan.uses), {"spec": "HDF5"}))

    def _ensure(self, path: Path) -> Outcome:
        for length in range(1, len(path) + 1):
            self.nodes.setdefault(path[:length], NodeState({}))
        return Done()

    def _open_runs(self, request: FindOpenRuns) -> Iterator[OpenRun]:
        for path, node in list(self.nodes.items()):
            ours = node.metadata.get("tiled_ingest") or {}
            source = ours.get("source") or {}
            here = request.topic_id in source.values() and source.get("partition") == request.partition
            if path[:-1] == request.parent and path and here and ours.get("state") == "open":
                yield OpenRun(path, copy.deepcopy(node.metadata), self._epoch_max(path))

    def _epoch_max(self, run: Path) -> int:
        epochs = [0]
        for path, node in self.nodes.items():
            if path[: len(run)] == run:
                epochs += _epochs(node.metadata.get("tiled_ingest"))
                epochs += _epochs(node.source.properties if node.source else None)
                epochs += _epochs(node.array.properties if node.array else None)
        return max(epochs)


def _ragged_rows(chunks: list[Row]) -> list[Any]:
    """The rows of an array whose chunks are rows of a SQL table."""
    return [row["node1-data"][begin:end] for row in chunks for begin, end in itertools.pairwise(row["node0-offsets"])]


def _epochs(value: object) -> Iterator[int]:
    """Whatever is called `epoch`, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "epoch" and isinstance(inner, int):
                yield inner
            yield from _epochs(inner)


def _paths(request: Request) -> Path:
    path: Path = getattr(request, "path", ())
    return path
