"""Detectors' files that documents name: resources, and how many rows of each the stream's data have."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from posixpath import join
from string import Formatter
from typing import Any

from tiled_ingest.tools.decoding import Document, Unreadable

from .shapes import range_of, whole

Range = tuple[int, int]
_NUMBER = re.compile("0?[0-9]{0,3}d?")  # how a template writes a number; more digits than that are no name


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

    @property
    def _place(self) -> str:
        """Its address; of a `resource` the path."""
        if not self.is_old:
            return str(self.resource["uri"])
        path = str(self.resource.get("resource_path", ""))
        return join(str(self.resource.get("root") or ""), path.lstrip("/")) if self.resource.get("root") else path

    def places(self, before: int, spec: Mapping[str, Any]) -> Iterator[str]:
        """Yield the addresses of its files, in their order.

        Parameters
        ----------
        before
            How many files the key's earlier resources have: a template counts from there.
        spec
            The data key's description: it tells how many files make one row.
        """
        place, template = self._place, self.template
        numbered = _is_numbered(template or "")
        if template is None or numbered is None:
            yield place
            return
        if not numbered:
            yield place + template.format()
            return
        per_row = self._files_per_row(spec)
        for start, stop in self.ranges:
            for number in range(start * per_row, stop * per_row):
                tail = template.format(number - before)
                yield place + (tail.lstrip("/") if place.endswith("/") else tail)

    def _files_per_row(self, spec: Mapping[str, Any]) -> int:
        """Return how many files hold a row, by the rules of bluesky-tiled-plugins' consolidators."""
        if str(self.resource.get("mimetype", "")) == "application/octet-stream":
            return 1
        if told := whole(self._parameters.get("files_per_datum")):
            return max(told, 1)
        shape = self._row_shape(spec)
        if not shape:
            return 1
        frames = self._frames_per_row()
        if frames and not self.joins_leading:
            return max(shape[0], 1)
        chunk = self._chunk
        fits = self.joins_leading or (len(chunk) == len(shape) and chunk[1:] == shape[1:])
        return max(shape[0] // chunk[0], 1) if fits and shape[0] % chunk[0] == 0 else 1

    @property
    def _chunk(self) -> tuple[int, ...]:
        given = self._parameters.get("chunk_shape")
        good = isinstance(given, list) and given and all(isinstance(size, int) and size > 0 for size in given)
        return tuple(given) if isinstance(given, list) and good else (1,)

    def _frames_per_row(self) -> int:
        return whole(self._parameters.get("multiplier")) or whole(self._parameters.get("frame_per_point")) or 0

    def _row_shape(self, spec: Mapping[str, Any]) -> tuple[int, ...]:
        shape = tuple(size or 0 for size in spec.get("shape") or ())
        shape = () if shape == (1,) and not self.joins_leading else shape
        frames = self._frames_per_row()
        if not frames or shape[:1] == (frames,):
            return shape
        return (frames, *shape[1:]) if shape[:1] == (1,) else (frames, *shape)


def _is_numbered(template: str) -> bool | None:
    """Whether each row has files of its own; `None` for a template that cannot be filled in."""
    try:
        fields = [(name, spec or "") for _, name, spec, _ in Formatter().parse(template) if name is not None]
    except ValueError:
        return None
    return bool(fields) if all(name in {"", "0"} and _NUMBER.fullmatch(spec) for name, spec in fields) else None


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
        ids = document["datum_ids"]
        yield from zip_longest(ids, document["datum_kwarg_list"][: len(ids)], fillvalue={})
