"""What Tiled holds, read as any client would: nodes, their children, tables and arrays; never written."""

import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa

from tiled_ingest.core.errors import IngestError
from tiled_ingest.core.writes import Missing, Unknown, Unprocessed
from tiled_ingest.tiled.session import Session

Path = tuple[str, ...]
Json = dict[str, Any]
Query = Mapping[str, str | int | Sequence[str]]

_JSON = {"Accept": "application/json"}
_ARROW = {"Accept": "application/vnd.apache.arrow.file"}
_BYTES = {"Accept": "application/octet-stream"}
_PAGE = 100
_TRIES = 6  # every question may be repeated: nothing is written
_RESTS_S = (0.1, 0.5, 1.0, 2.0, 5.0)


class TiledUnreadable(IngestError):
    """Tiled did not answer, or refused to: nothing can be said."""

    reason = "TiledUnreadable"


@dataclass(frozen=True, slots=True)
class Node:
    """A node as Tiled describes it.

    Attributes
    ----------
    family
        `container`, `table`, `array`, `ragged`, `bytes`, ...
    structure
        Of its (first) data source: `columns`, or `shape` and `data_type`.
    assets
        The `data_uri` of each asset, in their order.
    """

    path: Path
    family: str
    metadata: Json = field(default_factory=dict)
    structure: Json = field(default_factory=dict)
    assets: tuple[str, ...] = ()
    specs: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """Its own name."""
        return self.path[-1] if self.path else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table."""
        return tuple(self.structure.get("columns") or ())

    @property
    def schema(self) -> pa.Schema:
        """The types of a table's columns as they are stored; an answer may have others."""
        _, _, encoded = str(self.structure.get("arrow_schema") or "").partition("base64,")
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded))) if encoded else pa.schema([])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array; a ragged one has only its first size."""
        return tuple(size for size in self.structure.get("shape") or () if size is not None)

    @property
    def keeps_order(self) -> bool:
        """Whether its rows come back in the order in which they were written."""
        return any(uri.startswith(("duckdb", "sqlite")) for uri in self.assets)


class Tree:
    """Tiled below the node that `tiled.uri` names.

    Parameters
    ----------
    deep
        Runs may be further down than directly below it (`tiled.routes`).
    files_moved
        Detectors' files are elsewhere for Tiled than the documents say (`tiled.patches`).
    """

    def __init__(self, session: Session, *, deep: bool, files_moved: bool = False) -> None:
        self.files_moved = files_moved
        self._session = session
        self._search = "search-deep" if deep else "search"
        self._base: int | None = None

    # ------------------------------------------------------------ runs

    def runs_of(self, topic: str) -> Iterator[tuple[Path, Json]]:
        """Yield path and our own facts of each run whose facts say that it comes from a topic."""
        ours = {"fields": ["metadata"], "select_metadata": "tiled_ingest"}
        query: Query = {**_equal("tiled_ingest.source.topic", topic), **ours}
        for entry in self._entries(self._search, (), query):
            facts = (entry["attributes"].get("metadata") or {}).get("selected")  # Tiled's word for what was asked for
            if isinstance(facts, dict):
                yield self._path_of(entry), facts

    def named(self, uid: str) -> list[Path]:
        """Return where a run of this uid is, whoever wrote it: its key is the uid of its start document."""
        query = {**_equal("start.uid", uid), "fields": ["specs"]}
        paths = [self._path_of(entry) for entry in self._entries(self._search, (), query)]
        return [path for path in paths if path[-1] == uid]

    def _path_of(self, entry: Json) -> Path:
        # Ancestors are told from the server's root, but paths here begin at the session's node.
        if self._search == "search":
            return (entry["id"],)
        return (*entry["attributes"]["ancestors"][self._depth() :], entry["id"])

    def _depth(self) -> int:
        if self._base is None:
            said = msgspec.json.decode(self._asked("metadata", (), {"omit_links": "true"}, _JSON) or b"{}")
            node = said.get("data") or {}
            ancestors = (node.get("attributes") or {}).get("ancestors") or []
            self._base = len(ancestors) + bool(node.get("id"))
        return self._base

    # ------------------------------------------------------------ nodes

    def node(self, path: Path) -> Node | None:
        """Return a node; `None` if there is none."""
        body = self._asked("metadata", path, {"include_data_sources": "true", "omit_links": "true"}, _JSON)
        return None if body is None else _node(path, msgspec.json.decode(body)["data"])

    def children(self, path: Path) -> list[Node]:
        """Return what is directly below a container."""
        query = {"include_data_sources": "true"}
        return [_node((*path, entry["id"]), entry) for entry in self._entries("search", path, query)]

    def _entries(self, route: str, path: Path, query: Query) -> Iterator[Json]:
        position: dict[str, str] = {}
        while True:
            page = {**query, "page[limit]": _PAGE, "omit_links": "true", **position}
            body = self._asked(route, path, page, _JSON)
            if body is None:
                return
            said = msgspec.json.decode(body)
            yield from said["data"]
            following = _following(said)
            if not following or following == position:
                return
            position = following

    # ------------------------------------------------------------ data

    def table(self, node: Node, columns: Sequence[str]) -> pa.Table:
        """Return columns of a table, all rows."""
        query: Query = {"partition": 0, "column": list(columns)}
        body = self._data("table/partition", node, query, _ARROW)
        with pa.ipc.open_file(pa.py_buffer(body)) as file:
            read = file.read_all()
        return read.select([name for name in columns if name in read.column_names])  # without pandas' index

    def array(self, node: Node, begin: int, end: int) -> np.ndarray[Any, Any]:
        """Return rows `begin` to `end` of an array, shape (end - begin, ...)."""
        query = {"slice": f"{begin}:{end}"}
        kind, shape = dtype_of(node), (end - begin, *node.shape[1:])
        body = self._data("array/full", node, query, _BYTES)
        if len(body) != kind.itemsize * int(np.prod(shape)):
            raise TiledUnreadable(f"{'/'.join(node.path)} is not as large as its structure says")
        return np.frombuffer(body, kind).reshape(shape)

    def ragged(self, node: Node, begin: int, end: int) -> list[Any]:
        """Return rows `begin` to `end` of a ragged array as lists; what JSON cannot hold is `None`."""
        body = self._data("ragged/full", node, {"slice": f"{begin}:{end}"}, _JSON)
        rows: list[Any] = msgspec.json.decode(body)
        return rows

    def _data(self, route: str, node: Node, query: Query, headers: Mapping[str, str]) -> bytes:
        body = self._asked(route, node.path, query, headers)
        if body is None:
            raise TiledUnreadable(f"Tiled does not find the data of {'/'.join(node.path)}")
        return body

    def _asked(self, route: str, path: Path, query: Query, headers: Mapping[str, str]) -> bytes | None:
        """Return the answer's body; `None` if there is no such node."""
        for rest_s in (*_RESTS_S, None):
            answer = self._session.request("GET", route, path, params=query, headers=headers)
            if isinstance(answer, httpx.Response):
                return answer.content
            if isinstance(answer, Missing):
                return None
            if rest_s is None or not isinstance(answer, Unprocessed | Unknown):
                break
            time.sleep(rest_s)
        raise TiledUnreadable(f"Tiled does not let us read {'/'.join(path) or 'its root'}: {answer}")


