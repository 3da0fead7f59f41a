"""Errors, classed by what we do next (the table is in docs/errors.md)."""

from typing import ClassVar


class IngestError(Exception):
    """Whatever is not a bug. `reason` is the class's name in headers, metrics and logs."""

    reason: ClassVar[str] = "IngestError"


class InvalidDocument(IngestError):
    """This one document goes to the dead letters with a precise `code`; others go on.

    Parameters
    ----------
    code
        The precise cause, a stable word: `undecodable`, `unknown_kind`, `schema`, `orphan`, ...
    detail
        A sentence for a person. May quote a name from the document, never a whole value.

    Attributes
    ----------
    run
        The uid of the run that the document names, where that is known.
    about
        The uid that an orphan refers to, as far as it may be repeated.
    """

    reason = "InvalidDocument"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.run = ""
        self.about = ""


class TiledUnavailable(IngestError):
    """Tiled is away, slow or busy: wait and try again, for ever; no offset moves past it."""

    reason = "TiledUnavailable"


class TiledRejected(IngestError):
    """Tiled refuses one write for what it holds: the run fails, durably, and its documents become dead letters."""

    reason = "TiledRejected"


class TooLarge(TiledRejected):
    """Tiled, or a proxy before it, takes no request of this size (413): what can be divided is sent in parts."""


class ServerErrors(TiledRejected):
    """Tiled answers one request with server errors, again and again, while it takes writes of our own."""


class Forbidden(IngestError):
    """We may not write at all: a mistake in the configuration. Stop, never dead-letter for it."""

    reason = "Forbidden"


class DeadLetterFailed(IngestError):
    """The dead-letter topic did not confirm: stop; nothing is ever logged and dropped."""

    reason = "DeadLetterFailed"


class OffsetOutOfRange(IngestError):
    """The committed offset is not in the log any more (or not yet): records may be lost. Stop, never jump."""

    reason = "OffsetOutOfRange"


class BreakerOpen(IngestError):
    """Nearly everything goes to the dead letters: more likely our mistake than theirs. Finish what is begun; stop."""

    reason = "BreakerOpen"
