"""Runs of the sources, built in Tiled, each whole. What is there already is left alone, unless it is to be replaced."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tiled_ingest.core.record import Home
from tiled_ingest.settings import Settings
from tiled_ingest.tools.progress import Silent
from tiled_ingest.tools.rebuild import Builder, Built, Case, Judge, Manner, Places, Spool, connected
from tiled_ingest.tools.rebuild.connect import Connected

from .sources import FileSource, Source

WRITTEN = frozenset({"create", "replace", "reopen"})


@dataclass
class Replayed:
    """What is to be done, and what became of it.

    Attributes
    ----------
    built
        By run; empty as long as nothing was written.
    strangers
        Documents of no run that is known, or that cannot be read.
    absent
        Runs that were asked for, and are not in the sources.
    """

    cases: list[Case]
    strangers: int = 0
    absent: list[str] = field(default_factory=list)
    built: dict[str, Built] = field(default_factory=dict)

    @property
    def to_write(self) -> list[Case]:
        """The runs that are to be written."""
        return [case for case in self.cases if case.verdict in WRITTEN]

    @property
    def passed(self) -> bool:
        """Whether Tiled holds every document of the runs that were meant."""
        waiting = any(case.verdict in {"wait", "leave"} for case in self.cases)
        lost = any(built.error or built.refused for built in self.built.values())
        return len(self.built) == len(self.to_write) and not (waiting or lost or self.strangers or self.absent)


class Replay:
    """One replay: what is to be done (`plan`), which writes nothing; then it is done (`write`)."""

    def __init__(self, tiled: Connected, spool: Spool, plan: Replayed) -> None:
        self._tiled = tiled
        self._spool = spool
        self.plan = plan

    def write(self, watch: Silent, wait_s_max: float) -> Replayed:
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
def prepared(
    settings: Settings, sources: Sequence[Source], *, runs: frozenset[str], anew: bool = False, adopt: bool = False
) -> Iterator[Replay]:
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
        yield Replay(
            replace(tiled, policy=replace(tiled.policy, adopts=adopt)),
            spool,
            Replayed(cases, 0 if runs else spool.strangers(), absent),
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
