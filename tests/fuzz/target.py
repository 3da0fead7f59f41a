"""What every history must come through, however hostile: the decoder, the engine, the wire to Tiled, and `verify`."""

from __future__ import annotations

import time
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import bluesky_tiled_plugins.writing.tiled_writer  # noqa: F401 - or the first history pays for it
import numpy as np

from tests.core.test_engine import World, asks
from tests.core.test_steps import HOME, STAMP_MS, MiniTiled, once
from tests.fuzz import seeds
from tests.fuzz.mutate import History
from tests.fuzz.oracle import disagreements
from tiled_ingest.core import writes as w
from tiled_ingest.core.decoding.decode import Decoder
from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Record
from tiled_ingest.core.rows.sizes import REQUEST_NBYTES_MAX, ROW_NBYTES_MAX
from tiled_ingest.core.runs import run, states
from tiled_ingest.core.runs.states import Move, State, Trigger
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.formats import Formats, UnusableError

POLICY = Policy(
    age_s_max=0.2, idle_s_max=20.0, message_bytes_max=1_000_000, elements_max=20_000, breaker_window=1_000_000
)
FORMATS = Formats()
REFUSALS: dict[str, w.Outcome] = {
    "refused append (422)": w.Rejected("no", 422),
    "refused append (500)": w.Unknown("boom", 500),
}
DISTURBANCES = ("restart", "takeover", "redelivery", *REFUSALS)
SILENT_TICKS = 50  # longer than a run may be silent
REST_TICKS_MAX = 1_500  # a request that is refused for ever is given up after minutes
HANG_S = 20.0  # of one history, which takes a few milliseconds


class Writable(MiniTiled):
    """Tiled, behind the encoder that real requests go through."""

    def apply(self, request: w.Request) -> w.Outcome:
        """Refuse what cannot be written on the wire, as the adapter does."""
        try:
            _spelled(request)
        except (wire.UnwritableError, UnusableError) as error:
            return w.Rejected(str(error), 422)
        return super().apply(request)


def _spelled(request: w.Request) -> None:
    match request:
        case w.CreateContainer():
            wire.dump(wire.container(request))
        case w.CreateTable():
            wire.dump(wire.table(request))
        case w.UpdateMetadata():
            wire.dump(wire.patch(request))
        case w.Append():
            _check_size(request.table.nbytes, request.table.num_rows)
            wire.rows(request.table)
        case w.CreateArray():
            wire.dump(wire.array(request))
        case w.PatchArray():
            _check_size(request.array.nbytes, len(request.array))
            np.ascontiguousarray(request.array).tobytes()
        case w.PutArray():
            wire.dump(wire.shown(request.source))
        case w.RegisterExternal():
            wire.dump(wire.external(request, FORMATS.build(request).source))


def _check_size(nbytes: int, rows: int) -> None:
    """Messages of a megabyte at most have no business with requests of more than a few."""
    bound = ROW_NBYTES_MAX if rows == 1 else REQUEST_NBYTES_MAX
    assert nbytes <= bound, f"a request of {nbytes} bytes, {rows} rows"


@dataclass
class Target:
    """Takes histories, and counts what they reached."""

    histories: int = 0
    messages: int = 0
    decoded: Counter[str] = field(default_factory=Counter)  # by kind
    refused: Counter[str] = field(default_factory=Counter)  # by code, in the decoder
    letters: Counter[str] = field(default_factory=Counter)  # by code, behind the engine
    states: Counter[str] = field(default_factory=Counter)  # that runs ended in
    moves: Counter[tuple[State, Trigger]] = field(default_factory=Counter)  # of all runs
    struck: Counter[str] = field(default_factory=Counter)  # what went wrong
    slowest_s: float = 0.0

    def feed(self, history: History) -> None:
        """Pass a history through everything.

        Raises
        ------
        AssertionError
            It ran code, took for ever, stopped the service, or something of it is neither settled nor refused.
        """
        began_s = time.monotonic()
        self.histories += 1
        self.messages += len(history)
        for value in history:
            self._decode(value)
        self._ingest(history)
        took_s = time.monotonic() - began_s
        self.slowest_s = max(self.slowest_s, took_s)
        assert not seeds.fired, "a message ran code"
        assert took_s < HANG_S, f"it took {took_s:.0f} s"

    def _decode(self, value: bytes) -> None:
        try:
            kind, _ = Decoder(POLICY)(Record("t", 0, 0, STAMP_MS, None, value))
        except InvalidDocument as error:
            self.refused[error.code] += 1
        else:
            self.decoded[kind] += 1

    def _ingest(self, history: History) -> None:
        with _watched(self.moves):
            world = disturbed(history, self.struck)
        assert world.stop is None, f"it stopped the service: {world.stop}"
        assert not world.engine.snapshot().runs, "a run is still open"
        assert not history or world.committed == len(history), f"committed {world.committed} of {len(history)}"
        disagreements(history, world)  # it may differ about the oddest values, but must come to an end
        self.letters.update(letter.code for letter in world.letters)
        self.states.update(_states(world))


