"""Ends a process whose loop stands still: a supervisor starts another, and nothing is lost.

Some calls of Kafka's client have no limit in time, and none can be put on them from outside: a commit inside a
rebalance callback (the client lets that thread alone through), and what waits for librdkafka's own thread. A process
that stands in one of them is worse than a dead one, as its heartbeats go on from librdkafka's thread: the group leaves
it the partitions. Where nobody asks for `/livez`, nobody else would end it.
"""

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import structlog

_LOOKS = 10  # in the time that is allowed
_HELD_S = 10.0  # more until the stacks are written, and again until the kernel ends it
_STDERR = 2


class Watchdog:
    """Watches the thread that made it, between `start` and `close`.

    Its own thread says `stopped` with the place where the loop stands, and ends the process with status 1, without
    any cleaning up, which could hang as well. Some of the client's calls keep the interpreter to themselves, and so
    hold up that thread, too, as does a standard error that nobody reads. Then, some seconds later, Python's timer in C
    writes the stacks of all threads; and at last, whatever hangs, the kernel ends the process (SIGALRM).

    Parameters
    ----------
    still_s
        For how many seconds the loop has not moved.
    still_s_max
        Its limit.
    """

    def __init__(self, still_s: Callable[[], float], still_s_max: float) -> None:
        self._still_s, self._still_s_max = still_s, still_s_max
        self._watched = threading.get_ident()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End the watch, if it has begun. The kernel's limit stays: the end of the process may hang as well."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            faulthandler.dump_traceback_later(self._still_s_max + _HELD_S, file=_STDERR)
            signal.setitimer(signal.ITIMER_REAL, self._still_s_max + 2 * _HELD_S)
            if self._closed.wait(self._still_s_max / _LOOKS):
                faulthandler.cancel_dump_traceback_later()
                return
            if (still_s := self._still_s()) > self._still_s_max:
                self._end(still_s)

    def _end(self, still_s: float) -> None:
        error = f"the loop stands still since {still_s:.0f} s (limit {self._still_s_max:g} s), in {self._place()}"
        structlog.get_logger("tiled_ingest").error("stopped", reason="Stalled", error=error)
        os._exit(1)

    def _place(self) -> str:
        """Name the calls under way, innermost first: files, lines and functions, no values."""
        frames = traceback.extract_stack(sys._current_frames()[self._watched])  # noqa: SLF001 - Python's documented name
        return " < ".join(f"{Path(it.filename).name}:{it.lineno} {it.name}" for it in reversed(frames))
