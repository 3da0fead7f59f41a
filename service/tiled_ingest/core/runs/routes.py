"""In which node a run is created: by the topic's name and by fields of its start document."""

import re
from collections.abc import Mapping
from typing import Any

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.writes import Path

SEGMENT_MAX = 200


def route(routes: tuple[tuple[str, str], ...], topic: str, start: Mapping[str, Any]) -> Path:
    """Return the parent node of a run; the first route whose expression matches the whole topic counts.

    A template may use the expression's groups (`{0}` is the whole topic, `{1}` or `{name}` a group) and fields of the
    start document (`{start[data_session]}`).

    Raises
    ------
    InvalidDocument
        `unroutable`: the start lacks a field, or its value cannot be a node's key.
    """
    for pattern, template in routes:
        if match := re.fullmatch(pattern, topic):
            segments = [segment for segment in template.split("/") if segment]
            return tuple(_filled(segment, match, start) for segment in segments)
    return ()


def fixed_parents(routes: tuple[tuple[str, str], ...], topic: str) -> tuple[Path, ...]:
    """Return the parents that the topic's runs can have, as far as they do not depend on a start document."""
    for pattern, template in routes:
        if re.fullmatch(pattern, topic):
            return () if "{start" in template else (route(routes, topic, {}),)
    return ((),)


def where_runs_are(routes: tuple[tuple[str, str], ...], topic: str) -> tuple[Path, int]:
    """Return a node below which all runs of the topic are, and how many containers stand between it and them."""
    for pattern, template in routes:
        if match := re.fullmatch(pattern, topic):
            segments = [segment for segment in template.split("/") if segment]
            fixed = next((at for at, segment in enumerate(segments) if "{start" in segment), len(segments))
            return tuple(_filled(segment, match, {}) for segment in segments[:fixed]), len(segments) - fixed
    return (), 0


def _filled(segment: str, match: re.Match[str], start: Mapping[str, Any]) -> str:
    try:
        value = segment.format(match[0], *match.groups(), start=start, **match.groupdict())
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDocument("unroutable", f"the start document does not fit the route {segment!r}: {error}") from None
    if not 0 < len(value) <= SEGMENT_MAX or "/" in value or not value.isprintable() or value in {".", ".."}:
        raise InvalidDocument("unroutable", f"the route {segment!r} gives a key that no node can have")
    return value
