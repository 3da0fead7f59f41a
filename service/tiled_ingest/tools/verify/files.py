"""Detectors' files that documents name: resources, and how many rows of each the stream's data have."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from tiled_ingest.tools.decoding import Document, Unreadable

from .shapes import range_of, whole

Range = tuple[int, int]


@dataclass(eq=False)
class Files:
    """What one resource holds of one key of one stream.

    Attributes
    ----------
    ranges
        Indices (start, stop) of its rows, in the order of the log.
    """

    resource: Document
    ranges: list[Range] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows they hold."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def is_old(self) -> bool:
        """Whether it is a `resource` (with a path, and datums), not a `stream_resource` (with a uri)."""
        return "uri" not in self.resource

    @property
    def _parameters(self) -> Mapping[str, Any]:
        given = self.resource.get("parameters") or self.resource.get("resource_kwargs") or {}
        return given if isinstance(given, Mapping) else {}

    @property
    def template(self) -> str | None:
        """The pattern of its files' names, `{number}` in it; `None` for a single file."""
        template = self._parameters.get("template")
        if not isinstance(template, str):
            return None
        named = template.replace("%s", str(self._parameters.get("filename", "")), 1).replace("%s", "")
        return re.sub(r"%[-+ #]*(0?)(\d*)(?:\.(\d+))?d", _new_style, named)

    @property
    def joins_leading(self) -> bool:
        """Whether the rows of a datum follow each other in the first dimension, instead of making a new one."""
        table = self.resource.get("mimetype") == "text/csv;header=absent"
        return bool(self._parameters.get("join_method", "concat" if table else "stack") == "concat")

    def uris(self, before: int, per_row: int) -> Iterator[str]:
        """Yield the addresses of its files.

        Parameters
        ----------
        before
            How many files the key's earlier resources have: a template counts from there.
        per_row
            How many files make one row.
        """
        uri = str(self.resource["uri"])
        template = self.template
        if template is None:
            if self.resource.get("mimetype") == "application/octet-stream":
                yield from (uri for _ in range(self.rows))
            else:
                yield uri
            return
        for start, stop in self.ranges:
            for number in range(start * per_row, stop * per_row):
                tail = template.format(number - before)
                yield uri + (tail.lstrip("/") if uri.endswith("/") else tail)


def _new_style(match: re.Match[str]) -> str:
    zero, width, precision = match[1], match[2], match[3]
    if precision:
        zero, width = "0", str(max(int(precision), int(width or 0)))
    return f"{{:{zero}{width}d}}"


@dataclass
class OldRows:
    """Rows of one key that events name by datums, whose indices follow one of three customs of the field."""

    next_index: int = 0
    carry: int = 0

    def range_of(self, kwargs: Mapping[str, Any], seq_num: int) -> Range:
        """Return the indices of a datum's rows."""
        try:
            return range_of(kwargs.get("indices"))
        except Unreadable:
            pass  # the next custom
        if (point := whole(kwargs.get("point_number"))) is not None:
            return point, point + 1
        if (frame := whole(kwargs.get("frame"))) is None:
            return seq_num - 1, seq_num
        start = self.next_index + self.carry
        self.next_index = frame + 1
        if self.next_index + self.carry < start:
            self.carry = start  # the next resource counts from its own beginning
        return start, self.next_index + self.carry


def resolved(
    references: Iterable[tuple[str, str, int]], data: Mapping[str, tuple[str, Any]], resources: Mapping[str, Document]
) -> dict[str, list[Files]]:
    """Return the files, by key, that events name through datums; a datum that never came names none.

    Parameters
    ----------
    references
        (key, datum, `seq_num`) as the events have them.
    data
        Resource and kwargs of each datum.
    """
    found: dict[str, list[Files]] = {}
    customs: dict[str, OldRows] = {}
    for key, datum, seq_num in references:
        resource, kwargs = data.get(datum, ("", {}))
        if resource not in resources:
            continue
        held = found.setdefault(key, [])
        mine = next((files for files in held if files.resource is resources[resource]), None)
        if mine is None:
            held.append(mine := Files(resources[resource]))
        mine.ranges.append(customs.setdefault(key, OldRows()).range_of(kwargs, seq_num))
    return found


def data_of(kind: str, document: Document) -> Iterator[tuple[str, Any]]:
    """Yield id and kwargs of each datum in a `datum`, `datum_page` or `bulk_datum`.

    Raises
    ------
    Unreadable
        The columns of a page are shorter than it.
    """
    if kind == "datum":
        yield document["datum_id"], document["datum_kwargs"]
    elif kind == "datum_page":
        kwargs = document["datum_kwargs"]
        if any(len(column) < len(document["datum_id"]) for column in kwargs.values()):
            raise Unreadable("datum_page: a column is shorter than the page")
        for row, datum in enumerate(document["datum_id"]):
            yield datum, {key: column[row] for key, column in kwargs.items()}
    else:
        yield from zip_longest(document["datum_ids"], document["datum_kwarg_list"][: len(document["datum_ids"])], fillvalue={})
