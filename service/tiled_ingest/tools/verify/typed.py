"""The quick way for most events: a decoder that knows the keys and types of one descriptor's events.

Whatever does not fit it exactly (another key, a null, an array, a filled datum) is `None` here and takes the general
way, which gives the same rows.
"""

from operator import attrgetter
from typing import Any, Literal

import msgspec
import pyarrow as pa

from .shapes import SeqNum

_TYPES: dict[str, tuple[type, pa.DataType]] = {
    "number": (float, pa.float64()),
    "integer": (int, pa.int64()),
    "string": (str, pa.string()),
    "boolean": (bool, pa.bool_()),
}
STAMP = "\0ts_"  # begins the names of columns of time stamps here: `ts_x` may be a data key's own
# Where msgpack has the uid of an event's descriptor, if that is as long as uuid4 makes it.
MARK = b"\xaadescriptor\xd9\x24"
UID_AT, UID_END = len(MARK), len(MARK) + 36
_FAILURES_MAX = 1_000  # events that did not fit, before the descriptor is not believed any more


class TypedEvents:
    """Decodes the events of one descriptor, all keys of which are scalars inside the document."""

    def __init__(self, uid: str, data_keys: dict[str, Any]) -> None:
        self.keys = tuple(data_keys)
        self._uid = uid
        self._types = [_TYPES[spec["dtype"]] for spec in data_keys.values()]
        self._get = [attrgetter(f"k{number}") for number in range(len(self.keys))]
        self._failures = 0
        self._decode = msgspec.msgpack.Decoder(tuple[Literal["event"], self._event()]).decode  # type: ignore[misc]

    @classmethod
    def of(cls, descriptor: dict[str, Any]) -> "TypedEvents | None":
        """Make a decoder; `None` where the descriptor has other keys than scalars."""
        data_keys = descriptor["data_keys"]
        plain = all(spec.get("dtype") in _TYPES and "external" not in spec for spec in data_keys.values())
        return cls(descriptor["uid"], data_keys) if plain and data_keys else None

    def _event(self) -> Any:
        names = {f"k{number}": key for number, key in enumerate(self.keys)}
        exactly: dict[str, Any] = {"rename": names, "forbid_unknown_fields": True, "gc": False}
        data = msgspec.defstruct(
            "Data", [(name, kind[0]) for name, kind in zip(names, self._types, strict=True)], **exactly
        )
        stamps = msgspec.defstruct("Stamps", [(name, float) for name in names], **exactly)
        fields = [("descriptor", str), ("uid", str), ("time", float), ("seq_num", SeqNum), ("data", data)]
        return msgspec.defstruct(
            "Event",
            [*fields, ("timestamps", stamps), ("filled", dict[str, bool], msgspec.field(default_factory=dict))],
            gc=False,
        )

    def decode(self, value: bytes) -> Any:
        """Return the event; `None` if it is another one than it seemed, or does not fit."""
        if self._failures > _FAILURES_MAX:
            return None
        try:
            event = self._decode(value)[1]
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._failures += 1
            return None
        fits = event.descriptor == self._uid and not (event.filled and not all(event.filled.values()))
        return event if fits else None

    def columns(self, events: list[Any]) -> "dict[str, pa.Array[Any]]":
        """Return the events' values and timestamps by column name.

        Raises
        ------
        ArrowInvalid, OverflowError
            An integer beyond 64 bits.
        """
        data, stamps = [event.data for event in events], [event.timestamps for event in events]
        found = {
            key: pa.array(map(get, data), kind[1], size=len(data))
            for key, kind, get in zip(self.keys, self._types, self._get, strict=True)
        }
        for key, get in zip(self.keys, self._get, strict=True):
            found[STAMP + key] = pa.array(map(get, stamps), pa.float64(), size=len(stamps))
        return found

    def plain(self, event: Any) -> dict[str, Any]:
        """Return the event as a document."""
        data, stamps = event.data, event.timestamps
        return {
            "descriptor": event.descriptor,
            "uid": event.uid,
            "seq_num": event.seq_num,
            "time": event.time,
            "data": {key: get(data) for key, get in zip(self.keys, self._get, strict=True)},
            "timestamps": {key: get(stamps) for key, get in zip(self.keys, self._get, strict=True)},
            "filled": {},
        }
