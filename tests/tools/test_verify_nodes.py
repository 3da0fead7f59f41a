"""`verify` of what is beside the tables (zarr, ragged, detector files), against the layout's reference: TiledWriter."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

import confluent_kafka as ck
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri
from tiled.utils import path_from_uri

from tests.rig.fixtures import topics_of
from tests.system.publishing import Documents, message
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.settings import load
from tiled_ingest.tools.progress import Silent
from tiled_ingest.tools.verify import RunReport, Wanted, verify
from tiled_ingest.tools.verify.external import compare_files
from tiled_ingest.tools.verify.files import Files
from tiled_ingest.tools.verify.tree import Node

pytestmark = pytest.mark.real

EVENTS = 4
HDF5 = "application/x-hdf5"
TIFF = "multipart/related;type=image/tiff"


def a_run(folder: str) -> Documents:
    """A scalar, a large array (zarr), a ragged one, one HDF5 file and a series of TIFF files."""
    run, descriptor, frames, images = (str(uuid.uuid4()) for _ in range(4))
    uri = f"file://localhost{folder}"
    keys = {
        "x": {"dtype": "number", "shape": [], "source": "sim", "dtype_numpy": "<f8"},
        "wide": {"dtype": "array", "shape": [30], "source": "sim", "dtype_numpy": "<f8"},
        "jagged": {"dtype": "array", "shape": [None], "source": "sim", "dtype_numpy": "<f8"},
        "frames": {"dtype": "array", "shape": [1, 5, 7], "source": "sim", "dtype_numpy": "<u2", "external": "STREAM:"},
        "images": {"dtype": "array", "shape": [1, 5, 7], "source": "sim", "dtype_numpy": "<u2", "external": "STREAM:"},
    }
    resources = [(frames, "frames", HDF5, "/frames.h5", {"dataset": "/data", "chunk_shape": [1, 5, 7]}),
                 (images, "images", TIFF, "", {"template": "/img_{:03d}.tif", "chunk_shape": [1, 5, 7]})]  # fmt: skip
    documents: Documents = [
        ("start", {"uid": run, "time": 1.0}),
        ("descriptor", {"uid": descriptor, "run_start": run, "time": 2.0, "name": "primary", "data_keys": keys,
                        "configuration": {}, "hints": {}, "object_keys": {"det": list(keys)}}),
    ]  # fmt: skip
    for uid, key, mimetype, path, parameters in resources:
        shared: dict[str, Any] = {
            "run_start": run,
            "data_key": key,
            "mimetype": mimetype,
            "uri": uri + path,
            "parameters": parameters,
        }
        documents.append(("stream_resource", {"uid": uid, **shared}))
    for number in range(1, EVENTS + 1):
        values = {"x": number / 2, "wide": np.arange(30.0) + number, "jagged": [0.5] * number}
        shared = {"descriptor": descriptor, "time": 10.0 + number, "seq_num": number, "filled": {}}
        stamps = dict.fromkeys(values, 10.0 + number)
        documents.append(("event", {"uid": str(uuid.uuid4()), "data": values, "timestamps": stamps, **shared}))
    for first in (0, 2):
        indices, seq_nums = {"start": first, "stop": first + 2}, {"start": first + 1, "stop": first + 3}
        for uid in (frames, images):
            shared = {"stream_resource": uid, "descriptor": descriptor, "indices": indices, "seq_nums": seq_nums}
            documents.append(("stream_datum", {"uid": f"{uid}/{first}", **shared}))
    stop = {
        "uid": str(uuid.uuid4()),
        "run_start": run,
        "time": 99.0,
        "exit_status": "success",
        "num_events": {"primary": 4},
    }
    return [*documents, ("stop", stop)]


Spoil = Callable[[Documents], Documents]


def compared(broker: Broker, tiled: TiledServer, tmp_path: Path, spoil: Spoil = lambda same: same) -> RunReport:
    """Publish a run; let TiledWriter write it, spoiled; verify."""
    documents = a_run(str(tmp_path))
    write(from_uri(tiled.uri, api_key=tiled.api_key), spoil(copy.deepcopy(documents)))
    return report_of(broker, tiled, topics_of(broker)("nodes"), documents)


def write(client: Any, documents: Documents) -> None:
    writer = TiledWriter(client)
    for name, doc in documents:
        writer(name, doc)


def report_of(broker: Broker, tiled: TiledServer, topic: str, documents: Documents) -> RunReport:
    """Publish a run that is in Tiled, and verify it."""
    publish(broker, topic, documents)
    named = {
        "beamline": "test",
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": topic,
        "kafka.topics": topic,
        "tiled.uri": tiled.uri,
        "tiled.api_key": tiled.api_key,
    }
    return verify(load(None, named, {}), Wanted(), Silent()).runs[0]


def publish(broker: Broker, topic: str, documents: Documents) -> None:
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap_servers})
    for name, doc in documents:
        producer.produce(topic, message(name, doc), b"key")
    assert producer.flush(20) == 0


def changed(kind: str, change: Callable[[dict[str, Any]], Any], nth: int = 0) -> Spoil:
    def spoil(documents: Documents) -> Documents:
        change([doc for name, doc in documents if name == kind][nth])
        return documents

    return spoil


def test_what_tiled_writer_wrote_passes(broker: Broker, tiled_duckdb: TiledServer, tmp_path: Path) -> None:
    report = compared(broker, tiled_duckdb, tmp_path)
    assert report.is_same, [report.differences, *(stream.differences for stream in report.streams)]
    assert report.remarks == ["written by someone else"]
    found = {part.key: (part.counts.expected, part.counts.found) for part in report.streams[0].parts}
    assert found == dict.fromkeys(("wide", "jagged", "frames", "images"), (EVENTS, EVENTS))


def without_last_datum(documents: Documents) -> Documents:
    last = [doc["uid"] for name, doc in documents if name == "stream_datum"][-2:]
    return [(name, doc) for name, doc in documents if doc["uid"] not in last]


def without_detectors(documents: Documents) -> Documents:
    return [(name, doc) for name, doc in documents if not name.startswith("stream_")]


def set_value(doc: dict[str, Any]) -> None:
    doc["data"]["wide"][3] = 0.0


def set_length(doc: dict[str, Any]) -> None:
    doc["data"]["jagged"] = [9.0]


def set_file(doc: dict[str, Any]) -> None:
    doc["uri"] += "x"


def set_names(doc: dict[str, Any]) -> None:
    doc["parameters"]["template"] = "/other_{:03d}.tif"


DEFECTS: dict[str, tuple[Spoil, str]] = {
    "a value of a large array": (changed("event", set_value), "array 'wide': 1 rows differ: 0"),
    "a value of a ragged array": (changed("event", set_length), "array 'jagged': 1 rows differ: 0"),
    "another file": (changed("stream_resource", set_file), "frames.h5' is missing"),
    "other names of files": (changed("stream_resource", set_names, 1), "img_000.tif' is missing"),
    "rows of detectors": (without_last_datum, "node 'frames' has 2 rows instead of 4"),
    "no detector at all": (without_detectors, "node 'images' is missing: 4 rows of detector files"),
}


PAIR = {"dtype": "array", "shape": [2, 5, 7], "source": "sim", "dtype_numpy": "<u2", "external": "STREAM:"}


@pytest.mark.parametrize("old", [False, True])
def test_an_asset_is_missed_when_only_some_are_gone(old: bool) -> None:
    """Two files hold a row: how many there should be must not be guessed from how many there are."""
    place = {"root": "/data", "resource_path": "d/", "run_start": "r"} if old else {"uri": "file://localhost/data/d/"}
    more = {"template": "img_{:03d}.tif", "chunk_shape": [1, 5, 7]}
    mimetype = {} if old else {"mimetype": TIFF}
    files = Files({"uid": "s", **place, "resource_kwargs" if old else "parameters": more, **mimetype}, [(0, 2), (2, 4)])
    there = tuple(f"file://localhost/data/d/img_{number:03d}.tif" for number in range(8))
    for kept, missing in ((there, 0), (there[:4], 4), (there[:7], 1)):
        node = Node(("r", "primary", "img"), "array", structure={"shape": [4, 2, 5, 7]}, assets=kept)
        _, said = compare_files(node, "img", [files], PAIR, open_end=False, moved=False)
        assert len(said) == missing, said
        assert all("is missing" in text for text in said)


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_named(broker: Broker, tiled_duckdb: TiledServer, tmp_path: Path, defect: str) -> None:
    spoil, sentence = DEFECTS[defect]
    report = compared(broker, tiled_duckdb, tmp_path, spoil)
    assert report.verdict == "different"
    assert sentence in "\n".join(report.streams[0].differences)


def test_an_array_that_cannot_be_read_is_a_difference_and_the_rest_is_compared(
    broker: Broker, tiled_duckdb: TiledServer, tmp_path: Path
) -> None:
    documents, client = a_run(str(tmp_path)), from_uri(tiled_duckdb.uri, api_key=tiled_duckdb.api_key)
    write(client, copy.deepcopy(documents))
    stream = client[documents[0][1]["uid"]]["primary"].base
    for asset in stream["wide"].data_sources()[0].assets:
        rmtree(path_from_uri(asset.data_uri))
    set_length(next(doc for name, doc in documents if name == "event"))
    report = report_of(broker, tiled_duckdb, topics_of(broker)("unreadable"), documents)
    said = "\n".join(report.streams[0].differences)
    assert report.verdict == "different"
    assert "array 'wide' cannot be read: " in said
    assert "array 'jagged': 1 rows differ" in said
