"""The runs of one partition: which of them a document belongs to, and what it does there.

The same code takes documents that arrive and documents that are read again after a restart; while `rebuilding`, they
make the runs' state and cause no write.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tiled_ingest.core.decoding.eras import Decode
from tiled_ingest.core.decoding.events import BulkEvents, Event, EventPage, Reference, references, rows_of
from tiled_ingest.core.decoding.weigh import held_nbytes
from tiled_ingest.core.decoding.whereabouts import whereabouts
from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.external.intake import RESOURCES, SHARED, Intake
from tiled_ingest.core.external.shelf import REBUILD
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.rows.stretch import ROW_BYTES_MIN, Stretch
from tiled_ingest.core.writes import Path

from .documents import Normalised, content_hash, normalise_descriptor, rename_reserved
from .dormant import Dormant
from .routes import route
from .run import Chore, Deferred, Run
from .states import Action, State, Trigger
from .stream import Stream

UID_CHARS_MAX = 200  # of a node's key: what is longer, or cannot be printed, breaks readers that list the catalog

TRIGGERS = {
    "start": Trigger.START,
    "descriptor": Trigger.DESCRIPTOR,
    "event": Trigger.EVENT,
    "event_page": Trigger.EVENT,
    "bulk_events": Trigger.EVENT,
    "stop": Trigger.STOP,
}


class Runs:
    """Open runs, those that may be opened again, and for a while the names of finished ones.

    Whoever goes through them meets those that are at work: no dormant ones.

    Parameters
    ----------
    hold
        Keeps an offset from being committed.
    count
        Counts settled documents: kind, result, number.
    elsewhere
        In which other partition of ours a run or descriptor lives, if in any.
    """

    def __init__(
        self,
        home: Home,
        policy: Policy,
        decode: Decode,
        *,
        hold: Callable[..., Hold],
        count: Callable[[str, str], None],
        elsewhere: Callable[[Reference], Home | None],
    ) -> None:
        self.weight = 0  # what all rows that ever came count in memory, and the tables of full batches, in bytes
        self._home = home
        self._policy = policy
        self._decode = decode
        self._hold = hold
        self._count_settled = count
        self._elsewhere = elsewhere
        self._runs: dict[str, Run] = {}
        self._dormant = Dormant(policy)
        self._intake = Intake(policy, hold=hold, runs=self._runs)
        self._by_descriptor: dict[str, Run] = {}
        self._closed: list[tuple[int, int]] = []  # (first, last offset) of finished runs that a replay would meet again
        # uid of a run or descriptor -> code for what comes late, and its run
        self._finished: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._newest_ms = -1  # the largest of the broker's timestamps

    def __iter__(self) -> Iterator[Run]:
        return (run for run in self._runs.values() if not run.is_dormant)

    def get(self, uid: str) -> Run | None:
        """Return a run that is not finished."""
        return self._runs.get(uid)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def nbytes(self) -> int:
        """Bytes that wait."""
        return sum(run.nbytes for run in self._runs.values())

    @property
    def reopening(self) -> tuple[int, ...]:
        """Which are being opened again, by the offsets of their starts."""
        return tuple(sorted(run.first_offset for run in self if run.reopening))

    @property
    def rebuilding(self) -> bool:
        """Whether what is received was received by an earlier claim, too."""
        return self._intake.rebuilding

    def rebuild(self) -> None:
        """Begin to take what was settled before: it makes the runs' state, and causes no write."""
        self._intake.rebuilding = True

    def rebuilt(self) -> None:
        """Everything that was settled before was taken."""
        self._intake.rebuilding = False
        self._intake.shelf.forget(REBUILD)

    def first_needed(self, committable: int) -> int:
        """The offset from which a successor must read to know every run that it can meet from `committable` on.

        A finished run counts as long as a document of it stands there: a replay must recognise it.
        """
        self._closed = [(first, last) for first, last in self._closed if last >= committable]
        starts = [run.needs_from for run in self] + [first for first, _ in self._closed]
        return min([committable, *starts])

    def came_back(self, now_s: float) -> None:
        """Set the clocks of the runs that were rebuilt. Nobody knows how long the log has been silent since."""
        for run in self:
            run.came_back(now_s, self._newest_ms)

    def _count(self, kind: str, result: str) -> None:
        if not self.rebuilding:
            self._count_settled(kind, result)

    def receive(self, record: Record, now_s: float) -> set[Run]:
        """Take one record in the log's order; returns the runs that have something new to do.

        Raises
        ------
        InvalidDocument
            The record goes to the dead letters.
        """
        self._newest_ms = max(self._newest_ms, record.timestamp_ms)
        try:
            kind, doc = self._decode(record)
        except InvalidDocument as error:
            self._miss(error, record)
            raise
        named = references(kind, doc)
        try:
            run = self._find(kind, named)
            if run is not None:
                return {run, *self._give(run, kind, doc, record, now_s)}
            return {self._begin(doc, record, now_s)} if kind == "start" else self._share(kind, doc, record, now_s)
        except InvalidDocument as error:
            error.run = self._run_of(named)
            error.about = named.uid[:UID_CHARS_MAX]
            raise

    def _miss(self, error: InvalidDocument, record: Record) -> None:
        """Note in the run that a document of it cannot be read, where it says whose it is."""
        named = whereabouts(record)
        if named is not None and (run := self._known(named)) is not None:
            error.run = run.uid
            run.refused[error.code] += 1

    def receive_stretch(self, stretch: Stretch, now_s: float) -> tuple[set[Run], list[Record]]:
        """Take events all at once, as `receive` would one by one.

        Returns the runs that have something new to do, and the records that are not that simple: they are not taken
        yet. No run or stream has some of its events among them, and others not.
        """
        self._newest_ms = max(self._newest_ms, stretch.newest_ms)
        runs: set[Run] = set()
        rest: list[Record] = []
        for owner, rows in stretch.split(self._simple_owner).items():
            if owner is None:
                rest = list(rows.records)
            else:
                runs.add(owner[0])
                self._add_stretch(*owner, rows, now_s)
        return runs, rest

    def _simple_owner(self, descriptor: str) -> tuple[Run, Stream] | None:
        """Return run and stream of events, if these are nothing but rows of it."""
        run = self._by_descriptor.get(descriptor)
        if run is None or not run.takes_documents:
            return None
        stream = run.streams[run.acceptance.stream_of(descriptor)]
        return None if stream.external_keys or stream.renames else (run, stream)

    def _add_stretch(self, run: Run, stream: Stream, rows: Stretch, now_s: float) -> None:
        run.meet(Trigger.EVENT)
        run.heard_s, run.heard_ms = now_s, rows.records[-1].timestamp_ms
        run.reached(rows.records[-1].offset)
        self.weight += rows.nbytes
        is_new = run.acceptance.add_events(stream.name, rows.seq_nums, rows.uids)
        if not is_new.all():
            for _ in range(len(rows) - int(is_new.sum())):
                self._count("event", "duplicate")
            rows = rows.take(np.flatnonzero(is_new))
        if len(rows) and not stream.parts:
            stream.plan(rows.first)
        if self._only_counts:
            stream.recall_all(rows)
        else:
            self._buffer_all(stream, rows, now_s)

    @property
    def _only_counts(self) -> bool:
        """Whether rows are written by someone else (an earlier claim), or later (by the run's end)."""
        return self.rebuilding or self._policy.writes_anew

    def _buffer_all(self, stream: Stream, rows: Stretch, now_s: float) -> None:
        while len(rows):
            first = rows.records[0]
            if stream.empty:
                stream.begin(self._hold(first.offset, first.timestamp_ms), now_s, first.timestamp_ms)
            fitting, rows = rows.divided(stream.room(rows, self._policy))
            stream.extend(fitting)
            self.weight += stream.seal_if_full(self._policy)

    def _give(self, run: Run, kind: str, doc: Any, record: Record, now_s: float) -> set[Run]:
        """Let the automaton say what the document does to its run; a refusal is remembered in the run's notes.

        Returns the other runs that it concerns.
        """
        try:
            action = run.meet(TRIGGERS.get(kind, Trigger.EXTERNAL)).action
            others = self._act(action, run, kind, doc, record, now_s)
        except InvalidDocument as error:
            run.refused[error.code] += 1
            raise
        if TRIGGERS.get(kind) is not Trigger.EVENT:
            run.read_nbytes += record.nbytes
        run.heard_s, run.heard_ms = now_s, record.timestamp_ms
        return others

    def _run_of(self, named: Reference) -> str:
        if finished := self._finished.get(named.uid):
            return finished[1]
        run = self._known(named)
        return run.uid if run is not None else named.uid[:UID_CHARS_MAX] if named.by == "run" else ""

    def _find(self, kind: str, named: Reference) -> Run | None:
        """Return the run of a document; `None` for a start that begins one, and for what may be of several runs."""
        run = self._known(named)
        if run is not None:
            return run
        if self._is_shared(kind, named):
            return None
        if named.by == "resource" and self.knows(named):
            raise InvalidDocument("late", "its run was closed before it came")
        if finished := self._finished.get(named.uid):
            raise InvalidDocument(finished[0], "its run was closed before it came")
        if home := self._elsewhere(named):
            raise InvalidDocument("scattered_run", f"the run lives in {home}; give its documents one key")
        if kind == "start":
            return None
        raise InvalidDocument("orphan", f"no {named.by} {named.uid[:64]!r} is known that this {kind} belongs to")

    def _known(self, named: Reference) -> Run | None:
        """Return the run that a document names, if it is known; for a datum, that of its resource, before its stop."""
        if named.by != "resource":
            return (self._by_descriptor if named.by == "descriptor" else self._runs).get(named.uid)
        resource = self._intake.shelf.resource(named.uid)
        run = self._runs.get(resource.run) if resource else None
        # Another run of this uid may have brought it, before the log was cut, or before an impostor's start.
        return run if run is not None and named.uid in run.resources and run.stop is None else None

    def _is_shared(self, kind: str, named: Reference) -> bool:
        """Whether a document without an open run of its own may still be of any run: an old resource, its datums."""
        known = not named.uid if kind in RESOURCES else self._intake.shelf.resource(named.uid) is not None
        return kind in SHARED and (self.rebuilding or (known and any(self._owners())))

    def _owners(self) -> Iterator[Run]:
        return (run for run in self if run.stop is None)

    def _share(self, kind: str, doc: Any, record: Record, now_s: float) -> set[Run]:
        """Keep a document for every run that is open now; of those that are not written it is a dead letter, too."""
        owners = list(self._owners())
        granted = self._keep(kind, doc, record, now_s, [*owners, *self._dormant])
        for run in owners:
            self._hold_until_opened(run, record)
        condemned = {run for run in owners if run.verdict is not None}
        for run in condemned:
            self._condemn(run, kind, doc, record)
        return granted | condemned | {run for run in owners if run.early}

    def _begin(self, start: Any, record: Record, now_s: float) -> Run:
        parent = route(self._policy.routes, self._home.topic, start)
        _check_key(start["uid"], "a run's uid")
        inherited = self.rebuilding
        run = Run(self._home, parent, start, content_hash(start), record.offset, inherited=inherited)
        run.read_nbytes = record.nbytes
        run.heard_s = run.opened_s = now_s
        run.heard_ms = run.opened_ms = record.timestamp_ms
        if not inherited:
            run.start_hold = self._hold(record.offset)
        self._runs[run.uid] = run
        return run

    def _act(self, action: Action, run: Run, kind: str, doc: Any, record: Record, now_s: float) -> set[Run]:
        match action:
            case Action.ADD_ROWS:
                self._add_rows(run, doc, record, now_s)
            case Action.ADD_STREAM:
                self._add_stream(run, doc, record)
            case Action.CLOSE:
                self._stop(run, doc, record)
            case Action.COMPARE_START:
                self._compare(run.start_hash == content_hash(doc), kind, "conflicting_run", "another run has this uid")
            case Action.COMPARE_STOP:
                self._compare(run.stop == doc, kind, "late", "the run was stopped before")
            case Action.DEFER | Action.WAKE:
                self._defer(run, action, kind, doc, record)
            case Action.CONDEMN:
                self._condemn(run, kind, doc, record)
            case Action.RECOGNISE:
                self._recognise(run, kind, doc, record)
            case Action.ADD_ASSETS:
                return self._add_assets(run, kind, doc, record, now_s)
            case _:
                raise InvalidDocument("late", "the run was closed before it came")
        return set()

    def _compare(self, same: bool, kind: str, code: str, detail: str) -> None:
        if not same:
            raise InvalidDocument(code, detail)
        self._count(kind, "duplicate")

    def _add_stream(self, run: Run, doc: dict[str, Any], record: Record) -> None:
        normalised = normalise_descriptor(doc)
        name, uid = normalised.doc["name"], doc["uid"]
        _check_key(name, "a stream's name")
        content = content_hash(doc)
        if accepted := run.acceptance.descriptor(uid):
            detail = "the run has another descriptor of this uid"
            self._compare(accepted.content == content, "descriptor", "conflicting_descriptor", detail)
            return
        self._check_descriptor(run, uid)
        keys = normalised.doc["data_keys"]
        run.acceptance.add_descriptor(uid, name, keys, offset=record.offset, content=content)
        run.reached(record.offset)
        self._by_descriptor[uid] = run
        run.notes.extend(normalised.notes)
        stream = run.streams.get(name)
        if is_update := stream is not None:
            stream.reconfigure(normalised)
        else:
            stream = run.streams[name] = self._stream((*run.path, name), normalised)
        if not self.rebuilding:
            run.chores.append(Chore(stream, normalised.doc, is_update, self._hold(record.offset)))

    def _check_descriptor(self, run: Run, uid: str) -> None:
        """Refuse a descriptor whose uid another run's has: nobody could tell whose an event is.

        The log alone decides, so that a successor decides the same: it must know the other run, too.
        """
        other = self._by_descriptor.get(uid)
        if other is None or other is run or other.stop is not None:
            return
        run.needs(other.needs_from)
        raise InvalidDocument("conflicting_descriptor", "a descriptor of another open run has this uid")

    def _add_assets(self, run: Run, kind: str, doc: dict[str, Any], record: Record, now_s: float) -> set[Run]:
        granted: set[Run] = set()
        if kind in SHARED:
            granted = self._keep(kind, doc, record, now_s, [run])
            self._hold_until_opened(run, record)
        elif not self._intake.stream_datum(run, doc, record, now_s):
            self._count(kind, "duplicate")
        run.reached(record.offset)
        return granted

    def _keep(self, kind: str, doc: Any, record: Record, now_s: float, owners: list[Run]) -> set[Run]:
        """Keep a resource or datums for these runs, which know by it later which datums are theirs."""
        granted = self._taken(kind, doc, record, now_s, [run.uid for run in owners])
        for run in owners:
            if self._may_be_of(run, kind, doc):
                run.resources.add(doc["uid" if kind in RESOURCES else "resource"])
        return granted

    def _taken(self, kind: str, doc: Any, record: Record, now_s: float, owners: list[str]) -> set[Run]:
        """Let the intake have a document of external data; what dormant runs keep there makes room for it."""
        while True:
            try:
                return self._intake.take(kind, doc, record, now_s, owners)
            except InvalidDocument as error:
                if error.code != "too_many_datums" or (run := self._dormant.longest) is None:
                    raise
                self._forget_dormant(run)

    def _may_be_of(self, run: Run, kind: str, doc: Any) -> bool:
        """Whether a resource, or that of a datum, counts as one of the run if the run fails.

        In a rebuild most that names no open run is of one that is over, and that was written: events will tell.
        """
        if kind in RESOURCES:
            return doc.get("run_start") in (None, "", run.uid)
        return not self.rebuilding

    def _hold_until_opened(self, run: Run, record: Record) -> None:
        """What is only kept in mind is settled once the run's node is known to be ours: else it is a dead letter."""
        if run.takes_documents and not run.opened and not self.rebuilding:
            run.early.append(self._hold(record.offset))

    def _stream(self, path: Path, normalised: Normalised) -> Stream:
        return Stream(path, normalised, fresh=not self.rebuilding, policy=self._policy)

    def _add_rows(self, run: Run, doc: Event | EventPage | BulkEvents, record: Record, now_s: float) -> None:
        events = (doc,) if isinstance(doc, Event) else tuple(rows_of(doc))
        # All of a document counts, or nothing: so all its streams are looked up first.
        named = {event.descriptor: run.acceptance.stream_of(event.descriptor) for event in events}
        streams = {descriptor: run.streams[name] for descriptor, name in named.items()}
        if len(events) > 1 and not run.acceptance.bears((event.descriptor for event in events), record.nbytes):
            raise InvalidDocument("too_large", f"{len(events)} rows of tables as wide as those of its descriptors")
        least = max(record.nbytes // max(len(events), 1), ROW_BYTES_MIN)
        for event in events:
            held = held_nbytes(event)
            nbytes = held if held > 2 * least else least  # ordinary events count as those that are read as bytes do
            self.weight += nbytes
            stream = streams[event.descriptor]
            if run.acceptance.add_event(stream.name, event.seq_num, event.uid):
                self._add_row(run, stream, rename_reserved(event, stream.renames), record, nbytes, now_s)
            else:
                self._count("event", "duplicate")
        run.reached(record.offset)
        for stream in streams.values():
            self.weight += stream.seal_if_full(self._policy)

    def _add_row(self, run: Run, stream: Stream, event: Event, record: Record, nbytes: int, now_s: float) -> None:
        if stream.external_keys:
            self._intake.refer(run, stream, event, record, now_s)
        stream.plan(event, {key for name, key in run.externals if name == stream.name})
        if self._only_counts:
            stream.recall(event)
            return
        if stream.empty:
            stream.begin(self._hold(record.offset), now_s, record.timestamp_ms)
        stream.add(event, record.offset, nbytes)

    def _stop(self, run: Run, doc: dict[str, Any], record: Record) -> None:
        run.stop = doc
        run.reached(record.offset)
        if self.rebuilding:
            self.forget(run)
        else:
            run.stop_hold = self._hold(record.offset)

    def _repeats(self, run: Run, kind: str, doc: Any, offset: int) -> bool:
        """Whether all that a document says was accepted before."""
        if isinstance(doc, Event | EventPage | BulkEvents):
            events = (doc,) if isinstance(doc, Event) else rows_of(doc)
            return all(run.acceptance.has_event(event.descriptor, event.seq_num, event.uid) for event in events)
        if kind == "descriptor":
            accepted = run.acceptance.descriptor(doc["uid"])
            return accepted is not None and accepted.content == content_hash(doc)
        return self._intake.repeats(run, kind, doc, offset)

    def _defer(self, run: Run, action: Action, kind: str, doc: Any, record: Record) -> None:
        """Let a document wait; what it brings is known from now on, so that others find the run by it."""
        if action is Action.WAKE and self._repeats(run, kind, doc, record.offset):
            self._count(kind, "duplicate")
            return
        if kind == "descriptor" and self._by_descriptor.setdefault(doc["uid"], run) is run:
            run.deferred_streams[doc["uid"]] = str(doc.get("name"))
        elif kind in RESOURCES and doc.get("run_start"):
            self._keep(kind, doc, record, 0.0, [run])
        waiting = Deferred(record, self._hold(record.offset))
        run.defer(waiting)
        self.weight += waiting.nbytes

    def _condemn(self, run: Run, kind: str, doc: Any, record: Record) -> None:
        run.reached(record.offset)
        run.holds.append(self._hold(record.offset))
        self._note(run, kind, doc, record)

    def _note(self, run: Run, kind: str, doc: Any, record: Record) -> None:
        """Of a run that is not written, remember what its other documents refer to, and its end."""
        if kind == "stop":
            run.stop = doc
        elif kind == "descriptor" and self._by_descriptor.setdefault(doc["uid"], run) is run:
            run.know_descriptor(doc["uid"], str(doc.get("name")))
        elif kind in RESOURCES and doc.get("run_start"):
            self._keep(kind, doc, record, 0.0, [run])

    def _recognise(self, run: Run, kind: str, doc: Any, record: Record) -> None:
        run.reached(record.offset)  # S stays at its start while its documents may come again
        self._note(run, kind, doc, record)
        if record.offset > run.known_to:
            raise InvalidDocument("late", "the run was closed before it came")
        if kind == "stop" and self._policy.announces and not self.rebuilding and run.stop_hold is None:
            run.stop_hold = self._hold(record.offset)
        else:
            self._count(kind, "duplicate")

    # ------------------------------------------------------------ the end of a run

    def forget(self, run: Run) -> None:
        """Drop a finished run, remembering for a while that it was."""
        code = run.verdict.code if run.verdict else "late"
        self._runs.pop(run.uid, None)
        self._intake.shelf.forget(run.uid)
        if not self.rebuilding:
            self._closed.append((run.needs_from, run.last_offset))
        for uid in (run.uid, *run.acceptance.descriptors, *run.deferred_streams):
            if self._by_descriptor.get(uid, run) is run:
                self._by_descriptor.pop(uid, None)
                self._finished[uid] = code, run.uid
        while len(self._finished) > self._policy.finished_remembered_max:
            self._finished.popitem(last=False)

    def keep_dormant(self, run: Run) -> None:
        """Remember a run that was given up; of too many, forget the longest dormant."""
        self._closed.append((run.needs_from, run.last_offset))
        self._dormant.add(run)
        while self._dormant.too_many and (longest := self._dormant.longest) is not None:
            self._forget_dormant(longest)

    def _forget_dormant(self, run: Run) -> None:
        run.meet(Trigger.IDLE)
        self.forget(run)

    def give_up(self, uid: str, descriptors: Iterable[str], code: str) -> None:
        """Remember a run that is not ours to go on with: what comes of it is late, with this code."""
        self._finished.update((named, (code, uid)) for named in (uid, *descriptors))

    def knows(self, named: Reference) -> bool:
        """Whether a run, descriptor or resource lives here."""
        if named.by == "resource":
            return self._intake.shelf.resource(named.uid) is not None
        return named.uid in (self._by_descriptor if named.by == "descriptor" else self._runs)

    def hear_nothing(self, seconds: float) -> None:
        """Nobody listened for so long: that no run spoke says nothing about it."""
        for run in self:
            run.heard_s += seconds

    def idle(self, now_s: float) -> Iterator[Run]:
        """Runs of which nothing was heard for too long, and the longest idle of those that are too many."""
        runs = [run for run in self if not (run.ending or run.is_finished)]
        surplus = len(runs) - self._policy.open_max
        runs = [run for run in runs if run.state is not State.REOPENING]
        longest = sorted(runs, key=lambda run: run.heard_s)[: max(surplus, 0)]
        yield from (run for run in runs if run in longest or now_s - run.heard_s > self._policy.idle_s_max)


def can_be_key(name: str) -> bool:
    """Whether a run or stream may be called so: a node of that key would not make the catalog hard to read."""
    return 0 < len(name) <= UID_CHARS_MAX and "/" not in name and name.isprintable()


def _check_key(key: str, what: str) -> None:
    """Raise `schema` for a name that cannot be a node's key."""
    if not can_be_key(key):
        raise InvalidDocument("schema", f"{what} cannot be a node's key: {key[:64]!a}")
