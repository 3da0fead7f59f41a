"""Events as rows, whichever kind of document they came in."""

from typing import Any

import numpy as np

from tiled_ingest.tools.decoding import Document, Unreadable

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
        return [_checked(row) for row in _unpacked(document)]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise Unreadable(f"{kind}: {type(error).__name__}") from error


def _unpacked(page: Document) -> list[Document]:
    uids = list(page["uid"])
    tables = {name: {key: _column(column) for key, column in (page.get(name) or {}).items()} for name in _BY_KEY}
    columns = [column for table in tables.values() for column in table.values()]
    if any(len(column) != len(uids) for column in (page["time"], page["seq_num"], *columns)):
        raise ValueError("the columns differ in length")
    return [
        {
            "descriptor": page["descriptor"],
            "uid": uid,
            "time": page["time"][row],
            "seq_num": page["seq_num"][row],
            **{name: {key: column[row] for key, column in table.items()} for name, table in tables.items()},
        }
        for row, uid in enumerate(uids)
    ]


def _column(column: Any) -> Any:
    return column.tolist() if isinstance(column, np.ndarray) and column.ndim == 1 else column


def _checked(event: Document) -> Document:
    if not isinstance(event["uid"], str) or not isinstance(event["descriptor"], str):
        raise TypeError("uid")
    seq_num, time, data, stamps = event["seq_num"], event["time"], event["data"], event["timestamps"]
    return {
        "descriptor": event["descriptor"],
        "uid": event["uid"],
        "seq_num": int(seq_num),
        "time": float(time),
        "data": dict(data),
        "timestamps": dict(stamps),
        "filled": dict(event.get("filled") or {}),
    }
