"""How our values look on Tiled's wire: bodies of requests, and what answers hold."""

import base64
import io
from collections.abc import Container, Mapping
from dataclasses import asdict, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tiled.structures.array import BuiltinDtype, StructDtype
from tiled.utils import safe_json_dump

from tiled_ingest.core.writes import (
    ArraySource,
    Asset,
    CreateArray,
    CreateContainer,
    CreateTable,
    Json,
    Keys,
    Node,
    ReadArray,
    RegisterExternal,
    Spec,
    TableSource,
    UpdateMetadata,
)

JSON = {"Accept": "application/json", "Content-Type": "application/json"}
ARROW_FILE = "application/vnd.apache.arrow.file"
OCTETS = "application/octet-stream"
_TABLE = "application/x-tiled-sql-table"
_ZARR = "application/x-zarr"
_RAGGED = "application/x-ragged+sql"
_SCHEMA_PREFIX = f"data:{ARROW_FILE};base64,"


class UnwritableError(ValueError):
    """A value that JSON cannot hold: an integer beyond 64 bits, half a surrogate pair, too deep a nesting."""


def dump(body: Json) -> bytes:
    """Encode a request's body; NaN and infinities become null.

    Raises
    ------
    UnwritableError
        It holds something that JSON cannot; the text names the kind of value, not the value.
    """
    try:
        encoded: bytes = safe_json_dump(body)
    except (TypeError, ValueError) as error:
        raise UnwritableError(f"not JSON: {error}") from error
    return encoded


def load(content: bytes) -> Any:
    """Decode an answer's JSON."""
    return msgspec.json.decode(content)


# ---------------------------------------------------------------- requests


def container(request: CreateContainer) -> Json:
    """Return the body that creates a container."""
    return _node(request.key, "container", request.metadata, request.specs, request.access_tags, [])


def table(request: CreateTable) -> Json:
    """Return the body that creates a table with an empty dataset of its own."""
    source = _source(request.schema, {}, request.properties)
    return _node(request.key, "table", request.metadata, (), request.access_tags, [source])


def external(request: RegisterExternal, source: Json) -> Json:
    """Return the body that registers an external data key; its metadata come at the end of the run."""
    return _node(request.path[-1], source["structure_family"], {}, (), request.access_tags, [source])


def source(new: TableSource) -> Json:
    """Return the body that points a node to the dataset of `new`.

    It names no assets: the server only adds those that are named, and the database stays the same one.
    """
    return {"data_source": {"id": new.id, **_source(new.schema, new.parameters, new.properties)}}


def patch(request: UpdateMetadata) -> Json:
    """Return a JSON patch that sets each top-level key.

    Not a merge patch: that one takes null for "delete", and a stop document may hold nulls.
    """
    operations = [{"op": "add", "path": f"/{_pointer(key)}", "value": value} for key, value in request.metadata.items()]
    return {"content-type": "application/json-patch+json", "metadata": operations, "specs": None}


def array(request: CreateArray) -> Json:
    """Return the body that creates an array."""
    source = _array_source(request.source)
    return _node(request.key, request.source.family, request.metadata, (), request.access_tags, [source])


def shown(new: ArraySource) -> Json:
    """Return the body that lets an array's node show what `new` says; the server only adds the assets named."""
    return {"data_source": {"id": new.id, **_array_source(new)}}


def unnamed(new: ArraySource, known: Container[Asset]) -> ArraySource:
    """Return the source without the assets that its node has already."""
    return replace(new, assets=tuple(asset for asset in new.assets if asset not in known))


def _array_source(new: ArraySource) -> Json:
    structure = {
        "data_type": _data_type(new.dtype),
        "shape": list(new.shape),
        "chunks": [None if sizes is None else list(sizes) for sizes in new.chunks],
        "dims": list(new.dims),
        "resizable": False,
    }
    return {
        "structure_family": new.family,
        "structure": structure | ({"size": new.size} if new.family == "ragged" else {}),
        "mimetype": _ZARR if new.family == "array" else _RAGGED,
        "parameters": dict(new.parameters),
        "properties": dict(new.properties),
        "assets": [{"data_uri": asset.uri, "is_directory": True, "parameter": asset.parameter} for asset in new.assets],
        "management": "writable",
    }


def _data_type(dtype: np.dtype[Any]) -> Json:
    described = StructDtype if dtype.fields else BuiltinDtype
    return asdict(described.from_numpy_dtype(dtype))