def dtype_of(node: Node) -> np.dtype[Any]:
    """Return the type of an array's values."""
    kind = node.structure["data_type"]
    if kind.get("fields"):
        return np.dtype([_field(each) for each in kind["fields"]])
    if kind["kind"] == "O":
        raise TiledUnreadable(f"{'/'.join(node.path)} holds Python objects: they are never opened")
    order = {"little": "<", "big": ">"}.get(kind.get("endianness"), "|")
    size = kind["itemsize"] // 4 if kind["kind"] == "U" else kind["itemsize"]
    return np.dtype(f"{order}{kind['kind']}{size}")


def _field(said: Json) -> tuple[Any, ...]:
    inner = dtype_of(Node((), "array", structure={"data_type": said["dtype"]}))
    return (said["name"], inner, tuple(said["shape"])) if said.get("shape") else (said["name"], inner)


def _node(path: Path, entry: Json) -> Node:
    attributes = entry["attributes"]
    sources = attributes.get("data_sources") or [{}]
    assets = sorted(sources[0].get("assets") or [], key=lambda asset: asset.get("num") or 0)
    structure = sources[0].get("structure") or attributes.get("structure") or {}
    specs = frozenset(spec["name"] for spec in attributes.get("specs") or ())
    uris = tuple(asset["data_uri"] for asset in assets)
    return Node(path, attributes["structure_family"], attributes.get("metadata") or {}, structure, uris, specs)


def _equal(key: str, value: str) -> dict[str, Sequence[str]]:
    return {"filter[eq][condition][key]": [key], "filter[eq][condition][value]": [json.dumps(value)]}


def _following(said: Json) -> dict[str, str]:
    """Return where the next page begins. Its address itself may name a host that only the server knows."""
    link = (said.get("links") or {}).get("next")
    params = httpx.URL(link).params if link else {}
    return {key: params[key] for key in ("page[cursor]", "page[offset]") if key in params}
