"""Each request of `core.writes` as HTTP: one request where Tiled allows it, in the layout readers know.

Not through `tiled.client.container`, which imports pandas, dask and numba (200 MB) to send the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import httpx
import numpy as np

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
    Missing,
    Outcome,
    PatchArray,
    Path,
    PutArray,
    PutSource,
    ReadArray,
    ReadKeys,
    ReadRows,
    RegisterExternal,
    Rejected,
    Request,
    Spec,
    UpdateMetadata,
)
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.assets import register
from tiled_ingest.tiled.formats import Formats
from tiled_ingest.tiled.open_runs import find_open_runs
from tiled_ingest.tiled.session import Params, Session, understood

CATALOG_OF_RUNS: Spec = ("CatalogOfBlueskyRuns", "3.0")
_FORMATS = Formats()


def perform(session: Session, request: Request, formats: Formats | None = None) -> Outcome:
    """Perform one request, once; returns when Tiled answered, or cannot any more. Raises nothing but bugs.

    Parameters
    ----------
    formats
        What a site knows of file formats beyond bluesky-tiled-plugins.
    """
    try:
        if isinstance(request, RegisterExternal):
            return register(session, request, formats or _FORMATS)
        return _PERFORM[type(request)](session, request)
    except wire.UnwritableError as error:  # raised before anything was sent
        return Rejected(str(error), 422)


def _create_container(session: Session, request: CreateContainer) -> Outcome:
    return _post(session, request.parent, wire.container(request), _nothing)


def _create_table(session: Session, request: CreateTable) -> Outcome:
    return _post(session, request.parent, wire.table(request), wire.created_table)


def _append(session: Session, request: Append) -> Outcome:
    answer = session.request(
        "PATCH",
        "table/partition",
        request.path,
        params={"partition": 0},
        headers={"Accept": "application/json", "Content-Type": wire.ARROW_FILE},
        content=wire.rows(request.table),
    )
    return understood(answer, _nothing)


def _create_array(session: Session, request: CreateArray) -> Outcome:
    return _post(session, request.parent, wire.array(request), wire.created_array)


def _patch_array(session: Session, request: PatchArray) -> Outcome:
    shape = ",".join(map(str, request.array.shape))
    answer = session.request(
        "PATCH",
        "array/full",
        request.path,
        params={"offset": request.offset, "shape": shape, "extend": "true"},
        headers={"Accept": "application/json", "Content-Type": wire.OCTETS},
        content=np.ascontiguousarray(request.array).tobytes(),
    )
    return understood(answer, _nothing)


def _read_array(session: Session, request: ReadArray) -> Outcome:
    params: Params = {"slice": f"{request.start}:{request.stop}"}
    answer = session.request("GET", "array/full", request.path, params=params, headers={"Accept": wire.OCTETS})
    return understood(answer, partial(wire.array_rows, request=request))


def _put_array(session: Session, request: PutArray) -> Outcome:
    source = wire.unnamed(request.source, request.known)
    outcome = _put_array_source(session, request.path, source)
    if source.assets and source.family == "array" and isinstance(outcome, Done):
        # Tiled's client drops the live update of a request that names an asset of zarr: it wants them numbered.
        return _put_array_source(session, request.path, wire.unnamed(source, source.assets))
    return outcome


def _put_array_source(session: Session, path: Path, source: ArraySource) -> Outcome:
    answer = session.request("PUT", "data_source", path, headers=wire.JSON, content=wire.dump(wire.shown(source)))
    return understood(answer, _nothing)


def _count_rows(session: Session, request: CountRows) -> Outcome:
    return understood(_columns(session, request.path, (request.column,)), wire.row_count)


def _read_keys(session: Session, request: ReadKeys) -> Outcome:
    outcome = understood(_columns(session, request.path, ("seq_num", "time")), wire.keys)
    if outcome == Done(None):
        return Rejected("the table has no columns seq_num and time", 400)
    return outcome


def _read_rows(session: Session, request: ReadRows) -> Outcome:
    return understood(_columns(session, request.path, request.columns), wire.table_of)


def _columns(session: Session, path: Path, names: Sequence[str]) -> httpx.Response | Outcome:
    params: Params = {"partition": 0, "column": list(names)}
    return session.request("GET", "table/partition", path, params=params, headers={"Accept": wire.ARROW_FILE})


def _get_node(session: Session, request: GetNode) -> Outcome:
    params: Params = {"include_data_sources": "true", "omit_links": "true"}
    answer = session.request("GET", "metadata", request.path, params=params, headers=wire.JSON)
    return understood(answer, wire.node)


def _put_source(session: Session, request: PutSource) -> Outcome:
    content = wire.dump(wire.source(request.source))
    answer = session.request("PUT", "data_source", request.path, headers=wire.JSON, content=content)
    return understood(answer, _nothing)


def _update_metadata(session: Session, request: UpdateMetadata) -> Outcome:
    content = wire.dump(wire.patch(request))
    params: Params = {"drop_revision": "true"}
    answer = session.request("PATCH", "metadata", request.path, params=params, headers=wire.JSON, content=content)
    return understood(answer, _nothing)


def _close_streams(session: Session, request: CloseStreams) -> Outcome:
    for path in request.paths:
        outcome = understood(session.request("DELETE", "stream/close", path), _nothing)
        if not isinstance(outcome, Done | Missing):  # what is not there has no subscribers
            return outcome
    return Done()


def _ensure_container(session: Session, request: EnsureContainer) -> Outcome:
    return _ensure(session, request.path, (CATALOG_OF_RUNS,))


def _ensure(session: Session, path: Path, specs: tuple[Spec, ...]) -> Outcome:
    # Looked at first: we may create below a node without being allowed to create beside it.
    there = find_container(session, path)
    if not isinstance(there, Missing) or not path:
        return there
    above = _ensure(session, path[:-1], ())
    if not isinstance(above, Done):
        return above
    made = _create_container(session, CreateContainer(path[:-1], path[-1], {}, specs, None))
    return Done() if isinstance(made, Done | Exists) else made


def find_container(session: Session, path: Path) -> Outcome:
    """Ask for a container. Answers: `Done(None)`, `Missing`, or a failure: `Rejected` where another node is.

    (Tiled would create a run below a table, too, where no reader finds it.)
    """
    params: Params = {"fields": "structure_family", "omit_links": "true"}
    answer = session.request("GET", "metadata", path, params=params, headers=wire.JSON)
    family = understood(answer, wire.family)
    if isinstance(family, Done) and family.value != "container":
        return Rejected(f"/{'/'.join(path)} is no container for runs but of the family {family.value}", 409)
    return Done() if isinstance(family, Done) else family


def _find_open_runs(session: Session, request: FindOpenRuns) -> Outcome:
    return find_open_runs(session, request)


def _post(session: Session, parent: Path, body: Json, read: Callable[[bytes], Any]) -> Outcome:
    if not body["id"] or "/" in body["id"]:  # Tiled would make up a key, or make one that no address reaches
        return Rejected("a node's key may not be empty, nor hold a slash", 422)
    answer = session.request("POST", "metadata", parent, headers=wire.JSON, content=wire.dump(body))
    return understood(answer, read)


def _nothing(_content: bytes) -> None:
    """Read nothing: the status said it all."""


_PERFORM: Mapping[type, Callable[[Session, Any], Outcome]] = {
    CreateContainer: _create_container,
    CreateTable: _create_table,
    Append: _append,
    ReadKeys: _read_keys,
    CountRows: _count_rows,
    CreateArray: _create_array,
    PatchArray: _patch_array,
    ReadArray: _read_array,
    ReadRows: _read_rows,
    PutArray: _put_array,
    GetNode: _get_node,
    PutSource: _put_source,
    UpdateMetadata: _update_metadata,
    CloseStreams: _close_streams,
    EnsureContainer: _ensure_container,
    FindOpenRuns: _find_open_runs,
}
