"""How far behind we are, known without waiting for the cluster."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from tiled_ingest.core.effects import EndReached
from tiled_ingest.core.record import Home

from .claims import home_of, place_of
from .messages import Arrivals
from .topics import Topics

# librdkafka learns a log's end when it fetches; a paused partition is not fetched: ask for it now and then.
_REFRESH_S = 15.0
_ASK_S_MAX = 5.0


class Lag:
    """Positions and ends of the partitions of one consumer; used by the consumer's thread."""

    def __init__(self, consumer: Any, topics: Topics) -> None:
        self._consumer, self._topics = consumer, topics
        self._ends: dict[Home, int] = {}
        self._highs: dict[Home, int] = {}
        self._asked: dict[Home, Future[Any]] = {}
        self._asked_s = float("-inf")

    def note(self, found: Arrivals) -> None:
        """Note the ends that were reached: librdkafka's own position knows only of records."""
        for item in found:
            if isinstance(item, EndReached):
                self._ends[item.home] = item.next_offset

    def forget(self, homes: Iterable[Home]) -> None:
        """Drop partitions that are no longer ours."""
        for home in homes:
            self._ends.pop(home, None)
            self._highs.pop(home, None)

    def of(self, homes: Sequence[Home]) -> dict[Home, tuple[int | None, int]]:
        """Return position and end of each; the end is the best known one, and never waited for."""
        self._refresh(homes)
        return {home: (position, self._high(home, position)) for home, position in self._positions(homes)}

    def _positions(self, homes: Sequence[Home]) -> Iterator[tuple[Home, int | None]]:
        for place in self._consumer.position([place_of(home) for home in homes]):
            home = home_of(place)
            known = max(place.offset, self._ends.get(home, -1))
            yield home, known if known >= 0 else None

    def _high(self, home: Home, position: int | None) -> int:
        _, cached = self._consumer.get_watermark_offsets(place_of(home), cached=True)
        return max(int(cached), self._highs.get(home, 0), position or 0)

    def _refresh(self, homes: Sequence[Home]) -> None:
        for home, future in list(self._asked.items()):
            if future.done():
                del self._asked[home]
                if future.exception() is None:
                    self._highs[home] = future.result().offset
        now_s = time.monotonic()
        if homes and not self._asked and now_s - self._asked_s >= _REFRESH_S:
            self._asked_s = now_s
            self._asked = self._topics.ask_highs(homes, _ASK_S_MAX)
