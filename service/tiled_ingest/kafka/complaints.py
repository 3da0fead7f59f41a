"""librdkafka's own log lines: each complaint now and then, and not as often as it is made.

While no broker answers it complains of each attempt to connect, many times a second; a line that says something else
would be lost among those.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

_EVERY_S = 60.0
_KINDS_MAX = 100  # of a client's complaints there are a dozen

_ADDRESS = re.compile(r"\S+:\d+(/\w+)?")  # `[thrd:sasl_ssl://broker:9092/bootstrap]:`, `ipv4#10.0.0.1:9092`
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class _Told:
    when_s: float
    withheld: int = 0


class Complaints:
    """What one client takes for its `logger`: hands on the same complaint once a minute, with how often it was made.

    The same is what differs in times, numbers and brokers only. May be called from any thread.

    Parameters
    ----------
    logger
        Where the lines go.
    now_s
        A clock that never goes back, in seconds.
    """

    def __init__(self, logger: logging.Logger, now_s: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._now_s = logger, now_s
        self._told: dict[str, _Told] = {}
        self._lock = Lock()

    def log(self, level: int, text: str, *arguments: object) -> None:
        """Hand a line on, or count it."""
        if not self._logger.isEnabledFor(level):
            return
        line = text % arguments if arguments else text
        with self._lock:
            withheld = self._withheld(_kind_of(line))
        if withheld is None:
            return
        self._logger.log(level, "%s", f"{line} [and {withheld} more like this]" if withheld else line)

    def _withheld(self, kind: str) -> int | None:
        """Return how many lines of this kind were withheld since the last one; `None` if this one is, too."""
        now_s = self._now_s()
        last = self._told.pop(kind, None)
        if last is not None and now_s - last.when_s < _EVERY_S:
            self._told[kind] = _Told(last.when_s, last.withheld + 1)
            return None
        self._told[kind] = _Told(now_s)
        if len(self._told) > _KINDS_MAX:
            del self._told[next(iter(self._told))]  # the one that was not made for longest
        return last.withheld if last else 0


def _kind_of(line: str) -> str:
    return _NUMBER.sub("", _ADDRESS.sub("", line))
