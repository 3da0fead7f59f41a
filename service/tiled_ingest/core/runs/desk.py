"""What jobs may know of the claim for which they work, and ask of it."""

from typing import Protocol

from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.steps import Surroundings

from .run import Run


class Desk(Surroundings, Protocol):
    """The claim, as jobs see it."""

    @property
    def reopening(self) -> tuple[int, ...]:
        """Which runs are being opened again, by the offsets of their starts."""

    def release(self, hold: Hold) -> int:
        """Settle what the hold stood for; returns the broker's timestamp (ms) of its record."""

    def forget(self, run: Run) -> None:
        """Drop a finished run, remembering that it was."""

    def keep_dormant(self, run: Run) -> None:
        """Remember a run that was given up, so that it can go on."""

    def count(self, kind: str, result: str, number: int = 1) -> None:
        """Count settled documents."""
