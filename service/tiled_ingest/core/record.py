"""A record as Kafka holds it, and where it stands: the smallest words of the house."""

from typing import Any, NamedTuple

import msgspec


class Home(NamedTuple):
    """A partition of a topic; every run lives in exactly one."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the log, undecoded.

    Attributes
    ----------
    offset
        Its place in the partition; offsets of neighbours may differ by more than 1 (transactions, compaction).
    timestamp_ms
        The broker's timestamp, in milliseconds since 1970; -1 where the broker keeps none.
    key, value
        The bytes as published; `None` where absent (a value of `None` is a tombstone).
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None

    @property
    def home(self) -> Home:
        """The partition it came from."""
        return Home(self.topic, self.partition)

    @property
    def nbytes(self) -> int:
        """What it weighs: bytes of its value in the log."""
        return len(self.value or b"")


class Handed(Record, frozen=True):
    """A document that never was bytes: in-process writing hands it over as it is.

    Attributes
    ----------
    kind, doc
        As callbacks of the RunEngine get them. Nobody changes `doc` afterwards.
    weight
        About how many bytes it takes.
    """

    kind: str
    doc: Any
    weight: int

    @property
    def nbytes(self) -> int:
        """What it weighs: an estimate."""
        return self.weight
