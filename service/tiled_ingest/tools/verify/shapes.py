"""What a document must be like before anything is made of it: the fields that `verify` reads, and their types.

Written by event-model's rules, apart from the service's check. A document that breaks them can only be a dead letter.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from tiled_ingest.tools.decoding import Document, Unreadable

_INT64_MAX = 2**63 - 1
_ROWS_MAX = 2**62
SeqNum = Annotated[int, msgspec.Meta(ge=-_INT64_MAX, le=_INT64_MAX)]
Texts = dict[str, Any]


class _Start(msgspec.Struct):
    uid: str
    time: float


class _Stop(_Start):
    run_start: str


class _Key(msgspec.Struct):
    """A data key; what of it is left out or null is nothing."""

    dtype: str
    shape: list[int | None] | None = None


class _Object(msgspec.Struct):
    data_keys: dict[str, _Key] = {}


class _Descriptor(_Stop):
    data_keys: dict[str, _Key]
    name: str | None = None
    configuration: dict[str, _Object] | None = None


class _Resource(msgspec.Struct):
    uid: str
    run_start: str | None = None


class _StreamDatum(msgspec.Struct):
    uid: str
    descriptor: str
    stream_resource: str
    indices: dict[str, float]


class _Datum(msgspec.Struct):
    datum_id: str
    resource: str
    datum_kwargs: Texts


class _DatumPage(msgspec.Struct):
    datum_id: list[str]
    resource: str
    datum_kwargs: dict[str, list[Any]]


class _BulkDatum(msgspec.Struct):
    datum_ids: list[str]
    resource: str
    datum_kwarg_list: list[Texts]


class _Event(msgspec.Struct):
    descriptor: str
    uid: str
    time: float
    seq_num: SeqNum
    data: Texts
    timestamps: Texts
    filled: Texts | None = None


_SHAPES: Mapping[str, Any] = {
    "start": _Start,
    "stop": _Stop,
    "descriptor": _Descriptor,
    "event": _Event,
    "bulk_events": dict[str, list[_Event]],
    "resource": _Resource,
    "stream_resource": _Resource,
    "stream_datum": _StreamDatum,
    "datum": _Datum,
    "datum_page": _DatumPage,
    "bulk_datum": _BulkDatum,
}


def require_shape(kind: str, document: Document) -> None:
    """Look at the fields that are read; a page of events is looked at row by row, when it is unpacked.

    Raises
    ------
    Unreadable
        One is missing, or of another type.
    """
    if kind not in _SHAPES:
        return
    try:
        msgspec.convert(document, _SHAPES[kind])
    except msgspec.ValidationError as error:
        raise Unreadable(f"violates its kind's schema ({error})") from error


def range_of(value: Any) -> tuple[int, int]:
    """Return a range of rows.

    Raises
    ------
    Unreadable
        It is none: not integers, negative, backwards.
    """
    start, stop = (whole(value.get(name)) if isinstance(value, Mapping) else None for name in ("start", "stop"))
    if start is None or stop is None or not 0 <= start <= stop < _ROWS_MAX:
        raise Unreadable("violates its kind's schema (a range is none)")
    return start, stop


def whole(value: Any) -> int | None:
    """Return an integer, whatever number it is written as; `None` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None
