"""Detectors' files: how many rows a node promises, and the addresses of its files. The files are not opened."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from posixpath import basename
from typing import Any
from urllib.parse import unquote

from .files import Files
from .metadata import shown
from .report import SENTENCES_MAX, Counts, PartReport
from .tree import Node

_SHOWN_CHARS = 50
MISSING_MAX = 1_000  # addresses that are told apart, beyond those that are there


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
    wanted = _wanted(held, spec, len(node.assets))
    if node.family == "bytes":  # no rows but files
        counts.expected, counts.found = len(wanted), len(node.assets)
    else:
        leading = (spec.get("shape") or [1])[0] if held and held[0].joins_leading else 1
        counts.found = (node.shape[0] if node.shape else 0) // max(int(leading or 1), 1)
    counts.missing = max(counts.expected - counts.found, 0)
    counts.foreign = 0 if open_end else max(counts.found - counts.expected, 0)
    return part, _rows_differ(node, counts) + _assets_differ(node, wanted, open_end=open_end, moved=moved)


def _rows_differ(node: Node, counts: Counts) -> list[str]:
    if not (counts.missing or counts.foreign):
        return []
    return [f"node {shown(node.key)} has {counts.found} rows instead of {counts.expected}"]


def _assets_differ(node: Node, wanted: Mapping[str, bool], *, open_end: bool, moved: bool) -> list[str]:
    """Compare addresses, in their order; where a `resource` names a path, only the files' own names."""
    old = any(wanted.values())
    named = _file_name if moved or old else str
    should, there = [named(uri) for uri in wanted], [named(uri) for uri in node.assets]
    missing = list((Counter(should) - Counter(there)).elements())
    surplus = [] if open_end or old else list((Counter(there) - Counter(should)).elements())
    said = [f"node {shown(node.key)}: asset {_address(uri)} is missing" for uri in missing[:SENTENCES_MAX]]
    said += [f"node {shown(node.key)}: asset {_address(uri)} was not published" for uri in surplus[:SENTENCES_MAX]]
    if len(missing) > SENTENCES_MAX:
        said.append(f"node {shown(node.key)}: {len(missing)} assets are missing, or more")
    if not said and not old and there[: len(should)] != should:
        said = [f"node {shown(node.key)}: the assets are in another order than the rows"]
    return said


def _file_name(uri: str) -> str:
    return unquote(basename(uri.rstrip("/")))


def _address(uri: str) -> str:
    """Return an address for a sentence: its end tells files apart."""
    return shown(uri if len(uri) <= _SHOWN_CHARS else "..." + uri[-_SHOWN_CHARS:])


def _wanted(held: Sequence[Files], spec: Mapping[str, Any], there: int) -> dict[str, bool]:
    """Return the addresses of the files, in order, each once, and whether it is only a path.

    However many rows are promised: if all that are there are found, a few more tell that some are missing.
    """
    wanted: dict[str, bool] = {}
    before, limit = 0, 2 * there + MISSING_MAX
    for files in held:
        for uri in islice(files.places(before, spec), limit):
            wanted.setdefault(uri, files.is_old)
            before += 1
    return wanted
