"""Engines that are wrong on purpose, each as some sink was wrong before. The simulation must catch them all.

They are made at the engine's door, from the right engine: its inputs and effects are bent, so that nothing
here knows its inside.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from tiled_ingest.core.effects import (
    Announced,
    Answered,
    Ask,
    Commit,
    CommitFailed,
    Committed,
    DeadLetter,
    DeadLettered,
    Effect,
    Input,
    Records,
    Released,
)
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.writes import (
    Append,
    Done,
    Keys,
    Path,
    PutSource,
    ReadKeys,
    Request,
    Unknown,
    Unprocessed,
)

from .surroundings import EngineLike

MakeEngine = Callable[[Policy, Callable[[], str]], EngineLike]


class Bent:
    """The right engine behind a door that lies.

    `told` is what the engine hears of an input; `done` what the world sees of an effect, where `self.answers`
    is what the engine hears at once; `afterwards` adds effects of its own.
    """

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine
        self._requests: dict[int, Request] = {}
        self.answers: deque[Input] = deque()

    @property
    def finished(self) -> bool:
        return self._engine.finished

    def drained(self, homes: Iterable[Home]) -> bool:
        return self._engine.drained(homes)

    def step(self, now_s: float, input: Input) -> list[Effect]:  # noqa: A002
        self.answers.extend(self.told(input))
        effects: list[Effect] = []
        while self.answers:
            for effect in self._engine.step(now_s, self.answers.popleft()):
                if isinstance(effect, Ask):
                    self._requests[effect.ticket] = effect.request
                effects += self.done(effect)
        return effects + self.afterwards(input)

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        return [input]

    def done(self, effect: Effect) -> list[Effect]:
        return [effect]

    def afterwards(self, input: Input) -> list[Effect]:  # noqa: A002, ARG002
        return []


class CommitsEarly(Bent):
    """Commits what it received, not what is settled."""

    def __init__(self, engine: EngineLike) -> None:
        super().__init__(engine)
        self._received: dict[Home, int] = {}

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        if isinstance(input, Records):
            for record in input.records:
                self._received[record.home] = record.offset + 1
        return [input]

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Commit):
            return [replace(effect, offset=max(effect.offset, self._received.get(effect.home, 0)))]
        return [effect]


class RetriesBlindly(Bent):
    """Takes an append of which nothing is known for one that did not happen."""

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        if not isinstance(input, Answered) or not isinstance(input.outcome, Unknown):
            return [input]
        if not isinstance(self._requests[input.ticket], Append):
            return [input]
        return [Answered(input.ticket, Unprocessed(input.outcome.detail))]


class ForgetsResumePoint(Bent):
    """Resumes where it committed, though open runs need earlier documents."""

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Commit) and (point := ResumePoint.decode(effect.metadata)) is not None:
            return [replace(effect, metadata=msgspec.structs.replace(point, start=effect.offset).encode())]
        return [effect]


class ConfirmsBeforePerforming(Bent):
    """Holds an append for done when it is sent."""

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Ask) and isinstance(effect.request, Append):
            self.answers.append(Answered(effect.ticket, Done()))
        return [effect]

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        append = isinstance(input, Answered) and isinstance(self._requests[input.ticket], Append)
        return [] if append else [input]


class CountsWithoutLooking(Bent):
    """Finds on read-back whatever it tried to append."""

    def __init__(self, engine: EngineLike) -> None:
        super().__init__(engine)
        self._tried: dict[Path, set[tuple[int, float]]] = {}

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Ask) and isinstance(effect.request, Append):
            table = effect.request.table
            if not {"seq_num", "time"} <= set(table.column_names):  # a probe, or a part of a split table
                return [effect]
            pairs: Any = zip(table["seq_num"].to_pylist(), table["time"].to_pylist(), strict=True)
            self._tried.setdefault(effect.request.path, set()).update(pairs)
        return [effect]

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        if isinstance(input, Answered) and isinstance(input.outcome, Done):
            request = self._requests[input.ticket]
            if isinstance(request, ReadKeys) and isinstance(input.outcome.value, Keys):
                return [Answered(input.ticket, Done(self._invent(request.path, input.outcome.value)))]
        return [input]

    def _invent(self, path: Path, keys: Keys) -> Keys:
        held = set(zip(keys.seq_num.tolist(), keys.time.tolist(), strict=True))
        more = sorted(self._tried.get(path, set()) - held)
        seq_num = np.concatenate([keys.seq_num, np.array([pair[0] for pair in more], dtype=np.int64)])
        return Keys(seq_num, np.concatenate([keys.time, np.array([pair[1] for pair in more], dtype=np.float64)]))


class DoesNotSwitch(Bent):
    """Believes that a table was switched to a dataset of its own, and appends to the inherited one."""

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Ask) and isinstance(effect.request, PutSource):
            self.answers.append(Answered(effect.ticket, Done()))
            return []
        return [effect]


class DropsDeadLetters(Bent):
    """Logs and drops what it cannot use."""

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, DeadLetter):
            self.answers.append(DeadLettered(effect.ticket))
            return []
        return [effect]


class SettlesUnannounced(Bent):
    """Takes an announcement that was not confirmed for one that was."""

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        return [replace(input, refusal="") if isinstance(input, Announced) else input]


class CommitsAfterRelease(Bent):
    """Lets a commit go out after its partition went to someone else."""

    def __init__(self, engine: EngineLike) -> None:
        super().__init__(engine)
        self._last: dict[Home, Commit] = {}

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Commit):
            self._last[effect.home] = effect
        return [effect]

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        ours = isinstance(input, Committed | CommitFailed) and input.ticket < 0
        return [] if ours else [input]

    def afterwards(self, input: Input) -> list[Effect]:  # noqa: A002
        if not isinstance(input, Released):
            return []
        return [replace(self._last[home], ticket=-1) for home in input.homes if home in self._last]


class CountsRedelivered(Bent):
    """Counts the frames of a stream_datum again when it comes again."""

    def __init__(self, engine: EngineLike) -> None:
        super().__init__(engine)
        self._met: set[str] = set()

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        if not isinstance(input, Records):
            return [input]
        return [Records([self._renamed(record) for record in input.records])]

    def _renamed(self, record: Record) -> Record:
        if b"stream_datum" not in (record.value or b""):
            return record
        name, doc = msgspec.msgpack.decode(record.value or b"")
        again = doc["uid"] in self._met
        self._met.add(doc["uid"])
        value = msgspec.msgpack.encode((name, {**doc, "uid": f"{doc['uid']}, again"}))
        return msgspec.structs.replace(record, value=value) if again else record


VARIANTS: tuple[type[Bent], ...] = (
    CommitsEarly,
    RetriesBlindly,
    ForgetsResumePoint,
    ConfirmsBeforePerforming,
    CountsWithoutLooking,
    DoesNotSwitch,
    DropsDeadLetters,
    SettlesUnannounced,
    CommitsAfterRelease,
    CountsRedelivered,
)


def bend(variant: type[Bent], make_engine: MakeEngine) -> MakeEngine:
    """Make a maker of engines that are wrong in one way."""
    return lambda policy, nonce: variant(make_engine(policy, nonce))
