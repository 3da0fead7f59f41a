"""Runs that this claim has given up and still knows, so that they can go on: as many as there is room for."""

from collections.abc import Iterator

from tiled_ingest.core.policy import Policy

from .run import Run


class Dormant:
    """Dormant runs of one partition; of too many, the longest dormant are forgotten first."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._runs: list[Run] = []

    def __iter__(self) -> Iterator[Run]:
        return (run for run in self._runs if run.is_dormant)

    def add(self, run: Run) -> None:
        """Keep a run that was given up just now."""
        self._runs = [*(other for other in self if other is not run), run]

    @property
    def longest(self) -> Run | None:
        """The longest dormant of those of which nothing waits."""
        return next((run for run in self if not run.deferred), None)

    @property
    def too_many(self) -> bool:
        """Whether there are more of them, or they take more, than may be."""
        runs = list(self)
        nbytes = sum(run.footprint for run in runs)
        return len(runs) > self._policy.dormant_max or nbytes > self._policy.dormant_bytes_max
