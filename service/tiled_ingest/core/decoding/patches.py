"""What a site changes in documents before anything else is done with them.

A patch is a function that takes a document as a plain mapping and returns the one to use; it must depend on nothing
else, because the log may be read again. `rewriting` makes patches of settings: rules for the addresses of files.
"""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

Patch = Callable[[dict[str, Any]], dict[str, Any]]
Patches = Mapping[str, Patch]  # by kind of document
Rules = Sequence[tuple[str, str]]  # (regular expression, replacement); the first that matches counts


def rewriting(rules: Rules) -> Patches:
    """Return patches that rewrite where resources say that their files are.

    A rule sees the plain path of a file (of a `file:` URI, or of an old resource's root and path joined), and the whole
    URI of anything else.
    """
    if not rules:
        return {}
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def patch(doc: dict[str, Any]) -> dict[str, Any]:
        return _moved(doc, lambda place: _first_match(compiled, place))

    return {"resource": patch, "stream_resource": patch}


def joined(*more: Patches) -> Patches:
    """Return patches that apply several, one after the other."""
    kinds = {kind for patches in more for kind in patches}
    return {kind: _chained([patches[kind] for patches in more if kind in patches]) for kind in kinds}


def _chained(chain: list[Patch]) -> Patch:
    def patch(doc: dict[str, Any]) -> dict[str, Any]:
        for one in chain:
            doc = one(doc)
        return doc

    return chain[0] if len(chain) == 1 else patch


def _first_match(rules: Sequence[tuple[re.Pattern[str], str]], place: str) -> str | None:
    for pattern, replacement in rules:
        moved, count = pattern.subn(replacement, place, count=1)
        if count:
            return moved
    return None


def _moved(doc: dict[str, Any], move: Callable[[str], str | None]) -> dict[str, Any]:
    if isinstance(uri := doc.get("uri"), str):
        return {**doc, "uri": _moved_uri(uri, move)}
    root, path = doc.get("root") or "", doc.get("resource_path")
    if not isinstance(root, str) or not isinstance(path, str):
        return doc
    moved = move(posixpath.join(root, path.lstrip("/")) if root else path)
    return doc if moved is None else {**doc, "root": "", "resource_path": moved}


def _moved_uri(uri: str, move: Callable[[str], str | None]) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError:  # no URI at all; whoever reads it will say so
        return uri
    if parts.scheme != "file":
        return move(uri) or uri
    moved = move(unquote(parts.path))
    return uri if moved is None else urlunsplit(parts._replace(path=quote(moved)))
