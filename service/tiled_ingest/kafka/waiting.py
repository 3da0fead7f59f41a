"""Limits in time for calls that have none, or that may fail for a moment."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import confluent_kafka as ck

from .errors import KafkaUnavailable, kafka_error, stopping_error

T = TypeVar("T")


def in_thread(call: Callable[[], T]) -> Future[T]:
    """Run `call` in a thread of its own that does not keep the process alive; wait for it with a limit."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except (ck.KafkaException, RuntimeError) as error:  # RuntimeError: the client is closed
            future.set_exception(error)

    threading.Thread(target=run, name="kafka-call", daemon=True).start()
    return future


def insist(call: Callable[[float], T], limit_s: float, what: str) -> T:
    """Try `call(seconds left)` until it succeeds.

    Raises
    ------
    KafkaUnavailable
        It still failed when `limit_s` was over.
    Forbidden, KafkaFatal
        Trying again would not help.
    """
    until = time.monotonic() + limit_s
    while True:
        try:
            return call(max(until - time.monotonic(), 0.1))
        except (ck.KafkaException, TimeoutError) as error:
            _give_up_or_rest(error, until, what)


def _give_up_or_rest(error: ck.KafkaException | TimeoutError, until: float, what: str) -> None:
    if isinstance(error, ck.KafkaException) and (stopping := stopping_error(kafka_error(error))):
        raise stopping from error
    if time.monotonic() >= until:
        raise KafkaUnavailable(f"{what}: {error or 'no answer in time'}") from error
    time.sleep(0.1)
