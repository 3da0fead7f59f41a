"""`verify` of what we keep where TiledWriter fails: values of another form, or size, than the descriptor declares."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiled.client import from_uri

from tests.rig.fixtures import topics_of
from tests.tools.test_verify_nodes import report_of
from tiled_ingest import TiledWriter
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

pytestmark = pytest.mark.real

Key = dict[str, Any]


def key(dtype: str, shape: list[int | None] | None = None, **more: Any) -> Key:
    return {"dtype": dtype, "shape": shape or [], "source": "sim", **more}


# By what is odd: the key, and its values.
KEPT: dict[str, tuple[Key, list[Any]]] = {
    "lists in a number": (key("number", [3]), [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]),
    "lists in an integer, later": (key("integer"), [1, [2, 3]]),
    "a number in an array": (key("array", [1]), [1.5, 2.5]),
    "an integer, then a half": (key("integer"), [1, 0.5]),
    "2**63 in a number column": (key("integer"), [1, 2**63]),
    "2**63 in a large array": (key("array", [20], dtype_numpy="<i8"), [[2**63] * 20, [1] * 20]),
    "-1 in a large unsigned array": (key("array", [20], dtype_numpy="<u8"), [[-1] * 20, [1] * 20]),
    "2**63 in a ragged array": (key("array", [None], dtype_numpy="<i8"), [[2**63] * 3, [1]]),
    "arrays in text": (key("string"), [{"a": np.arange(2_000)}, "plain"]),
    "a filled image": (key("array", [2, 3], external="FILE:"), [np.arange(6).reshape(2, 3), np.ones((2, 3))]),
    "filled lists": (key("array", [2, 2], external="FILE:"), [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]),
    "a small matrix": (key("array", [2, 2]), [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    "rows of other lengths": (key("array", [30]), [[1.0] * 30, [2.0] * 20]),
}


def documents_of(spec: Key, values: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    run, descriptor = str(uuid.uuid4()), str(uuid.uuid4())
    made: list[tuple[str, dict[str, Any]]] = [
        ("start", {"uid": run, "time": 1.0}),
        ("descriptor", {"uid": descriptor, "run_start": run, "time": 2.0, "name": "primary", "data_keys": {"k": spec},
                        "configuration": {}, "hints": {}, "object_keys": {"det": ["k"]}}),
    ]  # fmt: skip
    for number, value in enumerate(values, 1):
        made.append(("event", {"uid": str(uuid.uuid4()), "descriptor": descriptor, "time": 10.0 + number,
                               "seq_num": number, "data": {"k": value}, "timestamps": {"k": 10.0 + number},
                               "filled": {"k": True} if "external" in spec else {}}))  # fmt: skip
    stop = {"uid": str(uuid.uuid4()), "run_start": run, "time": 99.0, "exit_status": "success"}
    return [*made, ("stop", {**stop, "num_events": {"primary": len(values)}})]


@pytest.mark.parametrize("odd", KEPT)
def test_what_we_keep_passes(broker: Broker, tiled_duckdb: TiledServer, tmp_path: Path, odd: str) -> None:
    documents = documents_of(*KEPT[odd])
    writer = TiledWriter(from_uri(tiled_duckdb.uri, api_key=tiled_duckdb.api_key))
    for name, doc in documents:
        writer(name, doc)
    report = report_of(broker, tiled_duckdb, topics_of(broker)("kept"), documents)
    assert report.is_same, [report.differences, *(stream.differences for stream in report.streams)]
