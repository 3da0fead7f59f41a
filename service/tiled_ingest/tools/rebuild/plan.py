"""What is to be done with several runs, and the doing of it."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tiled_ingest.tools.progress import Silent

from .builder import Builder, Built
from .cases import Case
from .connect import Connected
from .spool import Spool

WRITTEN = frozenset({"create", "replace", "reopen"})


@dataclass(kw_only=True)
class Plan:
    """What is to be done with each run, and what became of it.

    Attributes
    ----------
    begun
        Whether the writing has begun; runs that are not in `built` afterwards were not finished.
    built
        By run; empty as long as nothing was written.
    """

    cases: list[Case]
    begun: bool = False
    built: dict[str, Built] = field(default_factory=dict)

    @property
    def to_write(self) -> list[Case]:
        """The runs that are to be written."""
        return [case for case in self.cases if case.verdict in WRITTEN]

    @property
    def left(self) -> bool:
        """Whether something that is meant will not be in Tiled, however the writing ends."""
        return any(case.verdict in {"wait", "leave"} for case in self.cases)

    @property
    def passed(self) -> bool:
        """Whether every document that is meant is in Tiled."""
        lost = any(built.error or built.refused for built in self.built.values())
        return len(self.built) == len(self.to_write) and not (self.left or lost)


P = TypeVar("P", bound=Plan)


class Rebuild(Generic[P]):
    """Several runs: first what is to be done (`plan`), which writes nothing; then it is done (`write`)."""

    def __init__(self, tiled: Connected, spool: Spool, plan: P) -> None:
        self._tiled = tiled
        self._spool = spool
        self.plan = plan

    def write(self, watch: Silent, wait_s_max: float) -> P:
        """Build each run; one that cannot be built does not keep the others.

        Raises
        ------
        IngestError
            Tiled is away, or does not let us write.
        """
        self.plan.begun = True
        builder = Builder(self._tiled.perform, self._tiled.policy, self._spool, watch, wait_s_max)
        watch.expect(sum(case.spooled.documents for case in self.plan.to_write))
        for case in self.plan.to_write:
            if case.place is not None:
                self.plan.built[case.spooled.uid] = builder.build(case.place)
        return self.plan
