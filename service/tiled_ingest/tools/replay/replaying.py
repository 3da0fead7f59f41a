"""Runs of the sources, built in Tiled, each whole. What is there already is left alone, unless it is to be replaced."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tiled_ingest.core.record import Home
from tiled_ingest.settings import Settings
from tiled_ingest.tools.rebuild import Case, Judge, Manner, Places, Plan, Rebuild, Spool, Stranger, connected

from .sources import FileSource, Source


@dataclass(kw_only=True)
class Replayed(Plan):
    """What is to be done, and what became of it.

    Attributes
    ----------
    strangers
        How many documents are of no run that is known, or cannot be read.
    strangers_told
        The first of them.
    absent
        Runs that were asked for, and are not in the sources.
    """

    strangers: int = 0
    strangers_told: list[Stranger] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def left(self) -> bool:
        """Whether something that is meant will not be in Tiled, however the writing ends."""
        return super().left or bool(self.strangers or self.absent)


@contextmanager
def prepared(
    settings: Settings, sources: Sequence[Source], *, runs: frozenset[str], anew: bool = False, adopt: bool = False
) -> Iterator[Rebuild[Replayed]]:
    """Read the sources, and yield what is to be done with their runs. Nothing is written.

    Parameters
    ----------
    runs
        Only these; all if empty.
    anew
        Build them anew even if Tiled holds them.
    adopt
        Finish runs that someone else began, too.

    Raises
    ------
    WrongSource
        A topic does not exist.
    IngestError
        Kafka or Tiled cannot be read.
    """
    with connected(settings) as tiled, Spool(tiled.policy) as spool:
        cut = _gathered(settings, spool, sources)
        places = Places(settings)
        try:
            manner = Manner(gather=False, anew=anew, adopt=adopt, cut=cut)
            judge = Judge(settings.kafka, tiled.policy, places, spool, manner)
            cases = [judge.judge(uid) for uid in spool.runs() if not runs or uid in runs]
        finally:
            places.close()
        absent = sorted(runs - {case.spooled.uid for case in cases})
        yield Rebuild(
            replace(tiled, policy=replace(tiled.policy, adopts=adopt)),
            spool,
            Replayed(cases=cases, absent=absent) if runs else _with_strangers(cases, spool),
        )


def _with_strangers(cases: list[Case], spool: Spool) -> Replayed:
    return Replayed(cases=cases, strangers=spool.strangers(), strangers_told=spool.strangers_told())


def _gathered(settings: Settings, spool: Spool, sources: Sequence[Source]) -> dict[Home, int]:
    """Put all documents down; returns where the reading of each partition ended."""
    ends: dict[Home, int] = {}
    for each in sources:
        if isinstance(each, FileSource):
            records = each.records()
        else:
            spans = each.spans(settings.kafka)  # once: the topic may grow meanwhile
            records = each.records(settings.kafka, spans)
            ends |= {home: stop for home, _, stop in spans}
        for record in records:
            spool.add(record)
    spool.follow_names()
    return ends
