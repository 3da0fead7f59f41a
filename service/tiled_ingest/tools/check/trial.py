"""A write in small, and its removal: the only way to know that the real ones will succeed.

A trial node has a random name, and is removed again. `run` never deletes, because Tiled keeps all streams of one
schema in one SQL table and drops it with its last rows. Here that is safe: a column with a random name gives the trial
an SQL table that no run shares.
"""

import secrets
from typing import Any

import httpx
import pyarrow as pa

from tiled_ingest.core.writes import (
    Append,
    CreateContainer,
    CreateTable,
    Done,
    GetNode,
    Json,
    Path,
    PutSource,
    ReadKeys,
    TableSource,
)
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.probe import SCOPES_NEEDED
from tiled_ingest.tiled.session import Params, Session

from .findings import Finding, Findings

EMBEDDED = frozenset({"duckdb", "sqlite"})


class _RefusedError(Exception):
    """A step of the trial did not succeed."""


def writing(session: Session) -> Findings:
    """Do in small what `run` does to a run: create, append, read back, switch."""
    name = _name()
    try:
        source = _written(session, name)
    except _RefusedError as error:
        hint = "give the key the scopes " + ", ".join(sorted(SCOPES_NEEDED)) + ", and Tiled storage for tables"
        yield Finding("tiled writing", "failed", str(error), hint)
    else:
        yield Finding("tiled writing", "ok", "created, appended, read back, switched")
        yield _storage(source)
    yield from _removed(session, (name,))


def creating(session: Session, title: str, parent: Path, detail: str) -> Findings:
    """Create a container in `parent`; `detail` tells how things are if that succeeds."""
    name = _name()
    try:
        _ask(session, f"create a container in /{'/'.join(parent)}", _container(parent, name))
    except _RefusedError as error:
        yield Finding(title, "failed", str(error), "let the key create nodes there, or correct tiled.routes")
    else:
        yield Finding(title, "ok", detail)
    yield from _removed(session, (*parent, name))


def told(outcome: object) -> str:
    """Return what an outcome says of itself."""
    return str(getattr(outcome, "detail", "") or type(outcome).__name__.lower())


def _written(session: Session, name: str) -> TableSource:
    """Return what the trial's table points to."""
    table = pa.table({"seq_num": [1], "time": [0.0], name.replace("-", "_"): [0]})
    path: Path = (name, "internal")
    _ask(session, "create a container", _container((), name))
    _ask(session, "create a table", CreateTable((name,), "internal", table.schema, {}, None, _note()))
    _ask(session, "append", Append(path, table))
    if len(_ask(session, "read back", ReadKeys(path)).seq_num) != 1:
        raise _RefusedError("read back: the appended row is not there")
    source: TableSource = _ask(session, "read the data source", GetNode(path)).source
    _ask(session, "switch the data source", PutSource(path, source))
    return source


def _ask(session: Session, step: str, request: Any) -> Any:
    outcome = perform(session, request)
    if not isinstance(outcome, Done):
        raise _RefusedError(f"{step}: {told(outcome)}")
    return outcome.value


def _name() -> str:
    return f"tiled-ingest-check-{secrets.token_hex(8)}"


def _container(parent: Path, name: str) -> CreateContainer:
    return CreateContainer(parent, name, _note(), (), None)


def _note() -> Json:
    return {"tiled_ingest": {"check": True}}


def _storage(source: TableSource) -> Finding:
    if source.storage in EMBEDDED:
        detail = f"{source.storage}, embedded: for one client at a time"
        hint = "two at once have lost confirmed rows: use PostgreSQL for anything but trying out"
        return Finding("tiled storage", "warning", detail, hint)
    return Finding("tiled storage", "ok", source.storage or "Tiled does not tell")


def _removed(session: Session, path: Path) -> Findings:
    # Only this name, which nobody else can have, and only if it is there.
    if not isinstance(perform(session, GetNode(path)), Done):
        return
    params: Params = {"recursive": "true", "external_only": "false"}
    answer = session.request("DELETE", "metadata", path, params=params)
    if not isinstance(answer, httpx.Response):
        where = "/".join(path)
        hint = (
            f"remove {where} by hand; delete:node and delete:revision would let `check` do it, `run` needs them never"
        )
        yield Finding("tiled clean-up", "warning", told(answer), hint)
