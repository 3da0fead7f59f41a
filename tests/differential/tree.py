"""All that Tiled holds of a run, read by plain HTTP, in a form in which two trees can be compared.

What has no meaning of its own is brought into one spelling: chunks are left out, dimension names that TiledWriter
draws in the order of a set (`dim_int_N`) are named by their sizes, rows of tables are multisets.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from tiled.client.utils import handle_error

_ARROW = "application/vnd.apache.arrow.file"
_OCTETS = "application/octet-stream"
_DATASET = frozenset({"table_name", "dataset_id"})  # numbers that the server gives: which rows of a shared SQL table

Path = tuple[str, ...]
REBUILT = "rebuilt"  # instead of the order of a table's columns


@dataclass(frozen=True)
class Node:
    """One node, as plain values."""

    family: str
    specs: list[Any]
    access: Any
    metadata: Mapping[str, Any]
    structure: Any
    sources: list[Any]
    values: Any


class Catalog:
    """A container of runs."""

    def __init__(self, client: Any, path: Path) -> None:
        self._http = client.context.http_client
        self._api = str(client.context.api_uri)
        self._path = path

    def run(self, uid: str) -> dict[Path, Node]:
        """Return the nodes of a run, by their path below it (the run itself is `()`)."""
        return dict(self._walk((uid,)))

    def _walk(self, path: Path, said: Any = None) -> Iterator[tuple[Path, Node]]:
        attributes = said or self._get("metadata", path, include_data_sources="true").json()["data"]["attributes"]
        yield path[1:], self._node(path, attributes)
        if attributes["structure_family"] == "container":
            for child in self._children(path):
                yield from self._walk((*path, child["id"]), child["attributes"])

    def _children(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while True:
            params: dict[str, Any] = {"page[offset]": len(found), "page[limit]": 100, "include_data_sources": "true"}
            page = self._get("search", path, **params).json()
            found += page["data"]
            if not page["data"] or len(found) >= page["meta"]["count"]:
                return found

    def _node(self, path: Path, said: Mapping[str, Any]) -> Node:
        return Node(
            said["structure_family"],
            said["specs"],
            sorted(said.get("access_tags") or []),
            _metadata(said["metadata"]),
            _structure(said),
            [_source(source, "/".join(self._path)) for source in said.get("data_sources") or ()],
            self._values(path, said),
        )

    # ------------------------------------------------------------ values

    def _values(self, path: Path, said: Mapping[str, Any]) -> Any:
        family = said["structure_family"]
        if family == "table":
            return _rows(self._get("table/partition", path, accept=_ARROW, partition=0).content)
        if family == "array":
            return self._array(path, said["structure"])
        if family == "ragged":
            return self._get("ragged/full", path, accept="application/json").json()
        return None

    def _array(self, path: Path, structure: Mapping[str, Any]) -> Any:
        if 0 in structure["shape"]:
            return []
        read = self._get("array/full", path, accept=_OCTETS).content
        kind = structure["data_type"]
        dtype = np.dtype(
            f"{ {'big': '>', 'little': '<'}.get(kind['endianness'], '|') }{kind['kind']}{kind['itemsize']}"
        )
        return np.frombuffer(read, dtype).reshape(structure["shape"]).tolist()

    def _get(self, route: str, path: Path, *, accept: str = "application/json", **params: Any) -> Any:
        where = "/".join(quote(key, safe="") for key in (*self._path, *path))
        answer = self._http.get(f"{self._api}{route}/{where}", params=params, headers={"Accept": accept})
        return handle_error(answer)


def _rows(content: bytes) -> Counter[Any]:
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    names = sorted(name for name in table.column_names if not name.startswith("__index_level_"))
    columns = [[(name, cell(value)) for value in table.column(name).to_pylist()] for name in names]
    return Counter(zip(*columns, strict=True)) if columns else Counter()


def cell(value: Any) -> Any:
    """Return a value that can be hashed and compared.

    NaN is a null: the server, which has tables in pandas on their way, returns null for either, also within lists.
    """
    if isinstance(value, list | tuple):
        return tuple(map(cell, value))
    return None if isinstance(value, float) and math.isnan(value) else value


def _metadata(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return metadata as they are, but for a run's notes, which TiledWriter keeps in a set."""
    return {**said, "notes": sorted(said["notes"])} if "notes" in said else said


def _structure(said: Mapping[str, Any]) -> Any:
    structure = said.get("structure")
    family = said["structure_family"]
    if structure is None or family == "container":
        return None
    if family == "table":
        columns = _columns(structure)
        plain = {key: structure[key] for key in ("npartitions", "resizable")}
        return {**plain, "columns": columns, "order": REBUILT if _is_rebuilt(said) else list(columns)}
    plain = {key: value for key, value in structure.items() if key != "chunks"}
    if plain.get("dims"):
        sizes = zip(plain["dims"], plain["shape"], strict=True)
        plain["dims"] = [f"dim_int({size})" if name.startswith("dim_int_") else name for name, size in sizes]
    return plain


def _is_rebuilt(said: Mapping[str, Any]) -> bool:
    """Whether it is another dataset than the first one of its node: such a one has its own order of columns."""
    properties = [source.get("properties") or {} for source in said.get("data_sources") or ()]
    return any(len(facts.get("tiled_ingest", {}).get("orders", ())) > 1 for facts in properties)


def _columns(structure: Mapping[str, Any]) -> dict[str, str]:
    encoded = structure["arrow_schema"].partition("base64,")[2]
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
    return {column.name: str(column.type) for column in schema}


def _source(said: Mapping[str, Any], place: str) -> Any:
    return {
        "mimetype": said["mimetype"],
        "management": said["management"],
        "structure_family": said["structure_family"],
        "parameters": {key: value for key, value in said["parameters"].items() if key not in _DATASET},
        "properties": said.get("properties") or {},
        "assets": sorted((_asset(asset, place) for asset in said["assets"]), key=repr),
    }


def _asset(said: Mapping[str, Any], place: str) -> Any:
    """Describe a file; of what Tiled stores itself, the folder that bears the catalog's name is left out."""
    kept = {key: said[key] for key in ("data_uri", "is_directory", "parameter", "num")}
    return {**kept, "data_uri": kept["data_uri"].replace(f"/files/{place}/", "/files/*/")}
