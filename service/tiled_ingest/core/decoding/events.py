"""Events and pages of events as typed values, and which run a document belongs to."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.policy import Policy

from .revive import SCALARS, Reviver

_INT64_MAX = 2**63 - 1
SeqNum = Annotated[int, msgspec.Meta(ge=-_INT64_MAX, le=_INT64_MAX)]


class Event(msgspec.Struct, gc=False):
    """One row of a stream.

    Attributes
    ----------
    time
        Seconds since 1970.
    data, timestamps
        By data key. Values are plain Python values, lists, or numpy arrays in this machine's byte order.
        Timestamps are seconds since 1970; a document that broke that rule may hold something else.
    filled
        False for keys whose value is only the id of a datum; true (or that id) where the value was loaded
        since. Mostly empty.
    """

    descriptor: str
    uid: str
    time: float
    seq_num: SeqNum
    data: dict[str, Any]
    timestamps: dict[str, float]
    filled: dict[str, bool | str] = {}


class EventPage(msgspec.Struct, gc=False):
    """Rows of a stream as columns, all of one length."""

    descriptor: str
    uid: list[str]
    time: list[float]
    seq_num: list[SeqNum]
    data: dict[str, list[Any]]
    timestamps: dict[str, list[float]]
    filled: dict[str, list[bool | str]] = {}

    def __len__(self) -> int:
        return len(self.seq_num)

    def events(self) -> Iterator[Event]:
        """Yield the rows, in order."""
        for row, (uid, time, seq_num) in enumerate(zip(self.uid, self.time, self.seq_num, strict=True)):
            yield Event(
                self.descriptor,
                uid,
                time,
                seq_num,
                {key: column[row] for key, column in self.data.items()},
                {key: column[row] for key, column in self.timestamps.items()},
                {key: column[row] for key, column in self.filled.items()},
            )


@dataclass(frozen=True, slots=True)
class BulkEvents:
    """Events of any streams of a run, in one document of the deprecated kind `bulk_events`."""

    rows: tuple[Event, ...]


def rows_of(doc: Event | EventPage | BulkEvents) -> Iterable[Event]:
    """Return the events of a document, in order."""
    if isinstance(doc, Event):
        return (doc,)
    return doc.events() if isinstance(doc, EventPage) else doc.rows


class Reference(NamedTuple):
    """What a document says about where it belongs.

    Attributes
    ----------
    by
        What `uid` names: the run itself, the descriptor, or the resource through which the run is found.
    uid
        Empty where the document does not say (an old resource).
    own
        The document's own uid, by which others name it; empty for pages and bulk documents.
    """

    by: Literal["run", "descriptor", "resource"]
    uid: str
    own: str


def references(kind: str, doc: Mapping[str, Any] | Event | EventPage | BulkEvents) -> Reference:
    """Return which run, descriptor or resource the (decoded) document names."""
    if isinstance(doc, Event):
        return Reference("descriptor", doc.descriptor, doc.uid)
    if isinstance(doc, EventPage):
        return Reference("descriptor", doc.descriptor, "")
    if isinstance(doc, BulkEvents):
        return Reference("descriptor", doc.rows[0].descriptor if doc.rows else "", "")
    by, field = _NAMED_BY[kind]
    own = doc.get("datum_id" if kind == "datum" else "uid")
    return Reference(by, _str(doc.get(field)), _str(own))


_NAMED_BY: dict[str, tuple[Literal["run", "descriptor", "resource"], str]] = {
    "start": ("run", "uid"),
    "descriptor": ("run", "run_start"),
    "stop": ("run", "run_start"),
    "resource": ("run", "run_start"),
    "stream_resource": ("run", "run_start"),
    "stream_datum": ("descriptor", "descriptor"),
    "datum": ("resource", "resource"),
    "datum_page": ("resource", "resource"),
    "bulk_datum": ("resource", "resource"),
}


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def bulk_from(doc: Mapping[str, Any]) -> BulkEvents:
    """Return the events of the deprecated `bulk_events` (lists of events by stream name).

    Raises
    ------
    InvalidDocument
        `schema`.
    """
    lists = list(doc.values())
    if not all(isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows) for rows in lists):
        raise InvalidDocument("schema", "bulk_events: not lists of events")
    return BulkEvents(tuple(event_from(row) for rows in lists for row in rows))


def revived(event: Event, policy: Policy) -> Event:
    """Revive what msgpack-numpy encoded among the values of a freshly decoded event, in place.

    Most events hold numbers and text only: one look at their types must do.
    """
    if not SCALARS.issuperset(map(type, event.data.values())):
        event.data = Reviver(policy, plain=False)(event.data)
    return event


def event_from(doc: Mapping[str, Any]) -> Event:
    """Return the event that a revived mapping describes.

    Raises
    ------
    InvalidDocument
        `schema`. Timestamps of the wrong type are none: what has no place in a column is a matter of that
        column.
    """
    data, timestamps, filled = (_mapping(doc, name) for name in ("data", "timestamps", "filled"))
    head = _convert({name: doc.get(name) for name in ("descriptor", "uid", "time", "seq_num")}, _Head)
    return Event(head.descriptor, head.uid, head.time, head.seq_num, data, timestamps, _truth(filled))


class _Head(msgspec.Struct, gc=False):
    descriptor: str
    uid: str
    time: float
    seq_num: SeqNum


class _PageHead(msgspec.Struct, gc=False):
    descriptor: str
    uid: list[str]
    time: list[float]
    seq_num: list[SeqNum]


def page_from(doc: Mapping[str, Any] | EventPage, policy: Policy) -> EventPage:
    """Return the page with plain columns, all of one length.

    Raises
    ------
    InvalidDocument
        `schema` if lengths differ or a column is none.
    """
    page = doc if isinstance(doc, EventPage) else _loose_page(doc)
    page.data = {key: _revived_column(column, policy) for key, column in page.data.items()}
    columns: tuple[Sized, ...] = (
        page.uid,
        page.time,
        *page.data.values(),
        *page.timestamps.values(),
        *page.filled.values(),
    )
    if any(len(column) != len(page.seq_num) for column in columns):
        raise InvalidDocument("schema", "event_page: the columns differ in length")
    return page


def _loose_page(doc: Mapping[str, Any]) -> EventPage:
    names = ("descriptor", "uid", "time", "seq_num")
    head = _convert({name: _listed(doc.get(name)) for name in names}, _PageHead)
    data, timestamps, filled = (_columns(doc, name) for name in ("data", "timestamps", "filled"))
    filled = {key: [_truthful(flag) for flag in flags] for key, flags in filled.items()}
    return EventPage(head.descriptor, head.uid, head.time, head.seq_num, data, timestamps, filled)


def _columns(doc: Mapping[str, Any], name: str) -> dict[str, list[Any]]:
    columns = {key: _listed(column) for key, column in _mapping(doc, name).items()}
    if all(isinstance(column, list) for column in columns.values()):
        return columns
    raise InvalidDocument("schema", f"event_page: a column of {name} is no list")


def _listed(column: Any) -> Any:
    """Return an array as a list of its rows, which stay arrays where they have dimensions of their own."""
    if isinstance(column, np.ndarray):
        return column.tolist() if column.ndim == 1 else list(column)
    return column


def _revived_column(column: list[Any], policy: Policy) -> list[Any]:
    if SCALARS.issuperset(map(type, column)):
        return column
    revived_values: list[Any] = Reviver(policy, plain=False)(column)
    return revived_values


def _mapping(doc: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = doc.get(name)
    if value is None and name == "filled":
        return {}
    if not isinstance(value, dict):
        raise InvalidDocument("schema", f"{name} is missing or no mapping")
    return value


def _truth(filled: dict[str, Any]) -> dict[str, bool | str]:
    return {key: _truthful(flag) for key, flag in filled.items()}


def _truthful(flag: Any) -> bool | str:
    return flag if isinstance(flag, str) else bool(flag) if isinstance(flag, int) else False


def _convert(head: dict[str, Any], shape: type[Any]) -> Any:
    try:
        return msgspec.convert(head, shape)
    except msgspec.ValidationError as error:
        raise InvalidDocument("schema", f"event: {str(error)[:200]!a}") from error
