"""The runs of one partition: which of them a document belongs to, and what it does there.

The same code takes documents that arrive and documents that are read again after a restart; while `rebuilding`, they
make the runs' state and cause no write.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from .documents import content_hash, normalise_descriptor, rename_reserved
from .eras import Decode
from .errors import InvalidDocument
from .events import Event, EventPage, Reference, references
from .offsets import Hold
from .policy import Policy
from .record import Home, Record
from .routes import route
from .run import Chore, Run
from .states import Action, Trigger
from .stream import Stream

UID_CHARS_MAX = 200  # of a node's key: what is longer, or cannot be printed, breaks readers that list the catalog
ROW_BYTES_MIN = 100  # what a row counts in memory: the smallest, 7 bytes of a page, takes several hundred once decoded

TRIGGERS = {
    "start": Trigger.START,
    "descriptor": Trigger.DESCRIPTOR,
    "event": Trigger.EVENT,
    "event_page": Trigger.EVENT,
    "stop": Trigger.STOP,
}


class Runs:
    """Open runs, and for a while the names of finished ones.

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
        hold: Callable[[int], Hold],
        count: Callable[[str, str], None],
        elsewhere: Callable[[Reference], Home | None],
    ) -> None:
        self.rebuilding = False
        self.weight = 0  # what all rows that ever came count in memory, in bytes
        self._home = home
        self._policy = policy
        self._decode = decode
        self._hold = hold
        self._count_settled = count
        self._elsewhere = elsewhere
        self._runs: dict[str, Run] = {}
        self._by_descriptor: dict[str, Run] = {}
        self._closed: list[tuple[int, int]] = []  # (first, last offset) of finished runs that a replay would meet again
        # uid of a run or descriptor -> code for what comes late, and its run
        self._finished: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._newest_ms = -1  # the largest of the broker's timestamps

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def first_needed(self, committable: int) -> int:
        """The offset from which a successor must read to know every run that it can meet from `committable` on.

        A finished run counts as long as a document of it stands there: a replay must recognise it.
        """
        self._closed = [(first, last) for first, last in self._closed if last >= committable]
        starts = [run.first_offset for run in self] + [first for first, _ in self._closed]
        return min([committable, *starts])

    def came_back(self, now_s: float) -> None:
        """Set the clocks of the runs that were rebuilt. Nobody knows how long the log has been silent since."""
        for run in self:
            run.came_back(now_s, self._newest_ms)

    def _count(self, kind: str, result: str) -> None:
        if not self.rebuilding:
            self._count_settled(kind, result)

    def receive(self, record: Record, now_s: float) -> Run | None:
        """Take one record in the log's order; returns the run that has something new to do.

        Raises
        ------
        InvalidDocument
            The record goes to the dead letters.
        """
        self._newest_ms = max(self._newest_ms, record.timestamp_ms)
        kind, doc = self._decode(record)
        named = references(kind, doc)
        try:
            run = self._find(kind, named)
            if run is None:
                return self._begin(doc, record, now_s)
            self._give(run, kind, doc, record, now_s)
        except InvalidDocument as error:
            error.run = self._run_of(named)
            error.about = named.uid[:UID_CHARS_MAX]
            raise
        return run

    def _give(self, run: Run, kind: str, doc: Any, record: Record, now_s: float) -> None:
        """Let the automaton say what the document does to its run; a refusal is remembered in the run's notes."""
        try:
            action = run.meet(TRIGGERS.get(kind, Trigger.EXTERNAL)).action
            self._act(action, run, kind, doc, record, now_s)
        except InvalidDocument as error:
            run.refused[error.code] += 1
            raise
        run.heard_s, run.heard_ms = now_s, record.timestamp_ms

    def _run_of(self, named: Reference) -> str:
        run = self._by_descriptor.get(named.uid)
        if named.uid in self._finished:
            return self._finished[named.uid][1]
        return run.uid if run is not None else named.uid[:UID_CHARS_MAX] if named.by == "run" else ""

    def _find(self, kind: str, named: Reference) -> Run | None:
        """Return the run of a document; `None` for a start that begins one."""
        run = (self._by_descriptor if named.by == "descriptor" else self._runs).get(named.uid)
        if run is not None:
            return run
        if finished := self._finished.get(named.uid):
            raise InvalidDocument(finished[0], "its run was closed before it came")
        if home := self._elsewhere(named):
            raise InvalidDocument("scattered_run", f"the run lives in {home}; give its documents one key")
        if kind == "start":
            return None
        if kind not in TRIGGERS:
            raise InvalidDocument("not_supported_yet", f"documents of the kind {kind} are not written yet")
        raise InvalidDocument("orphan", f"no {named.by} {named.uid[:64]!r} is known that this {kind} belongs to")

    def _begin(self, start: Any, record: Record, now_s: float) -> Run:
        parent = route(self._policy.routes, self._home.topic, start)
        _check_key(start["uid"], "a run's uid")
        inherited = self.rebuilding
        run = Run(self._home, parent, start, content_hash(start), record.offset, inherited=inherited)
        run.heard_s = run.opened_s = now_s
        run.heard_ms = run.opened_ms = record.timestamp_ms
        if not inherited:
            run.start_hold = self._hold(record.offset)
        self._runs[run.uid] = run
        return run

    def _act(self, action: Action, run: Run, kind: str, doc: Any, record: Record, now_s: float) -> None:
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
            case Action.CONDEMN:
                self._condemn(run, kind, doc, record)
            case Action.RECOGNISE:
                self._recognise(run, kind, doc, record)
            case Action.NOT_YET:
                raise InvalidDocument("not_supported_yet", f"documents of the kind {kind} are not written yet")
            case _:
                raise InvalidDocument("late", "the run was closed before it came")

    def _compare(self, same: bool, kind: str, code: str, detail: str) -> None:
        if not same:
            raise InvalidDocument(code, detail)
        self._count(kind, "duplicate")

    def _add_stream(self, run: Run, doc: dict[str, Any], record: Record) -> None:
        normalised = normalise_descriptor(doc)
        name, uid = normalised.doc["name"], doc["uid"]
        _check_key(name, "a stream's name")
        if not run.acceptance.add_descriptor(uid, name):
            self._count("descriptor", "duplicate")
            return
        run.last_offset = record.offset
        self._by_descriptor[uid] = run
        run.notes.extend(normalised.notes)
        stream = run.streams.get(name)
        if is_update := stream is not None:
            stream.reconfigure(normalised)
        else:
            stream = run.streams[name] = Stream((*run.path, name), normalised, fresh=not self.rebuilding)
        if not self.rebuilding:
            run.chores.append(Chore(stream, normalised.doc, is_update, self._hold(record.offset)))

    def _add_rows(self, run: Run, doc: Event | EventPage, record: Record, now_s: float) -> None:
        stream = run.streams[run.acceptance.stream_of(doc.descriptor)]
        events = [doc] if isinstance(doc, Event) else list(doc.events())
        nbytes = max(len(record.value or b"") // max(len(events), 1), ROW_BYTES_MIN)
        self.weight += nbytes * len(events)
        for event in events:
            if run.acceptance.add_event(stream.name, event.seq_num, event.uid):
                self._add_row(stream, rename_reserved(event, stream.renames), record, nbytes, now_s)
            else:
                self._count("event", "duplicate")
        run.last_offset = record.offset
        stream.seal_if_full(self._policy)

    def _add_row(self, stream: Stream, event: Event, record: Record, nbytes: int, now_s: float) -> None:
        stream.plan(event)
        if self.rebuilding:
            stream.recall(event)
            return
        if stream.empty:
            stream.begin(self._hold(record.offset), now_s, record.timestamp_ms)
        stream.add(event, record.offset, nbytes)

    def _stop(self, run: Run, doc: dict[str, Any], record: Record) -> None:
        run.stop = doc
        run.last_offset = record.offset
        if self.rebuilding:
            self.forget(run)
        else:
            run.stop_hold = self._hold(record.offset)

    def _condemn(self, run: Run, kind: str, doc: Any, record: Record) -> None:
        run.last_offset = record.offset
        run.holds.append(self._hold(record.offset))
        self._note(run, kind, doc)

    def _note(self, run: Run, kind: str, doc: Any) -> None:
        """Of a run that is not written, remember what its other documents refer to, and its end."""
        if kind == "stop":
            run.stop = doc
        elif kind == "descriptor":
            run.acceptance.add_descriptor(doc["uid"], str(doc.get("name")))
            self._by_descriptor[doc["uid"]] = run

    def _recognise(self, run: Run, kind: str, doc: Any, record: Record) -> None:
        run.last_offset = max(run.last_offset, record.offset)  # S stays at its start while its documents may come again
        self._note(run, kind, doc)
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
        if not self.rebuilding:
            self._closed.append((run.first_offset, run.last_offset))
        for uid in (run.uid, *run.acceptance.descriptors):
            self._by_descriptor.pop(uid, None)
            self._finished[uid] = code, run.uid
        while len(self._finished) > self._policy.finished_remembered_max:
            self._finished.popitem(last=False)

    def give_up(self, uid: str, code: str) -> None:
        """Remember a run that is not ours to go on with: what comes of it is late, with this code."""
        self._finished[uid] = code, uid

    def knows(self, named: Reference) -> bool:
        """Whether a run or descriptor lives here."""
        return named.uid in (self._by_descriptor if named.by == "descriptor" else self._runs)

    def idle(self, now_s: float) -> Iterator[Run]:
        """Runs of which nothing was heard for too long, and the longest idle of those that are too many."""
        runs = [run for run in self._runs.values() if not run.ending]
        surplus = len(runs) - self._policy.open_max
        longest = sorted(runs, key=lambda run: run.heard_s)[: max(surplus, 0)]
        yield from (run for run in runs if run in longest or now_s - run.heard_s > self._policy.idle_s_max)


def _check_key(key: str, what: str) -> None:
    """Raise `schema` for a name that cannot be a node's key, or that would make the catalog hard to read."""
    if not 0 < len(key) <= UID_CHARS_MAX or "/" in key or not key.isprintable():
        raise InvalidDocument("schema", f"{what} cannot be a node's key: {key[:64]!a}")
