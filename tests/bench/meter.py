"""What a process used, looked at a hundred times a second: CPU (user + system) and memory."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import NamedTuple

import psutil

LOOK_EVERY_S = 0.01


class Sample(NamedTuple):
    """`at_s` is the wall clock's, as in log lines; `cpu_s` since the process's start; `rss` in bytes."""

    at_s: float
    cpu_s: float
    rss: int


class Meter:
    """Samples of one process, from now until it ends or the block is left."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._process = psutil.Process(pid)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="meter", daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.is_set():
            try:
                times, rss = self._process.cpu_times(), self._process.memory_info().rss
            except psutil.Error:
                return
            self.samples.append(Sample(time.time(), times.user + times.system, rss))
            self._end.wait(LOOK_EVERY_S)

    def cpu_s(self, since_s: float, until_s: float) -> float:
        """CPU used between two moments of the wall clock."""
        return self._cpu_at(until_s) - self._cpu_at(since_s)

    def _cpu_at(self, at_s: float) -> float:
        before = [sample.cpu_s for sample in self.samples if sample.at_s <= at_s]
        return before[-1] if before else 0.0

    @property
    def rss_max(self) -> int:
        return max((sample.rss for sample in self.samples), default=0)
