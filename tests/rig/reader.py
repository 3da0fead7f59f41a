"""An independent reader: does Tiled hold what was published? Shares no code with the service.

Tables are compared as multisets of rows, as a rewind repeats seq_nums legally; where the storage is known, their order
is compared, too, and that of arrays: DuckDB returns rows as they were written, PostgreSQL in no order. They are fetched
as Arrow, which keeps integers, nulls and lists apart as far as the server does.
"""

from __future__ import annotations

import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask
import event_model
import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Else dask turns a column of lists into text.
dask.config.set({"dataframe.convert-string": False})

_ARROW = "application/vnd.apache.arrow.file"
_INTEGER_MAX = 2**53 - 1
_RENAMED = {"time": "time_", "seq_num": "seq_num_"}
_SHOWN_MAX = 5

Documents = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass
class _Stream:
    """What one stream should hold."""

    internal: list[str] = field(default_factory=list)
    external: list[str] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass
class _Run:
    start: Mapping[str, Any] = field(default_factory=dict)
    stop: Mapping[str, Any] | None = None
    streams: dict[str, _Stream] = field(default_factory=dict)


def compare_run(client: Any, uid: str, documents: Documents, storage: str = "") -> list[str]:
    """Return the differences between what was published and what a Tiled client reads; empty when none.

    Parameters
    ----------
    storage
        `duckdb` or `postgresql`, if the documents are given in the order of the log (of what was sent twice, the first
        counts): then arrays must have it, and on DuckDB rows. Empty: no order is compared.
    """
    expected = _expect(documents)
    if uid not in client:
        return [f"run {uid} is missing"]
    run = client[uid]
    differences = _compare_metadata(run.metadata, expected)
    names = set(run)
    differences += [f"stream {name!r} is missing" for name in sorted(set(expected.streams) - names)]
    differences += [f"stream {name!r} was not published" for name in sorted(names - set(expected.streams))]
    for name in sorted(names & set(expected.streams)):
        found = _compare_stream(run[name].base, expected.streams[name], storage)
        differences += [f"stream {name!r}: {text}" for text in found]
    return differences


def compare_frames(client: Any, uid: str, frames: Mapping[tuple[str, str], npt.NDArray[Any]]) -> list[str]:
    """Return how arrays of a run, by stream and data key, differ from what its detectors' files hold.

    Tiled may divide the frames of a point by another shape: what counts is the values in their order.
    """
    differences = []
    for (stream, key), due in frames.items():
        held = client[uid][stream].base[key].read()
        if len(held) != len(due) or not np.array_equal(np.ravel(held), np.ravel(due)):
            differences.append(f"stream {stream!r}: {len(held)} frames of {key!r} differ from the files' {len(due)}")
    return differences


def _expect(documents: Documents) -> _Run:
    """Group one run's documents; a document that was published twice (same uid) counts once."""
    run, streams, seen = _Run(), {}, set()
    for name, doc in _single_documents(documents):
        identity = (name, doc.get("uid"))
        if identity in seen:
            continue
        seen.add(identity)
        if name == "start":
            run.start = doc
        elif name == "stop":
            run.stop = doc
        elif name == "descriptor":
            stream = streams[doc["uid"]] = run.streams.setdefault(doc["name"], _Stream())
            for key, data_key in doc["data_keys"].items():
                keys = stream.external if "external" in data_key else stream.internal
                if key not in keys:
                    keys.append(key)
        elif name == "event":
            streams[doc["descriptor"]].events.append(doc)
    return run


def _single_documents(documents: Documents) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for name, doc in documents:
        if name == "event_page":
            for event in event_model.unpack_event_page(doc):
                yield "event", event
        else:
            yield name, doc


def _compare_metadata(metadata: Mapping[str, Any], expected: _Run) -> list[str]:
    start = {key: value for key, value in expected.start.items() if key not in {"tiled_access_tags", "tiled_specs"}}
    differences = []
    if _plain(metadata.get("start", {})) != _plain(start):
        differences.append(f"start differs: {_changed(metadata.get('start', {}), start)}")
    if (expected.stop is None) != ("stop" not in metadata):
        differences.append("stop is missing" if expected.stop else "a stop was not published")
    elif expected.stop is not None and _plain(metadata["stop"]) != _plain(expected.stop):
        differences.append(f"stop differs: {_changed(metadata['stop'], expected.stop)}")
    return differences


