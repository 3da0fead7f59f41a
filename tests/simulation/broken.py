"""Engines that are wrong on purpose, each as some sink was wrong before. The simulation must catch them all.

They are made at the engine's door, from the right engine: its inputs and effects are bent, so that nothing
here knows its inside.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, cast

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from tiled_ingest.core.effects import (
    Announced,
    Answered,
    Ask,
    Assigned,
    Commit,
    CommitFailed,
    Committed,
    DeadLetter,
    DeadLettered,
    DeadLetterRefused,
    Effect,
    Input,
    LogRead,
    Records,
    Released,
    Tick,
)
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.runs import jobs, lifecycle, reopening
from tiled_ingest.core.runs.runs import Runs
from tiled_ingest.core.runs.states import Trigger
from tiled_ingest.core.snapshot import EngineSnapshot
from tiled_ingest.core.steps import Procedure, Retaking, Sleep
from tiled_ingest.core.writes import (
    Append,
    Done,
    FindOpenRuns,
    GetNode,
    Keys,
    Path,
    PutSource,
    ReadKeys,
    Request,
    Unknown,
    Unprocessed,
)
from tiled_ingest.core.writing import arrays, switch, tables
from tiled_ingest.core.writing.patience import insist

from .faults import Fault
from .surroundings import EngineLike
from .tiled_model import DeleteNode

MakeEngine = Callable[[Policy, Callable[[], str]], EngineLike]


class Bent:
    """The right engine behind a door that lies.

    `told` is what the engine hears of an input; `done` what the world sees of an effect, where `self.answers`
    is what the engine hears at once; `afterwards` adds effects of its own.
    """

    meets: ClassVar[dict[str, Any]] = {}
    """What its histories have more of than others: without it, it is right nearly always."""

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine
        self._requests: dict[int, Request] = {}
        self.answers: deque[Input] = deque()

    @property
    def finished(self) -> bool:
        return self._engine.finished

    @property
    def full(self) -> bool:
        return self._engine.full

    @property
    def busy(self) -> bool:
        return self._engine.busy

    def idle_s(self, now_s: float) -> float:
        return self._engine.idle_s(now_s)

    def drained(self, homes: Iterable[Home]) -> bool:
        return self._engine.drained(homes)

    def snapshot(self) -> EngineSnapshot:
        return self._engine.snapshot()

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
        self._late: list[Effect] = []

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Commit):
            self._last[effect.home] = effect
        return [effect]

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        ours = isinstance(input, Committed | CommitFailed) and input.ticket < 0
        return [] if ours else [input]

    def afterwards(self, input: Input) -> list[Effect]:  # noqa: A002
        late: list[Effect] = []
        if isinstance(input, Tick):
            late, self._late = self._late, []
        elif isinstance(input, Released):
            self._late += [replace(self._last[home], ticket=-1) for home in input.homes if home in self._last]
        return late


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


class DoesNotReadBack(Bent):
    """Takes an append of which nothing is known for one that happened."""

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        if not isinstance(input, Answered) or not isinstance(input.outcome, Unknown):
            return [input]
        return [Answered(input.ticket, Done())] if isinstance(self._requests[input.ticket], Append) else [input]


class ComparesNumbersOnly(CountsWithoutLooking):
    """Takes a row for there when its `seq_num` is, though a rewind legally repeats it."""

    def _invent(self, path: Path, keys: Keys) -> Keys:
        numbers = set(keys.seq_num.tolist())
        tried = self._tried
        self._tried = {path: {pair for pair in tried.get(path, set()) if pair[0] in numbers}}
        invented = super()._invent(path, keys)
        self._tried = tried
        return invented


class TakesDeadLettersForConfirmed(Bent):
    """Goes on when a dead letter is handed over, not when the topic has it."""

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, DeadLetter):
            self.answers.append(DeadLettered(effect.ticket))
        return [effect]

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        return [] if isinstance(input, DeadLettered | DeadLetterRefused) else [input]


class LosesMetadata(Bent):
    """Commits without the resume point, and does not ask Tiled either which runs are open."""

    def done(self, effect: Effect) -> list[Effect]:
        return [replace(effect, metadata="")] if isinstance(effect, Commit) else [effect]

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        if isinstance(input, Answered) and isinstance(self._requests[input.ticket], FindOpenRuns):
            return [Answered(input.ticket, Done(()))]
        return [input]


class SwapsRows(Bent):
    """Writes the rows of a batch in another order than they came."""

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Ask) and isinstance(effect.request, Append):
            return [replace(effect, request=replace(effect.request, table=_turned(effect.request.table)))]
        return [effect]


def _turned(table: pa.Table) -> pa.Table:
    return table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64()))


class SwapsWholeRows(Bent):
    """Writes the rows of a batch in another order than they came, except where a table is split."""

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Ask) and isinstance(effect.request, Append) and not _is_part(effect.request.path):
            return [replace(effect, request=replace(effect.request, table=_turned(effect.request.table)))]
        return [effect]


def _is_part(path: Path) -> bool:
    return any(key.startswith("internal_") for key in path)


class ReversesLetters(Bent):
    """Sends the dead letters of one step in another order than their records came."""

    def step(self, now_s: float, input: Input) -> list[Effect]:  # noqa: A002
        effects = super().step(now_s, input)
        letters = [effect for effect in effects if isinstance(effect, DeadLetter)]
        return [letters.pop() if isinstance(effect, DeadLetter) else effect for effect in effects]


def _child_of(effect: Effect) -> Path | None:
    """The child's path, of the PUT that gives it the old dataset."""
    if isinstance(effect, Ask) and isinstance(effect.request, PutSource):
        return effect.request.path if effect.request.path[-1].startswith("rebuild-") else None
    return None


