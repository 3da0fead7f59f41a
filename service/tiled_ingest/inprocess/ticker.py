"""A thread that lets time pass for open runs, so that rows do not get older than asked for."""

import threading
from collections.abc import Callable
from typing import Any


class Ticker:
    """Calls `tick` every `every_s` seconds, under `lock`, for as long as it returns true.

    A daemon: it keeps no process alive, and does not survive a fork.
    """

    def __init__(self, lock: Any, tick: Callable[[], bool], every_s: float) -> None:
        self._lock = lock
        self._tick = tick
        self._every_s = every_s
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()  # never set: only its time-out counts

    def start(self) -> None:
        """Begin to tick; call it under the lock. Does nothing while it ticks."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tiled-ingest-age", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._pause.wait(self._every_s)
            with self._lock:
                if not self._tick():
                    self._thread = None
                    return
