"""One run, driven through the engine in the caller's thread.

The engine thinks in logs and offsets: here a run is a log of its own, whose positions count documents, whose claim and
commits are confirmed at once, and of which only what Tiled has not confirmed is kept. So a crash loses what was
buffered, and nothing is ever written twice: what the log does not hold, the engine takes from Tiled (`core/reread`).
"""

import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial, singledispatchmethod
from typing import Any

from tiled_ingest.core import effects as fx
from tiled_ingest.core import errors
from tiled_ingest.core.engine import Engine
from tiled_ingest.core.errors import IngestError, InvalidDocument, TiledRejected, TiledUnavailable
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Handed, Home
from tiled_ingest.core.writes import Outcome, Request
from tiled_ingest.core.writing.datasets import Superseded

from .weight import weight_of

TOPIC = "in-process"
logger = logging.getLogger("tiled_ingest")

_WARNINGS = frozenset({"ambiguous", "audit_mismatch", "failure_not_marked", "put_back", "tiled_down"})
_ERRORS = {
    kind.reason: kind
    for kind in (TiledRejected, TiledUnavailable, errors.Forbidden, errors.BreakerOpen, Superseded, IngestError)
}


class Driver:
    """Documents of one run in, confirmed by Tiled or raised.

    Parameters
    ----------
    perform
        Sends one request to Tiled.
    wait_s_max
        How long one document may wait for a Tiled that does not answer, in seconds.
    """

    def __init__(self, perform: Callable[[Request], Outcome], policy: Policy, wait_s_max: float) -> None:
        self._perform_request = perform
        self._wait_s_max = wait_s_max
        self._backed_up = policy.backed_up
        self._engine = Engine(policy, partial(secrets.token_hex, 5))
        self._home = Home(TOPIC, 0)
        self._uid = ""
        self._position = 0
        self._kept: dict[int, Handed] = {}  # by position: what Tiled has not confirmed yet
        self._inbox: deque[fx.Input] = deque()
        self._problems: list[IngestError] = []
        self.failed = False  # nothing more of the run is written, but its end
        self._claim()

    def _claim(self) -> None:
        """Begin: nobody else knows this log, so it holds nothing, and there is no run to be found in Tiled."""
        log_id = secrets.token_hex(11)
        nothing = ResumePoint(start=0, epoch=0, nonce="", topic_id=log_id).encode()
        self._step(fx.Assigned(self._home, log_id, 0, nothing, 0, 0, secrets.token_hex(5)))

    # ------------------------------------------------------------ the caller's side

    def take(self, kind: str, doc: Mapping[str, Any]) -> None:
        """Take one document, which nobody changes afterwards; return when all that is due is confirmed.

        Raises
        ------
        InvalidDocument
            The document was refused; the run goes on.
        TiledRejected
            Tiled refuses the run: it is marked `failed`; what still comes of it is dropped.
        TiledUnavailable
            Tiled did not take it in time. It is kept: the next document tries again.
        Forbidden
            We may not write there.
        """
        if kind == "start":
            self._uid = str(doc.get("uid", ""))
        if not self.failed or kind == "stop":
            record = Handed(TOPIC, 0, self._position, int(time.time() * 1000), None, None, kind, doc, weight_of(doc))
            self._position += 1
            self._kept[record.offset] = record
            self._step(fx.Records([record]))
            self._settle()
            self._raise()

    def condemn(self, error: BaseException) -> None:
        """Mark the run as failed in Tiled, as far as it is there: somebody else keeps its documents."""
        code = error.code if isinstance(error, InvalidDocument) else "run_failed"
        self._step(fx.Condemned(self._home, self._uid, type(error).__name__, code, str(error)[:1_000]))
        self._settle()
        self.failed = True
        self._problems.clear()

    def tick(self) -> None:
        """Write what has become due by its age; returns without waiting for a Tiled that is away."""
        self._step(fx.Tick())

    @property
    def settled(self) -> bool:
        """Whether everything that was taken is confirmed, or given up."""
        return self._engine.finished or self._engine.has_settled({self._home: self._position})

    # ------------------------------------------------------------ the engine's side

    def _settle(self) -> None:
        """Wait for what the engine waits for."""
        until_s = time.monotonic() + self._wait_s_max
        while (wakes_s := self._engine.wakes_s) < math.inf and not self._engine.finished:
            if wakes_s > until_s:
                self._problems.append(TiledUnavailable(f"Tiled did not answer for {self._wait_s_max:g} s"))
                return
            time.sleep(max(0.0, wakes_s - time.monotonic()))
            self._step(fx.Tick())

    def _raise(self) -> None:
        problems, self._problems = self._problems, []
        for further in problems[1:]:
            logger.error("%s: %s", self._uid, further)
        if problems:
            raise problems[0]

    def _step(self, given: fx.Input) -> None:
        self._inbox.append(given)
        while self._inbox:
            for effect in self._engine.step(time.monotonic(), self._inbox.popleft()):
                self._perform(effect)

    @singledispatchmethod
    def _perform(self, effect: Any) -> None:
        raise TypeError(f"no effect: {effect!r}")

    @_perform.register
    def _(self, effect: fx.Ask) -> None:
        self._inbox.append(fx.Answered(effect.ticket, self._perform_request(effect.request)))

    @_perform.register
    def _(self, effect: fx.ReadLog) -> None:
        records = [self._kept[at] for at in range(effect.start, effect.stop) if at in self._kept]
        self._inbox.append(fx.LogRead(effect.ticket, list(records), effect.stop, min(self._kept, default=effect.stop)))

    @_perform.register
    def _(self, effect: fx.Commit) -> None:
        for position in [position for position in self._kept if position < effect.offset]:
            del self._kept[position]
        self._inbox.append(fx.Committed(effect.ticket))

    @_perform.register
    def _(self, effect: fx.DeadLetter) -> None:
        if effect.code == "run_failed":  # told already, once for all its documents
            level = logging.DEBUG if self._backed_up else logging.ERROR
            logger.log(level, "%s: document %d is not in Tiled: %s", effect.run, effect.record.offset, effect.error)
        else:
            self._problems.append(InvalidDocument(effect.code, effect.error.removeprefix(f"{effect.code}: ")))
        self._inbox.append(fx.DeadLettered(effect.ticket))

    @_perform.register
    def _(self, _: fx.Pause) -> None:
        """Nothing to pause: who calls us waits."""

    @_perform.register
    def _(self, _: fx.Resume) -> None:
        """Nothing was paused."""

    @_perform.register
    def _(self, effect: fx.Stop) -> None:
        self.failed = True
        self._problems.append(_ERRORS.get(effect.reason, IngestError)(effect.detail))

    @_perform.register
    def _(self, effect: fx.Tell) -> None:
        if effect.event == "run_failed":
            self.failed = True
            self._problems.append(TiledRejected(effect.fields["error"]))
        if effect.event == "array_changed":  # in TiledWriter's words
            logger.warning("%s", effect.fields["detail"])
            return
        level = logging.WARNING if effect.event in _WARNINGS else logging.DEBUG
        logger.log(level, "%s %s", effect.event, dict(effect.fields))
