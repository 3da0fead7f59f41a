"""Events as rows, whichever kind of document they came in."""

from typing import Any

import msgspec
import numpy as np

from tiled_ingest.tools.decoding import Document, Unreadable

from .shapes import require_shape

_NAMES = ("run_start", "descriptor", "stream_resource", "resource", "uid")
_envelope = msgspec.msgpack.Decoder(tuple[str, dict[str, msgspec.Raw]])
_text = msgspec.msgpack.Decoder(str)
_BY_KEY = ("data", "timestamps", "filled")


def rows_of(kind: str, document: Document) -> list[Document]:
    """Return the events that an `event`, an `event_page` or a `bulk_events` document holds, in order.

    Raises
    ------
    Unreadable
        A field that every event has is missing or of another type, or the columns of a page differ in length.
    """
    try:
        if kind == "event":
            return [_checked(document)]
        if kind == "bulk_events":
            return [_checked(row) for rows in document.values() for row in rows]
        return list(map(_checked, _unpacked(document)))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise Unreadable(f"{kind}: {type(error).__name__}") from error


def _unpacked(page: Document) -> list[Document]:
    uids, times, numbers = (_column(page[name]) for name in ("uid", "time", "seq_num"))
    tables = {name: {key: _column(column) for key, column in (page.get(name) or {}).items()} for name in _BY_KEY}
    columns = [column for table in tables.values() for column in table.values()]
    if any(len(column) != len(uids) for column in (times, numbers, *columns)):
        raise ValueError("the columns differ in length")
    return [
        {
            "descriptor": page["descriptor"],
            "uid": uid,
            "time": times[row],
            "seq_num": numbers[row],
            **{name: {key: column[row] for key, column in table.items()} for name, table in tables.items()},
        }
        for row, uid in enumerate(uids)
    ]


def _column(column: Any) -> list[Any]:
    if isinstance(column, np.ndarray):
        return column.tolist() if column.ndim == 1 else list(column)
    if not isinstance(column, list):
        raise TypeError("column")
    return column


def _checked(event: Document) -> Document:
    require_shape("event", event)
    return {
        "descriptor": event["descriptor"],
        "uid": event["uid"],
        "seq_num": event["seq_num"],
        "time": float(event["time"]),
        "data": dict(event["data"]),
        "timestamps": dict(event["timestamps"]),
        "filled": {key: _truth(flag) for key, flag in (event.get("filled") or {}).items()},
    }


def _truth(flag: Any) -> bool:
    return isinstance(flag, str | int) and bool(flag)


def names_in(value: bytes) -> dict[str, str]:
    """Return what a document, unreadable otherwise, says of whose it is: `run_start`, `descriptor`, `resource`."""
    try:
        kind, said = _envelope.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    found = {name: text for name in _NAMES if name in said and (text := _as_text(said[name]))}
    uid, resource = found.pop("uid", ""), found.pop("stream_resource", "")
    more = {"run_start": uid} if kind == "start" else {"resource": resource} if resource else {}
    return found | more


def _as_text(raw: msgspec.Raw) -> str:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
