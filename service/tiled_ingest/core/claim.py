"""One partition in our hands: claimed in the group's offsets, and rebuilt from the log."""

import math
from collections.abc import Callable
from functools import partial

from .decoding.eras import Eras
from .decoding.events import Reference
from .effects import Assigned
from .errors import InvalidDocument, OffsetOutOfRange
from .offsets import Commitment, Hold, Ledger, ResumePoint, out_of_range
from .policy import Policy
from .record import Home, Record
from .rows.stretch import Stretch
from .runs.acceptance import RULES_VERSION
from .runs.lifecycle import standing_of
from .runs.routes import where_runs_are
from .runs.run import Run
from .runs.runs import Runs
from .steps import Claiming, Procedure, Sleep, Standing, Weather, read_log
from .writes import Done, FindOpenRuns, GetNode, OpenRun, UpdateMetadata
from .writing.datasets import OURS
from .writing.patience import insist


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
        self.decode = Eras(policy)
        self.tell = partial(tell, topic=self.home.topic, partition=self.home.partition)
        self.fresh_nonce = fresh_nonce
        self.runs = Runs(self.home, policy, self.decode, hold=self.hold, count=self.count, elsewhere=elsewhere)
        self.live = False  # rebuilt: records may come
        self.flowing = False  # and we have let them come
        self.leaving = False
        self.fenced = False  # the last commit was refused since the group went on without us, or with us
        self.commit_after_s = 0.0
        self.ledger = Ledger(0)
        self.committed: Commitment | None = None
        self._assigned = assigned
        # Where the log ended when we looked last, and the time before that: what was there then has come since.
        self._end = self._end_before = float(assigned.high)
        self._ends_are_told = False
        self._count = count

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
        self.decode.begin(point.limits if point else (), offset)
        start = min(start, offset)
        claimed = Commitment(offset, start, tuple(point.reopening) if point else ())
        yield from self._commit(offset, self.metadata(claimed))
        self.committed = claimed
        if start < self._assigned.low:
            yield from self._give_up(self._assigned.low)
        yield from self._rebuild(max(start, self._assigned.low), offset)
        for run in self.runs:
            run.reopening = run.first_offset in claimed.reopening
        self.live = True

    def knock(self) -> Procedure[None]:
        """See whether Tiled is there, and knows us: nobody else has asked for a while."""
        yield from insist(self, str(self.home), GetNode(()))

    def _commit(self, offset: int, metadata: str) -> Procedure[None]:
        """Commit the claim itself, however often it takes."""
        wait_s = self.policy.backoff_s_min
        while not (yield Claiming(offset, metadata)):
            yield Sleep(wait_s, down=False)
            wait_s = min(2 * wait_s, self.policy.backoff_s_max)

    def _checked_resume_point(self) -> ResumePoint | None:
        assigned = self._assigned
        point = ResumePoint.decode(assigned.metadata)
        if point and point.rules > RULES_VERSION:
            raise OffsetOutOfRange(
                f"{self.home}: a newer version accepted documents here by rules that this one does not know "
                f"({point.rules}, ours are {RULES_VERSION}). Run the newer version."
            )
        if assigned.committed is None:
            return point
        if point and assigned.topic_id and point.topic_id and point.topic_id != assigned.topic_id:
            raise OffsetOutOfRange(
                f"{self.home}: the topic was deleted and created again under its name; the committed offset "
                f"{assigned.committed} belongs to the old one. Reset the group's offset to read the new one."
            )
        if assigned.committed < assigned.low and self.policy.accept_gap:
            gap = assigned.low - assigned.committed
            self.tell("gap", count=gap, first_offset=assigned.committed, last_offset=assigned.low - 1)
        elif why := out_of_range(self.home, assigned.committed, assigned.low, assigned.high):
            raise OffsetOutOfRange(why)
        return point

    def _first_offset(self) -> int:
        assigned = self._assigned
        if assigned.committed is not None:
            return max(assigned.committed, assigned.low)  # an accepted gap
        return assigned.begins_at(start_latest=self.policy.start_latest)

    def _without_metadata(self, offset: int) -> Procedure[tuple[int, int]]:
        """Nobody left a resume point: ask Tiled which runs of this partition are open."""
        start, epoch = offset, 0
        for run in (yield from self._open_in_tiled()):
            start = min(start, run.first_offset)
            epoch = max(epoch, run.epoch_max)
        return start, epoch

    def _open_in_tiled(self) -> Procedure[list[OpenRun]]:
        parent, levels = where_runs_are(self.policy.routes, self.home.topic)
        request = FindOpenRuns(parent, self.topic_id, self.home.partition, levels)
        answer = yield from insist(self, str(self.home), request)
        return list(answer.value) if isinstance(answer, Done) else []

    def _give_up(self, low: int) -> Procedure[None]:
        """Mark the open runs as failed whose beginning the log has lost: what still comes of them are dead letters."""
        for run in (yield from self._open_in_tiled()):
            if run.first_offset < low:
                facts = dict(run.metadata[OURS])
                facts.pop("rows", None)  # what it said there was true when the run was opened
                note = f"The log begins at {low}: the run's beginning was deleted before its end was written."
                facts |= {"state": "failed", "notes": [*facts.get("notes", ()), note]}
                yield from insist(self, str(self.home), UpdateMetadata(run.path, {OURS: facts}))
                self.runs.give_up(run.path[-1], run.descriptors, "beginning_lost")
                self.tell("run_closed", run=run.path[-1], state="failed", rows=0)

    def _rebuild(self, start: int, stop: int) -> Procedure[None]:
        """Read [start, stop) again: its documents make the runs' state, and cause no write."""
        self.runs.rebuild()
        while start < stop:
            chunk = yield from read_log(start, stop)
            if chunk.low > start:  # retention was quicker than we
                yield from self._give_up(chunk.low)
            for piece in self.decode.stretches([record for record in chunk.records if record.offset < stop]):
                rest = self.runs.receive_stretch(piece, 0.0)[1] if isinstance(piece, Stretch) else [piece]
                for record in rest:
                    self._recall(record)
            start = max(chunk.next_offset, start)
        self.runs.rebuilt()
        for run in self.runs:
            run.emitted_to = stop
            for stream in run.streams.values():
                stream.recalled()

    def _recall(self, record: Record) -> None:
        try:
            self.runs.receive(record, 0.0)
        except InvalidDocument:
            return  # refused then, confirmed in the dead letters then

    def standing(self, lane: str) -> Standing | None:
        """Return the node of the run that this lane works for, once it is there."""
        run = self.runs.get(lane)
        return standing_of(self, run) if run is not None else None

    # ------------------------------------------------------------ how far we have listened

    def sees_end(self, end: int) -> None:
        """Note where the log ends now."""
        self._end_before, self._end = self._end, end
        self._ends_are_told = True

    def listens_again(self) -> None:
        """Records come again after a pause: how many were published meanwhile is not known yet."""
        if self._ends_are_told:
            self._end_before = self._end = math.inf

    @property
    def is_behind(self) -> bool:
        """Whether the log holds what we have not received, though it was there a while ago."""
        return self.ledger.next_offset < self._end_before

    # ------------------------------------------------------------ holds and commits

    def hold(self, offset: int, timestamp_ms: int | None = None) -> Hold:
        """Keep an offset from being committed; `timestamp_ms` as in `Ledger.hold`."""
        return self.ledger.hold(offset, timestamp_ms)

    def release(self, hold: Hold) -> int:
        """Settle what the hold stood for; returns what `Ledger.release` does."""
        return self.ledger.release(hold)

    def count(self, kind: str, result: str, number: int = 1) -> None:
        """Count settled documents."""
        self._count(kind, result, number)

    @property
    def reopening(self) -> tuple[int, ...]:
        """Which runs are being opened again, by the offsets of their starts."""
        return self.runs.reopening

    @property
    def to_commit(self) -> Commitment:
        """What is to be committed as things are now."""
        committable = self.ledger.committable
        return Commitment(committable, self.runs.first_needed(committable), self.reopening)

    def metadata(self, point: Commitment) -> str:
        """The string that is committed with it."""
        limits, partitions = self.decode.since(point.start), self._assigned.partitions
        words = self.epoch, self.nonce, self.topic_id, RULES_VERSION
        return ResumePoint(point.start, *words, limits, partitions, list(point.reopening)).encode()

    @property
    def nbytes(self) -> int:
        """Bytes that wait for Tiled."""
        return self.runs.nbytes

    def forget(self, run: Run) -> None:
        """Drop a finished run."""
        self.runs.forget(run)

    def keep_dormant(self, run: Run) -> None:
        """Remember a run that was given up, so that it can go on."""
        self.runs.keep_dormant(run)
