"""Fly scans: detectors write frames into files, and the documents say how far they are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np

from tests.bench import arms
from tests.bench.bench import Bench
from tests.bench.figures import Figure, Goal
from tests.bench.messages import packed
from tests.bench.places import Node
from tests.bench.readback import WrongResultError
from tests.bench.topics import Topic
from tests.system.service import Service

DETECTORS = 10
FRAME_S = 0.01
FRAME = (2, 2)
LOOK_S = 0.5


def external(bench: Bench) -> list[Figure]:
    """Fly scans with 10 detectors: from a backlog beside TiledWriter; and live, a stream_datum of each every 10 ms."""
    ours, theirs, single, asked = [], [], [], []
    folder = bench.place.folder / "frames"
    with bench.storage("duckdb", readable=folder) as node:
        scan = Scan(folder, bench.sizes.frames)
        short = Scan(folder, bench.sizes.frames_one_by_one)
        for _ in range(bench.repeat):
            ours.append(_ours(bench, scan, node()))
            theirs.append(_tiled_writer(bench, scan, node(), 10_000))
            single.append(_tiled_writer(bench, short, node(), 1))
            asked.append(_requests_live(bench, Scan(folder, bench.sizes.frames_live), node()))
    what, unit = f"fly scans, {DETECTORS} detectors", "stream_datums/s"
    return [
        Figure("external", what, unit, ours, "TiledWriter, batch 1", single, Goal("ratio", ">=", 20)),
        Figure("external", what, unit, ours, "TiledWriter, batch 10 000", theirs),
        Figure("external", "requests for a stream_datum, live", "", asked, goal=Goal("value", "<=", 0.05)),
    ]


@dataclass(frozen=True)
class Scan:
    """A run of which every detector has `frames` frames, and says so one by one."""

    folder: Path
    frames: int

    @property
    def stream_datums(self) -> int:
        return DETECTORS * self.frames

    def opening(self, topic: Topic) -> list[bytes]:
        """Write the files; return the documents that come before the first frame."""
        self.folder.mkdir(exist_ok=True)
        spec = {"source": "BENCH", "dtype": "array", "shape": [1, *FRAME], "dtype_numpy": "|u1", "external": "STREAM:"}
        keys = {f"detector_{number}": spec for number in range(DETECTORS)}
        descriptor = {
            "uid": topic.names.descriptor(0),
            "run_start": topic.names.run(0),
            "time": 1.7e9,
            "name": "primary",
            "data_keys": keys,
            "configuration": {},
            "hints": {},
            "object_keys": {},
        }
        resources = [packed("stream_resource", self._resource(topic, key)) for key in keys]
        return [topic.names.start(0), packed("descriptor", descriptor), *resources]

    def _resource(self, topic: Topic, key: str) -> dict[str, Any]:
        path = self.folder / f"{topic.name}-{key}.h5"
        with h5py.File(path, "w") as file:
            file["entry/data"] = np.zeros((self.frames, *FRAME), np.uint8)
        return {
            "uid": f"{topic.names.mark}-{key}",
            "run_start": topic.names.run(0),
            "data_key": key,
            "mimetype": "application/x-hdf5",
            "uri": f"file://localhost{path}",
            "parameters": {"dataset": "entry/data", "chunk_shape": [1, *FRAME]},
        }

    @staticmethod
    def frame(topic: Topic, number: int) -> list[bytes]:
        """What all detectors say of one frame."""
        return [
            packed(
                "stream_datum",
                {
                    "uid": f"{topic.names.mark}-detector_{detector}/{number}",
                    "stream_resource": f"{topic.names.mark}-detector_{detector}",
                    "descriptor": topic.names.descriptor(0),
                    "indices": {"start": number, "stop": number + 1},
                    "seq_nums": {"start": number + 1, "stop": number + 2},
                },
            )
            for detector in range(DETECTORS)
        ]

    def publish(self, bench: Bench, topic: Topic) -> None:
        """Publish the whole run."""
        frames = [message for number in range(self.frames) for message in self.frame(topic, number)]
        stop = topic.names.stop(0, self.frames)
        bench.place.topics.publish(topic, [(0, [*self.opening(topic), *frames, stop])])

    def check(self, topic: Topic, node: Node) -> None:
        """Compare the length of every array with what was published."""
        for number in range(DETECTORS):
            found = _rows(node, f"{node.key}/{topic.names.run(0)}/primary/detector_{number}")
            if found != self.frames:
                raise WrongResultError(f"detector_{number} has {found} frames, not {self.frames}")

    def wait(self, topic: Topic, node: Node) -> None:
        """Return when every array is as long as it should be; live data are written when they are old enough."""
        until_s = time.monotonic() + arms.LIMIT_S
        while time.monotonic() < until_s:
            try:
                return self.check(topic, node)
            except WrongResultError:
                time.sleep(LOOK_S)
        return self.check(topic, node)


def _rows(node: Node, path: str) -> int:
    """Return the length of an array; 0 where there is none."""
    with node.http as http:
        answer = http.get(f"/metadata/{path}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return 0
    return int(answer.raise_for_status().json()["data"]["attributes"]["structure"]["shape"][0])


def _ours(bench: Bench, scan: Scan, node: Node) -> float:
    topic = bench.place.topics.empty("floats10", 1, 0)
    scan.publish(bench, topic)
    with arms.running(bench.place, topic, node) as (made, _):
        if made.ended(arms.LIMIT_S):
            raise RuntimeError(f"the service failed\n{made.tail(20)}")
    scan.check(topic, node)
    seconds = arms.at_s(made.lines("run_closed")[-1]) - arms.at_s(made.lines("claimed")[0])
    bench.log(f"    ours: {scan.stream_datums / seconds:,.0f} stream_datums/s")
    return scan.stream_datums / seconds


def _tiled_writer(bench: Bench, scan: Scan, node: Node, batch: int) -> float:
    topic = bench.place.topics.empty("floats10", 1, 0)
    scan.publish(bench, topic)
    measured = arms.tiled_writer(bench.place, topic, node, batch=batch, events=0, stops=1)
    scan.check(topic, node)
    rate = scan.stream_datums / measured.seconds
    bench.log(f"    TiledWriter, batch {batch}: {rate:,.0f} stream_datums/s")
    return rate


def _requests_live(bench: Bench, scan: Scan, node: Node) -> float:
    """Publish a scan at its own pace; return the registrations for each stream_datum."""
    topic = bench.place.topics.empty("floats10", 1, 0)
    with arms.running(bench.place, topic, node, until_end=False) as (made, _):
        made.wait_for("claimed", limit_s=arms.LIMIT_S)
        bench.place.topics.publish(topic, [(0, scan.opening(topic))])
        began_s = time.monotonic()
        for number in range(scan.frames):
            time.sleep(max(0.0, began_s + number * FRAME_S - time.monotonic()))
            bench.place.topics.publish(topic, [(0, scan.frame(topic, number))])
        scan.wait(topic, node)
        asked = _registrations(made)
    bench.log(f"    live: {asked:.0f} registrations of {scan.stream_datums} stream_datums")
    return asked / scan.stream_datums


def _registrations(made: Service) -> float:
    answer = httpx.get(f"http://127.0.0.1:{made.lines('started')[0]['http_port']}/metrics").raise_for_status()
    name = "tiled_ingest_tiled_request_duration_seconds_count"
    lines = [line for line in answer.text.splitlines() if line.startswith(name) and "RegisterExternal" in line]
    return sum(float(line.rsplit(maxsplit=1)[1]) for line in lines)