def _changed(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    keys = [key for key in sorted({*found, *expected}) if _plain(found.get(key)) != _plain(expected.get(key))]
    return ", ".join(f"{key}: {found.get(key)!r} instead of {expected.get(key)!r}" for key in keys)


def _plain(value: Any) -> Any:
    """Return metadata as JSON carries them in Tiled: lists, large numbers clipped, no NaN."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return min(max(value, -_INTEGER_MAX), _INTEGER_MAX)
    if isinstance(value, float):
        return None if math.isnan(value) else min(max(value, -_INTEGER_MAX), _INTEGER_MAX)
    return value


def _compare_stream(stream: Any, expected: _Stream, storage: str) -> list[str]:
    nodes = set(stream)
    tables = sorted(name for name in nodes if name == "internal" or name.startswith("internal_"))
    if not expected.events:
        return [f"{name} was not published" for name in tables if _table(stream[name]).num_rows]
    columns = _expected_columns(expected)
    differences, found = [], set()
    for name in tables:
        table = _table(stream[name])
        found.update(table.column_names)
        differences += [f"{name}: {text}" for text in _compare_table(table, columns, storage == "duckdb")]
    for key in sorted(set(columns) - found):
        if key not in nodes:
            differences.append(f"no column or node {key!r}")
        else:
            differences += _compare_node(stream[key], key, columns[key], bool(storage))
    return differences + [f"column {key!r} was not published" for key in sorted(found - set(columns))]


def _expected_columns(expected: _Stream) -> dict[str, list[Any]]:
    columns = {name: [event[name] for event in expected.events] for name in ("seq_num", "time")}
    for key in expected.internal:
        name = _RENAMED.get(key, key)
        columns[name] = [event["data"].get(key) for event in expected.events]
        columns[f"ts_{name}"] = [event["timestamps"].get(key) for event in expected.events]
    return columns


def _table(node: Any) -> pa.Table:
    buffer = io.BytesIO()
    node.export(buffer, format=_ARROW)
    table = pa.ipc.open_file(pa.BufferReader(buffer.getvalue())).read_all()
    return table.select([name for name in table.column_names if not name.startswith("__index_level_")])


def _compare_table(table: pa.Table, columns: Mapping[str, list[Any]], ordered: bool) -> list[str]:
    """Compare the columns that both have, row by row; if not `ordered`, as multisets."""
    names = [name for name in table.column_names if name in columns]
    floating = {name for name in names if pa.types.is_floating(table.schema.field(name).type)}
    found_columns = [table.column(name).to_pylist() for name in names]
    found = list(zip(*([_cell(value) for value in column] for column in found_columns), strict=True))
    wanted_columns = [[_cell(value, as_float=name in floating) for value in columns[name]] for name in names]
    wanted = list(zip(*wanted_columns, strict=True))
    differences = _row_differences(Counter(found), Counter(wanted), names)
    return differences or (_misplaced("rows", found, wanted) if ordered else [])


def _misplaced(what: str, found: Sequence[Any], wanted: Sequence[Any]) -> list[str]:
    """Say how many of the same things stand elsewhere than they should."""
    places = [place for place, (is_there, due) in enumerate(zip(found, wanted, strict=True)) if is_there != due]
    return [f"{len(places)} {what} out of order, the first at {places[0]}"] if places else []


def _row_differences(found: Counter[Any], wanted: Counter[Any], names: list[str]) -> list[str]:
    missing, surplus = wanted - found, found - wanted
    duplicated = Counter({row: count for row, count in surplus.items() if row in wanted})
    foreign = surplus - duplicated
    differences = []
    for what, rows in (("missing", missing), ("duplicated", duplicated), ("not published", foreign)):
        if rows:
            differences.append(f"{rows.total()} rows {what}: {_show(rows, names)}")
    if missing and foreign:
        differences += _cell_differences(missing, foreign, names)
    return differences


def _show(rows: Counter[Any], names: list[str]) -> str:
    position = names.index("seq_num") if "seq_num" in names else 0
    values = sorted((row[position] for row in rows.elements()), key=repr if "seq_num" not in names else None)
    shown = ", ".join(str(value) for value in values[:_SHOWN_MAX])
    return f"{names[position]} {shown}{' ...' if len(values) > _SHOWN_MAX else ''}"


def _cell_differences(missing: Counter[Any], foreign: Counter[Any], names: list[str]) -> list[str]:
    """Name the cells where a missing and a foreign row of one seq_num differ."""
    if "seq_num" not in names:
        return []
    position = names.index("seq_num")
    by_number: dict[Any, list[Any]] = defaultdict(list)
    for row in foreign:
        by_number[row[position]].append(row)
    pairs = [(row, by_number[row[position]][0]) for row in missing if by_number[row[position]]]
    return [
        f"seq_num {wanted[position]}, {name}: {is_there!r} instead of {should!r}"
        for wanted, found in pairs[:_SHOWN_MAX]
        for name, should, is_there in zip(names, wanted, found, strict=True)
        if should != is_there
    ]


def _cell(value: Any, *, as_float: bool = False) -> Any:
    """Return a value that can be hashed and compared.

    NaN is a null: the server, which has tables in pandas on their way, returns null for either, also within lists.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(_cell(item, as_float=as_float) for item in value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if as_float and isinstance(value, int):
        return float(value)
    return value


def _compare_node(node: Any, key: str, values: list[Any], ordered: bool) -> list[str]:
    """Compare an array (zarr or ragged) that has one row for each event that has the key."""
    due = [_cell(value) for value in values if value is not None]
    content = node.read()
    rows = content.tolist()  # numpy's and the ragged library's arrays both have it
    held = [_cell(row) for row in rows]
    wanted, found = Counter(due), Counter(held)
    differences = []
    if missing := wanted - found:
        differences.append(f"{missing.total()} of {wanted.total()} rows of array {key!r} are missing")
    if surplus := found - wanted:
        differences.append(f"{surplus.total()} rows of array {key!r} are too many")
    return differences or (_misplaced(f"rows of array {key!r}", held, due) if ordered else [])
