"""Runs that fall silent, for so long that they may be given up, and then speak again."""

import random
from collections.abc import Iterator
from dataclasses import replace

from tiled_ingest.core.record import Home

from .documents import Item, Plan, Role

SILENT_SHARE = 0.7  # of the runs
NEAR_S = (-0.3, 2.5)  # around the moment at which a run is given up: while its end is being written, too


def fall_silent(rng: random.Random, plan: Plan, idle_s_max: float) -> None:
    """Let most runs pause at some document, once or twice; what the others say meanwhile comes before the rest."""
    for uid, home in plan.home_of.items():
        for _ in range(rng.choice((1, 1, 2)) if rng.random() < SILENT_SHARE else 0):
            _pause(rng, plan, home, uid, idle_s_max)


def _pause(rng: random.Random, plan: Plan, home: Home, uid: str, idle_s_max: float) -> None:
    queue = plan.queues[home]
    mine = [place for place, item in enumerate(queue) if item.run == uid]
    if len(mine) < 2:
        return
    at = rng.choice(mine[1:])
    before, after = queue[:at], queue[at:]
    others = [item for item in after if item.run != uid]
    rest = [item for item in after if item.run == uid]
    resumed = [*_repeated(rng, before, uid), rest[0], *_repeated(rng, before, uid), *rest[1:]]
    resumed[0] = replace(resumed[0], silence_s=_silence_s(rng, idle_s_max))
    place = rng.choice((0, rng.randint(0, len(others)), len(others)))
    plan.queues[home] = [*before, *others[:place], *resumed, *others[place:]]


def _repeated(rng: random.Random, before: list[Item], uid: str) -> Iterator[Item]:
    """Documents of a run that its publisher sends again as it comes back, often its start."""
    said = [item for item in before if item.run == uid and item.role is Role.RUN]
    for _ in range(rng.choice((0, 0, 1, 3))):
        yield replace(rng.choice((said[0], rng.choice(said))), role=Role.DUPLICATE, silence_s=0.0)


def _silence_s(rng: random.Random, idle_s_max: float) -> float:
    return rng.choice((0.0, idle_s_max + rng.uniform(*NEAR_S), idle_s_max + rng.uniform(*NEAR_S),
                       rng.uniform(0.0, 3.0) * idle_s_max))  # fmt: skip
