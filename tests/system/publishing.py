"""What is published in these tests: three real runs, interleaved in one partition, in portions.

The documents come from a RunEngine with simulated devices, recorded once: a scan that is paused twice and rewinds
(the same `seq_num` again, with other uids and times), with bluesky's stream of interruptions; a scan some of whose
events are packed into pages, with a baseline; and a scan with a monitored signal. Every test gets the same runs under
new uids.
"""

from __future__ import annotations

import copy
import random
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import event_model
import msgpack
import numpy as np
import pyarrow as pa
from bluesky import RunEngine
from bluesky.utils import DuringTask, RunEngineInterrupted
from bluesky_kafka import Publisher
from ophyd import Signal
from ophyd.sim import hw

Document = tuple[str, dict[str, Any]]
Documents = list[Document]
_DELIVERY_LIMIT_S = 20.0
_REFERENCES = ("uid", "run_start", "descriptor", "stream_resource")


# ---------------------------------------------------------------- recorded runs


class _Devices:
    def __init__(self) -> None:
        self.hardware = hw()
        self.current = Signal(name="current", value=0.5)
        self.frames = Signal(name="frames", value=0)
        self.sample = Signal(name="sample", value="Si")
        self.spectrum = Signal(name="spectrum", value=np.arange(3.0))

    @property
    def read(self) -> list[Any]:
        return [self.hardware.det, self.hardware.motor, self.frames, self.sample, self.spectrum]


def _points(devices: _Devices, points: int, pauses: Sequence[int]) -> Iterator[Any]:
    for point in range(points):
        if point % 4 == 0:
            yield from bps.checkpoint()
        yield from bps.abs_set(devices.frames, point, wait=True)
        yield from bps.abs_set(devices.current, point / 2, wait=True)
        yield from bps.abs_set(devices.spectrum, np.arange(3.0) + point, wait=True)
        yield from bps.mv(devices.hardware.motor, point / 10)
        yield from bps.trigger_and_read(devices.read)
        if point in pauses:
            yield from bps.pause()


def _plan(
    devices: _Devices, points: int, pauses: Sequence[int] = (), *, monitor: bool = False, baseline: bool = False
) -> Any:
    plan = bpp.run_wrapper(_points(devices, points, pauses), md={"sample": "Si", "points": points})
    if monitor:
        plan = bpp.monitor_during_wrapper(plan, [devices.current])
    if baseline:
        plan = bpp.baseline_wrapper(plan, [devices.hardware.motor1, devices.hardware.motor2])
    return plan


def _recorded(plan: Any, *, interruptions: bool = False) -> Documents:
    documents: Documents = []
    engine = RunEngine({}, context_managers=[], during_task=DuringTask(), call_returns_result=False)
    engine.record_interruptions = interruptions
    engine.subscribe(lambda name, doc: documents.append((name, copy.deepcopy(doc))))
    try:
        engine(plan)
    except RunEngineInterrupted:
        while engine.state == "paused":
            _resume(engine)
    return documents


def _resume(engine: Any) -> None:
    try:
        engine.resume()
    except RunEngineInterrupted:
        return


@cache
def _three() -> tuple[Documents, ...]:
    devices = _Devices()
    rewinding = _recorded(_plan(devices, 60, (17, 42)), interruptions=True)
    paged = _with_pages(_recorded(_plan(devices, 60, baseline=True)))
    monitored = _recorded(_plan(devices, 80, monitor=True))
    rows = [doc for name, doc in rewinding if name == "event" and "det" in doc["data"]]
    assert len(rows) > 60 == len({doc["seq_num"] for doc in rows}), "the rewind did not repeat what it should"
    return rewinding, paged, monitored


def _with_pages(documents: Documents) -> Documents:
    """Pack the events 11-20 of `primary` into one page, and the one after it into a page of one row."""
    primary = next(doc["uid"] for name, doc in documents if name == "descriptor" and doc["name"] == "primary")
    packed: Documents = []
    page: list[dict[str, Any]] = []
    for name, doc in documents:
        if name == "event" and doc["descriptor"] == primary and 11 <= doc["seq_num"] <= 21:
            page.append(doc)
            if doc["seq_num"] in {20, 21}:
                packed.append(("event_page", event_model.pack_event_page(*page)))
                page = []
        else:
            packed.append((name, doc))
    return packed


def renewed(documents: Iterable[Document]) -> Documents:
    """The same run under other uids."""
    names: dict[str, str] = {}

    def other(uid: Any) -> Any:
        if isinstance(uid, list):
            return [other(each) for each in uid]
        return names.setdefault(uid, str(uuid.uuid4()))

    def with_other_uids(doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, **{key: other(doc[key]) for key in _REFERENCES if key in doc}}

    return [(name, with_other_uids(copy.deepcopy(doc))) for name, doc in documents]


def runs(count: int = 3) -> list[Documents]:
    """Return that many of the three runs (the first one rewinds), under uids that nobody has seen."""
    return [renewed(documents) for documents in _three()[:count]]


