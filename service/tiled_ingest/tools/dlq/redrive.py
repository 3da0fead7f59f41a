"""Dead letters straight into Tiled, after the cause was mended: run by run, each whole or not at all.

A letter alone cannot be put into its run: a table has one writer, and a row its place. So a run is built anew from all
that there is of it, its letters and what the topic still holds, each position once, and shown in one switch per table.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tiled_ingest.core.record import Record
from tiled_ingest.settings import Settings
from tiled_ingest.tools.letters import Letter, Torn, read_letters
from tiled_ingest.tools.rebuild import Case, Judge, Places, Plan, Rebuild, Spool, Stranger, connected

from .choice import TOLD_MAX, Choice


@dataclass(kw_only=True)
class Redriven(Plan):
    """What is to be done, and what became of it.

    Attributes
    ----------
    without_run
        Letters that belong to no run that is known, by code.
    strangers
        The first of them.
    nameless
        How many letters do not say in their headers where the document stood: not of this service.
    nameless_told
        The first of them.
    torn
        Letters that were sent in parts some of which are missing.
    unmet
        What was asked for by name, and no letter has.
    """

    without_run: dict[str, int] = field(default_factory=dict)
    strangers: list[Stranger] = field(default_factory=list)
    nameless: int = 0
    nameless_told: list[Letter] = field(default_factory=list)
    torn: list[Torn] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)

    @property
    def left(self) -> bool:
        """Whether something that is meant will not be in Tiled, however the writing ends."""
        return super().left or bool(self.without_run or self.nameless or self.torn or self.unmet)


@contextmanager
def planned(settings: Settings, choice: Choice) -> Iterator[Rebuild[Redriven]]:
    """Read the letters, and yield what is to be done with them. Nothing is written, in Kafka or Tiled.

    Raises
    ------
    IngestError
        Kafka or Tiled cannot be read.
    """
    with connected(settings) as tiled, Spool(tiled.policy) as spool:
        torn: list[Torn] = []
        unplaced = _gathered(spool, read_letters(settings.kafka, torn), choice)
        places = Places(settings)
        try:
            judge = Judge(settings.kafka, tiled.policy, places, spool)
            cut = {each.letter.run: each for each in torn}
            meant = [uid for uid in spool.runs() if _is_meant(spool, uid, choice)]
            cases = [_left(spool, uid, cut[uid]) if uid in cut else judge.judge(uid) for uid in meant]
        finally:
            places.close()
        plan = Redriven(cases=cases, torn=[each for each in torn if each.letter in choice])
        _leave_out(plan, spool, unplaced, choice)
        yield Rebuild(tiled, spool, plan)


@dataclass
class _Unplaced:
    """Letters that do not say where their documents stood."""

    number: int = 0
    first: list[Letter] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)

    def add(self, letter: Letter) -> None:
        self.number += 1
        self.runs.add(letter.run)
        self.codes.add(letter.code)
        if len(self.first) < TOLD_MAX:
            self.first.append(replace(letter, key=None, value=None))


def _gathered(spool: Spool, letters: Iterable[Letter], choice: Choice) -> _Unplaced:
    """Put the letters down; returns those that do not say where their documents stood."""
    unplaced = _Unplaced()
    for letter in letters:
        if not letter.is_placed:
            if letter in choice:
                unplaced.add(letter)
        elif not choice.runs or not letter.run or letter.run in choice.runs:
            record = Record(
                letter.topic, letter.partition, letter.offset, letter.timestamp_ms, letter.key, letter.value
            )
            spool.add(record, letter.run, letter.code)
    spool.follow_names()
    return unplaced


def _leave_out(plan: Redriven, spool: Spool, unplaced: _Unplaced, choice: Choice) -> None:
    """Note in the plan what is meant and belongs to no run, or is not there."""
    if not choice.runs:
        plan.without_run = _of(choice, spool.letters_without_run())
        told = spool.strangers_told()
        plan.strangers = [each for each in told if not choice.codes or not choice.codes.isdisjoint(each.codes)]
    plan.nameless, plan.nameless_told = unplaced.number, unplaced.first
    torn = [each.letter for each in plan.torn]
    runs = {case.spooled.uid for case in plan.cases}.union(unplaced.runs, (each.run for each in torn))
    codes = {code for case in plan.cases for code in case.spooled.codes}
    plan.unmet = choice.unmet(runs, codes.union(plan.without_run, unplaced.codes, (each.code for each in torn)))


def _left(spool: Spool, uid: str, torn: Torn) -> Case:
    """Leave a run alone that could only be built without one of its documents."""
    mended = f"if {torn.letter.topic} holds the run still: tiled-ingest replay topic:... --run {uid} --replace"
    why = f"a dead letter of it is incomplete, {torn.why}; {mended}"
    return Case(spool.of(uid), "leave", why)


def _is_meant(spool: Spool, uid: str, choice: Choice) -> bool:
    if choice.runs and uid not in choice.runs:
        return False
    return not choice.codes or not choice.codes.isdisjoint(spool.of(uid).codes)


def _of(choice: Choice, codes: dict[str, int]) -> dict[str, int]:
    return {code: number for code, number in codes.items() if not choice.codes or code in choice.codes}
