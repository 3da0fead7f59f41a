"""What one partition of the topic says: its runs, their streams and rows, by the documents' own meaning.

Documents are taken in the order of the log. Every one of them must end as part of a run, as the repetition of another,
or as a dead letter; what is none of these is *unaccounted for*.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tiled_ingest.tools.decoding import Document, Unreadable, opened

from .documents import names_in, rows_of
from .files import Files, data_of, resolved
from .metadata import plain
from .rows import Rows
from .shapes import range_of, require_shape
from .typed import MARK, UID_AT, UID_END, TypedEvents

Lane = tuple[Callable[[bytes], Any], Callable[[Any], None], Rows]  # decodes an event; takes it; for whom

HELD_BYTES_MAX = 512_000_000  # rows of ended runs that wait to be compared; open runs are held besides
HELD_RUNS_MAX = 500

WRITTEN, LETTER, VALUE_LETTER = 0, 1, 2  # how far a document must be in Tiled: wholly, not at all, but for a value
VALUE_MISFIT = "value_misfit"  # the code of a dead letter the rest of which is in Tiled


@dataclass
class Stream:
    """One stream: its descriptors, rows, and files."""

    name: str
    descriptors: list[Document] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)  # uids of those that are dead letters
    spared: set[str] = field(default_factory=set)  # keys of which a stream_datum is a dead letter
    rows: Rows = field(default_factory=Rows)
    files: dict[str, dict[str, Files]] = field(default_factory=dict)  # by key and resource, that have rows
    references: dict[tuple[str, str, str], int] = field(default_factory=dict)  # (key, datum, event): seq_num

    @property
    def optional(self) -> bool:
        """Whether all its descriptors are dead letters."""
        return len(self.descriptors) == len(self.refused)

    @property
    def data_keys(self) -> dict[str, Any]:
        """All keys that any descriptor describes; the first description counts."""
        described: dict[str, Any] = {}
        for descriptor in self.descriptors:
            described = {**descriptor["data_keys"], **described}
        return described


@dataclass
class Run:
    """One run.

    Attributes
    ----------
    optional
        Its start is a dead letter.
    compared
        Its rows were compared and let go; what still comes of it can only be a repetition.
    """

    uid: str
    start: Document
    first_offset: int
    optional: bool
    stop: Document | None = None
    stop_optional: bool = False
    streams: dict[str, Stream] = field(default_factory=dict)
    letters: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    documents: int = 0  # that must be in Tiled, but for those that came the quick way
    late: int = 0
    compared: bool = False
    known: dict[str, Any] = field(default_factory=dict)  # by stream: marks of the rows, after it was compared

    @property
    def written(self) -> int:
        """How many of its documents must be in Tiled."""
        return self.documents + sum(
            stream.rows.quick_count + len(stream.rows.quick) for stream in self.streams.values()
        )

    @property
    def nbytes(self) -> int:
        """About how much memory its rows take."""
        return sum(stream.rows.nbytes for stream in self.streams.values())

    def release(self) -> None:
        """Let its rows go, remembering only which events there were."""
        for stream in self.streams.values():
            self.known[stream.name] = stream.rows.marks
            stream.rows = Rows(stream.rows.external)
            stream.files, stream.references = {}, {}
        self.compared = True


class Partition:
    """The runs of one partition's documents.

    Parameters
    ----------
    only
        The runs that matter; all if empty.
    whole
        The log is read from its very first offset: then every document has its run in it.
    """

    def __init__(self, only: frozenset[str], *, whole: bool) -> None:
        self.runs: dict[str, Run] = {}
        self.stopped: OrderedDict[str, Run] = OrderedDict()  # wait to be compared
        self.stopped_bytes = 0
        self.cut: Counter[tuple[str, str]] = Counter()  # of runs that began before the range, by what is named
        self.unaccounted: list[tuple[int, str]] = []
        self.letters: Counter[str] = Counter()
        self.events = 0
        self.nameless = 0  # unreadable, and of an unknown run, where only some runs matter
        self._only = only
        self._whole = whole
        self._streams: dict[str, tuple[Run, Stream]] = {}  # by descriptor
        self._lanes: dict[bytes, Lane] = {}  # by descriptor
        self._resources: dict[str, Document] = {}
        self._stream_data: set[str] = set()  # uids of stream_datums
        self._data: dict[str, tuple[str, Any]] = {}  # resource and kwargs of datums, by id
        self._refused: set[str] = set()  # resources and datums that are dead letters

    def take_all(self, messages: Sequence[Any], letters: Container[int], code_of: Callable[[Any], str | None]) -> None:
        """Take messages in their order.

        Parameters
        ----------
        letters
            Offsets of which there are dead letters.
        code_of
            The code of the dead letter of a message, if it has one.
        """
        lanes, slow, any_letters = self._lanes, 0, bool(letters)
        for message in messages:
            value = message.value()
            named = not (any_letters and message.offset() in letters)
            if named and value is not None:
                at = value.find(MARK)
                lane = lanes.get(value[at + UID_AT : at + UID_END])
                if lane is not None and (event := lane[0](value)) is not None:
                    lane[1](event)
                    continue
            slow += 1
            self.take(message.offset(), value, None if named else code_of(message))
        self.events += len(messages) - slow
        for _, _, rows in lanes.values():
            rows.flush_quick()

    def take(self, offset: int, value: bytes | None, code: str | None) -> None:
        """Take one record; `code` is that of its dead letter, if there is one."""
        if code is not None:
            self.letters[code] += 1
        flag = WRITTEN if code is None else VALUE_LETTER if code == VALUE_MISFIT else LETTER
        try:
            kind, document = opened(value)
            require_shape(kind, document)
            self._take(offset, kind, document, flag, code or "")
        except Unreadable as error:
            self._spoiled(offset, value, flag, code, f"no document: {error}")

    def _spoiled(self, offset: int, value: bytes | None, flag: int, code: str | None, why: str) -> None:
        """Note a document that nothing can be made of: it must be a dead letter, of the run that it names."""
        uid = self._named(value)
        if code and uid in self.runs:
            self.runs[uid].letters[code] += 1
        self.nameless += bool(self._only) and not uid and flag != LETTER
        self._miss(offset, flag, why, uid)

    def _named(self, value: bytes | None) -> str:
        """Return the uid of the run that a document names, directly or through another one; empty if it does not."""
        names = names_in(value or b"")
        if "descriptor" in names and (found := self._streams.get(names["descriptor"])):
            return found[0].uid
        resource = self._resources.get(names.get("resource", "")) or {}
        return names.get("run_start") or resource.get("run_start") or ""

    def _miss(self, offset: int, flag: int, why: str, uid: str) -> None:
        if flag != LETTER and self._matters(uid):
            self.unaccounted.append((offset, why))

    def _take(self, offset: int, kind: str, document: Document, flag: int, code: str) -> None:
        run = _TAKE[kind](self, offset, document, flag, kind)
        if run is None:
            return
        if code:
            run.letters[code] += 1
        if flag != LETTER:
            run.documents += 1

    # ------------------------------------------------------------ kinds

    def _start(self, offset: int, document: Document, flag: int, kind: str) -> Run | None:
        uid = document["uid"]
        if not self._matters(uid):
            return None
        run = self.runs.get(uid)
        if run is None:
            run = self.runs[uid] = Run(uid, document, offset, optional=flag == LETTER)
        elif flag != LETTER and run.optional:
            run.start, run.first_offset, run.optional = document, offset, False
        else:
            self._again(run, run.start, document, offset, flag, f"{kind} of run", uid)
        return run

    def _again(self, run: Run | None, known: Any, document: Any, offset: int, flag: int, kind: str, name: str) -> None:
        """Take what came before under its name: it must be the same, or a dead letter."""
        if flag == LETTER:
            return
        if plain(known) != plain(document):
            self._miss(offset, flag, f"another {kind} {name[:64]!a} came before", run.uid if run else "")
        elif run is not None:
            run.repeated += 1

    def _descriptor(self, offset: int, document: Document, flag: int, kind: str) -> Run | None:
        run = self._run(document["run_start"], offset, flag)
        if run is None:
            return None
        uid = document["uid"]
        known, stream = self._streams.get(uid, (None, None))
        if stream is not None and (flag == LETTER or (known is run and uid not in stream.refused)):
            known_as = next(each for each in stream.descriptors if each["uid"] == uid)
            self._again(run, known_as, document, offset, flag, kind, uid)
            return run
        if stream is not None and known is run:
            _withdraw(stream, uid)
        stream = run.streams.setdefault(name := document.get("name") or "primary", Stream(name))
        _describe(stream, document, flag)
        self._streams[uid] = run, stream
        run.late += run.compared and flag != LETTER
        if not run.compared:
            self._expect(document, stream)
        return run

    def _expect(self, descriptor: Document, stream: Stream) -> None:
        """Let events of a descriptor take the quick way, and those of the stream's earlier ones no more."""
        for earlier in stream.descriptors:
            self._lanes.pop(earlier["uid"].encode(), None)
        if typed := TypedEvents.of(descriptor):
            stream.rows.expect(typed)
            self._lanes[descriptor["uid"].encode()] = typed.decode, stream.rows.quick.append, stream.rows

    def _end(self, run: Run) -> None:
        """Note that a run has ended: it waits to be compared, and hardly anything comes of it any more."""
        for stream in run.streams.values():
            stream.rows.flush()
            for descriptor in stream.descriptors:
                self._lanes.pop(descriptor["uid"].encode(), None)
        self.stopped[run.uid] = run
        self.stopped_bytes += run.nbytes

    def oldest(self) -> Run | None:
        """Take the run that ended first, if so much waits to be compared that it must be now."""
        if len(self.stopped) <= HELD_RUNS_MAX and self.stopped_bytes <= HELD_BYTES_MAX:
            return None
        _, run = self.stopped.popitem(last=False)
        self.stopped_bytes -= run.nbytes
        return run

    def _event(self, offset: int, document: Document, flag: int, kind: str) -> Run | None:
        run = None
        for event in rows_of(kind, document):
            self.events += 1
            found = self._streams.get(event["descriptor"])
            if found is None:
                self._lost("descriptor", event["descriptor"], offset, flag, "an event of an unknown descriptor", "")
                continue
            run, stream = found
            if run.compared:
                self._late_event(run, stream, event, flag)
            else:
                stream.rows.add(event, flag)
                if flag != LETTER:
                    _refer(stream, event)
        return run

    def _late_event(self, run: Run, stream: Stream, event: Document, flag: int) -> None:
        one = Rows()
        one.add(event, flag)
        one.flush()
        if np.isin(one.marks, run.known.get(stream.name, ())).all():
            run.repeated += flag != LETTER
        else:
            run.late += flag != LETTER

    def _stop(self, offset: int, document: Document, flag: int, kind: str) -> Run | None:
        run = self._run(document["run_start"], offset, flag)
        if run is None:
            return None
        if run.stop is not None and not run.stop_optional:
            self._again(run, run.stop, document, offset, flag, f"{kind} of run", run.uid)
        elif run.stop is None or flag != LETTER:
            run.stop, run.stop_optional = document, flag == LETTER
            self._end(run)
        return run

    # ------------------------------------------------------------ files

    def _resource(self, offset: int, document: Document, flag: int, kind: str) -> Run | None:
        uid = document.get("run_start")
        run = self._run(uid, offset, flag) if uid else None
        name = document["uid"]
        if self._is_new(name, self._resources, flag):
            self._resources[name] = document
        else:
            self._again(run, _files_of(self._resources[name]), _files_of(document), offset, flag, kind, name)
        return run

    def _is_new(self, name: str, known: Container[str], flag: int) -> bool:
        """Whether a resource or datum says something: its name is new, or so far a dead letter's only."""
        if name not in known:
            self._refused |= {name} if flag == LETTER else set()
            return True
        if flag == LETTER or name not in self._refused:
            return False
        self._refused.discard(name)
        return True

    def _stream_datum(self, offset: int, document: Document, flag: int, _kind: str) -> Run | None:
        found = self._streams.get(document["descriptor"])
        resource = self._resources.get(document["stream_resource"])
        if found is None or resource is None:
            self._lost(
                "descriptor",
                document["descriptor"],
                offset,
                flag,
                "a stream_datum of nothing known",
                found[0].uid if found else (resource or {}).get("run_start", ""),
            )
            return found[0] if found else None
        run, stream = found
        rows = range_of(document["indices"])
        if document["uid"] in self._stream_data:
            run.repeated += flag != LETTER
        elif flag != LETTER:
            self._stream_data.add(document["uid"])
            run.late += run.compared
            held = stream.files.setdefault(str(resource.get("data_key", "")), {})
            held.setdefault(resource["uid"], Files(resource)).ranges.append(rows)
        else:
            stream.spared.add(str(resource.get("data_key", "")))
        return run

    def _datum(self, offset: int, document: Document, flag: int, kind: str) -> Run | None:
        resource = self._resources.get(document["resource"]) or {}
        run = self.runs.get(resource.get("run_start") or "")
        for datum, kwargs in data_of(kind, document):
            said = document["resource"], kwargs
            if self._is_new(datum, self._data, flag):
                self._data[datum] = said
            else:
                self._again(run, self._data[datum], said, offset, flag, "datum", datum)
        return run

    def spared(self, stream: Stream) -> set[str]:
        """Return the external keys of which something is a dead letter: Tiled may have that, too."""
        return stream.spared | {key for key, datum, _ in stream.references if self._is_refused(datum)}

    def _is_refused(self, datum: str) -> bool:
        return datum in self._refused or self._data.get(datum, ("", {}))[0] in self._refused

    def files(self, stream: Stream) -> dict[str, list[Files]]:
        """Return the files of each external key, by all that was said so far, without what is a dead letter."""
        references = (
            (key, datum, seq_num)
            for (key, datum, _), seq_num in stream.references.items()
            if not self._is_refused(datum)
        )
        found = resolved(references, self._data, self._resources)
        for key, held in stream.files.items():
            found.setdefault(key, []).extend(held.values())
        return found

    # ------------------------------------------------------------ whose it is

    def _matters(self, uid: str) -> bool:
        return not self._only or uid in self._only

    def _run(self, uid: str, offset: int, flag: int) -> Run | None:
        run = self.runs.get(uid)
        if run is None and self._matters(uid):
            self._lost("run", uid, offset, flag, f"of run {uid[:64]!a}, which did not begin", uid)
        return run

    def _lost(self, by: str, named: str, offset: int, flag: int, why: str, uid: str) -> None:
        if flag == LETTER:
            return
        if self._whole:
            self._miss(offset, flag, why, uid)
        else:
            self.cut[by, named] += 1


