"""Detectors that write files, and the documents of scans with them: real ones where simulated devices exist.

Every recording returns the documents of one run and writes its files below `folder`. What the files hold stands in
`expected`, by stream and data key.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import numpy.typing as npt
import tifffile
from bluesky import RunEngine
from bluesky.utils import DuringTask
from ophyd.sim import hw
from PIL import Image

Document = tuple[str, dict[str, Any]]
Documents = list[Document]
Array = npt.NDArray[Any]
TIFF, JPEG = "multipart/related;type=image/tiff", "multipart/related;type=image/jpeg"


@dataclass
class Recording:
    """The documents of a run, and what its files hold."""

    documents: Documents
    expected: dict[tuple[str, str], Array] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return str(self.documents[0][1]["uid"])


# ---------------------------------------------------------------- simulated devices


def npy_scan(folder: Path, points: int = 3) -> Recording:
    """`ophyd.sim`'s img and direct_img in a scan: old resources and datums, NPY files."""
    hardware = hw(save_path=str(folder))
    documents = _run(lambda: bp.scan([hardware.img, hardware.det], hardware.motor, 0, 1, points))
    files = sorted(folder.glob("*_*.npy"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return Recording(documents, {("primary", "img"): np.stack([np.load(path) for path in files])})


def hdf5_step(folder: Path, points: int = 4, beside: Sequence[Any] = ()) -> Recording:
    """An ophyd-async detector in a step scan, `beside` other devices: one stream_datum a point, HDF5."""
    return _hdf5(folder, lambda detector: bp.count([detector, *beside], points))


def hdf5_fly(folder: Path, frames: int = 5, rounds: int = 3) -> Recording:
    """An ophyd-async detector that is flown: stream_datums are collected while frames are taken, HDF5."""
    return _hdf5(folder, lambda detector: _flying(detector, frames, rounds))


def _hdf5(folder: Path, plan: Callable[[Any], Iterator[Any]]) -> Recording:
    from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices  # noqa: PLC0415 - slow
    from ophyd_async.sim import SimBlobDetector  # noqa: PLC0415

    engine = RunEngine({}, context_managers=[], during_task=DuringTask(), call_returns_result=False)

    async def made() -> Any:
        async with init_devices(mock=False):
            detector = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), folder), name="det")
        return detector  # noqa: RET504 - what connects devices looks for local names

    detector = asyncio.run_coroutine_threadsafe(made(), engine.loop).result(20)
    documents = _run(lambda: plan(detector), engine)
    (path,) = {doc["uri"].removeprefix("file://localhost") for name, doc in documents if name == "stream_resource"}
    recording = Recording(documents)
    with h5py.File(path) as file:
        for _, doc in documents_of(documents, "stream_resource"):
            key, dataset = doc["data_key"], doc["parameters"]["dataset"]
            recording.expected["primary", key] = np.asarray(file[dataset])  # frames; readers see one point each
    return recording


def _flying(detector: Any, frames: int, rounds: int) -> Iterator[Any]:
    from ophyd_async.core import TriggerInfo  # noqa: PLC0415

    yield from bps.stage_all(detector)
    yield from bps.open_run()
    yield from bps.prepare(detector, TriggerInfo(number_of_events=frames * rounds, livetime=0.001), wait=True)
    yield from bps.declare_stream(detector, name="primary", collect=True)
    yield from bps.kickoff_all(detector, wait=True)
    yield from bps.collect_while_completing([detector], [detector], stream_name="primary", flush_period=0.02)
    yield from bps.close_run()
    yield from bps.unstage_all(detector)


def _run(plan: Callable[[], Any], engine: Any = None) -> Documents:
    documents: Documents = []
    engine = engine or RunEngine({}, context_managers=[], during_task=DuringTask(), call_returns_result=False)
    engine.subscribe(lambda name, doc: documents.append((name, copy.deepcopy(doc))))
    engine(bpp.finalize_wrapper(plan(), bps.null()))
    return documents


def documents_of(documents: Documents, *kinds: str) -> Iterator[Document]:
    return ((name, doc) for name, doc in documents if name in kinds)


# ---------------------------------------------------------------- documents by hand


