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

from .documents import rows_of
from .files import Files, data_of, resolved
from .rows import Rows
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
    optional: bool = True  # all its descriptors are dead letters
    rows: Rows = field(default_factory=Rows)
    files: dict[str, dict[str, Files]] = field(default_factory=dict)  # by key and resource, that have rows
    references: dict[tuple[str, str, str], int] = field(default_factory=dict)  # (key, datum, event): seq_num

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
        self._only = only
        self._whole = whole
        self._streams: dict[str, tuple[Run, Stream]] = {}  # by descriptor
        self._lanes: dict[bytes, Lane] = {}  # by descriptor
        self._resources: dict[str, Document] = {}
        self._stream_data: set[str] = set()  # uids of stream_datums
        self._data: dict[str, tuple[str, Any]] = {}  # resource and kwargs of datums, by id

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
            self._take(offset, *opened(value), flag, code or "")
        except Unreadable as error:
            self._miss(offset, flag, f"no document: {error}")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            self._miss(offset, flag, f"violates its kind's schema ({type(error).__name__})")

    def _miss(self, offset: int, flag: int, why: str) -> None:
        if flag != LETTER and not self._only:
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

    def _start(self, offset: int, document: Document, flag: int, _kind: str) -> Run | None:
        uid = document["uid"]
        if not self._matters(uid):
            return None
        run = self.runs.get(uid)
        if run is None:
            run = self.runs[uid] = Run(uid, document, offset, optional=flag == LETTER)
        elif flag != LETTER and run.optional:
            run.start, run.first_offset, run.optional = document, offset, False
        elif flag != LETTER and run.start != document:
            self._miss(offset, flag, f"another start of run {uid[:64]!a}")
        else:
            run.repeated += flag != LETTER
        return run

    def _descriptor(self, offset: int, document: Document, flag: int, _kind: str) -> Run | None:
        run = self._run(document["run_start"], offset, flag)
        if run is None:
            return None
        uid = document["uid"]
        if uid in self._streams:
            run.repeated += flag != LETTER
            return run
        stream = run.streams.setdefault(name := str(document.get("name") or "primary"), Stream(name))
        if flag != LETTER:
            stream.optional = False
        stream.descriptors.append(document)
        stream.rows.external |= {key for key, spec in document["data_keys"].items() if "external" in spec}
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
                self._lost("descriptor", event["descriptor"], offset, flag, "an event of an unknown descriptor")
                continue
            run, stream = found
            if run.compared:
                self._late_event(run, stream, event, flag)
            else:
                stream.rows.add(event, flag)
                for key in stream.rows.external & event["data"].keys() if flag != LETTER else ():
                    if not event["filled"].get(key):
                        named = key, str(event["data"][key]), event["uid"]
                        stream.references.setdefault(named, event["seq_num"])
        return run

    def _late_event(self, run: Run, stream: Stream, event: Document, flag: int) -> None:
        one = Rows()
        one.add(event, flag)
        one.flush()
        if np.isin(one.marks, run.known.get(stream.name, ())).all():
            run.repeated += flag != LETTER
        else:
            run.late += flag != LETTER

    def _stop(self, offset: int, document: Document, flag: int, _kind: str) -> Run | None:
        run = self._run(document["run_start"], offset, flag)
        if run is None:
            return None
        if run.stop is not None and not run.stop_optional:
            run.repeated += flag != LETTER and run.stop == document
            if flag != LETTER and run.stop != document:
                self._miss(offset, flag, f"another stop of run {run.uid[:64]!a}")
        elif run.stop is None or flag != LETTER:
            run.stop, run.stop_optional = document, flag == LETTER
            self._end(run)
        return run

    # ------------------------------------------------------------ files

    def _resource(self, offset: int, document: Document, flag: int, kind: str) -> Run | None:
        uid = document["run_start"] if kind == "stream_resource" else document.get("run_start")
        run = self._run(uid, offset, flag) if uid else None
        if document["uid"] not in self._resources:
            self._resources[document["uid"]] = document
        elif run is not None:
            run.repeated += flag != LETTER
        return run

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
            )
            return found[0] if found else None
        run, stream = found
        indices = document["indices"]
        rows = int(indices["start"]), int(indices["stop"])
        if document["uid"] in self._stream_data:
            run.repeated += flag != LETTER
        elif flag != LETTER:
            self._stream_data.add(document["uid"])
            run.late += run.compared
            held = stream.files.setdefault(str(resource["data_key"]), {})
            held.setdefault(resource["uid"], Files(resource)).ranges.append(rows)
        return run

    def _datum(self, _offset: int, document: Document, _flag: int, kind: str) -> Run | None:
        for datum, kwargs in data_of(kind, document):
            self._data.setdefault(datum, (document["resource"], kwargs))
        resource = self._resources.get(document["resource"]) or {}
        return self.runs.get(resource.get("run_start", ""))

    def files(self, stream: Stream) -> dict[str, list[Files]]:
        """Return the files of each external key, by all that was said so far."""
        references = ((key, datum, seq_num) for (key, datum, _), seq_num in stream.references.items())
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
            self._lost("run", uid, offset, flag, f"of run {uid[:64]!a}, which did not begin")
        return run

    def _lost(self, by: str, named: str, offset: int, flag: int, why: str) -> None:
        if flag == LETTER:
            return
        if self._whole:
            self._miss(offset, flag, why)
        else:
            self.cut[by, named] += 1


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
