"""One run, built in Tiled by an engine of its own, in the caller's thread.

The engine sees a log of one partition that holds the run's documents, numbered from 0, and that it has just claimed
with an epoch above all that ever wrote to the run. What it writes is told in the run's metadata with the documents'
true places. Its dead letters are not sent: every document is where it came from.
"""

import math
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, singledispatchmethod
from typing import Any, Protocol

from tiled_ingest.core import effects as fx
from tiled_ingest.core.engine import Engine
from tiled_ingest.core.errors import Forbidden, IngestError, TiledRejected, TiledUnavailable
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.writes import CreateContainer, Json, Outcome, Request, UpdateMetadata
from tiled_ingest.core.writing.datasets import OURS, Superseded

from .spool import Spool

CHUNK_BYTES = 4_000_000
REFUSALS_MAX = 1_000  # that are told one by one
RUN_FAILED = "run_failed"
_ERRORS = {kind.reason: kind for kind in (TiledUnavailable, Forbidden, Superseded)}


@dataclass(frozen=True, slots=True)
class Place:
    """Whose run it is, and who we are to it.

    Attributes
    ----------
    source
        As it stands in the run's metadata: topic, topic_id, partition, first_offset, last_offset.
    epoch
        Larger than that of every claim that may have written to the run.
    digest
        Names the documents (`Spool.put_in_order`).
    """

    uid: str
    source: Json
    epoch: int
    documents: int
    digest: str

    @property
    def home(self) -> Home:
        """The partition of its start."""
        return Home(self.source["topic"], self.source["partition"])


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document that is refused.

    Attributes
    ----------
    document
        Its kind, and its uid where it can be told.
    """

    position: tuple[str, int, int]
    document: str
    code: str
    error: str


@dataclass
class Built:
    """What became of a run.

    Attributes
    ----------
    state
        As in its metadata; empty if it was not finished.
    refused
        Documents that are still refused, by code.
    refusals
        The first of them.
    error
        Why it was not finished.
    """

    state: str = ""
    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    refusals: list[Refusal] = field(default_factory=list)
    error: str = ""


class Watch(Protocol):
    """Hears how far it is."""

    def advance(self, offsets: int, doing: str) -> None:
        """So many more documents were taken."""


class Builder:
    """Builds runs, one after the other.

    Parameters
    ----------
    perform
        Sends one request to Tiled.
    wait_s_max
        How long it waits for a Tiled that does not answer, in seconds.
    """

    def __init__(
        self, perform: Callable[[Request], Outcome], policy: Policy, spool: Spool, watch: Watch, wait_s_max: float
    ) -> None:
        self._perform = perform
        self._policy = replace(policy, writes_anew=True, log_holds_runs=True, commit_interval_s=0.0)
        # There is one run, and a person; analysis is told of runs by the service alone.
        self._policy = replace(self._policy, breaker_share_max=1.0, announces=False)
        self._spool = spool
        self._watch = watch
        self._wait_s_max = wait_s_max

    def build(self, place: Place) -> Built:
        """Write a run that was put in order; returns when Tiled has confirmed its end, or it cannot be written.

        Raises
        ------
        IngestError
            Tiled is away, or does not let us write, or a later claim is at work: the run is as it was, or a repetition
            makes it whole.
        """
        return _Run(self._perform, self._policy, self._spool, self._watch, self._wait_s_max, place).build()


class _GivenUp(Exception):
    """The engine wants to make dead letters of the whole run: it stays as it is instead."""


class _Run:
    """The shell around the engine of one run."""

    def __init__(
        self,
        perform: Callable[[Request], Outcome],
        policy: Policy,
        spool: Spool,
        watch: Watch,
        wait_s_max: float,
        place: Place,
    ) -> None:
        self._perform_request = perform
        self._policy = policy
        self._spool = spool
        self._watch = watch
        self._wait_s_max = wait_s_max
        self._place = place
        self._engine = Engine(policy, partial(secrets.token_hex, 5))
        self._inbox: deque[fx.Input] = deque()
        self._skipped_s = 0.0  # of the engine's time, that nobody waited for
        self._built = Built()

    def build(self) -> Built:
        try:
            self._claim()
            for chunk in self._chunks():
                self._step(fx.Records(chunk))
                self._settle()
                self._watch.advance(len(chunk), f"run {self._place.uid[:8]}")
            self._end()
        except (_GivenUp, TiledRejected) as error:
            self._built.error = str(error)
            self._built.refused[RUN_FAILED] = self._place.documents
        return self._built

    def _claim(self) -> None:
        before = ResumePoint(start=0, epoch=self._place.epoch - 1, nonce="", topic_id=self._place.source["topic_id"])
        nonce = secrets.token_hex(5)
        self._step(fx.Assigned(self._place.home, before.topic_id, 0, before.encode(), 0, 0, nonce))

    def _chunks(self) -> Iterator[list[Record]]:
        at = 0
        while at < self._place.documents:
            chunk = self._read(at, self._place.documents, CHUNK_BYTES)
            at = chunk[-1].offset + 1
            yield chunk

    def _read(self, start: int, stop: int, bytes_max: int) -> list[Record]:
        """Return records of the run as those of its home, their numbers as offsets."""
        topic, partition = self._place.home
        found = self._spool.read(self._place.uid, start, stop, bytes_max)
        return [Record(topic, partition, number, each.timestamp_ms, each.key, each.value) for number, each in found]

    def _end(self) -> None:
        """Let a run without a stop end as one of which nobody speaks any more."""
        if not self._built.state:
            self._skipped_s += self._policy.idle_s_max + 1.0
            self._step(fx.Tick())
            self._settle()
        if not self._built.state and not self._built.error:
            why = self._built.refusals[0].error if self._built.refusals else "its start is not there"
            self._built.error = f"it cannot be written: {why}"

    # ------------------------------------------------------------ the engine's side

    @property
    def _now_s(self) -> float:
        return time.monotonic() + self._skipped_s

    def _settle(self) -> None:
        """Wait for what the engine waits for."""
        until_s = self._now_s + self._wait_s_max
        while (wakes_s := self._engine.wakes_s) < math.inf:
            if wakes_s > until_s:
                raise TiledUnavailable(f"Tiled did not answer for {self._wait_s_max:g} s")
            time.sleep(max(0.0, wakes_s - self._now_s))
            self._step(fx.Tick())

    def _step(self, given: fx.Input) -> None:
        self._inbox.append(given)
        while self._inbox:
            for effect in self._engine.step(self._now_s, self._inbox.popleft()):
                self._perform(effect)

    def _truthful(self, request: Request) -> Request:
        """Say in the run's metadata where its documents are, instead of their numbers."""
        if not isinstance(request, CreateContainer | UpdateMetadata) or "state" not in request.metadata.get(OURS, {}):
            return request
        facts = {**request.metadata[OURS], "source": self._place.source}
        if "rebuild" not in facts:  # its end
            facts["rebuilt"] = {
                "documents": self._place.documents,
                "digest": self._place.digest,
            } | self._still_refused()
        return replace(request, metadata={**request.metadata, OURS: facts})

    def _still_refused(self) -> Json:
        """What was refused again must be tried again by a repetition: perhaps its cause was mended."""
        return {"refused": self._built.refused.total()} if self._built.refused else {}

    @singledispatchmethod
    def _perform(self, effect: Any) -> None:
        raise TypeError(f"no effect: {effect!r}")

    @_perform.register
    def _(self, effect: fx.Ask) -> None:
        self._inbox.append(fx.Answered(effect.ticket, self._perform_request(self._truthful(effect.request))))

    @_perform.register
    def _(self, effect: fx.ReadLog) -> None:
        records = self._read(effect.start, effect.stop, effect.bytes_max)
        next_offset = records[-1].offset + 1 if records else effect.stop
        self._inbox.append(fx.LogRead(effect.ticket, records, next_offset, 0))

    @_perform.register
    def _(self, effect: fx.Commit) -> None:
        self._inbox.append(fx.Committed(effect.ticket))

    @_perform.register
    def _(self, effect: fx.DeadLetter) -> None:
        self._built.refused[effect.code] += 1
        if len(self._built.refusals) < REFUSALS_MAX:
            number = effect.record.offset
            ((_, record),) = self._spool.read(self._place.uid, number, number + 1, 1)
            position = record.topic, record.partition, record.offset
            what = self._spool.described(self._place.uid, number)
            self._built.refusals.append(Refusal(position, what, effect.code, effect.error))
        self._inbox.append(fx.DeadLettered(effect.ticket))

    @_perform.register(fx.Pause)
    @_perform.register(fx.Resume)
    def _(self, _: fx.Pause | fx.Resume) -> None:
        """Nothing flows by itself."""

    @_perform.register
    def _(self, effect: fx.Stop) -> None:
        raise _ERRORS.get(effect.reason, IngestError)(effect.detail)

    @_perform.register
    def _(self, effect: fx.Tell) -> None:
        if effect.event == RUN_FAILED:
            raise _GivenUp(effect.fields["error"])
        if effect.event == "run_closed":
            self._built.state, self._built.rows = effect.fields["state"], effect.fields["rows"]
