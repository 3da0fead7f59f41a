"""A backlog that asks for far more memory than it has bytes, by accident or not: the service gets through it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest

from tests.system.scene import Scene

pytestmark = pytest.mark.real

PEAK_BYTES_MAX = 500_000_000  # of 160 MB in rest, and what two batches take; laid out together these rows take 2.9 GB
ADDRESSES_BYTES_MAX = 6 * 2**30  # whoever breaks this shall not take the machine's memory
ROWS, ODD = 45_000, 100


def run_of(uid: str, spec: dict[str, Any], values: Iterator[Any]) -> Iterator[bytes]:
    """The messages of a run with one data key."""
    key = {"source": "s", "dtype": "array", **spec}
    yield packed("start", {"uid": uid, "time": 1.0})
    yield packed(
        "descriptor", {"uid": f"{uid}-d", "run_start": uid, "time": 1.0, "name": "primary", "data_keys": {"x": key}}
    )
    number = 0
    for number, value in enumerate(values, 1):
        head = {"uid": f"{uid}{number:08}", "descriptor": f"{uid}-d", "time": float(number), "seq_num": number}
        yield packed("event", {**head, "data": {"x": value}, "timestamps": {"x": 1.0}, "filled": {}})
    stop = {"uid": f"{uid}-s", "run_start": uid, "time": 2.0, "exit_status": "success"}
    yield packed("stop", {**stop, "num_events": {"primary": number}})


def packed(kind: str, doc: dict[str, Any]) -> bytes:
    encoded: bytes = msgpack.dumps([kind, doc], default=msgpack_numpy.encode)
    return encoded


def backlog() -> Iterator[bytes]:
    """No malice in the first run; the others are nothing else."""
    waves = (np.arange(4_000.0 if row == ODD else 20.0) for row in range(ROWS))
    yield from run_of("odd", {"shape": [20], "dtype_numpy": "<f8"}, waves)
    for name, kind in (("text", "<U99999999"), ("bytes", "S2147483647")):
        yield from run_of(name, {"shape": [1], "dtype_numpy": kind}, iter([["a"]] * 20))
    yield from run_of("void", {"shape": [1, 1], "dtype_numpy": "V2000000000"}, iter([[[1]]] * 20))
    yield from run_of("hollow", {"shape": [1, 1]}, iter([np.zeros((0, 4_999_999))] * 300))
    yield from run_of("parts", {"shape": [10**9, None], "dtype_numpy": "<f8"}, iter([None] * 20))
    yield from run_of("after", {"shape": [20], "dtype_numpy": "<f8"}, iter([np.arange(20.0)] * 3))


def peak_bytes(pid: int) -> int:
    """The most that a process has held in memory at once."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def test_a_backlog_that_asks_for_gigabytes_takes_megabytes(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    scene.produce(*backlog())
    service = scene.service(tiled__timeout_s=30.0).start()
    pid = service.process.pid
    assert pid is not None
    resource.prlimit(pid, resource.RLIMIT_AS, (ADDRESSES_BYTES_MAX, ADDRESSES_BYTES_MAX))
    scene.settle(limit_s=120)
    peak = peak_bytes(pid)
    scene.notes.append(f"at most {peak / 1e6:.0f} MB")
    assert peak < PEAK_BYTES_MAX
    assert [letter.code for letter in scene.letters()] == ["value_misfit"]
    runs = ("odd", "text", "bytes", "void", "hollow", "parts", "after")
    assert {uid: scene.state(uid) for uid in runs} == dict.fromkeys(runs, "complete")
    held = scene.client["odd"]["primary"]["x"]
    assert held.shape == (ROWS, 20)
    assert np.isnan(held[ODD]).all()
    np.testing.assert_array_equal(held[ODD + 1], np.arange(20.0))
    assert scene.client["text"]["primary"]["x"].read().tolist() == [["a"]] * 20
    assert scene.client["void"]["primary"]["x"].read().tolist() == [[[1]]] * 20
