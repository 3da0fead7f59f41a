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
    node: Node | None, key: str, held: Sequence[Files], spec: Mapping[str, Any], *, open_end: bool, moved: bool
) -> tuple[PartReport, list[str]]:
    """Compare an external node with what stream_datums (or datums) of its key say.

    Parameters
    ----------
    spec
        The data key's description.
    moved
        The files are elsewhere for Tiled (`tiled.patches`): only their names are compared.
    """
    counts = Counts(expected=sum(files.rows for files in held))
    part = PartReport(key, node.family if node else "external", counts)
    if node is None:
        counts.missing = counts.expected
        return part, [f"node {shown(key)} is missing: {counts.expected} rows of detector files"] * bool(counts.expected)
    wanted = _uris(held, max(1, round(len(node.assets) / max(counts.expected, 1))))
    if node.family == "bytes":  # no rows but files
        counts.expected, counts.found = len(wanted), len(node.assets)
    else:
        leading = (spec.get("shape") or [1])[0] if held and held[0].joins_leading else 1
        counts.found = (node.shape[0] if node.shape else 0) // max(int(leading or 1), 1)
    counts.missing = max(counts.expected - counts.found, 0)
    counts.foreign = 0 if open_end else max(counts.found - counts.expected, 0)
    differences = _rows_differ(node, counts)
    if any(files.is_old for files in held):
        return part, differences + _paths_differ(node, held)
    return part, differences + _assets_differ(node, wanted, open_end=open_end, moved=moved)


def _rows_differ(node: Node, counts: Counts) -> list[str]:
    if not (counts.missing or counts.foreign):
        return []
    return [f"node {shown(node.key)} has {counts.found} rows instead of {counts.expected}"]


def _assets_differ(node: Node, wanted: Sequence[str], *, open_end: bool, moved: bool) -> list[str]:
    named = basename if moved else str
    should, there = [named(uri) for uri in wanted], [named(uri) for uri in node.assets]
    missing = list((Counter(should) - Counter(there)).elements())
    surplus = [] if open_end else list((Counter(there) - Counter(should)).elements())
    said = [f"node {shown(node.key)}: asset {_address(uri)} is missing" for uri in missing[:SENTENCES_MAX]]
    said += [f"node {shown(node.key)}: asset {_address(uri)} was not published" for uri in surplus[:SENTENCES_MAX]]
    if not said and there[: len(should)] != should:
        said = [f"node {shown(node.key)}: the assets are in another order than the rows"]
    return said


def _address(uri: str) -> str:
    """Return an address for a sentence: its end tells files apart."""
    return shown(uri if len(uri) <= _SHOWN_CHARS else "..." + uri[-_SHOWN_CHARS:])


def _uris(held: Sequence[Files], per_row: int) -> list[str]:
    uris: list[str] = []
    for files in held:
        if not files.is_old:
            uris += files.uris(len(uris), per_row)
    return list(dict.fromkeys(uris))  # a file that is named several times is one asset


def _paths_differ(node: Node, held: Sequence[Files]) -> list[str]:
    """A `resource` names a path, not an address, so only the files' own names can be compared."""
    there = {basename(uri.rstrip("/")) for uri in node.assets}
    wanted = [
        basename(str(files.resource.get("resource_path", "")).rstrip("/")) for files in held if not files.template
    ]
    return [f"node {shown(node.key)}: no asset is called {shown(name)}" for name in wanted if name not in there]
