"""How an event is laid out in its message: what lets thousands of messages be read as one matrix of bytes.

The messages of a stream's events are the same bytes again and again: names, types and lengths stand where they stood,
and only values differ. A `Layout` is learned from one message that `decode` has read. Any message that agrees with it
in all bytes but those of values is an event again, with the same keys, and values of the same types at the same places:
what `decode` would make of it is known without decoding it. One comparison finds the messages that do, in blocks.

What is rare has no layout and goes the general way: nested values, text beyond ASCII, extensions, large messages.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from .events import Event

Words = npt.NDArray[np.uint64]
MESSAGE_BYTES_MAX = 65_536  # longer ones hold arrays that deserve a look of their own
_WORD = 8  # bytes; messages are compared in words, the last of which is filled with zeros
_FIELDS = frozenset(Event.__struct_fields__)

_envelope = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_mapping = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.msgpack.Decoder()


class UnfitError(Exception):
    """The message has no layout."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a value stands in every message of a layout.

    Attributes
    ----------
    kind
        `array` is msgpack-numpy's, of one dimension; `none` is always `None`.
    at, width
        Its bytes.
    dtype
        How the message spells a number, or the elements of an array: numpy's name for it.
    fixed
        Bits of its first byte that are the same in all messages: they make it one of this kind.
    """

    kind: Literal["float", "int", "bool", "text", "array", "none"]
    at: int = 0
    width: int = 0
    dtype: str = "|u1"
    fixed: int = 0

    @property
    def bits(self) -> bytes:
        """The bits that are the same in all messages."""
        if self.kind == "text":
            return b"\x80" * self.width  # ASCII
        return bytes([self.fixed]).ljust(self.width, b"\0")[: self.width]


@dataclass(frozen=True, eq=False)
class Layout:
    """What all messages of one layout have in common.

    A message has the layout if it is as long, and `(message ^ base) & mask` is zero in every byte.

    Attributes
    ----------
    length
        Of a message, in bytes.
    base, mask
        As words.
    descriptor, uid, time, seq_num
        Where the event's own fields stand.
    data, timestamps
        Where the values stand, by data key, in order.
    filled
        The same in all messages.
    """

    length: int
    base: Words
    mask: Words
    descriptor: Slot
    uid: Slot
    time: Slot
    seq_num: Slot
    data: Mapping[str, Slot]
    timestamps: Mapping[str, Slot]
    filled: Mapping[str, bool | str] = field(default_factory=dict)

    @classmethod
    def of(cls, message: bytes, event: Event) -> "Layout":
        """Learn the layout of a message that `decode` has read as `event`.

        Raises
        ------
        UnfitError
            It has none.
        """
        if len(message) > MESSAGE_BYTES_MAX:
            raise UnfitError
        try:
            return _learned(message, event)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # in fields that `decode` does not look at
            raise UnfitError from error

    def fits(self, words: Words) -> npt.NDArray[np.bool_]:
        """Return which messages, of its length and as `joined` returns them, have the layout; shape (messages,)."""
        differing = words ^ self.base
        differing &= self.mask
        fits: npt.NDArray[np.bool_] = np.bitwise_or.reduce(differing, axis=1) == 0
        return fits


def joined(messages: Sequence[bytes]) -> Words:
    """Return messages of one length as words, shape (messages, words)."""
    filler = bytes(-len(messages[0]) % _WORD)
    return np.frombuffer(filler.join((*messages, b"")), np.uint64).reshape(len(messages), -1)


# ---------------------------------------------------------------- learning


def _learned(message: bytes, event: Event) -> Layout:
    _, body = _envelope.decode(message)
    mask = bytearray(b"\xff" * len(message))
    places = dict(_places(bytes(body), 1 + _head_bytes("event")))
    _expect(_FIELDS - {"filled"} <= places.keys() <= _FIELDS)
    found: dict[str, Any] = {"filled": dict(event.filled)}
    for name in places.keys() - {"filled"}:
        at, raw = places[name]
        found[name] = _slots(name, at, raw, event) if name in _BY_KEY else _slot(at, raw, None)
    _expect(all(found[name].kind == kind for name, kind in _HEADS.items()))
    _expect(all(slot.kind == "float" for slot in found["timestamps"].values()))
    for slot in (*(found[name] for name in _HEADS), *found["data"].values(), *found["timestamps"].values()):
        mask[slot.at : slot.at + slot.width] = slot.bits
    words, bits = joined([message])[0], joined([bytes(mask)])[0]
    return Layout(len(message), words & bits, bits, **found)


_HEADS = {"descriptor": "text", "uid": "text", "time": "float", "seq_num": "int"}
_BY_KEY = frozenset({"data", "timestamps"})


def _slots(name: str, at: int, raw: bytes, event: Event) -> dict[str, Slot]:
    values = event.data if name == "data" else event.timestamps
    return {key: _slot(*place, values[key]) for key, place in _places(raw, at)}


def _places(mapping: bytes, at: int) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield the keys of an encoded mapping that stands at `at`, and for each where its value stands, and its bytes.

    A mapping that repeats a key, or spells a length in more bytes than it takes, is not where it should be in the end.
    """
    fields, end = _mapping.decode(mapping), at + len(mapping)
    at += 1 if len(fields) < 16 else 3
    for key, value in fields.items():
        at += _head_bytes(key)
        raw = bytes(value)
        yield key, (at, raw)
        at += len(raw)
    _expect(at == end)


