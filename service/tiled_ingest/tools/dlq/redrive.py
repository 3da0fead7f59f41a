"""Dead letters straight into Tiled, after the cause was mended: run by run, each whole or not at all.

A letter alone cannot be put into its run: a table has one writer, and a row its place. So a run is built anew from all
that there is of it, its letters and what the topic still holds, each position once, and shown in one switch per table.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tiled_ingest.core.record import Record
from tiled_ingest.settings import Settings
from tiled_ingest.tools.letters import Letter, Torn, read_letters
from tiled_ingest.tools.rebuild import Case, Judge, Places, Plan, Rebuild, Spool, connected

from .choice import Choice


@dataclass(kw_only=True)
class Redriven(Plan):
    """What is to be done, and what became of it.

    Attributes
    ----------
    without_run
        Letters that belong to no run that is known, by code.
    nameless
        Letters whose headers do not say where the document stood: not of this service.
    torn
        Letters that were sent in parts some of which are missing.
    """

    without_run: dict[str, int] = field(default_factory=dict)
    nameless: int = 0
    torn: list[Torn] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every document that is meant is in Tiled."""
        return self.all_written and not (self.without_run or self.nameless or self.torn)


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
        nameless = _gathered(spool, read_letters(settings.kafka, torn), choice)
        places = Places(settings)
        try:
            judge = Judge(settings.kafka, tiled.policy, places, spool)
            cut = {each.letter.run: each for each in torn}
            meant = [uid for uid in spool.runs() if _is_meant(spool, uid, choice)]
            cases = [_left(spool, uid, cut[uid]) if uid in cut else judge.judge(uid) for uid in meant]
        finally:
            places.close()
        strangers = {} if choice.runs else _of(choice, spool.letters_without_run())
        torn = [each for each in torn if each.letter in choice]
        plan = Redriven(cases=cases, without_run=strangers, nameless=nameless, torn=torn)
        yield Rebuild(tiled, spool, plan)


def _gathered(spool: Spool, letters: Iterable[Letter], choice: Choice) -> int:
    """Put the letters down; returns how many do not say where their documents stood."""
    nameless = 0
    for letter in letters:
        if letter.offset < 0 or letter.partition < 0:
            nameless += 1
        elif not choice.runs or not letter.run or letter.run in choice.runs:
            record = Record(
                letter.topic, letter.partition, letter.offset, letter.timestamp_ms, letter.key, letter.value
            )
            spool.add(record, letter.run, letter.code)
    spool.follow_names()
    return nameless


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
