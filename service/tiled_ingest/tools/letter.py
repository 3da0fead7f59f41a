"""One dead letter, and what the headers of a message say of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiled_ingest.core.record import Home
from tiled_ingest.kafka.parts import PREFIX, Label


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes
    ----------
    topic, partition, offset
        Where the record stood; offset -1 and partition -1 if the headers do not say.
    run
        The uid of its run, empty where it was not known.
    letter_partition, letter_offset
        Where the letter stands in the dead-letter topic: of one in parts, that of them which came first.
    key, value
        The record's, as they were.
    parts
        In how many messages it came.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    code: str
    error: str
    run: str
    version: str
    letter_partition: int
    letter_offset: int
    key: bytes | None
    value: bytes | None
    parts: int = 1

    @property
    def position(self) -> tuple[str, int, int]:
        """Where the record stood: letters with the same are one, delivered again."""
        return self.topic, self.partition, self.offset

    @property
    def home(self) -> Home:
        """The partition of the record."""
        return Home(self.topic, self.partition)


def letter_of(message: Any) -> tuple[Letter, Label | None]:
    """Translate a message of the dead-letter topic, and say of which letter it is a part, if it is one.

    Headers that are missing or make no sense are left empty.
    """
    said = {name.removeprefix(PREFIX): _text(value) for name, value in message.headers() or ()}
    letter = Letter(
        topic=said.get("topic", ""),
        partition=_number(said, "partition"),
        offset=_number(said, "offset"),
        timestamp_ms=_number(said, "timestamp_ms"),
        reason=said.get("reason", ""),
        code=said.get("code", ""),
        error=said.get("error", ""),
        run=said.get("run", ""),
        version=said.get("version", ""),
        letter_partition=message.partition(),
        letter_offset=message.offset(),
        key=message.key(),
        value=message.value(),
    )
    return letter, Label.of(said)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _number(said: Mapping[str, str], name: str) -> int:
    try:
        return int(said.get(name, "-1"))
    except ValueError:
        return -1
