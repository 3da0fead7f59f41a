"""Dead letters that are larger than their topic takes: how they are cut into parts, and put together again.

A letter's *body* is its value; where the key, too, takes much of the room, it is the key and then the value, and the
parts have a digest of the key for theirs. Each part is a message with the letter's own headers, and these (all texts):

`tiled_ingest.part`, `.parts`    which part, from 1, and of how many
`tiled_ingest.set`               names one attempt to send the letter; another attempt has another name
`tiled_ingest.bytes`             of the value; -1 where it is absent
`tiled_ingest.key_bytes`         of the key, if it stands in the body; else there is no such header
`tiled_ingest.digest`            of the body: BLAKE2b, 16 bytes, hexadecimal
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

PREFIX = "tiled_ingest."
ROOM_BYTES_MIN = 512  # of a part's body: with less, there would be hardly anything but headers
_DIGEST_BYTES = 16
_NUMBER_MAX = 999_999_999  # the longest number of a part that is reckoned with
_BATCH_BYTES = 61  # what Kafka puts before the records of a batch
_RECORD_BYTES = 40  # lengths, times and the like of one record, at most
_HEADER_BYTES = 10  # the two lengths of one header, at most

Headers = Sequence[tuple[str, bytes]]


class Message(NamedTuple):
    """What is given to the producer."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def nbytes(self) -> int:
        """How many bytes it takes alone in a batch, uncompressed, at most: that is what a topic's limit counts."""
        said = sum(len(name.encode()) + len(text) + _HEADER_BYTES for name, text in self.headers)
        return _BATCH_BYTES + _RECORD_BYTES + len(self.key or b"") + len(self.value or b"") + said


@dataclass(frozen=True, slots=True)
class Label:
    """What the headers of a part say of it. With numbers that make no sense, `parts` is 0: it fits nothing."""

    number: int
    parts: int
    attempt: str
    value_bytes: int
    key_bytes: int
    digest: str

    @classmethod
    def of(cls, said: Mapping[str, str]) -> Self | None:
        """Read the headers, without their prefix; `None` for a letter that came whole."""
        if "part" not in said:
            return None
        try:
            number, parts = int(said["part"]), int(said["parts"])
            sizes = int(said["bytes"]), int(said.get("key_bytes", "-1"))
            read = cls(number, parts, said["set"], *sizes, said["digest"])
        except (KeyError, ValueError):
            return cls(0, 0, said.get("set", ""), -1, -1, "")
        return read if 1 <= number <= parts <= _NUMBER_MAX else cls(0, 0, read.attempt, -1, -1, "")

    @property
    def whole(self) -> tuple[object, ...]:
        """What all parts of one attempt have in common."""
        return self.parts, self.attempt, self.value_bytes, self.key_bytes, self.digest

    def headers(self) -> Headers:
        """Return the headers that say it."""
        texts = {
            "part": str(self.number),
            "parts": str(self.parts),
            "set": self.attempt,
            "bytes": str(self.value_bytes),
            "digest": self.digest,
        } | ({"key_bytes": str(self.key_bytes)} if self.key_bytes >= 0 else {})
        return [(PREFIX + name, text.encode()) for name, text in texts.items()]

    def joined(self, key: bytes | None, pieces: Sequence[bytes]) -> tuple[bytes | None, bytes | None] | None:
        """Return key and value of the letter, of all its pieces in order; `None` if they are not what was cut.

        Parameters
        ----------
        key
            Of the parts.
        """
        body = b"".join(pieces)
        if len(body) != max(self.key_bytes, 0) + max(self.value_bytes, 0) or _digest(body) != self.digest:
            return None
        if self.key_bytes >= 0:
            key, body = body[: self.key_bytes], body[self.key_bytes :]
        return key, None if self.value_bytes < 0 else body


class Cut:
    """A letter, cut into messages none of which takes more than `bytes_max`.

    Parameters
    ----------
    attempt
        A word that no other attempt has.

    Raises
    ------
    ValueError
        The headers leave no room: see `bytes_min`.
    """

    def __init__(self, letter: Message, bytes_max: int, attempt: str) -> None:
        self._headers = letter.headers
        self.key, self._body, key_bytes = letter.key, letter.value or b"", -1
        if letter.key is not None and self._is_heavy(letter, bytes_max):
            self.key, self._body, key_bytes = key_digest(letter.key), letter.key + self._body, len(letter.key)
        self._room = bytes_max - _overhead(self.key, letter.headers)
        if self._room < ROOM_BYTES_MIN:
            raise ValueError(f"messages of {bytes_max} bytes leave no room beside the headers")
        self.parts = max(1, -(-len(self._body) // self._room))
        value_bytes = -1 if letter.value is None else len(letter.value)
        self._label = 0, self.parts, attempt, value_bytes, key_bytes, _digest(self._body)

    @staticmethod
    def _is_heavy(letter: Message, bytes_max: int) -> bool:
        """Whether the key would take the room of the value."""
        light = len(letter.key or b"") <= 2 * _DIGEST_BYTES
        return not light and bytes_max - _overhead(letter.key, letter.headers) < max(bytes_max // 2, ROOM_BYTES_MIN)

    def part(self, index: int) -> Message:
        """Return a part; `index` counts from 0."""
        label = Label(index + 1, *self._label[1:])
        value = self._body[index * self._room : (index + 1) * self._room]
        return Message(self.key, value, [*self._headers, *label.headers()])


def bytes_min(letter: Message) -> int:
    """Return how many bytes a message must be allowed to have, that the letter may be sent in parts."""
    key = letter.key if len(letter.key or b"") <= 2 * _DIGEST_BYTES else key_digest(letter.key or b"")
    return _overhead(key, letter.headers) + ROOM_BYTES_MIN


def key_digest(key: bytes) -> bytes:
    """Return what parts have for their key where the letter's own takes too much: the same for the same key."""
    return hashlib.blake2b(key, digest_size=_DIGEST_BYTES).digest()


def _overhead(key: bytes | None, headers: Headers) -> int:
    longest = Label(_NUMBER_MAX, _NUMBER_MAX, "0" * 32, _NUMBER_MAX, _NUMBER_MAX, "0" * 2 * _DIGEST_BYTES)
    return Message(key, None, [*headers, *longest.headers()]).nbytes


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
