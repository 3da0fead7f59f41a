"""A beamline in small: a real RunEngine with simulated devices that publishes its documents to Kafka.

`python -m tiled_ingest.demo.beamline --help` runs plans in a process of its own. That is the better way
beside a service: importing `bluesky_kafka` patches msgpack in the whole process, with a decoder that runs code.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from bluesky import RunEngine
from bluesky.utils import DuringTask, RequestAbort
from bluesky_kafka import Publisher
from ophyd.sim import hw

from tiled_ingest.demo.record import read_documents, write_documents

__all__ = ["PLANS", "Beamline", "NotDeliveredError", "main", "read_documents", "write_documents"]

Plan = Iterator[Any]
PLANS = ("scan", "count", "with_baseline", "aborted")
_DELIVERY_LIMIT_MS = 30_000


class NotDeliveredError(RuntimeError):
    """The broker did not confirm a document."""


class Beamline:
    """A RunEngine whose documents go to one Kafka topic, each confirmed by the broker.

    Parameters
    ----------
    bootstrap_servers
        The broker.
    topic
        Must exist.
    key
        The records' key: a run stays in one partition.
    delay_s
        Pause after every point, so that a run takes a while.
    """

    def __init__(self, bootstrap_servers: str, topic: str, key: str = "demo", *, delay_s: float = 0.0) -> None:
        self.published: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.delay_s = delay_s
        self._delivered = 0
        self._sent = 0
        self._failures: list[str] = []
        self._uid = ""
        self._hardware = hw()
        self._publisher = Publisher(
            topic,
            bootstrap_servers,
            key,
            # Each run's flush waits for the reports, and every report comes within this limit.
            producer_config={
                "enable.idempotence": True,
                "message.timeout.ms": _DELIVERY_LIMIT_MS,
                "linger.ms": 0,
                "log_level": 3,  # a broker that has just started makes it wait, and say so
            },
            on_delivery=self._on_delivery,
        )
        # Neither bluesky's SIGINT handler nor its Qt event loop: Ctrl-C stays what it is elsewhere.
        self._engine = RunEngine({}, context_managers=[], during_task=DuringTask(), call_returns_result=False)
        self._engine.subscribe(self._record)
        self._engine.subscribe(self._publish)

    def scan(self, points: int, **metadata: Any) -> str:
        """Move a motor through `points` positions and read two detectors at each; returns the run's uid."""
        return self._run(self._scan(points, self._step), metadata)

    def count(self, points: int, **metadata: Any) -> str:
        """Read the detectors `points` times; returns the run's uid."""
        devices = [self._hardware.det, self._hardware.noisy_det]
        return self._run(bp.count(devices, num=points, delay=self.delay_s or None), metadata)

    def with_baseline(self, points: int, **metadata: Any) -> str:
        """Scan with a second stream: two motors before and after; returns the run's uid."""
        baseline = [self._hardware.motor1, self._hardware.motor2]
        return self._run(bpp.baseline_wrapper(self._scan(points, self._step), baseline), metadata)

    def aborted(self, points: int, **metadata: Any) -> str:
        """Abort a scan after `points` events, as a person at the beamline would; returns the run's uid."""
        taken = 0

        def read_or_abort(detectors: Any, motor: Any, step: Any) -> Plan:
            nonlocal taken
            if taken == points:
                raise RequestAbort
            yield from self._step(detectors, motor, step)
            taken += 1

        return self._run(self._scan(points + 1, read_or_abort), metadata, expected=RequestAbort)

    def close(self) -> None:
        """Wait until the broker confirmed every document.

        Raises
        ------
        NotDeliveredError
            It did not, for at least one.
        """
        self._publisher.flush()
        if self._failures or self._delivered != self._sent:
            reason = self._failures[0] if self._failures else "no report in time"
            raise NotDeliveredError(
                f"{self._sent - self._delivered} of {self._sent} documents were not delivered: {reason}"
            )

    def __enter__(self) -> Beamline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # else what went wrong first is the better message
            self.close()

    def _scan(self, points: int, per_step: Callable[..., Plan]) -> Plan:
        devices = [self._hardware.det, self._hardware.noisy_det]
        plan: Plan = bp.scan(devices, self._hardware.motor, -3.0, 3.0, num=points, per_step=per_step)
        return plan

    def _step(self, detectors: Any, motor: Any, step: Any) -> Plan:  # bluesky looks at the arguments' names
        yield from bps.one_1d_step(detectors, motor, step)
        if self.delay_s:
            yield from bps.sleep(self.delay_s)

    def _run(self, plan: Plan, metadata: dict[str, Any], expected: type[Exception] | None = None) -> str:
        if expected is None:
            self._engine(plan, **metadata)
        else:
            with _quiet_engine(), suppress(expected):
                self._engine(plan, **metadata)
        self.close()
        return self._uid

    def _record(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            self._uid = doc["uid"]
        self.published.setdefault(self._uid, []).append((name, copy.deepcopy(doc)))

    def _publish(self, name: str, doc: dict[str, Any]) -> None:
        self._sent += 1
        self._publisher(name, doc)

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error is None:
            self._delivered += 1
        else:
            self._failures.append(f"{error} (topic {message.topic()})")


def main(arguments: list[str] | None = None) -> int:
    """Run plans, one after the other, and print each run's uid; the published documents go to a file."""
    parser = argparse.ArgumentParser(prog="python -m tiled_ingest.demo.beamline", description=main.__doc__)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--key", default="demo")
    parser.add_argument("--plan", nargs="+", type=_plan, default=[("scan", None)], metavar="NAME[:POINTS]")
    parser.add_argument("--points", type=int, default=10, help="for plans that do not say")
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="pause after every point, in seconds")
    parser.add_argument("--runs", type=int, default=1, help="how many times")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append the published documents as JSON Lines")
    options = parser.parse_args(arguments)
    beamline = Beamline(options.bootstrap_servers, options.topic, options.key, delay_s=options.delay)
    try:
        for name, points in options.plan * options.runs:
            uid = getattr(beamline, name)(points or options.points)
            if options.record is not None:
                write_documents(options.record, beamline.published[uid])
            print(uid, flush=True)
        beamline.close()
    except NotDeliveredError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _plan(text: str) -> tuple[str, int | None]:
    name, _, points = text.partition(":")
    if name not in PLANS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PLANS)}")
    return name, int(points) if points else None


@contextmanager
def _quiet_engine() -> Iterator[None]:
    """Keep the RunEngine from logging the traceback of an abort that we asked for."""
    log = logging.getLogger("bluesky")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
