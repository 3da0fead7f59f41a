"""Saved runs of old schemas, as real databases hold them: event-model's and databroker's history tells how."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from .compose import TIME, Composer, key, new_uid
from .plans import Make
from .recorder import Documents


def nsls2_2015(_: Path) -> Documents:
    """Before `object_keys`, `hints` and `filled`; a start with `owner`, `group`, `project`; no `num_events`."""
    run = Composer(owner="xf28id1", group="", project="", beamline_id="csx", plan_type="AbsScanPlan", hints={})
    run.descriptor({"point_det": key(precision=3, units=None), "motor": key(lower_ctrl_limit=-5.0)})
    for number in range(4):
        run.event({"point_det": number / 3, "motor": float(number)})
    documents = run.stop()
    del documents[-1][1]["num_events"]
    return documents


def shape_none(_: Path) -> Documents:
    """`shape: None` where nothing is known of it, and `external: None`."""
    run = Composer()
    run.descriptor(
        {"a": {**key(), "shape": None}, "b": {**key("string"), "shape": None}}, object_keys={"dev": ["a", "b"]}
    )
    for number in range(3):
        run.event({"a": number + 0.5, "b": f"text {number}"})
    return run.stop()


def dtype_str(_: Path) -> Documents:
    """`dtype_str`, the name of `dtype_numpy` before it was in the schema; and in a configuration."""
    run = Composer()
    configuration = {"dev": {"data": {"gain": 2}, "timestamps": {"gain": TIME}, "data_keys": {"gain": key("integer")}}}
    configuration["dev"]["data_keys"]["gain"]["dtype_str"] = "<i4"  # type: ignore[index]
    keys = {"counts": key("integer", dtype_str="<i4"), "line": key("array", [4], dtype_str="<f4")}
    run.descriptor(keys, object_keys={"dev": ["counts", "line"]}, configuration=configuration, hints={})
    for number in range(3):
        run.event({"counts": number, "line": [number, 1.5, 2.5, 3.5]})
    return run.stop()


def reserved_names(_: Path) -> Documents:
    """Keys that are called like the table's own columns."""
    run = Composer()
    run.descriptor(
        {"time": key(), "seq_num": key("integer"), "x": key()}, object_keys={"dev": ["time", "seq_num", "x"]}
    )
    for number in range(3):
        run.event({"time": 5.0 + number, "seq_num": 10 * number, "x": 0.5})
    return run.stop()


def bulk_events(_: Path) -> Documents:
    """The deprecated kind: events by stream."""
    run = Composer()
    run.descriptor({"x": key()})
    for number in range(5):
        run.event({"x": number * 0.5})
    events = [doc for name, doc in run.documents if name == "event"]
    kept = [(name, doc) for name, doc in run.documents if name != "event"]
    run.documents[:] = [*kept, ("bulk_events", {"primary": events})]
    return run.stop(num_events={"primary": 5})


def _hdf5(folder: Path, dataset: str, frames: int, name: str = "old.h5") -> Path:
    path = folder / f"{new_uid()}-{name}"
    with h5py.File(path, "w") as file:
        file[dataset] = np.arange(frames * 12, dtype="<f8").reshape(frames, 3, 4)
    return path


def filestore(folder: Path) -> Documents:
    """`resource` without `run_start`, a `datum` for each event: AD_HDF5 with `frame_per_point` and `point_number`."""
    path = _hdf5(folder, "/entry/data/data", 4)
    run = Composer()
    run.descriptor({"image": key("array", [3, 4], external="FILESTORE:"), "x": key()}, object_keys={"cam": ["image"]})
    resource = new_uid()
    where = {"root": str(folder), "resource_path": path.name, "resource_kwargs": {"frame_per_point": 1}}
    run.add("resource", uid=resource, spec="AD_HDF5", path_semantics="posix", **where)
    for number in range(4):
        datum = f"{resource}/{number}"
        run.add("datum", datum_id=datum, resource=resource, datum_kwargs={"point_number": number})
        run.event({"image": datum, "x": number / 2}, filled={"image": False})
    return run.stop()


def datum_after_event(folder: Path) -> Documents:
    """A datum page that comes after the events that name its data."""
    path = _hdf5(folder, "/entry/data/data", 3)
    run = Composer()
    run.descriptor({"image": key("array", [3, 4], external="FILESTORE:")}, object_keys={"cam": ["image"]})
    resource = new_uid()
    where = {"root": "/", "resource_path": str(path)[1:], "resource_kwargs": {}}
    run.add("resource", uid=resource, run_start=run.uid, spec="AD_HDF5", path_semantics="posix", **where)
    ids = [f"{resource}/{number}" for number in range(3)]
    for datum in ids:
        run.event({"image": datum}, filled={"image": False})
    run.add("datum_page", resource=resource, datum_id=ids, datum_kwargs={"point_number": [0, 1, 2]})
    return run.stop()


def old_stream_resource(folder: Path) -> Documents:
    """`stream_resource` before event-model 1.20: `spec`, `root`, `resource_path`, `resource_kwargs`."""
    path = _hdf5(folder, "/data", 5)
    run = Composer()
    descriptor = run.descriptor({"cam": key("array", [1, 3, 4], external="STREAM:")}, object_keys={"cam": ["cam"]})
    resource = new_uid()
    where = {"root": str(folder), "resource_path": path.name, "resource_kwargs": {"path": "/data"}}
    run.add("stream_resource", uid=resource, run_start=run.uid, spec="AD_HDF5_SWMR_STREAM", data_key="cam", **where)
    for first, last in ((0, 2), (2, 5)):
        window = {"indices": {"start": first, "stop": last}, "seq_nums": {"start": first + 1, "stop": last + 1}}
        run.add("stream_datum", uid=f"{resource}/{first}", stream_resource=resource, descriptor=descriptor, **window)
    return run.stop(num_events={"primary": 5})


MAKERS: dict[str, Make] = {
    made.__name__: made
    for made in (
        nsls2_2015,
        shape_none,
        dtype_str,
        reserved_names,
        bulk_events,
        filestore,
        datum_after_event,
        old_stream_resource,
    )
}
