"""Runs of a real RunEngine with ophyd's simulated devices: values in events only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.suspenders import SuspendBoolHigh
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss, SynSignal, hw

from .recorder import Documents, PlanError, Recorder, record

Make = Callable[[Path], Documents]


def _points(
    count: int, *, pause_at: int = -1, fail_at: int = -1, rewind: int = 4, devices: Any = None
) -> Iterator[Any]:
    devices = devices or hw()
    for point in range(count):
        if point % rewind == 0:
            yield from bps.checkpoint()
        yield from bps.mv(devices.motor, point / 10)
        yield from bps.trigger_and_read([devices.det, devices.motor])
        if point == pause_at:
            yield from bps.pause()
        if point == fail_at:
            raise PlanError("as planned")


def count(_: Path) -> Documents:
    return record(bp.count([hw().det], 3, md={"sample": {"name": "Si", "sizes": (1, 2)}, "nothing": None}))


def scan(_: Path) -> Documents:
    return record(bp.scan([hw().det], hw().motor, -5, 5, 10))


def grid_scan(_: Path) -> Documents:
    devices = hw()
    return record(bp.grid_scan([devices.det4], devices.motor1, 0, 1, 3, devices.motor2, 0, 2, 4, snake_axes=True))


def list_scan(_: Path) -> Documents:
    return record(bp.list_scan([hw().det], hw().motor, [1, 4, 2.5]))


def rel_scan(_: Path) -> Documents:
    return record(bp.rel_scan([hw().det], hw().motor, -1, 1, 4))


def several_streams(_: Path) -> Documents:
    devices = hw()

    def plan() -> Iterator[Any]:
        for _ in range(3):
            yield from bps.trigger_and_read([devices.det1], name="primary")
            yield from bps.trigger_and_read([devices.det2, devices.motor], name="secondary")
        yield from bps.declare_stream(devices.det1, name="empty")

    return record(bpp.run_wrapper(plan()))


def baseline(_: Path) -> Documents:
    devices = hw()
    return record(bpp.baseline_wrapper(bp.count([devices.det], 2), [devices.motor1, devices.motor2]))


def monitors(_: Path) -> Documents:
    current, devices = Signal(name="current", value=0.5), hw()

    def plan() -> Iterator[Any]:
        for point in range(4):
            yield from bps.abs_set(current, point / 2, wait=True)
            yield from bps.trigger_and_read([devices.det])

    return record(bpp.monitor_during_wrapper(bpp.run_wrapper(plan()), [current]))


def kinds_of_scalars(_: Path) -> Documents:
    sample = Signal(name="sample", value="Si; \"quoted\" 'ü'")
    frames = Signal(name="frames", value=2**40)
    shutter = SynSignal(name="shutter", func=lambda: True)
    small = Signal(name="small", value=np.arange(3.0))
    return record(bp.count([sample, frames, shutter, small], 3))


def configure(_: Path) -> Documents:
    devices = hw()

    def plan() -> Iterator[Any]:
        yield from bps.trigger_and_read([devices.motor, devices.det])
        yield from bps.configure(devices.motor, {"velocity": 2})
        yield from bps.trigger_and_read([devices.motor, devices.det])
        yield from bps.configure(devices.motor, {"velocity": 3})
        yield from bps.trigger_and_read([devices.motor, devices.det])

    return record(bpp.run_wrapper(plan()))


def rewinds(_: Path) -> Documents:
    documents = record(bpp.run_wrapper(_points(12, pause_at=6)), interruptions=True)
    seq_nums = [doc["seq_num"] for name, doc in documents if name == "event" and "det" in doc["data"]]
    assert len(seq_nums) > len(set(seq_nums)), "nothing was repeated"
    return documents


def abort(_: Path) -> Documents:
    return record(bpp.run_wrapper(_points(12, pause_at=6)), lambda engine: engine.abort("enough"), interruptions=True)


def fail(_: Path) -> Documents:
    return record(bpp.run_wrapper(_points(12, fail_at=6)))


def suspend(_: Path) -> Documents:
    shutter = Signal(name="shutter", value=0)
    recorder = Recorder(interruptions=True)
    recorder.engine.install_suspender(SuspendBoolHigh(shutter))

    devices = hw()

    def plan() -> Iterator[Any]:
        yield from _points(3, devices=devices)
        threading.Timer(0.5, shutter.put, (0,)).start()
        yield from bps.abs_set(shutter, 1)
        yield from _points(3, devices=devices)

    return recorder.run(bpp.run_wrapper(plan()))


def flyer(_: Path) -> Documents:
    return record(bp.fly([hw().flyer1]))


def without_streams(_: Path) -> Documents:
    return record(bpp.run_wrapper(bps.null()))


def special_metadata(_: Path) -> Documents:
    metadata = {
        "huge": 2**60,
        "none": None,
        "nested": {"list": [1, [2, {"three": 3.5}]], "text": "ü"},
        "tiled_specs": ["Mine"],
    }
    return record(bp.count([hw().det], 2, md=metadata))


def infinite_metadata(_: Path) -> Documents:
    return record(bp.count([hw().det], 2, md={"infinite": [float("inf"), float("-inf")]}))


def large_array(_: Path) -> Documents:
    image = SynSignal(name="image", func=lambda: np.arange(60.0).reshape(6, 10))
    return record(bp.count([image, hw().det], 3))


def two_arrays(_: Path) -> Documents:
    image = SynSignal(name="image", func=lambda: np.ones((20, 3), np.uint16))
    line = SynSignal(name="line", func=lambda: np.arange(20))
    return record(bp.count([image, line], 3))


def text_array(_: Path) -> Documents:
    names = SynSignal(name="names", func=lambda: np.array(["a", "bcd"]))
    return record(bp.count([names, hw().det], 3))


def wide_rows(_: Path) -> Documents:
    """As many scalars as TiledWriter has in one table; a row of PostgreSQL has no room for them."""
    return record(bp.count([Signal(name=f"signal_{number:03}", value=number / 2) for number in range(511)], 2))


def noisy(_: Path) -> Documents:
    motor = SynAxis(name="theta", labels={"motors"})
    det = SynGauss("counts", motor, "theta", center=0, Imax=1000, sigma=1, noise="uniform")
    return record(bp.scan([det], motor, -2, 2, 7))


MAKERS: dict[str, Make] = {
    made.__name__: made
    for made in (
        count,
        scan,
        grid_scan,
        list_scan,
        rel_scan,
        several_streams,
        baseline,
        monitors,
        kinds_of_scalars,
        configure,
        rewinds,
        abort,
        fail,
        suspend,
        flyer,
        without_streams,
        special_metadata,
        infinite_metadata,
        large_array,
        two_arrays,
        text_array,
        wide_rows,
        noisy,
    )
}
