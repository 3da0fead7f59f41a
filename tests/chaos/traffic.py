"""Runs that begin and end all the time in one partition, interleaved, some of their documents sent twice."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator

from tests.system.publishing import Document, Documents, key_for, uid_of
from tests.system.scene import Scene

DELIVERY_LIMIT_S = 120.0  # longer than any outage: publishing waits, and loses nothing
_REMEMBERED = 60
_PORTION = 4
_PAUSE_S = 0.1
_OPEN_RUNS = 2  # at once, in each partition
_BEHIND_MAX = 90


class Traffic:
    """What one partition gets.

    Parameters
    ----------
    draw
        Returns a run's documents, by chance.
    behind
        How many records are unsettled in all: while they are too many, nothing new is published, so that the run
        goes as fast as the machine allows and no faster.
    """

    def __init__(
        self,
        scene: Scene,
        partition: int,
        partitions: int,
        chance: random.Random,
        draw: Callable[[random.Random], Documents],
        behind: Callable[[], int],
    ) -> None:
        self._chance = chance
        self._draw = draw
        self._behind = behind
        self._publication = scene.publication([], key=key_for(partition, partitions), delivery_limit_s=DELIVERY_LIMIT_S)
        self._open = [self._fresh() for _ in range(_OPEN_RUNS)]
        self._sent: deque[tuple[str, Document]] = deque(maxlen=_REMEMBERED)  # of open runs only
        self._asked_twice: deque[tuple[int, threading.Event]] = deque()
        self._finishing = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._go_on, name=f"traffic {partition}", daemon=True)

    @property
    def documents(self) -> Documents:
        """All that was published, in its order, repetitions too."""
        return self._publication.published

    def start(self) -> None:
        self._thread.start()

    def send_twice(self, count: int, limit_s: float = 10.0) -> bool:
        """Send the last documents of open runs again, as a producer that retries may; tells whether they are out."""
        done = threading.Event()
        self._asked_twice.append((count, done))
        return done.wait(limit_s)

    def finish(self) -> None:
        """Let no more runs begin; returns when all that have begun are out to their end."""
        self._finishing.set()
        self._thread.join(2 * DELIVERY_LIMIT_S)
        assert not self._thread.is_alive(), "publishing takes too long"
        if self._failure:
            raise self._failure

    def _go_on(self) -> None:
        try:
            while not self._finishing.wait(_PAUSE_S):
                self._repeat_what_is_asked()
                if self._behind() < _BEHIND_MAX:
                    self._send_portion()
            while self._open:
                self._send_portion()
        except BaseException as error:  # noqa: BLE001 - `finish` raises it in the main thread
            self._failure = error

    def _send_portion(self) -> None:
        run = self._chance.choice(self._open)
        portion = run.take(self._chance.randint(1, _PORTION))
        self._publish(portion)
        self._sent.extend((run.uid, document) for document in portion)
        if run.ended:
            self._open.remove(run)
            # What comes of a finished run once more is late, and a dead letter: not what is tried here.
            self._sent = deque(((uid, document) for uid, document in self._sent if uid != run.uid), _REMEMBERED)
            if not self._finishing.is_set():
                self._open.append(self._fresh())

    def _repeat_what_is_asked(self) -> None:
        while self._asked_twice:
            count, done = self._asked_twice.popleft()
            self._publish([document for _, document in list(self._sent)[-count:]])
            done.set()

    def _publish(self, documents: Documents) -> None:
        self._publication.documents.extend(documents)
        self._publication.publish()

    def _fresh(self) -> _Run:
        return _Run(self._draw(self._chance))


class _Run:
    def __init__(self, documents: Documents) -> None:
        self.uid = uid_of(documents)
        self._left = len(documents)
        self._rest: Iterator[Document] = iter(documents)

    def take(self, count: int) -> Documents:
        self._left -= (taken := min(count, self._left))
        return [next(self._rest) for _ in range(taken)]

    @property
    def ended(self) -> bool:
        return self._left == 0
