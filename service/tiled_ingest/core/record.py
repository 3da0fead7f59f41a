"""A record as Kafka holds it, and where it stands: the smallest words of the house."""

from typing import NamedTuple

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
