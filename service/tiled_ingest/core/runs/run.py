"""One run: the facts about it, the automaton that drives it, and what waits to be done for it."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from tiled_ingest.core.external.key import External
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.rows.stretch import ROW_BYTES_MIN
from tiled_ingest.core.writes import Path

from .acceptance import Acceptance
from .states import Move, State, Trigger, move
from .stream import Stream

RUN_NBYTES = 4_000  # of a run without documents
OBJECTS_WEIGH = 6  # times as much as their messages


@dataclass(frozen=True, slots=True)
class Chore:
    """A node that is to be made, or updated, before rows can follow: the effect of one descriptor."""

    stream: Stream
    descriptor: dict[str, Any]  # normalised
    is_update: bool
    hold: Hold


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a run may not be written: what its dead letters will say."""

    reason: str
    code: str
    detail: str
    ours: bool  # whether the node in Tiled is ours to mark as failed


class Deferred(NamedTuple):
    """A document that waits until its run goes on, or cannot."""

    record: Record
    hold: Hold

    @property
    def nbytes(self) -> int:
        """What it counts in memory."""
        return max(self.record.nbytes, ROW_BYTES_MIN)


class Run:
    """State of one run. The engine owns it; procedures advance it.

    Parameters
    ----------
    parent
        The node in which the run's node is.
    start
        The start document as received.
    start_hash
        `documents.content_hash` of it.
    first_offset
        The offset of its start document: where its beginning is in the log.
    inherited
        Whether its start was settled by an earlier claim: then its nodes are in Tiled already.
    """

    def __init__(
        self,
        home: Home,
        parent: Path,
        start: dict[str, Any],
        start_hash: str,
        first_offset: int,
        *,
        inherited: bool,
    ) -> None:
        self.home = home
        self.parent = parent
        self.start = start
        self.start_hash = start_hash
        self.first_offset = first_offset
        self.last_offset = first_offset
        self.inherited = inherited
        self.state = State.OPENING
        self.opened = False  # its node was seen in Tiled, ours and open, by this claim
        self.acceptance = Acceptance()
        self.streams: dict[str, Stream] = {}
        self.externals: dict[tuple[str, str], External] = {}  # by stream's name and data key
        self.resources: set[str] = set()  # uids of those that are its own, or may be, or that its datums name
        self.needs_from = first_offset  # where the log must be read again to know all of the above
        self.chores: deque[Chore] = deque()
        self.notes: list[str] = []
        self.refused: Counter[str] = Counter()  # documents of it that went to the dead letters, by code
        self.start_hold: Hold | None = None
        self.early: list[Hold] = []  # of documents that only wait to be used, as long as nobody knows whose the node is
        self.stop: dict[str, Any] | None = None
        self.stop_hold: Hold | None = None
        self.final_facts: dict[str, Any] | None = None  # what its node says of us, once it is closed there
        self.deferred: list[Deferred] = []  # what came while it is given up, or opened again
        self.deferred_nbytes = 0
        self.deferred_streams: dict[str, str] = {}  # of descriptors among it: uid to the stream's name
        self.read_nbytes = 0  # of its documents that are no rows
        self.reopening = False  # what we commit says that it is being opened again
        self.reopened: Mapping[str, int] | None = None  # how often, and by a document of which time at last
        self.in_hand: list[Hold] = []  # of a batch that was under way when Tiled refused it
        self.heard_s = 0.0  # when the last document came, on the engine's clock
        self.heard_ms = -1  # and by the broker's timestamp, which a later process finds again in the log
        self.opened_s = 0.0
        self.opened_ms = -1
        # of a run that is not to be written
        self.verdict: Verdict | None = None
        self.decided = False  # and the decision is durable
        self.emitted_to = first_offset  # dead letters are out for everything before this offset
        self.holds: list[Hold] = []  # all that waits for the dead letters
        # of a run that Tiled holds complete
        self.known_to = -1
        self.known: Mapping[str, Any] = {}  # our own facts in its metadata
        self.announced = False  # again, by this claim

    @property
    def uid(self) -> str:
        """The uid of its start document."""
        uid: str = self.start["uid"]
        return uid

    @property
    def path(self) -> Path:
        """The run's node."""
        return (*self.parent, self.uid)

    def came_back(self, now_s: float, newest_ms: int) -> None:
        """Set the clocks of a rebuilt run: how long the log shows it open and silent, up to the newest record."""
        self.heard_s = now_s - _seconds(self.heard_ms, newest_ms)
        self.opened_s = now_s - _seconds(self.opened_ms, newest_ms)

    def meet(self, trigger: Trigger) -> Move:
        """Advance the automaton."""
        step = move(self.state, trigger)
        self.state = step.state
        self.opened = self.opened or trigger is Trigger.CREATED
        self.reopening = (self.reopening or trigger is Trigger.LOGGED) and trigger is not Trigger.REOPENED
        return step

    def needs(self, offset: int) -> None:
        """Note that a document before its start may count: an old resource, which several runs use."""
        self.needs_from = min(self.needs_from, offset)

    @property
    def takes_documents(self) -> bool:
        """Whether what comes of it is written."""
        return self.state in {State.OPENING, State.OPEN}

    @property
    def waiting(self) -> bool:
        """Whether something of it waits to be written, now or later."""
        return any(self.waiting_streams) or any(self.waiting_externals)

    def ripe_s(self, policy: Policy) -> float:
        """When the oldest of what waits is due by its age, on the engine's clock; infinite if nothing waits."""
        rows = (stream.since_s + policy.age_s_max for stream in self.waiting_streams)
        files = (external.since_s + policy.external_age_s_max for external in self.waiting_externals)
        return min(chain(rows, files), default=math.inf)

    @property
    def waiting_externals(self) -> Iterator[External]:
        """External data keys that have something to write."""
        return (external for external in self.externals.values() if external.waiting)

    @property
    def waiting_streams(self) -> Iterator[Stream]:
        """Streams that have rows to write."""
        return (stream for stream in self.streams.values() if stream.waiting)

    @property
    def held_from(self) -> int:
        """The lowest offset of what waits to be settled; that of its last document if nothing waits."""
        return min(self._held_offsets(), default=self.last_offset)

    @property
    def is_held(self) -> bool:
        """Whether something of it waits to be settled."""
        return any(True for _ in self._held_offsets())

    def _held_offsets(self) -> Iterator[int]:
        nodes = (self.start_hold, self.stop_hold, *(chore.hold for chore in self.chores))
        deferred = [waiting.hold for waiting in self.deferred]
        lists = (self.early, deferred, self.in_hand, self.holds)
        held = chain((hold for hold in nodes if hold is not None), *lists)
        rows = (stream.first_offset for stream in self.waiting_streams)
        files = (external.first_offset for external in self.waiting_externals)
        return chain((hold.offset for hold in held), rows, files)

    @property
    def nbytes(self) -> int:
        """Bytes that wait."""
        return self.deferred_nbytes + sum(stream.nbytes for stream in self.streams.values())

    @property
    def footprint(self) -> int:
        """About what it takes in memory while nothing of it waits, in bytes: objects weigh more than their messages."""
        return RUN_NBYTES + self.acceptance.nbytes + OBJECTS_WEIGH * self.read_nbytes

    @property
    def is_written(self) -> bool:
        """Whether what waits of it will be in Tiled, as far as is known."""
        return self.state not in {State.CONDEMNED, State.REDELIVERED}

    @property
    def ending(self) -> bool:
        """Whether nothing more will come."""
        return self.state in {State.CLOSING, State.ABANDONING}

    @property
    def is_finished(self) -> bool:
        """Whether it is over."""
        return self.state is State.FINISHED

    @property
    def is_dormant(self) -> bool:
        """Whether it was given up, and may go on."""
        return self.state is State.DORMANT

    @property
    def at_rest(self) -> bool:
        """Whether nothing is to be done for it, as long as nobody speaks of it."""
        return self.is_finished or (self.is_dormant and not self.deferred)

    def events_of(self, stream: str) -> int:
        """How many events of a stream have come; where a detector was flown, none, but its stream_datums count them."""
        flown = [external.plan.last_seq_num for (name, _), external in self.externals.items() if name == stream]
        return max(self.acceptance.distinct(stream), min(flown, default=0))

    def reached(self, offset: int) -> None:
        """A document of the run stands there. Events of like layout are taken first, so it may be an earlier one."""
        self.last_offset = max(self.last_offset, offset)

    @property
    def rows(self) -> dict[str, int]:
        """Confirmed rows of each stream."""
        return {name: stream.confirmed.count for name, stream in self.streams.items()}

    @property
    def array_rows(self) -> dict[str, dict[str, int]]:
        """Confirmed rows of each array that has a node, by stream and key."""
        return {name: stream.array_rows for name, stream in self.streams.items() if stream.array_rows}

    @property
    def unannounced(self) -> bool:
        """Of a run that Tiled holds closed: whether nobody knows if its announcement was confirmed."""
        stop_waits = self.stop_hold is not None and self.stop_hold.offset <= self.known_to
        return stop_waits or (self.known.get("state") == "abandoned" and not self.announced)

    def condemn(self, verdict: Verdict) -> None:
        """Refuse the run: everything that waits for Tiled waits for the dead letters now."""
        self.meet(Trigger.REFUSED)
        self.verdict = verdict
        self.final_facts = None
        if verdict.ours:  # wholly in the dead letters: also what an earlier claim had written
            self.emitted_to = self.first_offset
        self.holds += self.let_go()

    def let_go(self) -> list[Hold]:
        """Forget everything that waits for Tiled; return its holds."""
        nodes = [*self.in_hand, *self.early, self.start_hold, *(chore.hold for chore in self.chores), self.stop_hold]
        rows = [hold for stream in self.streams.values() for hold in stream.drop()]
        rows += [hold for external in self.externals.values() for hold in external.drop()]
        deferred = self.let_go_deferred()
        self.chores.clear()
        self.in_hand.clear()
        self.early.clear()
        self.start_hold = self.stop_hold = None
        holds = [*(hold for hold in nodes if hold is not None), *rows, *deferred]
        # What waited may be of several runs, and then was nobody's last document.
        self.last_offset = max([self.last_offset, *(hold.offset for hold in holds)])
        return holds

    def know_descriptor(self, uid: str, stream: str) -> None:
        """Know that a descriptor is of this run, which is not written: that is all that its events need."""
        if self.acceptance.descriptor(uid) is None:
            self.acceptance.add_descriptor(uid, stream, offset=self.first_offset, content="")

    def defer(self, waiting: Deferred) -> None:
        """Let a document wait."""
        self.deferred.append(waiting)
        self.deferred_nbytes += waiting.nbytes

    def take_deferred(self, count: int | None = None) -> list[Deferred]:
        """Take all that has waited, in order; or so many of the first."""
        deferred, self.deferred = self.deferred[:count], self.deferred[count:] if count is not None else []
        self.deferred_nbytes -= sum(waiting.nbytes for waiting in deferred)
        return deferred

    def let_go_deferred(self) -> list[Hold]:
        """Take the holds of what came while the run was given up: it shares the run's fate, and is the last of it."""
        deferred = self.take_deferred()
        for uid, name in self.deferred_streams.items():
            self.know_descriptor(uid, name)
        self.last_offset = max([self.last_offset, *(waiting.record.offset for waiting in deferred)])
        return [waiting.hold for waiting in deferred]


def _seconds(since_ms: int, until_ms: int) -> float:
    """Seconds between two of the broker's timestamps; 0 where one is unknown (-1) or the clock went back."""
    return max(0, until_ms - since_ms) / 1000 if since_ms >= 0 else 0.0