def _head_bytes(text: str) -> int:
    """Return how many bytes a text takes, with the head that tells its length."""
    size = len(text.encode())
    return size + (1 if size < 32 else 2 if size < 256 else 3)


def _slot(at: int, raw: bytes, value: Any) -> Slot:
    """Return the slot of a value, which is at `at`, spelled as `raw`."""
    tag = raw[0]
    if tag == 0xC0:
        return Slot("none")
    if tag in {0xC2, 0xC3}:
        return Slot("bool", at, 1, fixed=0xFE)
    if tag < 0x80 or tag >= 0xE0:
        return Slot("int", at, 1, "|u1", fixed=0x80) if tag < 0x80 else Slot("int", at, 1, "|i1", fixed=0xE0)
    if tag in _NUMBERS:
        fixed = 0x80 if tag == 0xCF else 0  # beyond 63 bits it is rare
        _expect(not raw[1] & fixed)
        return Slot("float" if tag == 0xCB else "int", at + 1, len(raw) - 1, _NUMBERS[tag], fixed)
    if 0xA0 <= tag <= 0xBF or tag in {0xD9, 0xDA}:
        text = raw[1 if tag <= 0xBF else tag - 0xD7 :]
        _expect(text.isascii())
        return Slot("text", at + len(raw) - len(text), len(text))
    return _numpy(at, raw, value)


_NUMBERS = {0xCB: ">f8", 0xCC: "|u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: "|i1", 0xD1: ">i2", 0xD2: ">i4",
            0xD3: ">i8"}  # fmt: skip


def _numpy(at: int, raw: bytes, value: Any) -> Slot:
    """Return the slot of what msgpack-numpy made of an array, or of a number: its type and shape stay the same."""
    _expect(raw[0] >> 4 == 0x8)
    encoded = _anything.decode(raw)
    _expect(list(encoded)[-1:] == [b"data"] and b"nd" in encoded)
    data, described = encoded[b"data"], encoded[b"type"]
    _expect(isinstance(data, bytes) and len(data) > 0 and isinstance(described, str))
    dtype = np.dtype(described)
    _expect(dtype.kind in "iuf" and dtype.itemsize <= _WORD)
    is_array = isinstance(value, np.ndarray)
    _expect(value.ndim == 1 if is_array else type(value) in {int, float} and dtype != np.uint64)
    kind: Any = "array" if is_array else "float" if dtype.kind == "f" else "int"
    return Slot(kind, at + len(raw) - len(data), len(data), dtype.str)


def _expect(fits: bool) -> None:
    if not fits:
        raise UnfitError