def rows(table: pa.Table) -> bytes:
    """Encode rows as an Arrow file."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()  # without a copy


def _node(
    key: str,
    family: str,
    metadata: Json,
    specs: tuple[Spec, ...],
    tags: tuple[str, ...] | None,
    sources: list[Json],
) -> Json:
    return {
        "id": key,
        "structure_family": family,
        "metadata": metadata,
        "specs": [{"name": name, "version": version} for name, version in specs],
        "data_sources": sources,
        "access_tags": None if tags is None else list(tags),
    }


def _source(schema: pa.Schema, parameters: Mapping[str, Any], properties: Mapping[str, Any]) -> Json:
    encoded = base64.b64encode(schema.serialize()).decode()
    return {
        "structure_family": "table",
        "structure": {
            "arrow_schema": _SCHEMA_PREFIX + encoded,
            "npartitions": 1,
            "columns": list(schema.names),
            "resizable": False,
        },
        "mimetype": _TABLE,
        "parameters": dict(parameters),
        "properties": dict(properties),
        "assets": [],
        "management": "writable",
    }


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


# ---------------------------------------------------------------- answers


def created_table(content: bytes) -> TableSource:
    """Read the data source out of the answer to a create."""
    return table_source(load(content)["data_sources"][0])


def node(content: bytes) -> Node:
    """Read a node's description."""
    attributes = load(content)["data"]["attributes"]
    sources = attributes.get("data_sources") or []
    family = attributes.get("structure_family") if sources else None
    return Node(
        attributes.get("metadata") or {},
        table_source(sources[0]) if family == "table" else None,
        array_source(sources[0]) if family in {"array", "ragged"} else None,
    )


def created_array(content: bytes) -> ArraySource:
    """Read the data source out of the answer to a create."""
    return array_source(load(content)["data_sources"][0])


def array_source(said: Json) -> ArraySource:
    """Read one data source of an array."""
    structure = said["structure"]
    kind = StructDtype if "fields" in structure["data_type"] else BuiltinDtype
    return ArraySource(
        id=said["id"],
        family=said["structure_family"],
        dtype=kind.from_json(structure["data_type"]).to_numpy_dtype(),
        shape=tuple(structure["shape"]),
        chunks=tuple(None if sizes is None else tuple(sizes) for sizes in structure["chunks"]),
        dims=tuple(structure.get("dims") or ()),
        size=structure.get("size") or 0,
        assets=tuple(Asset(asset["data_uri"], asset.get("parameter") or "") for asset in said.get("assets") or []),
        parameters=said.get("parameters") or {},
        properties=said.get("properties") or {},
    )


def array_rows(content: bytes, request: ReadArray) -> npt.NDArray[Any]:
    """Read rows of an array, in the type that was asked for."""
    flat = np.frombuffer(content, request.dtype)
    return flat.reshape((-1, *request.row_shape))


def row_count(content: bytes) -> int:
    """Count the rows of an Arrow file."""
    with pa.ipc.open_file(pa.py_buffer(content)) as file:
        count: int = file.read_all().num_rows
    return count


def family(content: bytes) -> str:
    """Read what kind of node it is."""
    return str(load(content)["data"]["attributes"]["structure_family"])


def table_source(said: Json) -> TableSource:
    """Read one data source of a table."""
    encoded = said["structure"]["arrow_schema"].removeprefix(_SCHEMA_PREFIX)
    uris = [asset["data_uri"] for asset in said.get("assets") or []]
    return TableSource(
        id=said["id"],
        schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded))),
        parameters=said.get("parameters") or {},
        properties=said.get("properties") or {},
        storage=uris[0].partition(":")[0].partition("+")[0] if uris else "",
    )


def table_of(content: bytes) -> pa.Table:
    """Read rows, of the columns that are there."""
    with pa.ipc.open_file(pa.py_buffer(content)) as file:
        read = file.read_all()
    return read.select([name for name in read.column_names if not name.startswith("__index_level_")])


def keys(content: bytes) -> Keys | None:
    """Read the columns that identify rows; `None` if the table has none (Tiled leaves out what is not there)."""
    read = table_of(content)
    if not {"seq_num", "time"} <= set(read.column_names):
        return None
    return Keys(
        seq_num=np.asarray(read.column("seq_num").cast(pa.int64()), dtype=np.int64),
        time=np.asarray(read.column("time").cast(pa.float64()), dtype=np.float64),
    )
