"""What documents of external data do: resources and datums wait on the shelf, and what they mean goes into a plan.

A document whose effect is only here is settled: the resume point makes a successor read it again. A stream_datum, and
whichever comes last of an event and the datum that it names, is held until Tiled has the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Literal, cast

from event_model import unpack_datum_page

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Record
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.runs.stream import Stream

from .assets import Datum, Resource, Span, Use, span
from .key import External
from .shelf import REBUILD, Shelf, Wish

RESOURCES = frozenset({"resource", "stream_resource"})
DATUMS = frozenset({"datum", "datum_page", "bulk_datum"})
SHARED = RESOURCES | DATUMS  # old ones do not say to which run they belong


class Intake:
    """Takes documents of external data, for all runs of a partition.

    Parameters
    ----------
    hold
        Keeps an offset from being committed.
    runs
        The open runs, by uid.
    """

    def __init__(self, policy: Policy, *, hold: Callable[[int], Hold], runs: Mapping[str, Run]) -> None:
        self.shelf = Shelf(policy.datums_max)
        self.rebuilding = False
        self._policy = policy
        self._hold = hold
        self._runs = runs
        self._patch_datum = policy.patches.get("datum")

    # ------------------------------------------------------------ resources and datums

    def take(self, kind: str, doc: dict[str, Any], record: Record, now_s: float, owners: Iterable[str]) -> set[Run]:
        """Keep a resource or datums; returns the runs whose events had waited for them.

        Parameters
        ----------
        owners
            Uids of the open runs that may use it.
        """
        owners = set(owners) or {REBUILD}
        if kind in RESOURCES:
            resource = Resource(cast("Literal['resource', 'stream_resource']", kind), doc, record.offset)
            self.shelf.put_resource(resource, owners)
            return set()
        datums = [self._patched(datum) for datum in datums_of(kind, doc, record.offset)]
        for datum in datums:
            self.shelf.check_datum(datum)  # all before any is taken: a page counts whole, or not at all
        self.shelf.check_room(len(datums))
        granted: set[Run] = set()
        for datum in datums:
            if self.shelf.put_datum(datum, owners):
                granted.update(self._grant(datum, record, now_s))
        return granted

    def _patched(self, datum: Datum) -> Datum:
        """Return the datum as the site's patch wants it, which may look at the resource's spec."""
        resource = self.shelf.resource(datum.resource)
        if self._patch_datum is None or resource is None:
            return datum
        kwargs = datum.kwargs | {"_resource_spec": str(resource.doc.get("spec", "")).upper()}
        doc = self._patch_datum({"datum_id": datum.id, "resource": datum.resource, "datum_kwargs": kwargs})
        return Datum(doc["datum_id"], doc["resource"], doc["datum_kwargs"], datum.offset)

    def _grant(self, datum: Datum, record: Record, now_s: float) -> Iterator[Run]:
        for wish in self.shelf.granted(datum.id):
            run = self._runs.get(wish.run)
            if run is not None and run.takes_documents:
                self.shelf.use(datum.id)
                stream = run.streams[wish.stream]
                self._external(run, stream, wish.key).unmet -= 1
                self._add_reference(run, stream, wish, datum, record, now_s)
                yield run

    # ------------------------------------------------------------ events

    def refer(self, run: Run, stream: Stream, event: Event, record: Record, now_s: float) -> None:
        """Take what an accepted event says of external data: ids of datums, which may be here already."""
        for key in stream.external_keys:
            datum_id = event.data.get(key)
            if datum_id is None or event.filled.get(key):
                continue
            wish = Wish(run.uid, stream.name, key, event.descriptor, event.seq_num)
            datum = self.shelf.use(datum_id) if isinstance(datum_id, str) else None
            if datum is not None:
                self._add_reference(run, stream, wish, datum, record, now_s)
                continue
            self._external(run, stream, key).unmet += 1
            if isinstance(datum_id, str):
                self.shelf.wish(datum_id, wish)

    def _add_reference(self, run: Run, stream: Stream, wish: Wish, datum: Datum, record: Record, now_s: float) -> None:
        external = self._external(run, stream, wish.key)
        resource = self.shelf.resource(datum.resource)
        indices = external.indexer(datum.kwargs, wish.seq_num)
        if resource is None or indices is None or not external.has_room(indices, self._policy):
            external.unmet += 1
            return
        run.needs(datum.offset)
        run.resources.add(datum.resource)
        seq_nums = Span(indices.start + 1, indices.stop + 1)
        self._add(run, external, Use(resource, wish.descriptor, datum), (indices, seq_nums), record, now_s)
        if not self.rebuilding:
            external.note("datum", datum.offset)

    # ------------------------------------------------------------ stream_datums

    def stream_datum(self, run: Run, doc: dict[str, Any], record: Record, now_s: float) -> bool:
        """Add the rows of a stream_datum; `False` for a repetition.

        Raises
        ------
        InvalidDocument
            `orphan` (no such descriptor or resource), `unknown_data_key`, `schema`, `too_many_rows`.
        """
        stream = run.streams[run.acceptance.stream_of(doc["descriptor"])]
        resource = self.shelf.resource(doc["stream_resource"])
        if resource is None:
            raise InvalidDocument("orphan", f"no stream_resource {doc['stream_resource'][:64]!r} came before it")
        indices, seq_nums = span(doc["indices"]), span(doc["seq_nums"])
        if indices is None or seq_nums is None:
            raise InvalidDocument("schema", "stream_datum: a range is negative or runs backwards")
        external = self._external(run, stream, _key(resource, stream))
        if not external.has_room(indices, self._policy):
            limit = self._policy.external_rows_max
            raise InvalidDocument("too_many_rows", f"{external.key!r} would have more than {limit} rows")
        if not external.is_new(resource.uid, indices.start, doc["uid"]):
            return False
        self._add(run, external, Use(resource, doc["descriptor"]), (indices, seq_nums), record, now_s)
        if not self.rebuilding:
            external.note("stream_datum", record.offset)
        return True

    def repeats(self, run: Run, kind: str, doc: dict[str, Any], offset: int) -> bool:
        """Whether a document of external data, at `offset`, was taken for this run before; this takes nothing."""
        if kind in RESOURCES:
            kept = self.shelf.resource(doc["uid"])
            return kept is not None and kept.offset != offset
        if kind in DATUMS:
            return all(self.shelf.has_datum(datum.id) for datum in datums_of(kind, doc, 0))
        indices = span(doc["indices"]) if kind == "stream_datum" else None
        accepted = (doc["stream_resource"], indices.start, doc["uid"]) if indices else None
        return accepted is not None and any(external.has(*accepted) for external in run.externals.values())

    # ------------------------------------------------------------ both

    def _external(self, run: Run, stream: Stream, key: str) -> External:
        external = run.externals.get((stream.name, key))
        if external is None:
            external = External(stream.path, key, stream.data_keys[key])
            run.externals[stream.name, key] = external
        return external

    def _add(
        self, run: Run, external: External, use: Use, spans: tuple[Span, Span], record: Record, now_s: float
    ) -> None:
        run.needs(use.resource.offset)
        if not self.rebuilding and not external.waiting:
            external.begin(self._hold(record.offset), now_s, record.timestamp_ms)
        if external.plan.add(use, *spans) and not self.rebuilding:
            external.note(use.resource.kind, use.resource.offset)


def _key(resource: Resource, stream: Stream) -> str:
    """Return the stream's name for the data key that a stream_resource is about."""
    named = str(resource.doc.get("data_key", ""))
    key = stream.renames.get(named, named)
    if key not in stream.data_keys:
        raise InvalidDocument("unknown_data_key", f"stream {stream.name!r} has no data key {key[:64]!r}")
    return key


def datums_of(kind: str, doc: dict[str, Any], offset: int) -> list[Datum]:
    """Return the datums of a datum, of a page of them, or of the deprecated `bulk_datum`.

    Raises
    ------
    InvalidDocument
        `schema`: event-model's rules for pages do not look at what is in the lists.
    """
    pairs = list(_pairs(kind, doc))
    if not all(isinstance(datum_id, str) and isinstance(kwargs, dict) for datum_id, kwargs in pairs):
        raise InvalidDocument("schema", f"{kind}: a datum_id is no text, or its arguments are no mapping")
    return [Datum(datum_id, doc["resource"], kwargs, offset) for datum_id, kwargs in pairs]


def _pairs(kind: str, doc: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    if kind == "datum":
        yield doc["datum_id"], doc["datum_kwargs"]
    elif kind == "datum_page":
        if not all(isinstance(column, list) for column in doc["datum_kwargs"].values()):
            raise InvalidDocument("schema", "datum_page: a column is no list")
        yield from ((datum["datum_id"], datum["datum_kwargs"]) for datum in unpack_datum_page(doc))
    else:
        yield from zip_longest(doc["datum_ids"], doc["datum_kwarg_list"], fillvalue={})
