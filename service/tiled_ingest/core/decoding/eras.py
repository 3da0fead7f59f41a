"""Under which limits each part of the log was read first: the same it is read under when it is read again.

A document that a limit once let pass, and that is in Tiled, must not be refused when the run is rebuilt after the limit
was lowered: the run would be written anew without it. So the limits travel in the commit's metadata, with the offset
from which each was in force.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Record
from tiled_ingest.core.rows.stretch import Stretch

from .decode import Decoder, Document
from .known import KnownLayouts

Era = tuple[int, int, int, int]  # from which offset on; bytes, nesting and elements at most


class Decode(Protocol):
    """From records of one partition to documents."""

    def __call__(self, record: Record) -> Document:
        """Decode one; raises as `Decoder` does."""

    def stretches(self, records: Sequence[Record]) -> Iterable[Record | Stretch]:
        """Return the records in their order; events that need no decoding by themselves are together."""


def limits_of(policy: Policy, start: int) -> Era:
    """Return the era that begins at `start` with the policy's limits."""
    return start, policy.message_bytes_max, policy.nesting_max, policy.elements_max


class Eras:
    """Decodes each record of a partition under the limits of its era.

    Parameters
    ----------
    policy
        The limits in force now.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._eras: list[Era] = []
        self._decoders: list[Decoder] = []
        self._now = Decoder(policy)
        self._known = None if "event" in policy.patches else KnownLayouts(self._now.read, policy.layout_rows_min)
        self._since = 0  # the offset from which the present limits are in force

    def begin(self, past: Iterable[Era], offset: int) -> None:
        """Take over the eras of earlier claims; from `offset` on, the present limits are in force."""
        self._eras = sorted(era for era in past if era[0] < offset)
        self._decoders = [self._decoder(era) for era in self._eras]
        self._since = offset if self._eras else 0
        if self._eras and self._eras[-1][1:] == limits_of(self._policy, offset)[1:]:
            self._since = self._eras.pop()[0]

    def _decoder(self, era: Era) -> Decoder:
        _, nbytes, nesting, elements = era
        return Decoder(replace(self._policy, message_bytes_max=nbytes, nesting_max=nesting, elements_max=elements))

    def __call__(self, record: Record) -> Document:
        """Decode; raises as `Decoder` does."""
        if record.offset >= self._since:
            return self._now(record)
        era = bisect_right(self._eras, record.offset, key=lambda era: era[0])
        return self._decoders[max(era - 1, 0)](record)

    def stretches(self, records: Sequence[Record]) -> Iterator[Record | Stretch]:
        """Return the records in their order; events that need no decoding by themselves are together."""
        if self._known is None or not records or records[0].offset < self._since:
            return iter(records)
        return self._known(records)

    def since(self, start: int) -> list[Era]:
        """Return the eras, the present one last, of which a document at `start` or after it may be read again."""
        eras = [*self._eras, limits_of(self._policy, self._since)]
        first = bisect_right(eras, start, key=lambda era: era[0])
        return eras[max(first - 1, 0) :]