class DeletesTheChild(Bent):
    """Removes the child of a switch instead of giving it the old dataset: for a moment both name one."""

    def done(self, effect: Effect) -> list[Effect]:
        path = _child_of(effect)
        return [effect] if path is None else [replace(effect, request=cast("Any", DeleteNode(path)))]


class DropsTheSharedTable(Bent):
    """Cleans up after a switch: drops the old dataset's SQL table, which other streams have rows in."""

    def __init__(self, engine: EngineLike) -> None:
        super().__init__(engine)
        self._puts: dict[int, Ask] = {}
        self._heard: dict[int, Input] = {}  # answers that the engine gets when the child is deleted
        self._deletions: list[Effect] = []

    def done(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Ask) and _child_of(effect) is not None:
            self._puts[effect.ticket] = effect
        return [effect]

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        if not isinstance(input, Answered):
            return [input]
        if input.ticket < 0:
            return [self._heard.pop(input.ticket)]
        put = self._puts.pop(input.ticket, None)
        path = _child_of(put) if put is not None else None
        if put is None or path is None or not isinstance(input.outcome, Done):
            return [input]
        self._heard[-put.ticket] = input
        self._deletions.append(replace(put, ticket=-put.ticket, request=cast("Any", DeleteNode(path, shared=True))))
        return []

    def afterwards(self, input: Input) -> list[Effect]:  # noqa: A002, ARG002
        deletions, self._deletions = self._deletions, []
        return deletions


class RebuildsFromWhatIsLeft(Bent):
    """Takes the log's beginning for the run's, after retention has deleted that."""

    def told(self, input: Input) -> list[Input]:  # noqa: A002
        return [replace(input, low=0)] if isinstance(input, LogRead | Assigned) else [input]


# ---------------------------------------------------------------- wrong inside


class WrongInside(Bent):
    """A right door before a wrong room: some function of the core is another one, in all engines."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        """Put the wrong function there."""


class AdoptsForeignRuns(WrongInside):
    """Takes a run's node for its own, whoever wrote it."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def judged(_around: Any, run: Any, metadata: Any) -> None:
            metadata.setdefault("tiled_ingest", {})
            run.meet(Trigger.CREATED)

        patch.setattr(lifecycle, "_judge", judged)


class TakesChunksForGranted(WrongInside):
    """Trusts in its end that a ragged array has all chunks that DuckDB confirmed."""

    meets: ClassVar[dict[str, Any]] = {"policy": {"rows_max": 1, "age_s_max": 0.0}}

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def wrong(_self: arrays.Array, _found: object) -> Procedure[str]:
            return ""
            yield

        patch.setattr(arrays.Array, "_lost", wrong)


class AppendsToInherited(WrongInside):
    """Goes on with the dataset of an earlier claim when its rows are all there."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        right = tables.Table._make_or_inherit

        def wrong(self: tables.Table, upto: int) -> Procedure[None]:
            node = None if self._stream.fresh else (yield from insist(self._around, self._run.uid, GetNode(self._path)))
            if not isinstance(node, Done):
                yield from right(self, upto)
                return
            self._part.source = node.value.source

        patch.setattr(tables.Table, "_make_or_inherit", wrong)


class UsesAnOrderAgain(WrongInside):
    """Switches to a dataset with the order of columns that the old one has."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def wrong(_self: switch.Switch, used: list[int]) -> Procedure[int]:
            return used[-1]
            yield

        patch.setattr(switch.Switch, "_unused_order", wrong)


class MarksFailedFirst(WrongInside):
    """Calls a run failed before its dead letters are out, and does not look again at one that is called so."""

    meets: ClassVar[dict[str, Any]] = {"refused_share": 1.0, "rates": {Fault.CRASH_IN_EFFECTS: 0.03}}

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        emit, mark, judge = lifecycle.emit_run, lifecycle.mark_failed, lifecycle._judge

        def emitted(around: Any, run: Any, verdict: Any) -> Procedure[None]:
            if verdict.ours:
                yield from jobs._if_tiled_takes_it(around, run, mark(around, run))
            yield from emit(around, run, verdict)

        def judged(around: Any, run: Any, metadata: Any) -> None:
            out = run.emitted_to
            judge(around, run, metadata)
            if metadata.get("tiled_ingest", {}).get("state") == "failed":
                run.emitted_to = out

        patch.setattr(jobs, "emit_run", emitted)
        patch.setattr(lifecycle, "_judge", judged)


class RefusesWhatComesLate(WrongInside):
    """Takes a run that was given up for one that is over."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def wrong(_desk: Any, _run: Any) -> Procedure[bool]:
            return False
            yield

        patch.setattr(reopening, "_can_go_on", wrong)


class ReopensUnconfirmed(WrongInside):
    """Opens a run again before it is known that a successor would go on with it."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(reopening, "Naming", lambda _: Sleep(0.0, down=False))


class ReopensUncovered(WrongInside):
    """Opens a run again, but a successor begins to read after its start."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def wrong(self: Runs, committable: int) -> int:
            return min([committable, *(run.needs_from for run in self if not (run.reopening or run.reopened))])

        patch.setattr(Runs, "first_needed", wrong)


class ReopensWithoutABeginning(WrongInside):
    """Opens a run again whose beginning the log has lost."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        def wrong(desk: Any, run: Any) -> Procedure[bool]:
            return (yield from lifecycle.stands_as_left(desk, run))

        patch.setattr(reopening, "_can_go_on", wrong)


class ForgetsWhatHasWaited(WrongInside):
    """Opens a run again, and does not take what has waited for that."""

    @staticmethod
    def patch(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(reopening, "Retaking", lambda _: Retaking(()))
