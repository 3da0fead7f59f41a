"""From a record's bytes to a document: the one place where foreign bytes are read.

No message can run code here, name a file, or cost more than the policy allows. An event takes a typed path of
about 2 us; whatever does not fit it goes a general path, slower and with the same result.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from event_model import DocumentNames

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Handed, Record

from .events import BulkEvents, Event, EventPage, bulk_from, event_from, page_from, revived, rows_of
from .revive import Reviver
from .schemas import Schemas
from .weigh import count_elements

Body = dict[str, Any] | Event | EventPage | BulkEvents
Document = tuple[str, Body]
KINDS = frozenset(name.value for name in DocumentNames)

_envelope = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_event = msgspec.msgpack.Decoder(Event)
_page = msgspec.msgpack.Decoder(EventPage)
_anything = msgspec.msgpack.Decoder()


class Decoder:
    """Turns records into documents, within the policy's limits.

    Raises
    ------
    InvalidDocument
        With one of the codes `tombstone`, `too_large`, `too_many_elements`, `too_nested`, `undecodable`,
        `unknown_kind`, `object_array`, `bad_array`, `schema`. Nothing else, for any bytes.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._schemas = Schemas()

    def __call__(self, record: Record) -> Document:
        """Return the kind, and the document: `Event`, `EventPage`, or a plain dict for the other kinds."""
        if isinstance(record, Handed):
            return self.admit(record.kind, record.doc)
        return self.read(record.value)

    def read(self, value: bytes | None) -> Document:
        """Do the same for a record's value alone."""
        value = self._weighed(value)
        try:
            return self._decoded(value)
        except msgspec.DecodeError as error:
            raise InvalidDocument("undecodable", "no msgpack of a name and a document") from error
        except UnicodeDecodeError as error:
            raise InvalidDocument("undecodable", "text that is no UTF-8") from error
        except RecursionError as error:
            raise InvalidDocument("too_nested", "nested too deeply to be read") from error

    def admit(self, kind: str, doc: Mapping[str, Any]) -> Document:
        """Return a document that never was bytes (in-process writing): the same checks, the same result."""
        _refuse_unknown(kind)
        try:
            return kind, self._general(kind, doc)
        except RecursionError as error:
            raise InvalidDocument("too_nested", "nested too deeply to be read") from error

    def _weighed(self, value: bytes | None) -> bytes:
        """Refuse, before anything is built from it, what would cost too much."""
        if not value:
            raise InvalidDocument("tombstone", "no value")
        if len(value) > self._policy.message_bytes_max:
            raise InvalidDocument("too_large", f"{len(value)} bytes")
        # An element takes at least a byte, so short messages need no count. One byte can become 64 in memory.
        if len(value) > self._policy.elements_max:
            count_elements(value, self._policy.elements_max)
        return value

    def _decoded(self, value: bytes) -> Document:
        # `Raw` only walks over the document; afterwards every declared length is known to be backed by bytes.
        kind, raw = _envelope.decode(value)
        try:
            if kind == "event" and kind not in self._policy.patches:
                return kind, revived(_event.decode(raw), self._policy)
            if kind == "event_page" and "event" not in self._policy.patches:
                return kind, page_from(_page.decode(raw), self._policy)
        except msgspec.ValidationError:
            pass  # not the usual types: the general path knows better
        _refuse_unknown(kind)
        return kind, self._general(kind, _anything.decode(raw))

    def _general(self, kind: str, doc: Any) -> Body:
        rows = kind in {"event", "event_page", "bulk_events"}
        revived_doc = Reviver(self._policy, plain=not rows)(doc) if isinstance(doc, Mapping) else doc
        if not isinstance(revived_doc, dict):  # a mapping may be the encoding of an array
            raise InvalidDocument("undecodable", "the document is no mapping")
        plain: dict[str, Any] = revived_doc
        if rows:
            return self._events(kind, plain)
        if kind != "datum":  # its patch may look at the resource, which is not known here
            plain = self._patched(kind, plain)
        self._schemas.check(kind, plain)
        return plain

    def _events(self, kind: str, doc: dict[str, Any]) -> Event | EventPage | BulkEvents:
        """Return events; where a site patches them, one by one, whatever brought them."""
        if kind == "event":
            return event_from(self._patched(kind, doc))
        many = page_from(doc, self._policy) if kind == "event_page" else bulk_from(doc)
        if "event" not in self._policy.patches:
            return many
        patched = (self._patched("event", msgspec.structs.asdict(event)) for event in rows_of(many))
        return BulkEvents(tuple(map(event_from, patched)))

    def _patched(self, kind: str, doc: dict[str, Any]) -> dict[str, Any]:
        patch = self._policy.patches.get(kind)
        return doc if patch is None else patch(doc)


def kind_of(record: Record) -> str:
    """Return the kind that a record claims to be, one of event-model's names, else `unknown`: a label, no proof."""
    try:
        kind, _ = _envelope.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "unknown"
    return kind if kind in KINDS else "unknown"


def _refuse_unknown(kind: str) -> None:
    if kind not in KINDS:
        raise InvalidDocument("unknown_kind", f"{kind[:64]!r} is no kind of document")
