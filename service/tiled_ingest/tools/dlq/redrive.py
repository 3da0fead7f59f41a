"""Dead letters straight into Tiled, after the cause was mended: run by run, each whole or not at all.

A letter alone cannot be put into its run: a table has one writer, and a row its place. So a run is built anew from all
that there is of it, its letters and what the topic still holds, each position once, and shown in one switch per table.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tiled_ingest.core.record import Record
from tiled_ingest.settings import Settings
from tiled_ingest.tools.letters import Letter, read_letters
from tiled_ingest.tools.progress import Silent
from tiled_ingest.tools.rebuild import Builder, Built, Case, Judge, Places, Spool, connected
from tiled_ingest.tools.rebuild.connect import Connected

from .choice import Choice

WRITTEN = frozenset({"create", "replace", "reopen"})


@dataclass
class Redriven:
    """What is to be done, and what became of it.

    Attributes
    ----------
    built
        By run; empty as long as nothing was written.
    without_run
        Letters that belong to no run that is known, by code.
    nameless
        Letters whose headers do not say where the document stood: not of this service.
    """

    cases: list[Case]
    without_run: dict[str, int] = field(default_factory=dict)
    nameless: int = 0
    built: dict[str, Built] = field(default_factory=dict)

    @property
    def to_write(self) -> list[Case]:
        """The runs that are to be written."""
        return [case for case in self.cases if case.verdict in WRITTEN]

    @property
    def passed(self) -> bool:
        """Whether every document that is meant is in Tiled."""
        waiting = any(case.verdict in {"wait", "leave"} for case in self.cases)
        lost = any(built.error or built.refused for built in self.built.values())
        written = len(self.built) == len(self.to_write)
        return written and not (waiting or lost or self.without_run or self.nameless)


class Redrive:
    """One redrive: first what is to be done (`plan`), which writes nothing; then it is done (`write`)."""

    def __init__(self, tiled: Connected, spool: Spool, redriven: Redriven) -> None:
        self._tiled = tiled
        self._spool = spool
        self.plan = redriven

    def write(self, watch: Silent, wait_s_max: float) -> Redriven:
        """Build each run; one that cannot be built does not keep the others.

        Raises
        ------
        IngestError
            Tiled is away, or does not let us write.
        """
        builder = Builder(self._tiled.perform, self._tiled.policy, self._spool, watch, wait_s_max)
        watch.expect(sum(case.spooled.documents for case in self.plan.to_write))
        for case in self.plan.to_write:
            if case.place is not None:
                self.plan.built[case.spooled.uid] = builder.build(case.place)
        return self.plan


@contextmanager
def planned(settings: Settings, choice: Choice) -> Iterator[Redrive]:
    """Read the letters, and yield what is to be done with them. Nothing is written, in Kafka or Tiled.

    Raises
    ------
    IngestError
        Kafka or Tiled cannot be read.
    """
    with connected(settings) as tiled, Spool(tiled.policy) as spool:
        nameless = _gathered(spool, read_letters(settings.kafka), choice)
        places = Places(settings)
        try:
            judge = Judge(settings.kafka, tiled.policy, places, spool)
            cases = [judge.judge(uid) for uid in spool.runs() if _is_meant(spool, uid, choice)]
        finally:
            places.close()
        strangers = {} if choice.runs else _of(choice, spool.letters_without_run())
        yield Redrive(tiled, spool, Redriven(cases, strangers, nameless))


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


def _is_meant(spool: Spool, uid: str, choice: Choice) -> bool:
    if choice.runs and uid not in choice.runs:
        return False
    return not choice.codes or not choice.codes.isdisjoint(spool.of(uid).codes)


def _of(choice: Choice, codes: dict[str, int]) -> dict[str, int]:
    return {code: number for code, number in codes.items() if not choice.codes or code in choice.codes}
