"""Lanes: one procedure at a time for each run (and each claim), and the limits on what is under way at once.

A lane is idle, waits for an answer, waits for a free place to ask, or sleeps. This module only keeps the books; it
asks nothing and knows no clock.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from .claim import Claim
from .record import Home
from .runs.run import Run
from .steps import Procedure, Sleep
from .writes import CreateContainer, EnsureContainer, Request


@dataclass(eq=False)
class Lane:
    """The work of one run, or of a claim itself (`run` is `None`).

    Attributes
    ----------
    down
        Whether it sleeps because Tiled did not take its last request.
    dropped
        Its partition is gone: answers that still come are ignored.
    told_not_ours
        The breaker has heard that the run's place in Tiled is another's.
    ripe_s
        When its waiting rows come of age, if it is not looked at before; infinite: none wait.
    """

    key: str
    claim: Claim
    run: Run | None
    procedure: Procedure[None] | None = None
    down: bool = False
    dropped: bool = False
    sleeping: int = 0  # which sleep it is in; 0: none
    letters: int = 0  # dead letters that it waits for
    told_not_ours: bool = False
    ripe_s: float = math.inf

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return self.procedure is None


class Sleepers:
    """Lanes that go on later."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Lane]] = []
        self._count = 0

    def add(self, lane: Lane, sleep: Sleep, now_s: float) -> None:
        """Let the lane sleep."""
        self._count += 1
        lane.sleeping, lane.down = self._count, sleep.down
        heapq.heappush(self._heap, (now_s + sleep.seconds, self._count, lane))

    def awake(self, now_s: float) -> Iterator[Lane]:
        """Yield the lanes whose time has come."""
        while self._heap and self._heap[0][0] <= now_s:
            _, number, lane = heapq.heappop(self._heap)
            if lane.sleeping == number:
                lane.sleeping = 0
                yield lane

    @property
    def next_s(self) -> float:
        """When the next lane goes on; infinite if none sleeps."""
        while self._heap and self._heap[0][2].sleeping != self._heap[0][1]:
            heapq.heappop(self._heap)  # it was woken before its time
        return self._heap[0][0] if self._heap else math.inf

    def wake_down(self) -> list[Lane]:
        """Return all lanes that wait for Tiled: it is back."""
        woken = [lane for _, number, lane in self._heap if lane.down and lane.sleeping == number]
        for lane in woken:
            lane.sleeping = 0
        return woken

    @property
    def any_down(self) -> bool:
        """Whether a lane will knock at Tiled's door again by itself."""
        return any(lane.down and lane.sleeping == number and not lane.dropped for _, number, lane in self._heap)


class Ripening:
    """Lanes whose rows wait for nothing but their age: looked at then, and not before."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Lane]] = []
        self._count = 0

    def add(self, lane: Lane, ripe_s: float) -> None:
        """Have the lane looked at when its oldest row is old enough."""
        if lane.ripe_s == ripe_s:
            return  # more rows came to a batch that waits already
        lane.ripe_s = ripe_s
        self._count += 1
        heapq.heappush(self._heap, (ripe_s, self._count, lane))

    def ripe(self, now_s: float) -> Iterator[Lane]:
        """Yield the lanes whose rows are of age now."""
        while self._heap and self._heap[0][0] <= now_s:
            ripe_s, _, lane = heapq.heappop(self._heap)
            if lane.ripe_s == ripe_s and not lane.dropped:
                lane.ripe_s = math.inf
                yield lane

    @property
    def next_s(self) -> float:
        """When the next one will be; infinite if there is none. May be too early: nothing is there then."""
        return self._heap[0][0] if self._heap else math.inf


class Line:
    """Requests of one partition that wait. The lowest offset is first; of one lane, or of no run's, who came first."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, int, Lane, Request]] = []  # heaps
        self._others: list[tuple[int, int, Lane, Request]] = []

    def add(self, count: int, lane: Lane, request: Request) -> None:
        """Queue a request."""
        offset = lane.run.held_from if lane.run is not None else -1
        heapq.heappush(self._nodes if makes_run(lane, request) else self._others, (offset, count, lane, request))

    def next(self, with_nodes: bool) -> tuple[Lane, Request] | None:
        """Return the first; one that makes a run's node only if `with_nodes`."""
        heaps = [heap for heap in (self._nodes if with_nodes else [], self._others) if heap]
        if not heaps:
            return None
        _, _, lane, request = heapq.heappop(min(heaps, key=lambda heap: heap[0][:2]))
        return lane, request

    @property
    def lanes(self) -> list[Lane]:
        """Whose requests wait."""
        return [lane for heap in (self._nodes, self._others) for _, _, lane, _ in heap]


def makes_run(lane: Lane, request: Request) -> bool:
    """Whether a request makes a run's node, or the one above it."""
    if isinstance(request, CreateContainer):
        return lane.run is not None and request.parent == lane.run.parent
    return isinstance(request, EnsureContainer)


class Counter:
    """Requests that wait for a place, and those under way: the answer's ticket finds its lane.

    Of one partition, the request is next whose run holds the lowest offset: in a backlog run after run comes to its end
    and may be committed, instead of all a little at a time. No run waits for ever, as no other's offset falls below
    its own. Nodes of runs are made one by one: readers find them in the order of their making (`catalog[-1]`), which so
    is that of the log while Tiled takes each at once. Partitions take turns.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Home, Line] = OrderedDict()
        self._count = 0
        self._asked: dict[int, tuple[Lane, Request]] = {}

    def add(self, lane: Lane, request: Request) -> None:
        """Queue a request."""
        self._count += 1
        self._waiting.setdefault(lane.claim.home, Line()).add(self._count, lane, request)

    def next(self, limit: int) -> tuple[Lane, Request] | None:
        """Return the next request that may be sent now."""
        if len(self._asked) >= limit:
            return None
        for home in list(self._waiting):
            if found := self._next_of(home):
                return found
        return None

    def _next_of(self, home: Home) -> tuple[Lane, Request] | None:
        line = self._waiting[home]
        with_nodes = not any(
            lane.claim.home == home and not lane.dropped and makes_run(lane, request)
            for lane, request in self._asked.values()
        )
        while found := line.next(with_nodes):
            if not found[0].dropped:
                self._waiting.move_to_end(home)
                return found
        if not line.lanes:
            del self._waiting[home]
        return None

    def sent(self, ticket: int, lane: Lane, request: Request) -> None:
        """Note that the request was handed out."""
        self._asked[ticket] = lane, request

    def answered(self, ticket: int) -> tuple[Lane, Request]:
        """Return whose answer it is, and to what."""
        return self._asked.pop(ticket)

    def are_under_way(self, claim: Claim) -> bool:
        """Whether a request of this claim is under way."""
        return any(lane.claim is claim for lane, _ in self._asked.values())

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return len(self._asked)

    @property
    def empty(self) -> bool:
        """Whether no request waits or is under way."""
        waiting = (lane for line in self._waiting.values() for lane in line.lanes)
        return not self._asked and all(lane.dropped for lane in waiting)
