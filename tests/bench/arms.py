"""One arm of a comparison: the service, or one of its peers, run once and measured."""

from __future__ import annotations

import datetime as dt
import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.bench.meter import Meter
from tests.bench.places import Node, Place
from tests.bench.topics import Topic
from tests.system.service import Line, Service
from tiled_ingest.demo.processes import Process, ProcessError

LIMIT_S = 1_800.0
BARE_ROWS = 50_000  # of one append: as many as the service sends at most


@dataclass(frozen=True)
class Measured:
    """One arm, run once.

    Attributes
    ----------
    events
        How many were brought into Tiled.
    seconds
        From the moment when it could begin (imported, connected, partitions assigned) until all was written.
    cpu_s
        CPU time, user and system, of its process in these seconds.
    rss_max
        The most memory it held, in bytes, from its start to its end; 0: not measured.
    requests
        What it asked of Tiled; 0: not measured.
    """

    events: int
    seconds: float
    cpu_s: float
    rss_max: int = 0
    requests: int = 0

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU for each event."""
        return self.cpu_s / self.events * 1e6


# ---------------------------------------------------------------- ours


def service(place: Place, topic: Topic, node: Node, **more: Any) -> Service:
    """The service, not yet started; `more` are settings, with `__` for the dot."""
    mark = uuid.uuid4().hex[:8]
    settings = {
        "beamline": "bench",
        "kafka.bootstrap_servers": place.broker.bootstrap_servers,
        "kafka.group_id": f"bench-{mark}",
        "kafka.topics": [topic.name],
        "kafka.instance_id": "bench-0",
        "tiled.uri": node.uri,
        "tiled.api_key": node.server.api_key,
        "tiled.timeout_s": 120,
        "log.level": "info",
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return Service(place.folder, settings, f"service-{mark}")


def ours(place: Place, topic: Topic, node: Node, **more: Any) -> Measured:
    """`tiled-ingest run --until-end`, with its default settings."""
    with running(place, topic, node, **more) as (made, meter):
        status = made.ended(LIMIT_S)
        if status:
            raise RuntimeError(f"the service ended with {status}\n{made.tail(20)}")
    return measured(topic, made, meter)


def measured(topic: Topic, made: Service, meter: Meter) -> Measured:
    """What a service that brought a whole topic into Tiled did from its claim to its last run's end."""
    began_s, ended_s = at_s(made.lines("claimed")[0]), at_s(made.lines("run_closed")[-1])
    cpu_s = meter.cpu_s(began_s, ended_s)
    return Measured(topic.rows, ended_s - began_s, cpu_s, meter.rss_max)


@contextmanager
def running(
    place: Place, topic: Topic, node: Node, *, until_end: bool = True, **more: Any
) -> Iterator[tuple[Service, Meter]]:
    """Run the service for this block, under a meter."""
    made = service(place, topic, node, **more)
    made.start(*["--until-end"] if until_end else [])
    assert made.process.pid is not None
    try:
        with Meter(made.process.pid) as meter:
            yield made, meter
    finally:
        made.kill()


def at_s(line: Line) -> float:
    """The wall clock's time of a log line."""
    return dt.datetime.fromisoformat(line["timestamp"]).timestamp()


# ---------------------------------------------------------------- the peers


def tiled_writer(place: Place, topic: Topic, node: Node, *, batch: int, events: int, stops: int = 1) -> Measured:
    """bluesky-kafka's consumer driving TiledWriter, over the topic's first events, or runs."""
    program = Program(
        place,
        "tiled_writer",
        node,
        uri=node.uri,
        bootstrap_servers=place.broker.bootstrap_servers,
        topic=topic.name,
        group=f"bench-{uuid.uuid4().hex[:8]}",
        batch=batch,
        events=events,
        stops=stops,
    )
    with program:
        result = program.result()
    return Measured(events, result["seconds"], result["cpu_s"])


def bare_append(place: Place, topic: Topic, node: Node, *, rows: int = BARE_ROWS, tables: int = 1) -> Measured:
    """Appends of prebuilt tables with the topic's rows, while another process drains the topic."""
    append = Program(
        place, "bare_append", node, shape=topic.shape.key, rows=topic.rows, batch=rows, tables=tables, uri=node.uri
    )
    with append, _drain(place, topic, node) as draining:
        result = append.result()
        draining.result()
    return Measured(topic.rows * tables, result["seconds"], result["cpu_s"])


def drain(place: Place, topic: Topic, node: Node) -> Measured:
    """The topic read, and nothing done with it."""
    with _drain(place, topic, node) as program:
        result = program.result()
    return Measured(topic.rows, result["seconds"], result["cpu_s"])


def _drain(place: Place, topic: Topic, node: Node) -> Program:
    return Program(
        place,
        "drain",
        node,
        bootstrap_servers=place.broker.bootstrap_servers,
        topic=topic.name,
        partitions=topic.partitions,
        messages=topic.messages,
    )


class Program:
    """One of `programs`, running while the block lasts."""

    def __init__(self, place: Place, name: str, node: Node, **given: Any) -> None:
        self._path = place.folder / f"{name}-{uuid.uuid4().hex[:8]}.json"
        command = [
            sys.executable,
            "-m",
            f"tests.bench.programs.{name}",
            json.dumps(given | {"result": str(self._path)}),
        ]
        env = {"BENCH_API_KEY": node.server.api_key, "PYTHONPATH": str(Path(__file__).parents[2])}
        self._process = Process(name, command, self._path.with_suffix(".log"), env=env)

    def __enter__(self) -> Program:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()

    def result(self) -> dict[str, float]:
        """Wait for its end; return what it measured."""
        if self._process.wait(LIMIT_S):
            raise ProcessError(f"{self._process.name} failed\n{self._process.log_tail()}")
        result: dict[str, float] = json.loads(self._path.read_text())
        return result
