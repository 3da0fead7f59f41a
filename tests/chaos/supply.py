"""Which runs come: most are values only, some have detectors that write files, and some are refused by Tiled."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from ophyd.sim import hw

from tests.rig.detectors import Array, Recording, hdf5_fly, hdf5_step
from tests.system.publishing import Documents, renewed, runs, uid_of

_WITH_FILES, _REFUSED = 0.2, 0.08  # shares of all runs
_POINTS = 30


class Supply:
    """Runs for one act.

    Parameters
    ----------
    folder
        Where the detectors' files are written, once: every run with files shows the same ones.
    refuse
        Called with the uid of a run, before any of it is published, that Tiled shall refuse.

    Attributes
    ----------
    frames
        Of the runs with files, by uid: what they hold, by stream and data key.
    refused
        The uids of the runs that Tiled refuses.
    """

    def __init__(self, folder: Path, refuse: Callable[[str], object]) -> None:
        folder.mkdir(parents=True)
        self._recordings = (hdf5_step(folder, _POINTS, beside=[hw().det1]), hdf5_fly(folder, frames=6, rounds=6))
        self._refuse = refuse
        self.frames: dict[str, dict[tuple[str, str], Array]] = {}
        self.refused: set[str] = set()

    def draw(self, chance: random.Random) -> Documents:
        """Return a run under uids that nobody has seen."""
        drawn = chance.random()
        if drawn < _WITH_FILES:
            return self._with_files(chance.choice(self._recordings))
        documents = chance.choice(runs())
        if drawn < _WITH_FILES + _REFUSED:
            self.refused.add(uid_of(documents))
            self._refuse(uid_of(documents))
        return documents

    def _with_files(self, recording: Recording) -> Documents:
        documents = renewed(recording.documents)
        self.frames[uid_of(documents)] = recording.expected
        return documents
