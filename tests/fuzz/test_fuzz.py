"""A short run, and everything that a longer one has found or thought worth keeping."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.fuzz import seeds
from tests.fuzz.__main__ import pack, unpack
from tests.fuzz.mutate import mutated
from tests.fuzz.oracle import disagreements
from tests.fuzz.target import Target, settled

MESSAGES = 15_000
KEPT = sorted(seeds.CORPUS.iterdir())


def test_the_weapon_is_loaded() -> None:
    """What the histories hold would run code, were it unpickled."""
    pickled = pickle.dumps(np.array([seeds._Weapon()], object))
    try:
        pickle.loads(pickled)
        assert seeds.fired
    finally:
        seeds.fired.clear()


def test_mutated_histories_come_through() -> None:
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    chance, target = Random(seed), Target()
    while target.messages < MESSAGES:
        history = mutated(chance.choice(seeds.histories()), chance)
        try:
            target.feed(history)
        except BaseException:
            print(f"history: {pack(history)!r}")
            raise
    assert target.decoded.total() > target.messages / 2, "mutations that only break messages test the decoder only"
    assert {"complete", "abandoned"} <= set(target.states)
    assert {"undecodable", "object_array", "schema", "orphan", "too_nested", "late"} <= set(target.letters)


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_what_was_kept_comes_through(path: Path) -> None:
    Target().feed(unpack(path.read_bytes()))


@pytest.mark.parametrize("number", [0, 1, 2, 4])  # 3 holds arrays that lie about their shape
def test_verify_agrees_with_the_engine_and_sees_what_is_taken_away(number: int) -> None:
    history = seeds.histories()[number]
    world = settled(history)
    assert disagreements(history, world) == []
    assert disagreements([*history, b"garbage"], world) != []
    del world.tiled.nodes["r", "primary"]
    assert "primary: the stream is missing" in disagreements(history, world)
