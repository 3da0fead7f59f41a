"""Whether Tiled holds what a topic held: every row of every run, and its values."""

from __future__ import annotations

import httpx
import numpy as np
import pyarrow as pa

from tests.bench.places import Node
from tests.bench.shapes import Shape
from tests.bench.topics import Topic

ARROW_FILE = "application/vnd.apache.arrow.file"
WHOLE_ROWS_MAX = 20_000  # of a larger run only some columns are read: Tiled refuses answers above 300 MB


class WrongResultError(AssertionError):
    """Tiled does not hold what it should."""


def check(topic: Topic, node: Node, *, runs_max: int = 20) -> None:
    """Compare a complete topic with its node; of many runs, all are counted and the first `runs_max` compared.

    Raises
    ------
    WrongResultError
        Rows or runs are missing, repeated or different, or a run is not complete.
    """
    with node.http as http:
        found = http.get(f"/search/{node.key}", params={"page[limit]": 1}).raise_for_status().json()
        if found["meta"]["count"] != topic.runs:
            raise WrongResultError(f"{found['meta']['count']} runs in {node.key}, not {topic.runs}")
        for run in range(min(topic.runs, runs_max)):
            _check_run(http, topic, f"{node.key}/{topic.names.run(run)}")


def _check_run(http: httpx.Client, topic: Topic, path: str) -> None:
    answer = http.get(f"/metadata/{path}").raise_for_status().json()
    facts = answer["data"]["attributes"]["metadata"]["tiled_ingest"]
    if facts["state"] != "complete" or facts["rows"] != {"primary": topic.events}:
        raise WrongResultError(f"{path}: {facts}")
    found = read(http, f"{path}/primary/internal", columns_to_compare(topic.shape, topic.events))
    differences = different_columns(found, topic.shape, topic.events)
    if differences:
        raise WrongResultError(f"{path}: other values than published in {differences}")


def columns_to_compare(shape: Shape, events: int) -> list[str]:
    """All columns of a small run; of a large one what identifies rows, and its last data key."""
    if events <= WHOLE_ROWS_MAX:
        return shape.table(np.arange(1, 2)).schema.names
    return ["seq_num", "time", shape.columns[-1].name]


def read(http: httpx.Client, path: str, columns: list[str]) -> pa.Table:
    """Columns of a table, its rows ordered by `seq_num`."""
    params: dict[str, int | list[str]] = {"partition": 0, "column": columns}
    answer = http.get(f"/table/partition/{path}", params=params, headers={"Accept": ARROW_FILE}).raise_for_status()
    with pa.ipc.open_file(pa.py_buffer(answer.content)) as file:
        return file.read_all().select(columns).sort_by("seq_num")  # the server may add an index


def different_columns(found: pa.Table, shape: Shape, events: int) -> list[str]:
    """The columns whose values are not those of the first `events` events."""
    expected = shape.table(np.arange(1, events + 1)).select(found.schema.names)
    if found.num_rows != expected.num_rows:
        return [f"{found.num_rows} rows instead of {expected.num_rows}"]
    return [name for name in found.schema.names if found[name].to_pylist() != expected[name].to_pylist()]


def rows_of(content: bytes) -> int:
    """How many rows an Arrow file holds."""
    with pa.ipc.open_file(pa.py_buffer(content)) as file:
        return int(file.read_all().num_rows)
