"""Judges a process whose breaker opened: what it had begun is finished and committed before it ends."""

from collections.abc import Iterator

from tiled_ingest.core.effects import DeadLetter, Effect, Input, Records, Released
from tiled_ingest.core.record import Home

from .kafka_model import Group


class Begun:
    """What an engine was given before it began to end.

    Parameters
    ----------
    limit_s
        How long it may take to finish that.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._next: dict[Home, int] = {}  # one past what it must finish
        self._since_s: float | None = None  # it is ending

    def heard(self, given: Input, effects: list[Effect], now_s: float, *, ending: bool) -> None:
        """Note an input and what came of it; `ending`: whether the engine takes no more from now on."""
        if isinstance(given, Released):
            for home in given.homes:
                self._next.pop(home, None)
        elif isinstance(given, Records) and self._since_s is None:
            self._receive(given, effects, ending=ending)
        if ending and self._since_s is None:
            self._since_s = now_s

    def _receive(self, given: Records, effects: list[Effect], *, ending: bool) -> None:
        """Where the breaker opened in the midst of them, those up to the last that was refused were taken."""
        letters = {(each.record.home, each.record.offset) for each in effects if isinstance(each, DeadLetter)}
        last = max((n for n, each in enumerate(given.records) if (each.home, each.offset) in letters), default=-1)
        for record in given.records[: last + 1] if ending else given.records:
            self._next[record.home] = record.offset + 1

    def unfinished(self, group: Group, member: str, fenced: set[Home], now_s: float) -> Iterator[str]:
        """Say of which partitions that are still the member's not all was committed, though it could be.

        Parameters
        ----------
        fenced
            Claims that the group refused to commit for: that is not tried again by one that leaves.
        """
        if self._since_s is None or now_s - self._since_s >= self._limit_s:
            return
        for home, offset in self._next.items():
            committed = group.committed(home)
            if group.owners.get(home) == member and home not in fenced and (committed or 0) < offset:
                yield f"{home} is committed up to {committed}, and {offset} was begun"
