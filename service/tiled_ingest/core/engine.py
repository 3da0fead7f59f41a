"""The only door: `step(now_s, input)` returns the effects that the world shall have.

Everything that is decided is decided behind it: which record belongs where, what is written when, what is retried,
paused, committed, refused, and when to stop. It reads no clock and opens no socket, so that a simulation exercises
exactly what runs at a beamline.

One record's way: `Records` -> decode -> its run -> a batch -> a job in the run's lane -> `Ask` ... `Answered` -> the
hold is released -> the committable offset moves -> `Commit` ... `Committed`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import singledispatchmethod
from itertools import groupby, takewhile
from operator import attrgetter
from typing import Any

from tiled_ingest.core import effects as fx

from .breaker import Breaker
from .claim import Claim
from .commits import Commits
from .decoding.events import Reference
from .errors import DeadLetterFailed, IngestError, InvalidDocument, TiledRejected
from .outbox import Outbox
from .policy import Policy
from .post import Post
from .record import Home, Record
from .rows.stretch import Stretch
from .runs.jobs import next_job
from .runs.lifecycle import CONFLICTING, FOREIGN
from .runs.run import Run, Verdict
from .runs.states import Trigger
from .schedule import Counter, Lane, Ripening, Sleepers
from .snapshot import EngineSnapshot, snapshot_of
from .steps import Announcement, Claiming, Letters, LogChunk, Naming, RefusalsOut, Retaking, Sleep, Step, Weather
from .writes import Done, Exists, Missing, Outcome, Rejected, Unknown, Unprocessed

SWEEP_S = 1.0  # how often we look for runs that nobody speaks of
NOT_OURS = frozenset({FOREIGN.code, CONFLICTING.code})
DOWN_PAUSE_S = 1.0  # intake goes on for a moment when one request fails


class Engine:
    """Decisions for all partitions of one service.

    Parameters
    ----------
    policy
        Every limit.
    nonce
        Makes random words; given, so that a simulation can repeat them.
    """

    def __init__(self, policy: Policy, nonce: Callable[[], str]) -> None:
        self._policy = policy
        self._nonce = nonce
        self._out = Outbox()
        self._weather = Weather()
        self._claims: dict[Home, Claim] = {}
        self._lanes: dict[tuple[Home, str], Lane] = {}
        self._touched: dict[tuple[Home, str], Lane] = {}  # lanes that may have something to do, in order
        self._sleepers = Sleepers()
        self._ripening = Ripening()
        self._requests = Counter()
        self._logs: dict[int, tuple[Lane, fx.ReadLog]] = {}
        self._announced: dict[int, Lane] = {}
        self._commits = Commits(self._out, policy)
        self._breaker = Breaker(policy)
        self._post = Post(self._out, self._breaker, lambda lane: self._resume(lane, None))
        self._swept_s = math.inf  # until the first step
        self._asked_s = float("-inf")  # when Tiled was asked for something
        self._silent_since_s: float | None = None  # of what was asked since Tiled's last answer, the first
        self._down_since_s: float | None = None
        self._down_told = False
        self._paused = False
        self._weighed = 0  # bytes that waited when they were last added up
        self._taken = 0  # what all rows since then count: no more than both together can wait
        self._passed = 0  # documents taken that the breaker has not heard of yet
        self._lightened = False  # what waited may have become less since
        self._draining = False
        self._stopped = False
        self.progress = 0  # grows with everything that was taken but the time
        self._why: IngestError | None = None  # we are ending
        self._end_by_s = 0.0

    # ------------------------------------------------------------ the door

    def step(self, now_s: float, given: fx.Input) -> list[fx.Effect]:
        """Take one input, at `now_s` seconds of a monotonic clock; return what is to be done, in order."""
        self._out.now_s = now_s
        self._swept_s = min(self._swept_s, now_s)
        self._lightened = self._lightened or not isinstance(given, fx.Tick | fx.Records | fx.EndReached | fx.Ends)
        if not self._stopped:
            self.progress += not isinstance(given, fx.Tick | fx.Ends)
            try:
                self._take(given)
                self._heed_breaker()
                self._advance()
                self._heed_breaker()
            except IngestError as error:
                self._stop(error)
        return self._out.take()

    def drained(self, homes: Iterable[Home]) -> bool:
        """Whether all that can be settled of these partitions is settled and committed.

        While Tiled is away nothing can: then the last commit is all there is to wait for.
        """
        return all(self._is_drained(self._claims[home]) for home in homes if home in self._claims)

    @property
    def finished(self) -> bool:
        """Whether a `Drain` is through, or the engine has stopped."""
        return self._stopped or (self._draining and self._why is None and self.drained(self._claims))

    def has_settled(self, ends: Mapping[Home, int]) -> bool:
        """Whether everything before these offsets is settled, in every partition of ours that has one."""
        ours = [claim for home, claim in self._claims.items() if home in ends]
        return bool(ours) and all(claim.live and claim.ledger.committable >= ends[claim.home] for claim in ours)

    @property
    def full(self) -> bool:
        """Whether no more records should be given: what waits takes the memory it may."""
        return self._is_full

    @property
    def waits_for_tiled(self) -> bool:
        """Whether nothing can be done but wait."""
        return self._down_since_s is not None

    @property
    def busy(self) -> bool:
        """Whether answers are awaited: then inputs should come without delay."""
        return bool(self._requests.under_way or self._touched or self._logs or self._announced or self._post.busy)

    def idle_s(self, now_s: float) -> float:
        """How many seconds may pass before there is something to do without any input; may be infinite."""
        return max(0.0, min(self._ripening.next_s, self._sleepers.next_s) - now_s)

    @property
    def wakes_s(self) -> float:
        """When work that waits (for Tiled to come back, say) goes on by itself, at the first input from then on.

        Infinite if none waits; rows that wait for nothing but their age do not count.
        """
        return self._sleepers.next_s

    def snapshot(self) -> EngineSnapshot:
        """Return what operators may see of the state."""
        return snapshot_of(
            self._claims.values(),
            self._out.now_s,
            down_since_s=self._down_since_s,
            silent_since_s=self._silent_since_s,
            letters_since_s=self._post.since_s,
            paused=self._paused,
            ending=self._draining,
        )

    # ------------------------------------------------------------ inputs

    @singledispatchmethod
    def _take(self, given: Any) -> None:
        raise TypeError(f"no input: {given!r}")

    @_take.register
    def _(self, _: fx.Tick) -> None:
        """Time passed: `_advance` looks at the clock."""

    @_take.register
    def _(self, given: fx.Records) -> None:
        for home, records in groupby(given.records, key=attrgetter("topic", "partition")):
            claim = self._claims.get(Home(*home))
            if claim is not None and not claim.leaving and not self._breaker.opened:
                self._receive_all(claim, list(records))
        self._note_passed()

    @_take.register
    def _(self, given: fx.EndReached) -> None:
        claim = self._claims.get(given.home)
        if claim is not None and claim.live and not claim.leaving:  # one that is left takes no records: it passes none
            claim.ledger.passed(given.next_offset)

    @_take.register
    def _(self, given: fx.Ends) -> None:
        for home, end in given.ends.items():
            if home in self._claims:
                self._claims[home].sees_end(end)

    @_take.register
    def _(self, given: fx.Assigned) -> None:
        self._drop(given.home)
        if self._draining:
            return  # it stays paused, and goes to another member
        claim = Claim(
            given,
            self._policy,
            self._weather,
            tell=self._out.tell,
            count=self._out.count,
            fresh_nonce=self._nonce,
            elsewhere=self._home_of,
        )
        self._claims[given.home] = claim
        lane = self._lane(claim, None)
        lane.procedure = claim.take()
        self._resume(lane, None)

    @_take.register
    def _(self, given: fx.Condemned) -> None:
        claim = self._claims[given.home]
        for run in claim.runs:
            if run.uid == given.run and not run.is_finished and run.verdict is None:
                run.condemn(Verdict(given.reason, given.code, given.detail, ours=run.opened))
                self._touch(claim, run)

    @_take.register
    def _(self, given: fx.Revoked) -> None:
        for home in given.homes:
            if home in self._claims:
                self._leave(self._claims[home])

    @_take.register
    def _(self, _: fx.Drain) -> None:
        self._draining = True
        for claim in self._claims.values():
            self._leave(claim)

    @_take.register
    def _(self, given: fx.Released) -> None:
        for home in given.homes:
            self._drop(home)

    @_take.register
    def _(self, given: fx.Answered) -> None:
        lane, _ = self._requests.answered(given.ticket)
        self._hear(given.outcome)
        self._resume(lane, given.outcome)

    @_take.register
    def _(self, given: fx.LogRead) -> None:
        lane, _ = self._logs.pop(given.ticket)
        self._resume(lane, given)

    @_take.register
    def _(self, given: fx.LogUnreadable) -> None:
        lane, request = self._logs.pop(given.ticket)
        if not lane.dropped:
            self._out.tell("log_unreadable", home=str(request.home), detail=given.detail)
            self._resume(lane, None)

    @_take.register
    def _(self, given: fx.DeadLettered) -> None:
        self._post.confirmed(given)

    @_take.register
    def _(self, given: fx.DeadLetterRefused) -> None:
        raise DeadLetterFailed(given.detail)

    @_take.register
    def _(self, given: fx.Announced) -> None:
        self._resume(self._announced.pop(given.ticket), given.refusal)

    @_take.register
    def _(self, given: fx.Committed) -> None:
        for lane in self._commits.confirmed(given):
            self._resume(lane, True)

    @_take.register
    def _(self, given: fx.CommitFailed) -> None:
        if lane := self._commits.failed(given):
            self._resume(lane, False)

    # ------------------------------------------------------------ records

    def _receive_all(self, claim: Claim, records: list[Record]) -> None:
        weighed, touched = claim.runs.weight, set[Run]()
        for piece in takewhile(lambda _: not self._breaker.opened, claim.decode.stretches(records)):
            runs = self._receive_stretch(claim, piece) if isinstance(piece, Stretch) else self._receive(claim, piece)
            if runs and runs != touched:
                self._touch_all(claim, runs)
                touched = runs
        self._taken += claim.runs.weight - weighed

    def _receive_stretch(self, claim: Claim, stretch: Stretch) -> set[Run]:
        runs, rest = claim.runs.receive_stretch(stretch, self._out.now_s)
        told = 0
        for number, record in enumerate(rest):  # the breaker hears of what passed in the order of the log
            before = stretch.place_of(record) - number
            self._passed += before - told
            told = before
            runs |= self._receive(claim, record)
            if self._breaker.opened:  # what comes behind counts as not received: it will come again
                return runs
        self._passed += len(stretch) - len(rest) - told
        last = stretch.records[-1]
        claim.ledger.received(last.offset, last.timestamp_ms)
        return runs

    def _receive(self, claim: Claim, record: Record) -> set[Run]:
        claim.ledger.received(record.offset, record.timestamp_ms)
        return self._take_in(claim, record)

    def _take_in(self, claim: Claim, record: Record) -> set[Run]:
        try:
            runs = claim.runs.receive(record, self._out.now_s)
        except InvalidDocument as error:
            self._note_passed()
            self._post.refuse(claim, record, error)
            return set()
        self._passed += 1
        return runs

    def _retake(self, lane: Lane, step: Retaking) -> None:
        """Take what has waited for its run to go on; nothing can come of the run in between.

        All of it, though the breaker may open at one: it was received before.
        """
        weighed = lane.claim.runs.weight
        for record in step.records:
            self._touch_all(lane.claim, self._take_in(lane.claim, record))
        self._taken += lane.claim.runs.weight - weighed
        self._note_passed()
        self._resume(lane, None)

    def _note_passed(self) -> None:
        """Tell the breaker of the documents that were taken, before it hears of one that was not."""
        self._breaker.passed(self._passed)
        self._passed = 0

    def _home_of(self, named: Reference) -> Home | None:
        return next((home for home, claim in self._claims.items() if claim.runs.knows(named)), None)

    # ------------------------------------------------------------ lanes

    def _lane(self, claim: Claim, run: Run | None) -> Lane:
        key = (claim.home, run.uid if run else "")
        lane = self._lanes.get(key)
        if lane is None or lane.run is not run:
            lane = self._lanes[key] = Lane(run.uid if run else str(claim.home), claim, run)
        return lane

    def _touch(self, claim: Claim, run: Run) -> None:
        self._touched[claim.home, run.uid] = self._lane(claim, run)

    def _touch_all(self, claim: Claim, runs: Iterable[Run]) -> None:
        for run in sorted(runs, key=lambda run: run.first_offset):  # a simulation must find the same order again
            self._touch(claim, run)

    def _resume(self, lane: Lane, answer: Any) -> None:
        """Give a procedure the answer it waits for, and do the step that it wants next."""
        procedure = lane.procedure
        if lane.dropped or procedure is None:
            return
        try:
            step = procedure.send(answer)
        except StopIteration:
            self._ended(lane)
        except TiledRejected as error:
            self._rejected(lane, error)
        else:
            self._do(lane, step)

    def _ended(self, lane: Lane) -> None:
        lane.procedure = None
        if lane.run is None:
            if not lane.claim.flowing:
                self._went_live(lane.claim)
        elif lane.run.at_rest:
            self._lanes.pop((lane.claim.home, lane.run.uid), None)
            if lane.run.verdict is None:
                self._breaker.run_ended()
        else:
            self._tell_whether_ours(lane, lane.run)
            self._touched[lane.claim.home, lane.run.uid] = lane

    def _tell_whether_ours(self, lane: Lane, run: Run) -> None:
        """Tell the breaker, once, of a run that it was found not to be ours."""
        if run.verdict is not None and run.verdict.code in NOT_OURS and not lane.told_not_ours:
            lane.told_not_ours = True
            self._breaker.run_not_ours(run.verdict.code, run.verdict.detail)

    def _rejected(self, lane: Lane, error: TiledRejected) -> None:
        run = lane.run
        if run is None:
            raise error
        # One that an earlier claim had begun is ours, too, though its node may be gone by now.
        run.condemn(Verdict(error.reason, "run_failed", str(error), ours=run.opened or run.inherited))
        lane.claim.tell("run_failed", run=run.uid, error=str(error))
        self._ended(lane)
        self._breaker.run_failed(str(error))

    def _do(self, lane: Lane, step: Step) -> None:
        match step:
            case Sleep():
                self._sleep(lane, step)
            case LogChunk():
                self._read_log(lane, step)
            case Letters():
                self._post.send_all(lane, step)
            case RefusalsOut():
                self._post.await_refusals(lane, step)
            case Announcement():
                self._announce(lane, step)
            case Claiming():
                self._commits.send_claim(lane, step.offset, step.metadata)
            case Naming():
                self._commits.await_naming(lane, step.first_offset)
            case Retaking():
                self._retake(lane, step)
            case _:
                self._requests.add(lane, step)

    def _sleep(self, lane: Lane, sleep: Sleep) -> None:
        if sleep.down and self._down_since_s is None:
            self._down_since_s = self._out.now_s
        if sleep.down and not self._down_told and self._is_down:
            self._down_told = True
            self._out.tell("tiled_down", detail=sleep.why)
        self._sleepers.add(lane, sleep, self._out.now_s)

    def _read_log(self, lane: Lane, chunk: LogChunk) -> None:
        read = fx.ReadLog(
            self._out.ticket(), lane.key, lane.claim.home, chunk.start, chunk.stop, self._policy.log_chunk_bytes
        )
        self._logs[read.ticket] = lane, read
        self._out.put(read)

    def _announce(self, lane: Lane, step: Announcement) -> None:
        ticket = self._out.ticket()
        self._announced[ticket] = lane
        self._out.put(fx.Announce(ticket, step.run, step.path, step.state, step.rows))

    def _hear(self, outcome: Outcome) -> None:
        """Learn from an answer how Tiled is."""
        if not isinstance(outcome, Unprocessed) and not (isinstance(outcome, Unknown) and not outcome.status):
            self._silent_since_s = None
        if not isinstance(outcome, Done | Exists | Missing | Rejected):
            return
        self._weather.note(outcome)
        if self._down_since_s is not None:
            if self._down_told:
                self._out.tell("tiled_up", since_s=self._down_since_s)
            self._down_since_s, self._down_told = None, False
            for lane in self._sleepers.wake_down():
                self._resume(lane, None)

    def _forget_outage(self) -> None:
        """Nobody asks Tiled any more (the partitions that did are gone): only new work can tell how it is."""
        if self._silent_since_s is not None and self._requests.empty and all(map(_is_idle, self._lanes.values())):
            self._silent_since_s = None
        if self._down_since_s is not None and self._requests.empty and not self._sleepers.any_down:
            self._down_since_s, self._down_told = None, False

    # ------------------------------------------------------------ what follows every input

    def _advance(self) -> None:
        for lane in self._sleepers.awake(self._out.now_s):
            self._resume(lane, None)
        for lane in self._ripening.ripe(self._out.now_s):
            self._touched[lane.claim.home, lane.key] = lane
        self._sweep()
        self._start_jobs()
        self._send_requests()
        self._forget_outage()
        self._pause_or_resume()
        leaving = [claim for claim in self._claims.values() if claim.leaving and self._is_quiet(claim)]
        self._commits.send_due(self._claims.values(), leaving)
        self._end_if_settled()

    def _sweep(self) -> None:
        """Once a second look for runs that nobody speaks of, as far as we listen."""
        since_s = self._out.now_s - self._swept_s
        if since_s < SWEEP_S:
            return
        self._swept_s = self._out.now_s
        self._lightened = True
        for claim in self._claims.values():
            if self._paused or self._down_since_s is not None or claim.is_behind:
                claim.runs.hear_nothing(since_s)
            for run in list(claim.runs.idle(self._out.now_s)) if claim.live and not claim.leaving else ():
                self._abandon(claim, run)
        if self._out.now_s - self._asked_s >= self._policy.knock_s and self._down_since_s is None:
            self._knock()

    def _knock(self) -> None:
        """Look whether Tiled is there, on behalf of one claim: an idle service would not notice."""
        lanes = (self._lane(claim, None) for claim in self._claims.values() if claim.flowing and not claim.leaving)
        if lane := next((lane for lane in lanes if lane.idle), None):
            lane.procedure = lane.claim.knock()
            self._resume(lane, None)

    def _abandon(self, claim: Claim, run: Run) -> None:
        if not run.is_written and run.is_held:
            return  # its documents are repetitions, or go to the dead letters: first that is settled
        if self._policy.announces and run.unannounced:
            return
        run.meet(Trigger.IDLE)
        self._out.tell("run_idle", run=run.uid)
        if run.is_finished:
            claim.forget(run)
        else:
            self._touch(claim, run)

    def _start_jobs(self) -> None:
        """Let every idle lane that was touched begin its next job.

        Who has none is left alone until its rows are old; who is at work is touched again at the end of it.
        """
        touched, self._touched = self._touched, {}
        for key, lane in touched.items():
            if lane.idle and not lane.dropped:
                self._start_job(key, lane)

    def _start_job(self, key: tuple[Home, str], lane: Lane) -> None:
        run = lane.run
        if run is None or run.is_finished:
            return
        lane.procedure = next_job(lane.claim, run, self._out.now_s, self._force(lane.claim))
        if lane.procedure is not None:
            self._resume(lane, None)
        elif run.at_rest:
            self._lanes.pop(key, None)
        elif run.waiting:
            self._ripening.add(lane, run.ripe_s(self._policy))

    def _force(self, claim: Claim) -> str | None:
        return "shutdown" if self._draining else "revoke" if claim.leaving else None

    def _send_requests(self) -> None:
        while found := self._requests.next(self._requests_max):
            lane, request = found
            ticket = self._out.ticket()
            self._requests.sent(ticket, lane, request)
            self._asked_s = self._out.now_s
            self._silent_since_s = self._asked_s if self._silent_since_s is None else self._silent_since_s
            self._out.put(fx.Ask(ticket, lane.key, request))

    @property
    def _requests_max(self) -> int:
        """Embedded storage loses rows under two writers; a Tiled that is away needs but one knock at the door."""
        many = self._weather.storage == "postgresql" and self._down_since_s is None
        return self._policy.requests_max if many else 1

    # ------------------------------------------------------------ intake

    def _went_live(self, claim: Claim) -> None:
        claim.flowing = True
        claim.runs.came_back(self._out.now_s)
        self._out.tell(
            "claimed",
            home=str(claim.home),
            epoch=claim.epoch,
            offset=claim.ledger.next_offset,
            open_runs=len(claim.runs),
        )
        if not self._paused and not claim.leaving:
            self._out.put(fx.Resume((claim.home,)))

    def _pause_or_resume(self) -> None:
        wanted = self._is_down or self._is_full
        if wanted == self._paused:
            return
        self._paused = wanted
        homes = tuple(home for home, claim in self._claims.items() if claim.live and not claim.leaving)
        for home in homes if not wanted else ():
            self._claims[home].listens_again()
        if homes:
            self._out.put(fx.Pause(homes) if wanted else fx.Resume(homes))

    @property
    def _is_down(self) -> bool:
        return self._down_since_s is not None and self._out.now_s - self._down_since_s >= DOWN_PAUSE_S

    @property
    def _is_full(self) -> bool:
        """Whether too many bytes wait. They are added up only when that could change the answer: runs may be many."""
        limit = self._policy.memory_bytes_max // (2 if self._paused else 1)
        may_change = self._lightened if self._paused else self._weighed + self._taken > limit
        if may_change:
            self._weighed, self._taken, self._lightened = sum(claim.nbytes for claim in self._claims.values()), 0, False
        return self._weighed + self._taken > limit

    # ------------------------------------------------------------ leaving

    def _leave(self, claim: Claim) -> None:
        claim.leaving = True
        self._out.put(fx.Pause((claim.home,)))
        for run in claim.runs:
            self._touch(claim, run)

    def _is_drained(self, claim: Claim) -> bool:
        return not claim.live or claim.fenced or (self._is_quiet(claim) and self._is_committed(claim))

    def _is_finished(self, claim: Claim) -> bool:
        """Whether all of the partition is settled and committed: not only what can be while Tiled is away."""
        return not claim.live or claim.fenced or (self._is_settled(claim) and self._is_committed(claim))

    def _is_committed(self, claim: Claim) -> bool:
        return claim.to_commit == claim.committed and not self._commits.is_under_way(claim)

    def _is_quiet(self, claim: Claim) -> bool:
        """Whether nothing of the partition can be settled now."""
        if self._down_since_s is not None and not self._requests.are_under_way(claim):
            return True
        return self._is_settled(claim)

    def _is_settled(self, claim: Claim) -> bool:
        return claim.ledger.settled and all(lane.idle for lane in self._lanes.values() if lane.claim is claim)

    def _drop(self, home: Home) -> None:
        claim = self._claims.pop(home, None)
        if claim is None:
            return
        for key, lane in [(key, lane) for key, lane in self._lanes.items() if lane.claim is claim]:
            lane.dropped = True
            del self._lanes[key]
            self._touched.pop(key, None)

    def _heed_breaker(self) -> None:
        """Stop if it is open, but first settle and commit what was begun: the next process need not refuse the same
        again.
        """
        if self._breaker.opened and self._why is None:
            self._why, self._end_by_s = self._breaker.opened, self._out.now_s + self._policy.end_s_max
            self._take(fx.Drain())

    def _end_if_settled(self) -> None:
        """Tiled's absence ends nothing before the time is up: a single answer that was lost looks like one."""
        if self._why and (all(map(self._is_finished, self._claims.values())) or self._out.now_s >= self._end_by_s):
            self._stop(self._why)

    def _stop(self, error: IngestError) -> None:
        self._stopped = True
        self._out.put(fx.Stop(error.reason, str(error)))


def _is_idle(lane: Lane) -> bool:
    return lane.idle
