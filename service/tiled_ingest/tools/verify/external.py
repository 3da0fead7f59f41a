"""Detectors' files: how many rows a node promises, and the addresses of its files. The files are not opened."""

from collections import Counter
from collections.abc import Mapping, Sequence
from posixpath import basename
from typing import Any

from .files import Files
from .metadata import shown
from .report import SENTENCES_MAX, Counts, PartReport
from .tree import Node

_SHOWN_CHARS = 50


def compare_files(
    node: Node | None, key: str, held: Sequence[Files], data_keys: Mapping[str, Any], *, open_end: bool
) -> tuple[PartReport, list[str]]:
    """Compare an external node with what stream_datums (or datums) of its key say."""
    counts = Counts(expected=sum(files.rows for files in held))
    part = PartReport(key, node.family if node else "external", counts)
    if node is None:
        counts.missing = counts.expected
        return part, [f"node {shown(key)} is missing: {counts.expected} rows of detector files"] * bool(counts.expected)
    differences = _rows_differ(node, counts, held, data_keys.get(key) or {}, open_end=open_end)
    return part, differences + _assets_differ(node, held, counts.expected, open_end=open_end)


def _rows_differ(
    node: Node, counts: Counts, held: Sequence[Files], spec: Mapping[str, Any], *, open_end: bool
) -> list[str]:
    if node.family == "bytes":
        counts.found = len(node.assets)
    else:
        leading = (spec.get("shape") or [1])[0] if held and held[0].joins_leading else 1
        counts.found = (node.shape[0] if node.shape else 0) // max(int(leading or 1), 1)
    counts.missing = max(counts.expected - counts.found, 0)
    counts.foreign = 0 if open_end else max(counts.found - counts.expected, 0)
    if not (counts.missing or counts.foreign):
        return []
    return [f"node {shown(node.key)} has {counts.found} rows instead of {counts.expected}"]


def _assets_differ(node: Node, held: Sequence[Files], rows: int, *, open_end: bool) -> list[str]:
    if any(files.is_old for files in held):
        return _paths_differ(node, held)
    wanted = _uris(held, max(1, round(len(node.assets) / max(rows, 1))))
    missing = list((Counter(wanted) - Counter(node.assets)).elements())
    surplus = [] if open_end else list((Counter(node.assets) - Counter(wanted)).elements())
    said = [f"node {shown(node.key)}: asset {_address(uri)} is missing" for uri in missing[:SENTENCES_MAX]]
    said += [f"node {shown(node.key)}: asset {_address(uri)} was not published" for uri in surplus[:SENTENCES_MAX]]
    if not said and list(node.assets[: len(wanted)]) != wanted:
        said = [f"node {shown(node.key)}: the assets are in another order than the rows"]
    return said


def _address(uri: str) -> str:
    """Return an address for a sentence: its end tells files apart."""
    return shown(uri if len(uri) <= _SHOWN_CHARS else "..." + uri[-_SHOWN_CHARS:])


def _uris(held: Sequence[Files], per_row: int) -> list[str]:
    uris: list[str] = []
    for files in held:
        uris += files.uris(len(uris), per_row)
    return uris


def _paths_differ(node: Node, held: Sequence[Files]) -> list[str]:
    """A `resource` names a path, not an address, so only the files' own names can be compared."""
    there = {basename(uri.rstrip("/")) for uri in node.assets}
    wanted = [
        basename(str(files.resource.get("resource_path", "")).rstrip("/")) for files in held if not files.template
    ]
    return [f"node {shown(node.key)}: no asset is called {shown(name)}" for name in wanted if name not in there]
