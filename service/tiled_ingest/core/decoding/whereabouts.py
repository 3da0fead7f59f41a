"""Where a document that is refused says it belongs: a label for its letter, and a note in the run that misses it."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from tiled_ingest.core.record import Handed, Record

from .events import Reference


class _Names(msgspec.Struct):
    """What a document may say of itself; nothing else of it is built."""

    descriptor: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    run_start: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    uid: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelope = msgspec.msgpack.Decoder(tuple[str, _Names])
_text = msgspec.msgpack.Decoder(str)
_ASKED = ("descriptor", "run_start", "uid")
_BY: dict[str, Literal["run", "descriptor"]] = {"descriptor": "descriptor", "run_start": "run"}


def whereabouts(record: Record) -> Reference | None:
    """Return which descriptor or run a record names, whatever else is wrong with it; `None` if it names none."""
    names = _handed(record.doc) if isinstance(record, Handed) else _names(record.value or b"")
    own = names.get("uid", "")
    return next((Reference(by, uid, own) for name, by in _BY.items() if (uid := names.get(name))), None)


def _handed(doc: Any) -> dict[str, str]:
    said = doc if isinstance(doc, Mapping) else {}
    return {name: uid for name in _ASKED if isinstance(uid := said.get(name), str)}


def _names(value: bytes) -> dict[str, str]:
    try:
        _, said = _envelope.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: uid for name in _ASKED if (uid := _as_text(getattr(said, name)))}


def _as_text(raw: msgspec.Raw | msgspec.UnsetType) -> str:
    try:
        return _text.decode(raw) if isinstance(raw, msgspec.Raw) else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