def settled(history: History) -> World:
    """What the engine makes of a history, long after its end."""
    world = _begun(history)
    world.settle(ticks=80)
    return world


def disturbed(history: History, struck: Counter[str]) -> World:
    """The same, published bit by bit, with what its own bytes say going wrong; the world of the last engine."""
    chance = Random(zlib.crc32(b"".join(history)))
    world, left = _begun(()), _records(history)
    for number in range(1, 1 + chance.choice((0, 1, 1, 2))):
        what = chance.choice(DISTURBANCES)
        struck[what] += 1
        world = _struck(world, what, chance, number, left)
    while left:
        _pass(world, chance.choice((1, 1, 2, SILENT_TICKS)), chance, left)
    for _ in range(REST_TICKS_MAX):
        world.tick()
        if world.stop or not (world.engine.snapshot().runs or world.engine.busy or _behind(world)):
            break
    world.settle(ticks=3)
    return world


def _behind(world: World) -> bool:
    return bool(world.logs[HOME]) and (not world.commits or world.committed < len(world.logs[HOME]))


def _pass(world: World, ticks: int, chance: Random, left: deque[Record]) -> None:
    """Publish some more, and let time pass."""
    for _ in range(min(len(left), chance.choice((0, 1, 1, 2, 3, 10)))):
        world.logs[HOME].append(left.popleft())
    world.settle(ticks=ticks)


def _struck(world: World, what: str, chance: Random, number: int, left: deque[Record]) -> World:
    if what in REFUSALS:
        world.tiled.faults.append(once(w.Append, *[REFUSALS[what]] * chance.choice((1, 8))))
    for _ in range(chance.randrange(4)):
        _pass(world, chance.choice((1, 3, SILENT_TICKS)), chance, left)
    if what == "takeover":
        world.keeps = asks(w.Append, w.CreateTable, w.UpdateMetadata)
        _pass(world, 1, chance, left)
    if what in REFUSALS:
        return world
    after = _after(world, number, anew=what == "redelivery")
    if what == "takeover":
        _pass(after, chance.randrange(4), chance, left)
        world.let_go()  # the zombie's last requests land
        after.letters.extend(world.letters[len(after.letters) :])
    return after


def _begun(history: Iterable[bytes]) -> World:
    world = World(replace(POLICY), Writable())
    world.assign()
    world.logs[HOME].extend(_records(history))
    return world


def _records(history: Iterable[bytes]) -> deque[Record]:
    return deque(Record("t", 0, offset, STAMP_MS + offset, None, value) for offset, value in enumerate(history))


def _after(world: World, number: int, *, anew: bool) -> World:
    """A new engine on the same log and the same Tiled; `anew`: its group has lost what was settled, not who claimed."""
    after = World(world.policy, world.tiled, now_s=world.now_s, logs=world.logs, letters=list(world.letters))
    after._words = 1_000 * number
    if not world.commits:
        after.assign()
        return after
    _, committed, point = world.commits[-1]
    if anew:
        committed, point = 0, ResumePoint(0, point.epoch, point.nonce, point.topic_id)
    after.assign(committed=committed, point=point)
    return after


@contextmanager
def _watched(moves: Counter[tuple[State, Trigger]]) -> Iterator[None]:
    """Count each move of every run."""

    def move(state: State, trigger: Trigger) -> Move:
        moves[state, trigger] += 1
        return states.move(state, trigger)

    run.move, before = move, run.move  # type: ignore[attr-defined]
    try:
        yield
    finally:
        run.move = before  # type: ignore[attr-defined]


def _states(world: World) -> list[str]:
    closed: list[Any] = world.told("run_closed")
    return [str(fields["state"]) for fields in closed]
