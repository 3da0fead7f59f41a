"""A write in small: the only way to know that the real ones will succeed.

Where the key may delete, the trial's node has a random name and is removed again. Else it has one name for ever, stays,
and is used by the next trial: least rights must not mean a new node each time. Where only the right to create is in
question nothing is left in any case: Tiled looks at all else first, and then refuses a data source of a kind that it
does not know.

`run` never deletes, because Tiled keeps all streams of one schema in one SQL table and drops it with its last rows.
Here that is safe: a column with a name of its own gives the trial an SQL table that no run shares.
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
    Exists,
    GetNode,
    Json,
    Outcome,
    Path,
    PutSource,
    ReadKeys,
    Rejected,
    TableSource,
)
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.probe import SCOPES_NEEDED
from tiled_ingest.tiled.session import Params, Session

from .findings import Finding, Findings

EMBEDDED = frozenset({"duckdb", "sqlite"})
SCOPES_TO_REMOVE = frozenset({"delete:node", "delete:revision"})
KEPT = "tiled-ingest-check"
NO_KIND = "application/x-tiled-ingest-check"  # of data: Tiled has no adapter for it


class _RefusedError(Exception):
    """A step of the trial did not succeed."""


class Trial:
    """A node of ours in that of `tiled.uri`.

    Parameters
    ----------
    scopes
        The key's; `None` where the server does not tell.
    """

    def __init__(self, session: Session, scopes: frozenset[str] | None) -> None:
        self._session = session
        self._passes = scopes is None or scopes >= SCOPES_TO_REMOVE
        self._name = _name() if self._passes else KEPT

    @property
    def path(self) -> Path:
        """Its container, once `writing` was tried."""
        return (self._name,)

    def writing(self) -> Findings:
        """Do in small what `run` does to a run: create, append, read back, switch."""
        try:
            source = self._written()
        except _RefusedError as error:
            hint = "give the key the scopes " + ", ".join(sorted(SCOPES_NEEDED)) + ", and Tiled storage for tables"
            hint += "" if self._passes else f"; of an earlier check's storage: remove the node {KEPT}"
            yield Finding("tiled writing", "failed", str(error), hint)
        else:
            yield Finding("tiled writing", "ok", "created, appended, read back, switched")
            yield _storage(source)

    @property
    def is_there(self) -> bool:
        """Whether its container could be made."""
        return isinstance(perform(self._session, GetNode(self.path)), Done)

    def removed(self) -> Findings:
        """Remove it, if it is one that passes."""
        if not self._passes:
            detail = f"the key may not delete (`run` never does): the node {KEPT} stays, for the next check"
            yield Finding("tiled clean-up", "ok", detail)
            return
        # Only this name, which nobody else can have.
        params: Params = {"recursive": "true", "external_only": "false"}
        answer = self._session.request("DELETE", "metadata", self.path, params=params)
        if not isinstance(answer, httpx.Response):
            yield Finding("tiled clean-up", "warning", told(answer), f"remove {self._name} by hand")

    def _written(self) -> TableSource:
        """Return what the trial's table points to."""
        row = secrets.randbits(62)
        column = self._name.replace("-", "_")
        table = pa.table({"seq_num": [row], "time": [0.0], column: [0]})
        path: Path = (*self.path, "internal")
        self._ask("create a container", CreateContainer((), self._name, _note(), (), None))
        self._ask("create a table", CreateTable(self.path, "internal", table.schema, {}, None, _note()))
        self._ask("append", Append(path, table))
        if row not in self._ask("read back", ReadKeys(path)).seq_num:
            raise _RefusedError("read back: the appended row is not there")
        source: TableSource = self._ask("read the data source", GetNode(path)).source
        self._ask("switch the data source", PutSource(path, source))
        return source

    def _ask(self, step: str, request: Any) -> Any:
        outcome = perform(self._session, request)
        if isinstance(outcome, Exists) and not self._passes:
            return None
        if not isinstance(outcome, Done):
            raise _RefusedError(f"{step}: {told(outcome)}")
        return outcome.value


def creating(session: Session, title: str, parent: Path, detail: str) -> Findings:
    """Look whether we may create nodes in `parent`; `detail` tells how things are if so. Nothing is created."""
    outcome = would_create(session, parent)
    if isinstance(outcome, Done):
        yield Finding(title, "ok", detail)
    else:
        what = f"create a container in /{'/'.join(parent)}: {told(outcome)}"
        yield Finding(title, "failed", what, "let the key create nodes there, or correct tiled.routes")


def would_create(session: Session, parent: Path, tags: tuple[str, ...] | None = None) -> Outcome:
    """Ask for a node that Tiled cannot make. Answers: `Done` if nothing else was wrong with it, or a failure.

    Tiled looks at the key's scopes, the access policy and the tags, and writes the node's row, before it finds that it
    does not know this kind of data, answers 415, and takes the row back.
    """
    source = {
        "structure_family": "array",
        "structure": {"data_type": _BYTES, "shape": [0], "chunks": [[0]], "dims": None, "resizable": False},
        "mimetype": NO_KIND,
        "management": "external",
        "parameters": {},
        "assets": [],
    }
    body = {
        "id": _name(),
        "structure_family": "array",
        "metadata": _note(),
        "specs": [],
        "data_sources": [source],
        "access_tags": None if tags is None else list(tags),
    }
    answer = session.request("POST", "register", parent, headers=wire.JSON, content=wire.dump(body))
    if isinstance(answer, httpx.Response):
        return Rejected("Tiled made a node of a kind that it cannot know", answer.status_code)
    return Done() if isinstance(answer, Rejected) and answer.status == 415 else answer


def told(outcome: object) -> str:
    """Return what an outcome says of itself."""
    return str(getattr(outcome, "detail", "") or type(outcome).__name__.lower())


_BYTES = {"endianness": "little", "kind": "u", "itemsize": 1, "dt_units": None}


def _name() -> str:
    return f"{KEPT}-{secrets.token_hex(8)}"


def _note() -> Json:
    return {"tiled_ingest": {"check": True}}


def _storage(source: TableSource) -> Finding:
    if source.storage in EMBEDDED:
        detail = f"{source.storage}, embedded: for one client at a time"
        hint = "two at once have lost confirmed rows: use PostgreSQL for anything but trying out"
        return Finding("tiled storage", "warning", detail, hint)
    return Finding("tiled storage", "ok", source.storage or "Tiled does not tell")
