"""What `check` says about one thing."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

ANSWER_S_MAX = 10.0  # a person waits

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `hint` says what to do when it is not `ok`."""

    name: str
    verdict: Verdict
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A file, or a folder of files, by its address as a document has it after `tiled.patches`.

    Attributes
    ----------
    asked
        By a person; else it is one that the last documents name, and may be gone since.
    """

    uri: str
    folder: bool = False
    asked: bool = False

    @property
    def title(self) -> str:
        """What it is called."""
        return f"file {urlsplit(self.uri).path or self.uri}"


@dataclass(slots=True)
class Seen:
    """What Tiled is asked about: what the topics hold, and what a person names beside that.

    Attributes
    ----------
    topics
        Those that exist; without Kafka, those that are named.
    tags
        Access tags of runs in the sample.
    """

    topics: list[str] = field(default_factory=list)
    files: list[Named] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    tags_asked: frozenset[str] = frozenset()


Findings = Iterator[Finding]


def counted(number: int, what: str) -> str:
    """Return e.g. `1 partition`, `2 partitions`."""
    return f"{number} {what}" + "s" * (number != 1)
