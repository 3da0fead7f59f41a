"""All sources of documents, and which of them are not expected to be the same yet."""

from __future__ import annotations

from pathlib import Path

from . import detectors, old, plans
from .plans import Make
from .recorder import Documents

MAKERS: dict[str, Make] = {**plans.MAKERS, **old.MAKERS, **detectors.MAKERS}

# THE place to switch a source on: an entry that is not true any more fails its test (xfail is strict here).
NOT_YET: dict[str, str] = {}
# The same for reading back, and for what only Kafka's way does not take yet.
NOT_YET_READ_BACK: dict[str, str] = {**NOT_YET}
NOT_YET_THROUGH_KAFKA: dict[str, str] = {**NOT_YET}

# What TiledWriter cannot write: there is no tree of its to compare with; ours is read back all the same.
LIBRARY_FAILS: dict[str, str] = {"datum_after_event": "event-model's Filler wants a datum before its event"}
# The same for one storage only; source and storage.
LIBRARY_FAILS_ON: dict[tuple[str, str], str] = {
    ("infinite_metadata", "postgresql"): "PostgreSQL spells 1.7976e308 out as an integer, which Tiled cannot send",
    ("wide_rows", "postgresql"): "PostgreSQL takes rows of 8 160 bytes",
}
# What the server's exporter of bluesky-tiled-plugins makes no documents of.
EXPORTER_FAILS: dict[str, str] = {"wide_rows": "it takes each part of a table for an array"}


class Sources:
    """Makes each source's documents once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Documents] = {}

    def documents(self, name: str) -> Documents:
        if name not in self._made:
            self._made[name] = MAKERS[name](self._folder)
        return self._made[name]


def uid_of(documents: Documents) -> str:
    return str(documents[0][1]["uid"])
