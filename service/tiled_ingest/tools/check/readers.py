"""What readers will miss: the service itself needs none of it, so these are warnings."""

from collections.abc import Iterable

import httpx

from tiled_ingest.core.writes import Json, Path
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.session import Params, Session

from .findings import Finding, Findings
from .trial import told

RUN_SPEC, CATALOG_SPEC = "BlueskyRun", "CatalogOfBlueskyRuns"
DOCUMENTS = "application/json-seq"  # what `run.documents()` asks for


def look(session: Session, parents: Iterable[Path]) -> Findings:
    """Look at the server's exporter, and at the specs of the nodes in which runs are created."""
    info = session.server_info()
    if isinstance(info, httpx.Response):
        yield _exporter(wire.load(info.content).get("formats") or {})
    for parent in parents:
        yield from _spec(session, parent)


def live(session: Session, path: Path) -> Findings:
    """Look whether somebody could watch this node grow."""
    answer = session.subscribe(path)
    if isinstance(answer, httpx.Response):
        yield Finding("tiled streaming", "ok", "runs can be watched live")
        return
    hint = (
        "put into the server's configuration streaming_cache: {uri: 'redis://HOST:6379'} (for a server of one process "
        "{uri: memory}), restart it, and let proxies pass websockets"
    )
    yield Finding("tiled streaming", "warning", f"nobody can watch a run live: {told(answer)}", hint)


def _exporter(formats: Json) -> Finding:
    if DOCUMENTS in formats.get(RUN_SPEC, ()):
        return Finding("tiled exporter", "ok", "runs can be read as documents")
    wanted = f"{{{RUN_SPEC}: {{{DOCUMENTS}: bluesky_tiled_plugins.exporters:json_seq_exporter}}}}"
    hint = (
        "install bluesky-tiled-plugins where the server runs, put into its configuration "
        f"media_types: {wanted}, and restart it"
    )
    return Finding("tiled exporter", "warning", "readers' run.documents() will fail", hint)


def _spec(session: Session, parent: Path) -> Findings:
    """A node that is not there yet is made with its spec."""
    params: Params = {"fields": "specs", "omit_links": "true"}
    answer = session.request("GET", "metadata", parent, params=params, headers=wire.JSON)
    if not isinstance(answer, httpx.Response):
        return
    title = f"tiled spec of /{'/'.join(parent)}"
    specs = wire.load(answer.content)["data"]["attributes"].get("specs") or []
    if CATALOG_SPEC in {spec["name"] for spec in specs}:
        yield Finding(title, "ok", CATALOG_SPEC)
        return
    hint = (
        "let tiled.routes lead to a node of its own (made with the spec), or give this one the spec: the server's "
        f"root in its configuration, args of the tree, specs: [{{name: {CATALOG_SPEC}, version: '3.0'}}]; another node "
        f"by client.update_metadata(specs=[tiled.structures.core.Spec('{CATALOG_SPEC}', '3.0')])"
    )
    yield Finding(title, "warning", "none for runs: client[-1] and look-up by scan_id will not work there", hint)