def interleaved(runs_: Sequence[Documents], seed: int = 0) -> Documents:
    """Shuffle runs into each other, each in its own order, so that they begin and end at about the same time."""
    chance = random.Random(seed)
    turns = [number for number, documents in enumerate(runs_) for _ in documents]
    chance.shuffle(turns)
    each = [iter(documents) for documents in runs_]
    return [next(each[turn]) for turn in turns]


def by_run(documents: Iterable[Document]) -> dict[str, Documents]:
    """Sort documents by their runs."""
    found: dict[str, Documents] = {}
    descriptors: dict[str, str] = {}
    for name, doc in documents:
        uid = doc["uid"] if name == "start" else doc.get("run_start") or descriptors[doc["descriptor"]]
        if name == "descriptor":
            descriptors[doc["uid"]] = uid
        found.setdefault(uid, []).append((name, doc))
    return found


def uid_of(documents: Iterable[Document]) -> str:
    """The uid of the run."""
    return next(str(doc["uid"]) for name, doc in documents if name == "start")


# ---------------------------------------------------------------- publishing


def key_for(partition: int, partitions: int) -> str:
    """A key that the publishers' partitioner sends to this partition."""
    return next(key for key in map(str, range(10_000)) if zlib.crc32(key.encode()) % partitions == partition)


def message(name: Any, doc: Any) -> bytes:
    """A message as `bluesky_kafka.Publisher` makes it."""
    made: bytes = msgpack.dumps((name, doc))  # bluesky_kafka has taught it numpy
    return made


class Publication:
    """Documents on their way into a topic, portion by portion, each confirmed by the broker.

    Where it alone fills a fresh partition, a document's offset is its index.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        documents: Documents,
        key: str = "session",
        delivery_limit_s: float = _DELIVERY_LIMIT_S,
    ) -> None:
        self.documents = documents
        self.position = 0
        self._delivery_limit_s = delivery_limit_s
        self._failures: list[Any] = []
        self._thread: threading.Thread | None = None
        self._end = threading.Event()
        self._publisher = Publisher(
            topic,
            bootstrap_servers,
            key,
            producer_config={
                "enable.idempotence": True,
                "message.timeout.ms": round(1000 * delivery_limit_s),
                "linger.ms": 0,
                "log_level": 2,
            },
            on_delivery=lambda error, _: self._failures.append(error) if error else None,
        )

    @property
    def published(self) -> Documents:
        """What is out so far."""
        return self.documents[: self.position]

    def publish(self, count: int | None = None) -> None:
        """Publish the next documents, all that are left by default; returns when the broker has them."""
        until = len(self.documents) if count is None else min(self.position + count, len(self.documents))
        for name, doc in self.documents[self.position : until]:
            self._publisher(name, doc)
        self._publisher.flush()
        assert not self._failures, self._failures
        self.position = until

    def publish_to(self, share: float) -> None:
        """Publish up to a share of all documents."""
        self.publish(max(0, round(share * len(self.documents)) - self.position))

    def steadily(self, upto: float = 1.0, *, portion: int = 12, pause_s: float = 0.05) -> None:
        """Go on in the background, portion by portion, up to a share of all documents."""
        self.pause()
        self._end.clear()
        until = round(upto * len(self.documents))
        self._thread = threading.Thread(target=self._go_on, args=(until, portion, pause_s), name="publisher")
        self._thread.start()

    def _go_on(self, until: int, portion: int, pause_s: float) -> None:
        while self.position < until and not self._end.wait(pause_s):
            self.publish(min(portion, until - self.position))

    def pause(self) -> None:
        """End what `steadily` began; what is not out stays for later."""
        self._end.set()
        self._join(self._delivery_limit_s)

    def done(self, limit_s: float = 60.0) -> None:
        """Wait until what `steadily` began is out."""
        self._join(limit_s)

    def _join(self, limit_s: float) -> None:
        if self._thread is not None:
            self._thread.join(limit_s)
            assert not self._thread.is_alive(), "publishing takes too long"
            self._thread = None
        assert not self._failures, self._failures


# ---------------------------------------------------------------- what is in an append


def rows_in(body: bytes) -> list[tuple[int, float]]:
    """`seq_num` and `time` of each row of an append's body."""
    with pa.ipc.open_file(pa.BufferReader(body)) as file:
        table = file.read_all()
    numbers: list[Any] = table["seq_num"].to_pylist()
    times: list[Any] = table["time"].to_pylist()
    return list(zip(numbers, times, strict=True))


def offsets_of(documents: Documents, run: str, stream: str, rows: Iterable[tuple[int, float]]) -> list[int]:
    """Offsets of the documents that these rows come from, in a fresh partition with nothing else in it."""
    wanted = set(rows)
    names = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor" and doc["run_start"] == run}
    return [
        offset
        for offset, (_, doc) in enumerate(documents)
        if names.get(str(doc.get("descriptor"))) == stream and wanted & set(_keys(doc))
    ]


def _keys(doc: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    numbers, times = doc["seq_num"], doc["time"]
    yield from zip(numbers, times, strict=True) if isinstance(numbers, list) else [(numbers, times)]


def wait_until(true: Any, what: str, limit_s: float = 30.0) -> None:
    """Wait until `true()`; the limit is how long we wait, not how long it may take."""
    until_s = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until_s, f"{what}: not within {limit_s:g} s"
        time.sleep(0.01)
