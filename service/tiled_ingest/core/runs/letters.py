"""Which records of the log belong to a run, and the dead letters that are made of them."""

from collections.abc import Callable, Container, Iterable
from itertools import chain
from typing import Any

from tiled_ingest.core.decoding.eras import Decode
from tiled_ingest.core.decoding.events import references
from tiled_ingest.core.errors import InvalidDocument, TiledRejected
from tiled_ingest.core.record import Record
from tiled_ingest.core.steps import Letter, Surroundings

from .run import Run, Verdict

Membership = Callable[[Record], bool]


class Members:
    """Recognises the documents of one run, in the order of the log, by the uids that name each other.

    Parameters
    ----------
    known
        What is known of them: sort (`run`, `descriptor` or `resource`) and uid.
    accepted
        Its descriptors, where that is known: another run may have one of the same uid.
    """

    def __init__(
        self, known: Iterable[tuple[str, str]], decode: Decode, accepted: Container[str] | None = None
    ) -> None:
        self._decode = decode
        self._accepted = accepted
        self._known = set(known)

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
        if kind == "descriptor" and (self._accepted is None or named.own in self._accepted):
            self._known.add(("descriptor", named.own))
        return True


def belongs(run: Run, decode: Decode) -> Membership:
    """Return a function that recognises the run's documents when it is shown the log from the run's start.

    The uids that the run knows already count too: the log may have lost the documents that brought them.
    """
    accepted = run.acceptance.descriptors  # it grows meanwhile
    known = chain((("descriptor", uid) for uid in accepted), (("resource", uid) for uid in run.resources))
    return Members([("run", run.uid), *known], decode, accepted)


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


def fail_if_backed_up(around: Surroundings, why: str) -> None:
    """Refuse the whole run for what it cannot keep of one document, if a backup takes all of it then.

    Raises
    ------
    TiledRejected
        So that the run fails.
    """
    if around.policy.backed_up:
        raise TiledRejected(why)
