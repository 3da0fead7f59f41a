"""One dead letter, and what the headers of a message say of it.

Whoever may write to the topic writes headers: what makes no sense in them is told (`wrong`), and counts as not said.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tiled_ingest.core.record import Home
from tiled_ingest.kafka.parts import PREFIX, Label

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_NUMBERS_MAX = {"partition": 2**31 - 1, "offset": 2**63 - 1, "timestamp_ms": 253_402_300_799_999}  # the year 9999
_TOLD_CHARS = 60  # of a header that makes no sense


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
    wrong
        What its headers say that makes no sense; empty if all does.
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
    wrong: tuple[str, ...] = ()

    @property
    def position(self) -> tuple[str, int, int]:
        """Where the record stood: letters with the same are one, delivered again."""
        return self.topic, self.partition, self.offset

    @property
    def is_placed(self) -> bool:
        """Whether the headers say where the record stood."""
        return bool(self.topic) and self.partition >= 0 and self.offset >= 0

    @property
    def home(self) -> Home:
        """The partition of the record."""
        return Home(self.topic, self.partition)


def letter_of(message: Any) -> tuple[Letter, Label | None]:
    """Translate a message of the dead-letter topic, and say of which letter it is a part, if it is one.

    Headers that are missing or make no sense are left empty.
    """
    said = _Said(message.headers() or ())
    letter = Letter(
        topic=said.topic(),
        partition=said.number("partition"),
        offset=said.number("offset"),
        timestamp_ms=said.number("timestamp_ms"),
        reason=said.texts.get("reason", ""),
        code=said.texts.get("code", ""),
        error=said.texts.get("error", ""),
        run=said.texts.get("run", ""),
        version=said.texts.get("version", ""),
        letter_partition=message.partition(),
        letter_offset=message.offset(),
        key=message.key(),
        value=message.value(),
        wrong=tuple(said.wrong),
    )
    return letter, Label.of(said.texts)


class _Said:
    """The headers as texts, and what is wrong with them."""

    def __init__(self, headers: Iterable[tuple[str, bytes | None]]) -> None:
        self.texts: dict[str, str] = {}
        self.wrong: list[str] = []
        self.several: dict[str, str] = {}
        for whole, value in headers:
            name, text = whole.removeprefix(PREFIX), (value or b"").decode("utf-8", "backslashreplace")
            if name != whole and self.texts.setdefault(name, text) != text:
                self.several[name] = text
        for name, text in self.several.items():
            first, self.texts[name] = self.texts[name], ""
            self.wrong.append(f"{_told(name)} is said twice: {_told(first)}, {_told(text)}")

    def topic(self) -> str:
        return self._fitting("topic", _TOPIC)

    def number(self, name: str) -> int:
        text = self._fitting(name, _NUMBER)
        if text and int(text) <= _NUMBERS_MAX[name]:
            return int(text)
        if text:
            self.wrong.append(f"{name} is too large: {_told(text)}")
        return -1

    def _fitting(self, name: str, form: re.Pattern[str]) -> str:
        """Return a header that has this form; of what has not, say so."""
        text = self.texts.get(name)
        if text and form.fullmatch(text):
            return text
        if not text and name not in self.several:
            self.wrong.append(f"{name} is {'missing' if text is None else 'empty'}")
        elif text and (name, text) != ("timestamp_ms", "-1"):  # the broker did not say
            self.wrong.append(f"{name} makes no sense: {_told(text)}")
        return ""


def _told(text: str) -> str:
    return ascii(text[:_TOLD_CHARS]) + ("..." if len(text) > _TOLD_CHARS else "")
