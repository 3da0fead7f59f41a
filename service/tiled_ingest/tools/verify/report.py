"""What `verify` says: numbers for each run and stream, and a sentence for each difference."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SENTENCES_MAX = 8  # of one kind, for one stream: the numbers say how many there are

Verdict = Literal["same", "different", "missing", "dead letters", "failed", "cut"]


@dataclass
class Counts:
    """Rows, in Tiled and as published.

    Attributes
    ----------
    missing
        Published, not in Tiled, not in the dead letters.
    duplicated
        In Tiled more often than published.
    different
        In Tiled with other values than published.
    foreign
        In Tiled, never published for this stream.
    misplaced
        In Tiled in another order, where the storage keeps one.
    dead_letters
        Rows the documents of which are dead letters; they need not be in Tiled.
    """

    expected: int = 0
    found: int = 0
    missing: int = 0
    duplicated: int = 0
    different: int = 0
    foreign: int = 0
    misplaced: int = 0
    dead_letters: int = 0

    @property
    def differences(self) -> int:
        """How many rows are not as they should be."""
        return self.missing + self.duplicated + self.different + self.foreign + self.misplaced


@dataclass
class PartReport:
    """One node below a stream that is no table: an array, or detector files."""

    key: str
    kind: str
    counts: Counts = field(default_factory=Counts)


@dataclass
class StreamReport:
    """One stream of a run.

    Attributes
    ----------
    rounded
        Columns of large integers of which Tiled's server only says the nearest float.
    """

    name: str
    counts: Counts = field(default_factory=Counts)
    parts: list[PartReport] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    rounded: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.differences


@dataclass
class RunReport:
    """One run.

    Attributes
    ----------
    state
        What Tiled says of it (`complete`, `open`, `failed`, ...); empty where the run is not ours.
    repeated
        Documents that the topic holds again.
    dead_letters
        Its documents in the dead-letter topic, by code.
    remarks
        What is worth knowing and no difference.
    """

    uid: str
    topic: str
    partition: int
    first_offset: int
    verdict: Verdict = "same"
    state: str = ""
    repeated: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    streams: list[StreamReport] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether Tiled holds what it should."""
        return not self.differences and all(stream.is_same for stream in self.streams)


@dataclass
class PartitionReport:
    """One partition that was read, and documents of it that no run accounts for.

    Attributes
    ----------
    first_offset, next_offset
        What was read: from the first to before the second.
    low, high
        What the log held at the beginning.
    committed
        The group's committed offset; -1 if there is none.
    unaccounted
        Documents that are neither in Tiled nor in the dead letters, for they belong to no run or cannot be read.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    low: int
    high: int
    committed: int = -1
    documents: int = 0
    events: int = 0
    unaccounted: int = 0
    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Everything that was found."""

    partitions: list[PartitionReport] = field(default_factory=list)
    runs: list[RunReport] = field(default_factory=list)
    not_in_topic: list[str] = field(default_factory=list)  # nodes in Tiled that say they come from the range
    dead_letters: Counter[str] = field(default_factory=Counter)  # documents of the range, by code
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether Tiled and the dead letters hold exactly what the topic holds, and it holds something."""
        if self.is_empty:
            return False
        whole = all(run.is_same for run in self.runs) and not self.not_in_topic
        return whole and not any(partition.differences for partition in self.partitions)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was compared: no run, no dead letter, no document that must be one of these."""
        unaccounted = any(partition.differences for partition in self.partitions)
        return not (self.runs or self.dead_letters or self.not_in_topic or unaccounted)

    @property
    def events(self) -> int:
        """Events that were read."""
        return sum(partition.events for partition in self.partitions)

    @property
    def documents(self) -> int:
        """Records that were read."""
        return sum(partition.documents for partition in self.partitions)

    def verdicts(self) -> Counter[str]:
        """Return how many runs got which verdict."""
        return Counter(run.verdict for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        summary = {"passed": self.passed, "compared": not self.is_empty}
        numbers = {"documents": self.documents, "events": self.events}
        return {**summary, **numbers, "verdicts": dict(self.verdicts()), **asdict(self)}
