"""Access tags on every kind of node below a run, before and after a restart, on a server with an access policy."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiled.client import Context, from_context

from tests.rig.application import application
from tests.values.stage import Documents, Stage, run_of_streams
from tiled_ingest.tiled.session import Session

KINDS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "table": ({"dtype": "number", "shape": []}, [1.0, 2.0, 3.0]),
    "zarr": ({"dtype": "array", "shape": [20]}, [[float(number)] * 20 for number in range(3)]),
    "ragged": ({"dtype": "array", "shape": [None]}, [[1.0], [1.0, 2.0], [3.0]]),
}
WIDE = {f"k{number:04}": {"source": "s", "dtype": "number", "shape": []} for number in range(600)}
TAGS = ["proposal-7", "staff"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with application(tmp_path_factory.mktemp("guarded"), tags=TAGS) as context:
        yield context


def every_kind(uid: str, folder: Path) -> tuple[Documents, Documents]:
    """A run with every kind of node: what comes before a restart, and what comes after it."""
    documents = run_of_streams(uid, KINDS)
    start, middle, stop = documents[0], documents[1:-1], documents[-1]
    start = ("start", {**start[1], "tiled_access_tags": TAGS})
    earlier, later = (_wide_and_external(uid, name, folder) for name in ("before", "after"))
    return [start, *earlier, *middle[:-1]], [middle[-1], *later, ("stop", {**stop[1], "num_events": {}})]


def _wide_and_external(uid: str, name: str, folder: Path) -> Documents:
    """A stream with a table in two parts, and a detector's file."""
    of = {"run_start": uid, "time": 1.0}
    image = {"source": "s", "dtype": "array", "shape": [1, 4, 4], "dtype_numpy": "<f8", "external": "STREAM:"}
    descriptor = {"uid": f"{uid}-{name}", "name": name, "data_keys": {**WIDE, "img": image}, **of}
    resource = {"uid": f"{uid}-{name}-q", "run_start": uid, "data_key": "img", "mimetype": "application/x-hdf5",
                "uri": f"file://localhost{folder}/{name}.h5", "parameters": {"dataset": "/data"}}  # fmt: skip
    datum = {"uid": f"{uid}-{name}-q/0", "stream_resource": resource["uid"], "descriptor": descriptor["uid"],
             "indices": {"start": 0, "stop": 1}, "seq_nums": {"start": 1, "stop": 2}}  # fmt: skip
    event = {"uid": f"{uid}-{name}-1", "descriptor": descriptor["uid"], "seq_num": 1, "time": 1.0, "filled": {},
             "data": dict.fromkeys(WIDE, 1.0), "timestamps": dict.fromkeys(WIDE, 1.0)}  # fmt: skip
    return [("descriptor", descriptor), ("stream_resource", resource), ("stream_datum", datum), ("event", event)]


def tags_below(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield the tags of each node that a reader finds, by its path below the first one."""
    yield path, sorted(node.item["attributes"]["access_tags"])
    if node.structure_family == "container":
        base = getattr(node, "base", node)
        for key in base:
            yield from tags_below(base[key], (*path, key))


def test_every_kind_of_node_has_the_tags_also_after_a_restart(guarded: Context, tmp_path: Path) -> None:
    uid = str(uuid.uuid4())
    before, after = every_kind(uid, tmp_path)
    stage = Stage(Session.from_context(guarded, ()))
    stage.world.assign()
    stage.publish(before)
    stage.begin()
    stage.publish(after)
    assert stage.codes == []
    access = dict(tags_below(from_context(guarded)[uid]))
    wide = {(name, key) for name in ("before", "after") for key in ("internal_0", "internal_1", "img")}
    kinds = {("table", "internal"), ("zarr", "a"), ("ragged", "a"), ("zarr", "internal"), ("ragged", "internal")}
    streams = {(name,) for name in ("before", "after", *KINDS)}
    assert access == dict.fromkeys({(), *streams, *wide, *kinds}, TAGS)
