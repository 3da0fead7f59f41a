"""One partition in our hands: claimed, rebuilt from the log, and its documents given to their runs."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from .acceptance import RULES_VERSION
from .datasets import OURS
from .decode import Decoder
from .documents import content_hash, normalise_descriptor, rename_reserved
from .effects import Assigned
from .errors import InvalidDocument, OffsetOutOfRange
from .events import Event, EventPage, Reference, references
from .offsets import Hold, Ledger, ResumePoint, out_of_range
from .policy import Policy
from .record import Home, Record
from .routes import fixed_parents, route
from .run import Chore, Run
from .states import Action, Trigger
from .steps import Claiming, LogChunk, Procedure, Weather, insist
from .stream import Stream
from .writes import Done, FindOpenRuns, OpenRun, UpdateMetadata

TRIGGERS = {
    "start": Trigger.START,
    "descriptor": Trigger.DESCRIPTOR,
    "event": Trigger.EVENT,
    "event_page": Trigger.EVENT,
    "stop": Trigger.STOP,
}


class Claim:
    """A partition from its assignment to its release.

    Parameters
    ----------
    tell, count
        How operators hear of it.
    fresh_nonce
        Makes random words.
    elsewhere
        In which other partition of ours a run or descriptor lives, if in any.
    """

    def __init__(
        self,
        assigned: Assigned,
        policy: Policy,
        weather: Weather,
        *,
        tell: Callable[..., None],
        count: Callable[[str, str, int], None],
        fresh_nonce: Callable[[], str],
        elsewhere: Callable[[Reference], Home | None],
    ) -> None:
        self.home = assigned.home
        self.topic_id = assigned.topic_id
        self.nonce = assigned.nonce
        self.epoch = 0
        self.policy = policy
        self.weather = weather
        self.decode = Decoder(policy)
        self.tell = tell
        self.fresh_nonce = fresh_nonce
        self.runs: dict[str, Run] = {}
        self.live = False  # rebuilt: records may come
        self.leaving = False
        self.fenced = (
            False  # the group says that we are no member any more: it will soon say that we lost the partition
        )
        self.commit_after_s = 0.0
        self.ledger = Ledger(0)
        self.committed: tuple[int, int] | None = None  # (C, S)
        self._assigned = assigned
        self._count = count
        self._elsewhere = elsewhere
        self._by_descriptor: dict[str, Run] = {}
        self._closed: list[tuple[int, int]] = []  # (first, last offset) of finished runs that a replay would meet again
        self._finished: OrderedDict[str, str] = OrderedDict()  # uid of a run or descriptor -> code for what comes late
        self._rebuilding = False

    # ------------------------------------------------------------ claim and rebuild

    def take(self) -> Procedure[None]:
        """Claim the partition in the group's offsets, before any write to Tiled; then rebuild what open runs need.

        Raises
        ------
        OffsetOutOfRange
            The log does not hold the committed offset.
        """
        point = self._checked_resume_point()
        offset = self._first_offset()
        start, epoch = (point.start, point.epoch) if point else (yield from self._without_metadata(offset))
        self.epoch = epoch + 1
        self.ledger = Ledger(offset)
        while not (yield Claiming(offset, self._metadata(min(start, offset)))):
            pass
        self.committed = (offset, min(start, offset))
        start = min(start, offset)
        if start < self._assigned.low:
            yield from self._give_up(self._assigned.low)
        yield from self._rebuild(max(start, self._assigned.low), offset)
        self.live = True

    def _checked_resume_point(self) -> ResumePoint | None:
        assigned = self._assigned
        point = ResumePoint.decode(assigned.metadata)
        if assigned.committed is None:
            return point
        if point and assigned.topic_id and point.topic_id and point.topic_id != assigned.topic_id:
            raise OffsetOutOfRange(
                f"{self.home}: the topic was deleted and created again under its name; the committed offset "
                f"{assigned.committed} belongs to the old one. Reset the group's offset to read the new one."
            )
        if why := out_of_range(self.home, assigned.committed, assigned.low, assigned.high):
            raise OffsetOutOfRange(why)
        return point

    def _first_offset(self) -> int:
        assigned = self._assigned
        if assigned.committed is not None:
            return assigned.committed
        return assigned.high if self.policy.start_latest else assigned.low

    def _without_metadata(self, offset: int) -> Procedure[tuple[int, int]]:
        """Nobody left a resume point: ask Tiled which runs of this partition are open."""
        start, epoch = offset, 0
        for run in (yield from self._open_in_tiled()):
            start = min(start, run.first_offset)
            epoch = max(epoch, run.epoch_max)
        return start, epoch

    def _open_in_tiled(self) -> Procedure[list[OpenRun]]:
        found: list[OpenRun] = []
        for parent in fixed_parents(self.policy.routes, self.home.topic):
            request = FindOpenRuns(parent, self.topic_id, self.home.partition)
            answer = yield from insist(self, str(self.home), request)
            found.extend(answer.value if isinstance(answer, Done) else ())
        return found

    def _give_up(self, low: int) -> Procedure[None]:
        """Mark the open runs as failed whose beginning the log has lost: what still comes of them are dead letters."""
        for run in (yield from self._open_in_tiled()):
            if run.first_offset < low:
                facts = dict(run.metadata[OURS])
                note = f"The log begins at {low}: the run's beginning was deleted before its end was written."
                facts |= {"state": "failed", "notes": [*facts.get("notes", ()), note]}
                yield from insist(self, str(self.home), UpdateMetadata(run.path, {OURS: facts}))
                self._finished[run.path[-1]] = "beginning_lost"
                self.tell("run_closed", run=run.path[-1], state="failed", rows=0)

    def _rebuild(self, start: int, stop: int) -> Procedure[None]:
        """Read [start, stop) again: its documents make the runs' state, and cause no write."""
        self._rebuilding = True
        while start < stop:
            chunk = yield LogChunk(start, stop)
            for record in chunk.records:
                if record.offset < stop:
                    self._recall(record)
            start = max(chunk.next_offset, start)
        self._rebuilding = False
        for run in self.runs.values():
            run.emitted_to = stop
            for stream in run.streams.values():
                stream.recalled()

    def _recall(self, record: Record) -> None:
        try:
            self.receive(record, 0.0)
        except InvalidDocument:
            return  # refused then, confirmed in the dead letters then

    # ------------------------------------------------------------ holds and commits

    def hold(self, offset: int) -> Hold:
        """Keep an offset from being committed."""
        return self.ledger.hold(offset)

    def release(self, hold: Hold) -> None:
        """Settle what the hold stood for."""
        self.ledger.release(hold)

    def count(self, kind: str, result: str, number: int = 1) -> None:
        """Count settled documents."""
        if not self._rebuilding:
            self._count(kind, result, number)

    @property
    def to_commit(self) -> tuple[int, int]:
        """C and S as they are now.

        A finished run counts as long as a document of it stands at C or after: a replay must recognise it.
        """
        committable = self.ledger.committable
        self._closed = [(first, last) for first, last in self._closed if last >= committable]
        starts = [run.first_offset for run in self.runs.values()] + [first for first, _ in self._closed]
        return committable, min([committable, *starts])

    def metadata(self) -> str:
        """The string that is committed with `to_commit`."""
        return self._metadata(self.to_commit[1])

    def _metadata(self, start: int) -> str:
        return ResumePoint(start, self.epoch, self.nonce, self.topic_id, RULES_VERSION).encode()

    @property
    def nbytes(self) -> int:
        """Bytes that wait for Tiled."""
        return sum(run.nbytes for run in self.runs.values())

    # ------------------------------------------------------------ documents

    def receive(self, record: Record, now_s: float) -> Run | None:
        """Take one record in the log's order; returns the run that has something new to do.

        Raises
        ------
        InvalidDocument
            The record goes to the dead letters.
        """
        kind, doc = self.decode(record)
        run = self._find(kind, doc)
        if run is None:
            return self._begin(doc, record, now_s)
        action = run.meet(TRIGGERS.get(kind, Trigger.EXTERNAL)).action
        self._act(action, run, kind, doc, record, now_s)
        run.heard_s = now_s
        return run

    def _find(self, kind: str, doc: Any) -> Run | None:
        """Return the run of a document; `None` for a start that begins one."""
        named = references(kind, doc)
        run = (self._by_descriptor if named.by == "descriptor" else self.runs).get(named.uid)
        if run is not None:
            return run
        if code := self._finished.get(named.uid):
            raise InvalidDocument(code, "its run was closed before it came")
        if home := self._elsewhere(named):
            raise InvalidDocument("scattered_run", f"the run lives in {home}; give its documents one key")
        if kind == "start":
            return None
        if kind not in TRIGGERS:
            raise InvalidDocument("not_supported_yet", f"documents of the kind {kind} are not written yet")
        raise InvalidDocument("orphan", f"no {named.by} {named.uid[:64]!r} is known that this {kind} belongs to")

    def _begin(self, start: Any, record: Record, now_s: float) -> Run:
        parent = route(self.policy.routes, self.home.topic, start)
        if "/" in start["uid"]:
            raise InvalidDocument("schema", "a run's uid with a slash cannot be a node's key")
        inherited = self._rebuilding
        run = Run(self.home, parent, start, content_hash(start), record.offset, inherited=inherited)
        run.heard_s = run.opened_s = now_s
        if not inherited:
            run.start_hold = self.hold(record.offset)
        self.runs[run.uid] = run
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
        self.count(kind, "duplicate")

    def _add_stream(self, run: Run, doc: dict[str, Any], record: Record) -> None:
        normalised = normalise_descriptor(doc)
        name, uid = normalised.doc["name"], doc["uid"]
        if "/" in name:
            raise InvalidDocument("schema", "a stream's name with a slash cannot be a node's key")
        if not run.acceptance.add_descriptor(uid, name):
            self.count("descriptor", "duplicate")
            return
        run.last_offset = record.offset
        self._by_descriptor[uid] = run
        run.notes.extend(normalised.notes)
        stream = run.streams.get(name)
        if is_update := stream is not None:
            stream.reconfigure(normalised)
        else:
            stream = run.streams[name] = Stream((*run.path, name), normalised, fresh=not self._rebuilding)
        if not self._rebuilding:
            run.chores.append(Chore(stream, normalised.doc, is_update, self.hold(record.offset)))

    def _add_rows(self, run: Run, doc: Event | EventPage, record: Record, now_s: float) -> None:
        stream = run.streams[run.acceptance.stream_of(doc.descriptor)]
        events = [doc] if isinstance(doc, Event) else list(doc.events())
        nbytes = len(record.value or b"") // max(len(events), 1)
        for event in events:
            if run.acceptance.add_event(stream.name, event.seq_num, event.uid):
                self._add_row(stream, rename_reserved(event, stream.renames), record, nbytes, now_s)
            else:
                self.count("event", "duplicate")
        run.last_offset = record.offset
        stream.seal_if_full(self.policy)

    def _add_row(self, stream: Stream, event: Event, record: Record, nbytes: int, now_s: float) -> None:
        stream.plan(event)
        if self._rebuilding:
            stream.recall(event)
            return
        if stream.empty:
            stream.begin(self.hold(record.offset), now_s, record.timestamp_ms)
        stream.add(event, record.offset, nbytes)

    def _stop(self, run: Run, doc: dict[str, Any], record: Record) -> None:
        run.stop = doc
        run.last_offset = record.offset
        if self._rebuilding:
            self.forget(run)
        else:
            run.stop_hold = self.hold(record.offset)

    def _condemn(self, run: Run, kind: str, doc: Any, record: Record) -> None:
        run.last_offset = record.offset
        run.holds.append(self.hold(record.offset))
        self._note(run, kind, doc)

    def _note(self, run: Run, kind: str, doc: Any) -> None:
        """Of a run that is not written, remember what its other documents refer to, and its end."""
        if kind == "stop":
            run.stop = doc
        elif kind == "descriptor":
            run.acceptance.add_descriptor(doc["uid"], str(doc.get("name")))
            self._by_descriptor[doc["uid"]] = run

    def _recognise(self, run: Run, kind: str, doc: Any, record: Record) -> None:
        self._note(run, kind, doc)
        if record.offset > run.known_to:
            raise InvalidDocument("late", "the run was closed before it came")
        self.count(kind, "duplicate")

    # ------------------------------------------------------------ the end of a run

    def forget(self, run: Run) -> None:
        """Drop a finished run, remembering for a while that it was."""
        code = run.verdict.code if run.verdict else "late"
        self.runs.pop(run.uid, None)
        if not self._rebuilding:
            self._closed.append((run.first_offset, run.last_offset))
        for uid in (run.uid, *run.acceptance.descriptors):
            self._by_descriptor.pop(uid, None)
            self._finished[uid] = code
        while len(self._finished) > self.policy.finished_remembered_max:
            self._finished.popitem(last=False)

    def knows(self, named: Reference) -> bool:
        """Whether a run or descriptor lives here."""
        return named.uid in (self._by_descriptor if named.by == "descriptor" else self.runs)

    def idle_runs(self, now_s: float) -> Iterator[Run]:
        """Runs of which nothing was heard for too long, and the longest idle of those that are too many."""
        runs = [run for run in self.runs.values() if not run.ending]
        surplus = len(runs) - self.policy.open_max
        longest = sorted(runs, key=lambda run: run.heard_s)[: max(surplus, 0)]
        yield from (run for run in runs if run in longest or now_s - run.heard_s > self.policy.idle_s_max)