class Script:
    """A run written by hand, document by document."""

    def __init__(self, **start: Any) -> None:
        self.uid = str(uuid.uuid4())
        self.documents: Documents = []
        self.add("start", uid=self.uid, time=1.7e9, scan_id=1, **start)
        self._events = 0

    def add(self, kind: str, **doc: Any) -> dict[str, Any]:
        self.documents.append((kind, doc))
        return doc

    def descriptor(self, name: str = "primary", uid: str = "", **data_keys: Mapping[str, Any]) -> str:
        keys = {key: {"source": "sim", "dtype": "array", **spec} for key, spec in data_keys.items()}
        doc = self.add("descriptor", uid=uid or str(uuid.uuid4()), run_start=self.uid, time=1.7e9, name=name,
                       data_keys=keys, configuration={}, hints={}, object_keys={})  # fmt: skip
        return str(doc["uid"])

    def stream_resource(self, key: str, uri: str, mimetype: str, **parameters: Any) -> str:
        doc = self.add("stream_resource", uid=str(uuid.uuid4()), run_start=self.uid, data_key=key, uri=uri,
                       mimetype=mimetype, parameters=parameters)  # fmt: skip
        return str(doc["uid"])

    def stream_datum(self, resource: str, descriptor: str, start: int, stop: int, seq_num: int = -1) -> None:
        first = start + 1 if seq_num < 0 else seq_num
        number = sum(kind == "stream_datum" for kind, _ in self.documents)
        self.add("stream_datum", uid=f"{resource}/{number}", stream_resource=resource, descriptor=descriptor,
                 indices={"start": start, "stop": stop},
                 seq_nums={"start": first, "stop": first + stop - start})  # fmt: skip

    def resource(self, spec: str, root: str, path: str, *, run: bool = True, **kwargs: Any) -> str:
        more = {"run_start": self.uid} if run else {}
        doc = self.add("resource", uid=str(uuid.uuid4()), spec=spec, root=root, resource_path=path,
                       resource_kwargs=kwargs, path_semantics="posix", **more)  # fmt: skip
        return str(doc["uid"])

    def datum(self, resource: str, number: int, **kwargs: Any) -> str:
        doc = self.add("datum", datum_id=f"{resource}/{number}", resource=resource, datum_kwargs=kwargs)
        return str(doc["datum_id"])

    def event(self, descriptor: str, seq_num: int, filled: Mapping[str, bool] | None = None, **data: Any) -> None:
        self._events += 1
        self.add("event", uid=str(uuid.uuid4()), descriptor=descriptor, seq_num=seq_num, time=1.7e9 + self._events,
                 data=data, timestamps=dict.fromkeys(data, 1.7e9), filled=dict(filled or {}))  # fmt: skip

    def stop(self, **num_events: int) -> Documents:
        self.add("stop", uid=str(uuid.uuid4()), run_start=self.uid, time=1.7e9 + 99, exit_status="success", reason="",
                 num_events=num_events)  # fmt: skip
        return self.documents


def images(folder: Path, mimetype: str, count: int = 4, shape: tuple[int, int] = (6, 8)) -> Recording:
    """A sequence of TIFF or JPEG files, one a frame, as area detectors write them."""
    script = Script()
    rng = np.random.default_rng(7)
    frames = rng.integers(0, 255, (count, *shape), dtype=np.uint8)
    suffix = "tif" if mimetype == TIFF else "jpg"
    for number, frame in enumerate(frames):
        path = folder / f"frame_{number:03d}.{suffix}"
        if mimetype == TIFF:
            tifffile.imwrite(path, frame)
        else:
            Image.fromarray(frame).save(path)
            frames[number] = np.asarray(Image.open(path))
    spec = {"shape": [1, *shape], "dtype_numpy": "|u1", "external": "STREAM:"}
    descriptor = script.descriptor(camera=spec)
    uri = f"file://localhost{folder}/frame"
    resource = script.stream_resource("camera", uri, mimetype, template=f"_%03d.{suffix}", chunk_shape=[1])
    for number in range(count):
        script.stream_datum(resource, descriptor, number, number + 1)
    return Recording(script.stop(primary=count), {("primary", "camera"): frames[:, np.newaxis]})
