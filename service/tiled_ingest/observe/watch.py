"""What the loop shows of itself: it passes the engine's words to logs and metrics, and its state to the probes."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog

from tiled_ingest.core.effects import Input, Records, Tell
from tiled_ingest.core.engine import Engine
from tiled_ingest.core.record import Home
from tiled_ingest.core.snapshot import EngineSnapshot

from .health import Health
from .metrics import Metrics
from .snapshot import Snapshot

LOOK_EVERY_S = 1.0
SAY_STOPPED_EVERY_S = 600.0
LETTER_S_MAX = 10.0  # a dead letter that is not confirmed so long counts as failed, until it is
RUNS_SHOWN_MAX = 200
REMEMBERED_MAX = 20  # closed runs, and dead letters, for the page
TEXT_CHARS_MAX = 300  # of what a server said
WHAT_TO_DO = "see `tiled-ingest dlq list`, mend the cause, restart; the partitions are kept until then"
# Quiet when all is well: one line for each run at its end. What is not listed is for `debug`.
LEVELS = {
    "claimed": "info",
    "run_closed": "info",
    "announcement_refused": "warning",
    "run_idle": "warning",
    "run_reopened": "info",
    "run_failed": "error",
    "failure_not_marked": "error",
    "dead_letter": "warning",
    "tiled_down": "warning",
    "tiled_up": "info",
    "switched": "info",
    "put_back": "warning",
    "array_changed": "info",
    "audit_mismatch": "warning",
    "unreadable": "warning",
    "ambiguous": "warning",
    "gap": "warning",
    "commit_failed": "warning",
    "log_unreadable": "warning",
}


class Watched(Protocol):
    """The consumer, as far as it is watched."""

    last_error: str
    assignments: int  # since the start

    def lag(self) -> Mapping[Home, tuple[int | None, int]]:
        """Position and end of each partition."""


class Watch:
    """Logs, metrics and probes of one service."""

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health
        self._log = structlog.get_logger("tiled_ingest")
        self._looked_s = 0.0
        self._progress = 0
        self._assignments = 0
        self._paused: set[Home] = set()
        self._kafka_error = ""
        self._complaints: set[str] = set()  # codes of Kafka's errors said since there was none
        self._stopped = ""
        self._stopped_said_s = float("-inf")
        self._unread: dict[Home, tuple[int, float]] = {}  # read up to which offset, and since when not further
        self._closed: deque[Mapping[str, Any]] = deque(maxlen=REMEMBERED_MAX)
        self._letters: deque[Mapping[str, Any]] = deque(maxlen=REMEMBERED_MAX)

    # ------------------------------------------------------------ words

    def told(self, tell: Tell) -> None:
        """Log and count what the engine tells."""
        self._metrics.told(tell)
        if tell.event == "committed":
            self._metrics.committed(tell.fields["home"], tell.fields["number"])
        if tell.event == "flush":
            self._metrics.told(Tell("events", {"count": tell.fields["rows"]}))
        if tell.event in {"run_closed", "dead_letter"}:
            last = self._closed if tell.event == "run_closed" else self._letters
            last.appendleft({"at": time.time(), **_short(tell.fields)})
        level = LEVELS.get(tell.event, "debug")
        getattr(self._log, level)(tell.event, **_plain(tell.fields))

    def came(self, given: Input) -> None:
        """Count what came from Kafka."""
        if isinstance(given, Records):
            self._metrics.told(Tell("bytes", {"count": sum(len(record.value or b"") for record in given.records)}))

    def paused(self, homes: Iterable[Home]) -> None:
        """Note that intake is paused."""
        self._paused |= set(homes)

    def resumed(self, homes: Iterable[Home]) -> None:
        """Note that intake goes on."""
        self._paused -= set(homes)

    # ------------------------------------------------------------ state

    def alive(self) -> None:
        """The loop makes progress."""
        self._health.beat(time.monotonic())

    def moved(self) -> None:
        """The loop came out of a call."""
        self._health.move(time.monotonic())

    def turned(self, engine: Engine, source: Watched) -> None:
        """The loop made one turn; about once a second, look at where everything stands."""
        if self._makes_progress(engine):
            self.alive()
        self._metrics.polled(time.time())
        self._count_rebalances(source.assignments)
        if time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            self._heed(source.last_error)
            self._look(engine.snapshot(), source.lag())

    def stays(self, why: str, engine: Engine, source: Watched) -> None:
        """Nothing is read any more, and the process stays: say so seldom, and show where everything stands."""
        self._stopped = why
        if time.monotonic() - self._stopped_said_s >= SAY_STOPPED_EVERY_S:
            self._stopped_said_s = time.monotonic()
            self._log.error("reading_stopped", error=why, what_to_do=WHAT_TO_DO)
        self.turned(engine, source)
        self.alive()

    def _count_rebalances(self, assignments: int) -> None:
        """One for each time that the group assigned us anything, however many partitions came or stayed."""
        if new := assignments - self._assignments:
            self._assignments = assignments
            self._metrics.told(Tell("rebalance", {"count": new}))

    def kafka_is_away(self, error: str) -> None:
        """Nothing can be done before Kafka answers: say so, once, and show it."""
        self.alive()
        self._heed(error)
        self._health.update(Snapshot(kafka_error=error))

    def _makes_progress(self, engine: Engine) -> bool:
        """Whether something was done since the last turn, there is nothing to do, or Tiled is waited for."""
        before, self._progress = self._progress, engine.progress
        return self._progress != before or not engine.busy or engine.waits_for_tiled

    def _heed(self, kafka_error: str) -> None:
        """Say once what Kafka's client complains of: it goes on trying by itself, and names its errors in turn."""
        self._kafka_error = kafka_error
        code = kafka_error.partition(":")[0]
        if not code:
            self._complaints.clear()
        elif code not in self._complaints:
            self._complaints.add(code)
            self._log.warning("kafka_error", error=kafka_error)

    def _look(self, seen: EngineSnapshot, logs: Mapping[Home, tuple[int | None, int]]) -> None:
        ends = {home: end for home, (_, end) in logs.items()}
        lag = {
            home: max(0, ends[home] - (view.committed or 0))
            for view in seen.partitions
            if (home := Home(view.topic, view.partition)) in ends and view.committed is not None
        }
        unread = self._note_unread(seen, ends)
        now = _snapshot(seen, lag, self._paused & ends.keys(), self._kafka_error, unread)
        closed, letters = tuple(self._closed), tuple(self._letters)
        snapshot = replace(now, stopped=self._stopped, closed=closed, letters=letters)
        self._metrics.lag(lag)
        self._metrics.status(snapshot)
        self._health.update(snapshot)

    def _note_unread(self, seen: EngineSnapshot, ends: Mapping[Home, int]) -> dict[str, float]:
        """Return since when, in ms, partitions have records of which none is read: while all is paused, say."""
        now_ms, before = time.time() * 1000, self._unread
        self._unread = {}
        for view in seen.partitions:
            home = Home(view.topic, view.partition)
            if ends.get(home, 0) > view.next_offset:
                read_to, since_ms = before.get(home, (view.next_offset, now_ms))
                self._unread[home] = (view.next_offset, since_ms if read_to == view.next_offset else now_ms)
        return {str(home): since_ms for home, (_, since_ms) in self._unread.items()}


