"""Runs of the sources, built in Tiled, each whole. What is there already is left alone, unless it is to be replaced."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tiled_ingest.core.record import Home
from tiled_ingest.settings import Settings
from tiled_ingest.tools.rebuild import Judge, Manner, Places, Plan, Rebuild, Spool, connected

from .sources import FileSource, Source


@dataclass(kw_only=True)
class Replayed(Plan):
    """What is to be done, and what became of it.

    Attributes
    ----------
    strangers
        Documents of no run that is known, or that cannot be read.
    absent
        Runs that were asked for, and are not in the sources.
    """

    strangers: int = 0
    absent: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether Tiled holds every document of the runs that were meant."""
        return self.all_written and not (self.strangers or self.absent)


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
            Replayed(cases=cases, strangers=0 if runs else spool.strangers(), absent=absent),
        )


def _gathered(settings: Settings, spool: Spool, sources: Sequence[Source]) -> dict[Home, int]:
    """Put all documents down; returns where the reading of each partition ended."""
    ends: dict[Home, int] = {}
    for each in sources:
        if isinstance(each, FileSource):
            records = each.records()
        else:
            records = each.records(settings.kafka)
            ends |= {home: stop for home, _, stop in each.spans(settings.kafka)}
        for record in records:
            spool.add(record)
    spool.follow_names()
    return ends
