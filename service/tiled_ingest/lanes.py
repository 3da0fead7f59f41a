"""Threads that wait for Tiled and for the log, so that the loop never does.

A request is performed once, by whichever thread is free; its outcome comes back through one queue. The engine has at
most one request of a run under way, so work on one run stays in order while different runs overlap.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from time import monotonic

from .core.effects import Answered, Ask, Input, LogRead, LogUnreadable, ReadLog
from .core.writes import Outcome, Request
from .kafka.errors import LogUnavailable
from .kafka.log_reader import LogReader

Perform = Callable[[Request], Outcome]
Requested = Callable[[str, str, float], None]


class Lanes:
    """Writer threads, and one reader of the log.

    Parameters
    ----------
    perform
        Sends one request to Tiled; used by several threads at once.
    reader
        Reads the log beside the group.
    requested
        Told of every request: its kind, how it ended, and how many seconds it took. Called from the threads.
    threads
        As many as requests that may be under way.
    """

    def __init__(self, perform: Perform, reader: LogReader, requested: Requested, threads: int) -> None:
        self._perform = perform
        self._reader = reader
        self._requested = requested
        self._results: SimpleQueue[Input | BaseException] = SimpleQueue()
        self._writers = ThreadPoolExecutor(threads, thread_name_prefix="lane")
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="log")

    def ask(self, ask: Ask) -> None:
        """Have a request performed; its `Answered` comes out of `results`."""
        self._watch(self._writers.submit(self._answer, ask))

    def read(self, read: ReadLog) -> None:
        """Have a part of the log read; its `LogRead` or `LogUnreadable` comes out of `results`."""
        self._watch(self._readers.submit(self._read, read))

    def results(self, wait_s: float = 0.0) -> Iterator[Input]:
        """Yield what has come back; waits at most `wait_s` for the first. Raises what a thread raised: a bug."""
        try:
            result = self._results.get(timeout=wait_s) if wait_s else self._results.get_nowait()
            while True:
                if isinstance(result, BaseException):
                    raise result
                yield result
                result = self._results.get_nowait()
        except Empty:
            return

    def close(self) -> None:
        """Take nothing more. Requests under way go on until they end, with the process at the latest."""
        self._writers.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _answer(self, ask: Ask) -> None:
        begun_s = monotonic()
        outcome = self._perform(ask.request)
        self._requested(type(ask.request).__name__, type(outcome).__name__, monotonic() - begun_s)
        self._results.put(Answered(ask.ticket, outcome))

    def _read(self, read: ReadLog) -> None:
        try:
            records, next_offset, low = self._reader.read(read.home, read.start, read.stop, read.bytes_max)
        except LogUnavailable as error:
            self._results.put(LogUnreadable(read.ticket, str(error)))
        else:
            self._results.put(LogRead(read.ticket, records, next_offset, low))

    def _watch(self, future: Future[None]) -> None:
        future.add_done_callback(self._raised)

    def _raised(self, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._results.put(error)
