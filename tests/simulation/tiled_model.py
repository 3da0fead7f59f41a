"""Tiled 0.2.20 as a writer sees it: what each request does, in two moments.

`resolve` is what the server looks up when a request enters it (the dataset that a node points to, the
metadata that a patch will be merged into); `apply` is when it writes. Other requests may come between the
two: that is where a late append finds itself in a dataset that nobody reads, and where two metadata updates
overwrite each other.

- SQL tables are shared by all datasets of one schema, names in order; a dataset is a number in one of them.
- An append is cast by name, in order, against the structure that was resolved: another order is a 500.
- Rows come back in insertion order on DuckDB, in any order on PostgreSQL.
- A metadata update replaces top-level keys of what was resolved, without a lock.
"""

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tiled_ingest.core.writes import (
    Append,
    CloseStreams,
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
    Path,
    PutSource,
    ReadKeys,
    ReadRows,
    Rejected,
    Request,
    TableSource,
    Unknown,
    UpdateMetadata,
)

Row = dict[str, Any]
Dataset = tuple[str, int]


def table_name(schema: pa.Schema) -> str:
    """Name the SQL table that all datasets of this schema, with this order of columns, share."""
    signature = json.dumps([(field.name, str(field.type)) for field in schema])
    return "table_" + hashlib.md5(signature.encode()).hexdigest()


def as_json(value: Json) -> Json:
    """Through JSON and back, as a request's body goes; what is not JSON raises."""
    copied: Json = json.loads(json.dumps(value))
    return copied


@dataclass
class NodeState:
    """A node; and when a late write last touched it, and when a live client last looked at it or wrote it."""

    metadata: Json
    source: TableSource | None = None
    datasets: set[Dataset] = field(default_factory=set)  # all that it ever pointed to
    late_put: int = 0
    own_put: int = 0
    late_update: int = 0
    seen: int = 0
    updated: int = 0


@dataclass(frozen=True)
class Resolved:
    """A request that has entered the server, with what was looked up for it then."""

    request: Request
    source: TableSource | None = None
    metadata: Json | None = None


class TiledModel:
    """The catalog and the storage behind it."""

    def __init__(self, storage: str, rng: random.Random) -> None:
        self.storage = storage
        self.nodes: dict[Path, NodeState] = {(): NodeState({})}
        self.rows: dict[Dataset, list[Row]] = {}
        self.schemas: dict[Dataset, pa.Schema] = {}
        self.rejects: set[str] = set()  # runs whose rows are refused
        self.violations: list[str] = []
        self.applied = 0  # counts applied requests: the order of events in this server
        self._rng = rng

    # ------------------------------------------------------------ what readers see

    def live_rows(self, path: Path) -> list[Row]:
        """Show the rows that a reader of the node sees; none if there is no such node."""
        node = self.nodes.get(path)
        return [] if node is None or node.source is None else self.rows[node.source.dataset]

    def all_rows(self, path: Path) -> Iterator[Row]:
        """Also the rows of datasets that the node once had: what a late switch can hide, but not destroy."""
        for dataset in self.nodes[path].datasets if path in self.nodes else ():
            yield from self.rows[dataset]

    def hidden(self, path: Path) -> bool:
        """Whether a late switch landed here since a live client last looked: the design's residual risk."""
        node = self.nodes.get(path)
        return node is not None and node.late_put > node.seen

    def displaced(self, path: Path) -> bool:
        """Whether a late switch landed here since the owner's last one: seen or not, it is not repaired yet."""
        node = self.nodes.get(path)
        return node is not None and node.late_put > node.own_put

    def overwritten(self, path: Path) -> bool:
        """Whether a late metadata update has landed here since a live client last wrote it."""
        node = self.nodes.get(path)
        return node is not None and node.late_update > node.updated

    def saw(self, path: Path, when: int) -> None:
        """Note that a live client received what was read of the node at the count `when`."""
        if path in self.nodes:
            self.nodes[path].seen = max(self.nodes[path].seen, when)

    # ------------------------------------------------------------ the two moments of a request

    def perform(self, request: Request) -> Outcome:
        """Both moments at once."""
        return self.apply(self.resolve(request))

    def resolve(self, request: Request) -> Resolved:
        """Enter the server: look up what the request is about."""
        if isinstance(request, Append | PutSource | UpdateMetadata) and request.path in self.nodes:
            node = self.nodes[request.path]
            return Resolved(request, node.source, copy.deepcopy(node.metadata))
        return Resolved(request)

    def apply(self, resolved: Resolved, *, stale: bool = False) -> Outcome:  # noqa: PLR0911
        """Write (or read), and answer. `stale`: nobody waits for it any more, or its client lost the run."""
        self.applied += 1
        match resolved.request:
            case CreateContainer() | CreateTable() as request:
                return self._create(request)
            case Append():
                return self._append(resolved.request, resolved)
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
            case FindOpenRuns():
                return Done(tuple(self._open_runs(resolved.request)))

    def _create(self, request: CreateContainer | CreateTable) -> Outcome:
        path = (*request.parent, request.key)
        if request.parent not in self.nodes:
            return Missing(str(request.parent))
        if path in self.nodes:
            return Exists()
        if isinstance(request, CreateContainer):
            self.nodes[path] = NodeState(as_json(request.metadata))
            return Done()
        if self.rejects.intersection(path):
            return Rejected("this run's rows are refused", 422)
        number = len(self.rows) + 1
        dataset = (table_name(request.schema), number)
        self.rows[dataset] = []
        self.schemas[dataset] = request.schema
        parameters = {"table_name": dataset[0], "dataset_id": number}
        source = TableSource(1_000 + number, request.schema, parameters, as_json(request.properties), self.storage)
        self.nodes[path] = NodeState(as_json(request.metadata), source, {dataset})
        return Done(source)

    def _append(self, request: Append, resolved: Resolved) -> Outcome:
        if resolved.metadata is None:
            return Missing(str(request.path))
        if self.rejects.intersection(request.path):
            return Rejected("this run's rows are refused", 422)
        if resolved.source is None:
            return Rejected("not a table", 405)
        try:
            table = request.table.cast(resolved.source.schema)
        except (pa.ArrowInvalid, ValueError):
            return Unknown("Internal Server Error", 500)
        self.rows[resolved.source.dataset].extend(table.to_pylist())
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
        return Done(Node(copy.deepcopy(node.metadata), node.source))

    def _put(self, request: PutSource, resolved: Resolved, stale: bool) -> Outcome:
        if resolved.metadata is None:
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
        else:
            node.seen = node.own_put = self.applied
        return Done()

    def _update(self, request: UpdateMetadata, resolved: Resolved, stale: bool) -> Outcome:
        if resolved.metadata is None:
            return Missing(str(request.path))
        node = self.nodes[request.path]
        node.metadata = {**resolved.metadata, **as_json(request.metadata)}
        if stale:
            node.late_update = self.applied
        else:
            node.updated = self.applied
        return Done()

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
        return max(epochs)


def _epochs(value: object) -> Iterator[int]:
    """Whatever is called `epoch`, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "epoch" and isinstance(inner, int):
                yield inner
            yield from _epochs(inner)
