"""Loops that are wrong on purpose, around the right engine. The simulation must catch them all, too."""

from collections import deque
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from tiled_ingest.core import effects as fx
from tiled_ingest.core.record import Home
from tiled_ingest.ingestor import POLL_RECORDS_MAX, Ingestor
from tiled_ingest.kafka.errors import CommitError

from .broken import WrongInside
from .consumer import Consumer


class TakesTheOldDeque(WrongInside):
    """Puts what a poll returned where a rebalance inside that poll has taken it away."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def wrong(self: Ingestor, source: Any) -> None:
            self._unread.extend(source.poll(POLL_RECORDS_MAX, self._poll_s))
            self._take_in()
            self._pump()
            self._tell_ends(source)
            self._step(fx.Tick())

        patch.setattr(Ingestor, "_turn", wrong)


class DrainsLater(WrongInside):
    """Lets go of a partition in the callback, and finishes its work and commits in the next turns."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        right, gone = Ingestor._turn, WeakKeyDictionary[Ingestor, list[Home]]()

        def revoked(self: Ingestor, homes: tuple[Home, ...]) -> None:
            self._forget(homes)
            self._step(fx.Revoked(homes))
            gone.setdefault(self, []).extend(homes)

        def turn(self: Ingestor, source: Any) -> None:
            right(self, source)
            if (homes := gone.get(self)) and self._engine.drained(homes):
                self._step(fx.Released(tuple(gone.pop(self))))

        patch.setattr(Ingestor, "revoked", revoked)
        patch.setattr(Ingestor, "_turn", turn)


class DropsTheRest(WrongInside):
    """Takes of what was polled what there is room for, and drops the rest."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        right = Ingestor._take_in

        def wrong(self: Ingestor) -> None:
            right(self)
            self._unread.clear()

        patch.setattr(Ingestor, "_take_in", wrong)


class PutsTheRestLast(WrongInside):
    """Puts the rest of a long list of records behind what came after it."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        class Turned(deque[Any]):
            def appendleft(self, given: Any) -> None:
                self.append(given)

        right = Ingestor._take_in

        def wrong(self: Ingestor) -> None:
            self._unread = Turned(self._unread)
            right(self)

        patch.setattr(Ingestor, "_take_in", wrong)


class BelievesInCommits(WrongInside):
    """Takes a commit that was not confirmed for one that was."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        right = Consumer.commit

        def wrong(self: Consumer, home: Home, offset: int, metadata: str) -> None:
            with suppress(CommitError):
                right(self, home, offset, metadata)

        patch.setattr(Consumer, "commit", wrong)


class DrainsDeaf(WrongInside):
    """Drops the answers that come while it drains."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def wrong(self: Ingestor, done: Any) -> None:
            until_s = self._now_s() + self._drain_s_max
            while self._ended is None and not done() and self._now_s() < until_s:
                list(self._lanes.results(0.02))
                self._step(fx.Tick())

        patch.setattr(Ingestor, "_pump_until", wrong)