def _files_of(resource: Document) -> Document:
    """Return what a resource says of its files; it may come again in another run, which it names then."""
    return {key: value for key, value in resource.items() if key != "run_start"}


def _describe(stream: Stream, descriptor: Document, flag: int) -> None:
    external = {key for key, spec in descriptor["data_keys"].items() if "external" in spec}
    if stream.optional and flag != LETTER:
        stream.rows.external = external  # what a refused one said of its keys does not count any more
    elif flag != LETTER or not stream.descriptors:
        stream.rows.external |= external
    stream.descriptors.append(descriptor)
    stream.refused |= {descriptor["uid"]} if flag == LETTER else set()


def _withdraw(stream: Stream, uid: str) -> None:
    """Forget a refused descriptor: one of the same uid is good."""
    stream.descriptors = [descriptor for descriptor in stream.descriptors if descriptor["uid"] != uid]
    stream.refused.discard(uid)


def _refer(stream: Stream, event: Document) -> None:
    """Note which datums an event names."""
    for key in stream.rows.external & event["data"].keys():
        datum = event["data"][key]
        if isinstance(datum, str) and not event["filled"].get(key):
            stream.references.setdefault((key, datum, event["uid"]), event["seq_num"])


_TAKE: Mapping[str, Any] = {
    "start": Partition._start,  # noqa: SLF001
    "descriptor": Partition._descriptor,  # noqa: SLF001
    "event": Partition._event,  # noqa: SLF001
    "event_page": Partition._event,  # noqa: SLF001
    "bulk_events": Partition._event,  # noqa: SLF001
    "stop": Partition._stop,  # noqa: SLF001
    "resource": Partition._resource,  # noqa: SLF001
    "stream_resource": Partition._resource,  # noqa: SLF001
    "stream_datum": Partition._stream_datum,  # noqa: SLF001
    "datum": Partition._datum,  # noqa: SLF001
    "datum_page": Partition._datum,  # noqa: SLF001
    "bulk_datum": Partition._datum,  # noqa: SLF001
}