def _snapshot(
    seen: EngineSnapshot,
    lag: Mapping[Home, int],
    paused: set[Home],
    kafka_error: str,
    unread_since_ms: Mapping[str, float],
) -> Snapshot:
    now_ms = time.time() * 1000
    # Where all that was received is settled the timestamp is the last record's: on an idle partition, last week's.
    waiting = [view.oldest_timestamp_ms for view in seen.partitions if view.committable < view.next_offset]
    stamps = [*unread_since_ms.values(), *(stamp for stamp in waiting if stamp >= 0)]
    return Snapshot(
        assigned_partitions=sum(view.live for view in seen.partitions),
        paused_partitions=len(paused),
        open_runs=len(seen.runs),
        oldest_open_run_age_s=max((run.age_s for run in seen.runs), default=0.0),
        buffered_bytes=seen.buffered_bytes,
        oldest_unsettled_age_s=max(0.0, now_ms - min(stamps, default=now_ms)) / 1000,
        retry_s=seen.down_s or 0.0,
        tiled_reachable=seen.down_s is None,
        tiled_silent_s=seen.silent_s or 0.0,
        dead_letters_ok=(seen.letters_s or 0.0) < LETTER_S_MAX,
        kafka_error=kafka_error,
        stopping="what was begun is finished" if seen.ending else "",
        lag={str(home): messages for home, messages in lag.items()},
        unread_since_ms=unread_since_ms,
        runs=tuple(sorted(seen.runs, key=lambda run: -run.age_s)[:RUNS_SHOWN_MAX]),
        partitions=seen.partitions,
    )


def _short(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[:TEXT_CHARS_MAX] if isinstance(value, str) else value for name, value in fields.items()}


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "event"}
