"""Virtual time: a heap of things that will happen. Nothing waits, and nothing is really concurrent."""

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Clock:
    """Runs actions in the order of their times; equal times in the order of their scheduling."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._order = count()
        self._heap: list[tuple[float, int, Action]] = []

    def after(self, delay_s: float, action: Action) -> None:
        """Let `action` happen `delay_s` from now."""
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._order), action))

    def turn(self) -> bool:
        """Let the next thing happen; false if there is none."""
        if not self._heap:
            return False
        self.now_s, _, action = heapq.heappop(self._heap)
        action()
        return True
