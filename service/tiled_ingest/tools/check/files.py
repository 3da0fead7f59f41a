"""Detectors' files: whether Tiled's server may read where they lie, and whether it sees them.

We register where a file is, and never open it: that it cannot be read shows itself to the first reader. A server reads
below its `readable_storage` only, and in a container it has file systems of its own.

Both is asked of a node that names the file as a table of many parts: a part that does not exist is refused as such
(400), but only after Tiled has looked whether the place is one of its own; elsewhere it answers 500.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path as Files
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow as pa

from tiled_ingest.core.decoding.patches import Patches
from tiled_ingest.core.writes import CreateTable, Exists, Json, Path, Rejected
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.session import Params, Session

from .findings import Finding, Findings, Named, Verdict
from .trial import told

FILES_MAX = 20
FAR = 1_000_000  # a part that no file has
_ONE_BYTE = {"Range": "bytes=0-0"}


def wanted(text: str, patches: Patches) -> Named:
    """Return what a person names, a path or an address, as it would be registered."""
    uri = text if "://" in text else f"file://localhost{Files(text).absolute().as_posix()}{'/' * text.endswith('/')}"
    doc: dict[str, Any] = {"uri": uri}
    patched = patches["stream_resource"](doc) if "stream_resource" in patches else doc
    return Named(patched["uri"], str(patched["uri"]).endswith("/"), asked=True)


def named_in(kind: str, doc: Mapping[str, Any]) -> Named | None:
    """Return where a document of external data says that its files are; `None` if it says nothing of files."""
    if kind == "stream_resource" and isinstance(uri := doc.get("uri"), str):
        return Named(uri, uri.endswith("/") or str(doc.get("mimetype")).startswith("multipart/"))
    if kind == "resource" and isinstance(path := doc.get("resource_path"), str):
        whole = Files("/", str(doc.get("root") or ""), path.lstrip("/") if doc.get("root") else path)
        return Named(f"file://localhost{whole.as_posix()}", folder=not whole.suffix)
    return None


def look(session: Session, parent: Path, files: Iterable[Named]) -> Findings:
    """Look at files, by nodes in the trial's container."""
    for file in list(files)[:FILES_MAX]:
        if urlsplit(file.uri).scheme == "file":
            yield _looked(session, parent, file)
        elif file.asked:
            yield Finding(file.title, "warning", "is no file: address", "only addresses of files can be tried")


def _looked(session: Session, parent: Path, file: Named) -> Finding:
    bad: Verdict = "failed" if file.asked else "warning"
    key = "file-" + hashlib.blake2b(file.uri.encode(), digest_size=8).hexdigest()
    made = _registered(session, parent, key, file)
    if not isinstance(made, httpx.Response | Exists):
        return Finding(file.title, bad, f"register: {told(made)}", "give the key the scope register")
    path = (*parent, key)
    part = session.request(
        "GET", "table/partition", path, params={"partition": FAR}, headers={"Accept": wire.ARROW_FILE}
    )
    if not (isinstance(part, Rejected) and part.status == 400):
        hint = "name its folder in the server's readable_storage (`tiled serve -r`), or rewrite it by tiled.patches"
        return Finding(file.title, bad, "is not where Tiled's server may read", hint)
    if file.folder:
        return Finding(file.title, "ok", "Tiled's server may read there (whether it sees the folder was not tried)")
    return _seen(session, path, file, bad)


def _seen(session: Session, path: Path, file: Named, bad: Verdict) -> Finding:
    params: Params = {"id": _asset(session, path)}
    answer = session.request("GET", "asset/bytes", path, params=params, headers=_ONE_BYTE)
    if isinstance(answer, httpx.Response) or getattr(answer, "status", None) == 416:  # an empty file has no first byte
        return Finding(file.title, "ok", "Tiled's server reads it")
    if getattr(answer, "status", None) == 403:
        detail = "Tiled's server may read there; it gives no files away, so whether it sees this one is not known"
        return Finding(file.title, "ok", detail)
    gone = "" if file.asked else " (or it is gone since)"
    hint = "mount its folder where the server runs, at this path, readable for its user, or rewrite it by tiled.patches"
    return Finding(file.title, bad, f"Tiled's server does not see it{gone}", hint)


def _registered(session: Session, parent: Path, key: str, file: Named) -> Any:
    """Make the node, as a table of comma-separated values; its file is not opened for that."""
    body: Json = wire.table(CreateTable(parent, key, pa.schema([("x", pa.int64())]), {}, None, {}))
    asset = {"data_uri": file.uri, "is_directory": file.folder, "parameter": "data_uris", "num": 0}
    (source,) = body["data_sources"]
    sources = [{**source, "mimetype": "text/csv", "management": "external", "assets": [asset]}]
    content = wire.dump({**body, "data_sources": sources})
    return session.request("POST", "register", parent, headers=wire.JSON, content=content)


def _asset(session: Session, path: Path) -> int:
    """Return the number by which Tiled knows the node's file."""
    params: Params = {"include_data_sources": "true", "omit_links": "true"}
    answer = session.request("GET", "metadata", path, params=params, headers=wire.JSON)
    if not isinstance(answer, httpx.Response):
        return 0
    (source,) = wire.load(answer.content)["data"]["attributes"]["data_sources"]
    return int(source["assets"][0]["id"])
