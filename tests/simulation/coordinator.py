"""The group's coordinator: who owns which partition, and how it goes from one member to another."""

import random
from collections.abc import Callable
from functools import partial

from tiled_ingest.core.record import Home

from .clock import Clock
from .kafka_model import Group
from .member import Member


class Coordinator:
    """Balances partitions over the live members; a partition has no owner while it moves."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        group: Group,
        homes: list[Home],
        topic_id: str,
        nonce: Callable[[], str],
    ) -> None:
        self._clock, self._rng, self._group, self._homes = clock, rng, group, homes
        self._topic_id, self._nonce = topic_id, nonce
        self._members: dict[str, Member] = {}
        self._moving: dict[Home, object] = {}  # what moves, and the token of its move

    @property
    def members(self) -> list[Member]:
        """Those that it believes in: one that died or hangs is among them until its session ends."""
        return list(self._members.values())

    def join(self, member: Member) -> None:
        """Take a member in."""
        self._members[member.name] = member
        self._group.members.add(member.name)
        self.balance()

    def leave(self, name: str) -> None:
        """Forget a member: it left, or its session ended. From here on its commits are refused."""
        if self._members.pop(name, None) is None:
            return
        self._group.members.discard(name)
        for home in [home for home, owner in self._group.owners.items() if owner == name]:
            del self._group.owners[home]
            self._moving.pop(home, None)
        self.balance()

    def balance(self) -> None:
        """Give every partition to a member of a fresh plan."""
        names = sorted(name for name, member in self._members.items() if not member.draining)
        self._rng.shuffle(names)
        for index, home in enumerate(self._homes):
            if home in self._moving or not names:
                continue
            target, owner = names[index % len(names)], self._group.owners.get(home)
            if owner is None:
                self._give_soon(home, target)
            elif owner != target and not self._members[owner].draining:
                self._moving[home] = object()
                self._members[owner].revoke((home,), partial(self._released, home, owner, target))

    def _released(self, home: Home, owner: str, target: str) -> None:
        if self._group.owners.get(home) == owner:
            del self._group.owners[home]
            self._give_soon(home, target)

    def _give_soon(self, home: Home, target: str) -> None:
        token = self._moving[home] = object()
        self._clock.after(self._rng.uniform(0.0, 0.2), partial(self._give, home, target, token))

    def _give(self, home: Home, target: str, token: object) -> None:
        if self._moving.get(home) is not token:
            return
        del self._moving[home]
        if target not in self._members or self._members[target].draining:
            self.balance()
            return
        self._group.owners[home] = target
        self._members[target].assign(home, self._nonce(), topic_id=self._topic_id)
