"""Where the documents of a run go that could not be written: wholly, in the library's own formats."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import event_model

from .driver import logger

Document = Mapping[str, Any]
Callback = Callable[[str, Document], None]
DOCUMENTS_MAX = 1_000_000  # of one run, as in TiledWriter: what is older is not in the backup


class Primary(Protocol):
    """A callback that can be told that others keep its run's documents from now on."""

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document."""

    def abandon(self, error: Exception) -> None:
        """Mark what is written of the run as failed."""


def backups(directory: str | None, store: dict[str, Any] | None) -> list[Callback]:
    """Return the library's writers for one run.

    Raises
    ------
    ImportError
        A backup is asked for where bluesky-tiled-plugins is not installed.
    """
    if directory is None and store is None:
        return []
    from bluesky_tiled_plugins.writing._json_writer import JSONDictWriter, JSONLinesWriter  # noqa: PLC0415

    wanted: list[Callback] = []
    if directory:
        wanted.append(_Sanitized(JSONLinesWriter(directory)))
    if store is not None:
        wanted.append(JSONDictWriter(store))
    return wanted


class _Sanitized:
    """Numpy values as plain ones: the library's writer leaves half a line where it meets one."""

    def __init__(self, write: Callback) -> None:
        self._write = write

    def __call__(self, name: str, doc: Document) -> None:
        self._write(name, event_model.sanitize_doc(doc))


class ConditionalBackup:
    """Passes a run's documents on; from the first failure on, the whole run goes to the backups, and only there.

    A run that failed gets no stop document in Tiled: a part of it cannot pass for the whole.
    """

    def __init__(self, primary: Primary, backups: list[Callback]) -> None:
        self._primary = primary
        self._backups = backups
        self._buffer: deque[tuple[str, Document]] = deque(maxlen=DOCUMENTS_MAX)
        self._failed = False

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document; raises nothing that a primary or a backup raises: that is logged."""
        self._buffer.append((name, doc))
        if not self._failed:
            self._try(name, doc)
        if self._failed:
            for buffered in self._buffer:
                self._back_up(*buffered)
            self._buffer.clear()

    def _try(self, name: str, doc: Document) -> None:
        try:
            self._primary(name, doc)
        except Exception as error:  # noqa: BLE001 - a user's patch may raise anything, and the backup is for all of it
            logger.exception(
                "Primary callback failed while processing a %r document. No further documents from this run "
                "will be sent to the primary callback; the full run is routed to the backup callbacks instead.",
                name,
            )
            self._failed = True
            self._primary.abandon(error)

    def _back_up(self, name: str, doc: Document) -> None:
        for write in self._backups:
            try:
                write(name, doc)
            except Exception:
                # One document that a format cannot hold must not cost the others.
                logging.getLogger(__name__).exception("Backup failed while processing a %r document.", name)
