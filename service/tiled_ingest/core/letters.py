"""Which records of the log belong to a run, and the dead letters that are made of them."""

from collections.abc import Callable, Iterable
from typing import Any

from .eras import Decode
from .errors import InvalidDocument
from .events import references
from .record import Record
from .run import Run, Verdict
from .steps import Letter

Membership = Callable[[Record], bool]


class Members:
    """Recognises the documents of one run, in the order of the log, by the uids that name each other.

    The uids that the run knows already count too: the log may have lost the documents that brought them.
    """

    def __init__(self, run: Run, decode: Decode) -> None:
        self._decode = decode
        self._accepted = run.acceptance.descriptors
        self._known = {("run", run.uid), *(("descriptor", uid) for uid in run.acceptance.descriptors)}
        self._known.update(("resource", uid) for uid in run.resources)

    def __call__(self, record: Record) -> bool:
        """Whether the record is a document of the run."""
        try:
            kind, doc = self._decode(record)
        except InvalidDocument:
            return False  # it went to the dead letters by itself, when it came
        return self._is_member(kind, doc)

    def _is_member(self, kind: str, doc: Any) -> bool:
        named = references(kind, doc)
        may_be = kind in {"resource", "stream_resource"} and not named.uid  # old ones do not say whose they are
        if (named.by, named.uid) not in self._known and not may_be:
            return False
        if named.own and kind in {"resource", "stream_resource"}:
            self._known.add(("resource", named.own))
        if kind == "descriptor" and named.own in self._accepted:  # another run may have one of this uid
            self._known.add(("descriptor", named.own))
        return True


def belongs(run: Run, decode: Decode) -> Membership:
    """Return a function that recognises the run's documents when it is shown the log from the run's start."""
    return Members(run, decode)


def letters_of(
    records: Iterable[Record], members: Membership, run: Run, verdict: Verdict, stop: int
) -> tuple[Letter, ...]:
    """Return the dead letters for those records of the run that are not out yet."""
    mine = [record for record in records if record.offset < stop and members(record)]
    return tuple(
        Letter(record, verdict.reason, verdict.code, verdict.detail, run.uid)
        for record in mine
        if record.offset >= run.emitted_to
    )


def letter(record: Record, error: InvalidDocument, run: str = "") -> Letter:
    """Return the dead letter for a document that is refused by itself."""
    return Letter(record, error.reason, error.code, error.detail, run or error.run)
