"""The group's coordinator: who owns which partition, and how it goes from one member to another."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from tiled_ingest.core.record import Home

from .clock import Clock
from .kafka_model import Group

PROTOCOLS = ("consumer", "cooperative-sticky")


class Participant(Protocol):
    """What the coordinator knows of a member."""

    name: str

    @property
    def draining(self) -> bool:
        """Whether it can neither be given anything, nor lets go."""

    def assign(self, home: Home, nonce: str, *, topic_id: str) -> None:
        """Give it a partition."""

    def revoke(self, homes: tuple[Home, ...], released: Callable[[], None]) -> None:
        """Take partitions back; it calls `released` when it let go."""


class Coordinator:
    """Balances partitions over the live members; a partition has no owner while it moves.

    Parameters
    ----------
    protocol
        `consumer`: each partition moves by itself, from one member to the other. `cooperative-sticky`: nobody gets any
        before all members have let go of what they must give, and then all begin a new generation.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        group: Group,
        homes: list[Home],
        topic_id: str,
        nonce: Callable[[], str],
        protocol: str = PROTOCOLS[0],
    ) -> None:
        self._clock, self._rng, self._group, self._homes = clock, rng, group, homes
        self._topic_id, self._nonce, self._protocol = topic_id, nonce, protocol
        self._members: dict[str, Participant] = {}
        self._moving: dict[Home, object] = {}  # what moves, and the token of its move
        self._awaited: set[Home] = set()  # cooperative: what its owner has not let go of yet
        self._free: list[tuple[Home, str]] = []  # cooperative: what will be given then, and to whom
        self._again = False  # whether somebody came or went while partitions moved

    @property
    def members(self) -> list[Participant]:
        """Those that it believes in: one that died or hangs is among them until its session ends."""
        return list(self._members.values())

    def begin(self, members: Iterable[Participant]) -> None:
        """Take in those with which the group begins: it waits for them, and then balances once."""
        for member in members:
            self._enrol(member)
        self.balance()

    def join(self, member: Participant) -> None:
        """Take a member in."""
        self._enrol(member)
        self.balance()

    def _enrol(self, member: Participant) -> None:
        self._members[member.name] = member
        self._group.members.add(member.name)

    def leave(self, name: str) -> None:
        """Forget a member: it left, or its session ended. From here on its commits are refused."""
        if self._members.pop(name, None) is None:
            return
        self._group.members.discard(name)
        for home in [home for home, owner in self._group.owners.items() if owner == name]:
            del self._group.owners[home]
            self._moving.pop(home, None)
            self._awaited.discard(home)
        self._give_all()
        self.balance()

    def balance(self) -> None:
        """Give every partition to a member of a fresh plan."""
        if self._awaited:
            self._again = True
            return
        names = sorted(name for name, member in self._members.items() if not member.draining)
        if not names:
            return  # whoever joins next asks for it
        self._rng.shuffle(names)
        taken: dict[str, list[tuple[Home, str]]] = {}
        free: list[tuple[Home, str]] = []
        for index, home in enumerate(self._homes):
            if home in self._moving:
                self._again = True
                continue
            target, owner = names[index % len(names)], self._group.owners.get(home)
            if owner is None:
                free.append((home, target))
            elif owner != target and not self._members[owner].draining:
                taken.setdefault(owner, []).append((home, target))
        if self._protocol == "consumer":
            self._move_each(taken, free)
        else:
            self._move_all(taken, free)

    # ------------------------------------------------------------ consumer: each by itself

    def _move_each(self, taken: dict[str, list[tuple[Home, str]]], free: list[tuple[Home, str]]) -> None:
        for home, target in free:
            self._give_soon(home, target)
        for owner, moves in taken.items():
            for home, target in moves:
                self._moving[home] = object()
                self._members[owner].revoke((home,), partial(self._released, home, owner, target))

    def _released(self, home: Home, owner: str, target: str) -> None:
        if self._group.owners.get(home) == owner:
            del self._group.owners[home]
            self._give_soon(home, target)

    # ------------------------------------------------------------ cooperative: all at once

    def _move_all(self, taken: dict[str, list[tuple[Home, str]]], free: list[tuple[Home, str]]) -> None:
        """Take all that must move, each member's in one call; the next generation begins when all of it is free."""
        self._free += free
        self._moving |= {home: object() for home, _ in free}
        self._awaited = {home for moves in taken.values() for home, _ in moves}
        for owner, moves in taken.items():
            homes = tuple(home for home, _ in moves)
            self._moving |= {home: object() for home in homes}
            self._members[owner].revoke(homes, partial(self._let_go, moves, owner))
        self._give_all()

    def _let_go(self, moves: list[tuple[Home, str]], owner: str) -> None:
        for home, target in moves:
            if self._group.owners.get(home) == owner and home in self._awaited:
                self._awaited.remove(home)
                del self._group.owners[home]
                self._free.append((home, target))
        self._give_all()

    def _give_all(self) -> None:
        if self._awaited:
            return
        free, self._free = self._free, []
        for home, target in free:
            self._give_soon(home, target)
        self._balance_again()

    # ------------------------------------------------------------ giving

    def _give_soon(self, home: Home, target: str) -> None:
        token = self._moving[home] = object()
        self._clock.after(self._rng.uniform(0.0, 0.2), partial(self._give, home, target, token))

    def _give(self, home: Home, target: str, token: object) -> None:
        if self._moving.get(home) is not token:
            return
        del self._moving[home]
        if target not in self._members or self._members[target].draining:
            self._again = True
        else:
            self._group.owners[home] = target
            self._members[target].assign(home, self._nonce(), topic_id=self._topic_id)
        self._balance_again()

    def _balance_again(self) -> None:
        if not self._again or self._moving or self._awaited:
            return
        self._again = False
        owned = Counter(self._group.owners.values())
        shares = [owned[name] for name, member in self._members.items() if not member.draining]
        if len(self._group.owners) < len(self._homes) or max(shares, default=0) - min(shares, default=0) > 1:
            self.balance()
