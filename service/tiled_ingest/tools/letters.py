"""The dead-letter topic, read without a group: each letter with what its headers say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tiled_ingest.core.record import Home
from tiled_ingest.kafka.topics import Topics
from tiled_ingest.settings import Kafka, revealed
from tiled_ingest.tools.log import messages

PREFIX = "tiled_ingest."
ANSWER_S_MAX = 30.0


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
        Where the letter stands in the dead-letter topic.
    key, value
        The record's, as they were.
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

    @property
    def position(self) -> tuple[str, int, int]:
        """Where the record stood: letters with the same are one, delivered again."""
        return self.topic, self.partition, self.offset

    @property
    def home(self) -> Home:
        """The partition of the record."""
        return Home(self.topic, self.partition)


def read_letters(kafka: Kafka) -> Iterator[Letter]:
    """Yield all letters that the topic holds now, partition by partition, in order; none if there is no such topic.

    Raises
    ------
    IngestError
        Kafka cannot be read.
    """
    topics = Topics(kafka.bootstrap_servers, revealed(kafka.properties), ANSWER_S_MAX)
    if not topics.exists(kafka.dead_letter_topic):
        return
    homes = topics.homes([kafka.dead_letter_topic])
    lows, highs = topics.lows(homes), topics.highs(homes)
    for home in homes:
        for found in messages(kafka, home, lows[home], highs[home]):
            yield from map(letter_of, found)


def letter_of(message: Any) -> Letter:
    """Translate a message of the dead-letter topic; headers that are missing or make no sense are left empty."""
    said = {name.removeprefix(PREFIX): _text(value) for name, value in message.headers() or ()}
    return Letter(
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


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _number(said: Mapping[str, str], name: str) -> int:
    try:
        return int(said.get(name, "-1"))
    except ValueError:
        return -1
