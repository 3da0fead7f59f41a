"""The peers, each a process of its own: `python -m tests.bench.programs.NAME JSON`; the result is JSON in a file."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def arguments() -> dict[str, Any]:
    """What the program shall do."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def api_key() -> str:
    """The key; not among the arguments, which every user can see."""
    return os.environ["BENCH_API_KEY"]


def tell(given: dict[str, Any], **result: Any) -> None:
    """Leave the result."""
    Path(given["result"]).write_text(json.dumps(result))


class Stopwatch:
    """Wall time, and CPU time of this process, between `start` and `stop`."""

    def __init__(self) -> None:
        self.result: dict[str, float] = {}
        self._began = (0.0, 0.0)

    def start(self) -> None:
        self._began = time.perf_counter(), _cpu_s()

    def stop(self) -> None:
        self.result = {"seconds": time.perf_counter() - self._began[0], "cpu_s": _cpu_s() - self._began[1]}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
