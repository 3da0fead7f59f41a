"""Runs of detectors that write files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import tifffile
from ophyd_async.core import StaticPathProvider, TriggerInfo, UUIDFilenameProvider, init_devices
from ophyd_async.sim import SimBlobDetector
from PIL import Image

from .compose import Composer, key, new_uid
from .plans import Make
from .recorder import Documents, Recorder


def _blob_detector(folder: Path) -> Any:
    with init_devices():
        det = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), folder))
    assert det.name == "det", "named after the variable"
    return det


def hdf5_step(folder: Path) -> Documents:
    recorder = Recorder()
    return recorder.run(bp.count([_blob_detector(folder)], 3))


def hdf5_fly(folder: Path) -> Documents:
    recorder = Recorder()
    detector = _blob_detector(folder)

    def plan() -> Iterator[Any]:
        yield from bps.prepare(detector, TriggerInfo(number_of_events=4), wait=True)
        yield from bps.declare_stream(detector, name="main", collect=True)
        yield from bps.kickoff(detector, wait=True)
        yield from bps.collect_while_completing([detector], [detector], flush_period=0.05, stream_name="main")

    return recorder.run(bpp.stage_wrapper(bpp.run_wrapper(plan()), [detector]))


def _sequence(folder: Path, mimetype: str, template: str, shape: list[int | None], frames: int) -> Documents:
    """Two resources of one key, one after the other; a stream_datum for each frame."""
    run = Composer()
    data_keys = {"cam": key("array", shape, external="STREAM:", dtype_numpy="|u1"), "x": key()}
    descriptor = run.descriptor(data_keys, object_keys={"cam": ["cam"], "x": ["x"]})
    resource = new_uid()
    parameters = {"template": template, "chunk_shape": (1, *shape[1:])}
    uri = f"file://localhost{folder}/"
    run.add(
        "stream_resource",
        uid=resource,
        run_start=run.uid,
        data_key="cam",
        mimetype=mimetype,
        uri=uri,
        parameters=parameters,
    )
    for frame in range(frames):
        window = {"indices": {"start": frame, "stop": frame + 1}, "seq_nums": {"start": frame + 1, "stop": frame + 2}}
        run.add("stream_datum", uid=f"{resource}/{frame}", stream_resource=resource, descriptor=descriptor, **window)
        run.event({"x": frame * 0.5})
    return run.stop()


def tiff_sequence(folder: Path) -> Documents:
    own = folder / new_uid()
    own.mkdir()
    for frame in range(3):
        tifffile.imwrite(own / f"img_{frame:04d}.tif", np.full((5, 7), frame, np.uint8))
    return _sequence(own, "multipart/related;type=image/tiff", "img_{:04d}.tif", [1, 5, 7], 3)


def jpeg_sequence(folder: Path) -> Documents:
    own = folder / new_uid()
    own.mkdir()
    for frame in range(3):
        Image.fromarray(np.full((8, 8), 20 * frame, np.uint8)).save(own / f"img_{frame:04d}.jpeg")
    return _sequence(own, "multipart/related;type=image/jpeg", "img_{:04d}.jpeg", [1, 8, 8], 3)


MAKERS: dict[str, Make] = {made.__name__: made for made in (hdf5_step, hdf5_fly, tiff_sequence, jpeg_sequence)}
