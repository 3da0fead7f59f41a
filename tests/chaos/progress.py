"""What is unsettled, and when it no longer is, by Kafka's own numbers: the group's commits and the ends of the logs."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass

import confluent_kafka as ck

from tests.chaos.plan import Kind
from tests.system.scene import Scene

_LOOK_S = 0.25
_ASK_LIMIT_S = 15.0
UNKNOWN = 1 << 30  # records behind: while Kafka does not answer, nothing more is published


@dataclass
class Strike:
    """One fault, at the moment when it struck.

    Attributes
    ----------
    unsettled
        How many records the log held whose offsets were not committed; a fault without any does not count.
    ends
        By partition, where the log ended: what must be committed for the fault to be recovered from.
    recovered_s
        After how many seconds all of these were committed; `None` so far.
    void
        Why it does not count though it struck: what it should have caused was not seen.
    """

    kind: Kind
    at_s: float
    unsettled: int
    ends: dict[int, int]
    recovered_s: float | None = None
    void: str = ""

    @property
    def counts(self) -> bool:
        return self.unsettled > 0 and not self.void


class Progress:
    """Strikes, and a thread that notices when each is recovered from."""

    def __init__(self, scene: Scene, partitions: int) -> None:
        self.strikes: list[Strike] = []
        self.behind = 0  # records that are not committed, by the last answer
        self._scene = scene
        self._partitions = range(partitions)
        self._last = dict.fromkeys(self._partitions, 0)  # what was committed when it was last asked
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30.0)

    def strike(self, kind: Kind) -> Strike:
        """Note that a fault strikes now. Where Kafka does not answer, nothing counts as unsettled."""
        until_s = time.monotonic() + _ASK_LIMIT_S
        unsettled, ends = 0, dict[int, int]()
        while not ends and time.monotonic() < until_s:
            with contextlib.suppress(ck.KafkaException):
                committed, ends = self._committed(), self._ends()
                unsettled = _behind(committed, ends)
        made = Strike(kind, time.monotonic(), unsettled, ends)
        self.strikes.append(made)
        return made

    @property
    def unsettled(self) -> int:
        """How many records are not committed now; `UNKNOWN` while Kafka begins, or moves what is asked for."""
        try:
            return _behind(self._committed(), self._ends())
        except ck.KafkaException:
            return UNKNOWN

    @property
    def waiting_s(self) -> float:
        """How long the oldest strike has not been recovered from."""
        return max((time.monotonic() - strike.at_s for strike in self._pending), default=0.0)

    @property
    def missing(self) -> int:
        """How many records must still be committed until every strike is recovered from; it only falls."""
        ends = [strike.ends for strike in self._pending]
        last = {home: max((end[home] for end in ends), default=0) for home in self._partitions}
        return sum(max(0, last[home] - self._last[home]) for home in self._partitions)

    @property
    def _pending(self) -> list[Strike]:
        return [strike for strike in self.strikes if strike.recovered_s is None and strike.ends]

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_S):
            try:
                committed = self._committed()
                self._note(committed)
                self.behind = _behind(committed, self._ends())
            except ck.KafkaException:
                self.behind = UNKNOWN

    def _note(self, committed: dict[int, int]) -> None:
        self._last = committed
        for strike in self._pending:
            if all(committed[home] >= end for home, end in strike.ends.items()):
                strike.recovered_s = time.monotonic() - strike.at_s

    def _committed(self) -> dict[int, int]:
        return {home: self._scene.committed(home) for home in self._partitions}

    def _ends(self) -> dict[int, int]:
        return {home: self._scene.end(home) for home in self._partitions}


def _behind(committed: dict[int, int], ends: dict[int, int]) -> int:
    return sum(end - max(committed[home], 0) for home, end in ends.items())
