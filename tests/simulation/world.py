"""One history: members with their engines, Kafka and Tiled, under a seeded schedule of all that can go wrong.

First the beamline publishes while faults strike; then the world heals, and everything must come to rest; at
last time passes until runs that nobody stopped are given up. The same options give the same history.
"""

import random
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home
from tiled_ingest.core.writes import EnsureContainer, Path

from .clock import Clock
from .coordinator import PROTOCOLS, Coordinator
from .documents import PAGE_ROWS_MAX, Item, plan
from .faults import Fault, Faults
from .kafka_model import CompletedTopic, DeadLetterTopic, Group, Partition
from .member import Member
from .options import Options, Report, draw_homes, draw_parent, draw_policy
from .oracle import Oracle
from .reopened import Reopened
from .silence import fall_silent
from .surroundings import EngineLike, Surroundings
from .tiled_model import NodeState, TiledModel
from .wire import Wire

POISON_RATE = 0.02
BODY_LIMIT_RATE = 0.1
RARE_MORE = 4  # times as often where runs are given up early: what they meet then is rare enough by itself
CUT_SHARE = 0.2  # of the silences: the log's beginning is deleted before its publisher speaks again
STEPS_MAX = 20_000  # in one phase; a history that needs more does not come to rest
REST_S_MAX = 600.0
IDLE_S_MIN = 120.0  # a few looks at who is idle, however soon runs are given up
TOPIC_ID = "topic-id-1"

MakeEngine = Callable[[Policy, Callable[[], str]], EngineLike]


class HistoryError(Exception):
    """The history ends here: something happened that must not."""


class World:
    """Sets up a history and runs it."""

    def __init__(self, options: Options, make_engine: MakeEngine, trace: Callable[[str], None] | None = None) -> None:
        self.options = options
        self._make_engine, self._trace_line = make_engine, trace
        setup, chance = random.Random(f"{options.seed}/setup"), random.Random(f"{options.seed}/chance")
        self._rng = chance
        self._poisons = random.Random(f"{options.seed}/poison")
        self._cuts = random.Random(f"{options.seed}/cuts")
        self.clock = Clock()
        self.faults = Faults(
            random.Random(f"{options.seed}/faults"),
            options.strikes_max,
            options.without,
            options.heal_s,
            storm=options.storm,
        )
        self.faults.rates |= options.rates
        self.partitions = {home: Partition(home) for home in draw_homes(setup)}
        self.group, self.dead_letters = Group(), DeadLetterTopic()
        storages = ("duckdb", "duckdb", "postgresql") if options.storm else ("postgresql", "postgresql", "duckdb")
        self.tiled = TiledModel(setup.choice(storages), random.Random(options.seed))
        self.parent = draw_parent(random.Random(f"{options.seed}/parent"))
        self.policy = draw_policy(setup, options, self.parent)
        self.plan = plan(
            setup, list(self.partitions), options.runs_limit, external=options.external, arrays=options.arrays
        )
        if options.impatient:
            fall_silent(random.Random(f"{options.seed}/silence"), self.plan, options.idle_s_max)
        self.completed = CompletedTopic(random.Random(f"{options.seed}/completed"))
        announced = self.completed if self.policy.announces else None
        self.oracle = Oracle(
            self.plan, self.tiled, self.dead_letters, self.parent, announced, idle_s_max=self.policy.idle_s_max
        )
        self.reopened = Reopened(self.plan, self.tiled, self._resume_point, self.policy.dormant_max)
        self.tiled.watch = self.reopened.updated
        self.wire = Wire(self.clock, chance, self.faults, self.tiled, self._owner_of, self.policy.late_write_s_max)
        self.protocol = random.Random(f"{options.seed}/protocol").choice(PROTOCOLS)
        self.coordinator = Coordinator(
            self.clock, chance, self.group, list(self.partitions), TOPIC_ID, self._nonce, self.protocol
        )
        self._failure: list[str] = []
        self.around = Surroundings(
            self.clock, chance, self.faults, self.wire, self.group, self.partitions, self.dead_letters,
            self.completed, self.oracle.committed, self._announced, self.reopened.refused,
            self._failure.append, self._trace, self._owner_of,
            self.policy.end_s_max if self.policy.breaker_window < Policy().breaker_window else None,
        )  # fmt: skip
        self._births = 0
        self._processes: list[Member] = []
        self._publishing = 0
        self._members_wanted = setup.choice((1, 1, 2))

    # ------------------------------------------------------------ the course of a history

    def run(self) -> Report:
        """Run it to its end, or to the first thing that must not happen."""
        try:
            self._begin()
            self._until(lambda: self.clock.now_s >= self.options.heal_s and self._publishing == 0, "publishing")
            self._heal()
            self._until(self._at_rest, "coming to rest after all faults ceased")
            self._idle()
            self._until(lambda: self.wire.pending == 0, "late writes")
            self.oracle.judge_end()
        except HistoryError as error:
            if not self._violations():
                self._failure.append(str(error))
        except Exception as error:  # noqa: BLE001  of an engine, a model or the oracle: none may raise any
            self._failure.append("".join(traceback.format_exception(error)[-3:]))
        finally:
            for member in self._processes:
                member.discard()
        violations = self._violations()
        hit, steps = self.faults.hit, self.around.steps
        return Report(self.options, steps, hit, violations, self.oracle.residual, self.tiled.storage, self.protocol)

    def _begin(self) -> None:
        rejected = [
            run
            for run in self.plan.runs.values()
            if not run.foreign and self._rng.random() < self._rare(self.options.refused_share)
        ]
        for run in rejected:
            if self.faults.allows(Fault.REJECTION):
                run.rejected = True
                self.tiled.rejects.add(run.uid)
        self._poison()
        if random.Random(f"{self.options.seed}/proxy").random() < self._rare(BODY_LIMIT_RATE):
            self.wire.rows_max = PAGE_ROWS_MAX
        self.wire.vices = random.Random(f"{self.options.seed}/vices")
        if self.tiled.storage == "duckdb":  # under load, so that appends of two clients meet
            self.wire.append_s = self.wire.vices.choice((0.3,) if self.options.storm else (0.0, 0.3))
            self._members_wanted = 2 if self.wire.append_s else self._members_wanted
        for run in self.plan.runs.values():
            if run.foreign:
                self._plant(run.uid)
        self.coordinator.begin([self._bear() for _ in range(self._members_wanted)])
        for home, items in self.plan.queues.items():
            self._publishing += 1
            self._publish(home, list(items), backlog=self._rng.choice((0, 10, 1_000)))
        for at_s, fault in self.faults.moments:
            self.clock.after(at_s, partial(self._strike, fault))
        self._cut_where_runs_fail(random.Random(f"{self.options.seed}/cut failures"))

    def _cut_where_runs_fail(self, rng: random.Random) -> None:
        """Let logs lose their beginning while runs fail: what is left of such a run must still go out."""
        if any(run.rejected or run.poison for run in self.plan.runs.values()):
            for _ in range(rng.choice((0, 1, 3))):
                self.clock.after(rng.uniform(0.5, self.options.heal_s), self._cut_log)

    def _rare(self, rate: float) -> float:
        return min(1.0, rate * (RARE_MORE if self.options.impatient else 1))

    def _poison(self) -> None:
        """Let documents of a run hold what the database cannot store, now and then of one that is alone."""
        for run in self.plan.runs.values():
            if run.foreign or run.rejected or self._poisons.random() >= self._rare(POISON_RATE):
                continue
            if self.faults.allows(Fault.POISON):
                run.poison = self._poisons.choice(("start", "stream", "table", "rows", "stop"))
                self.tiled.poisons[run.uid] = run.poison

    def _plant(self, uid: str) -> None:
        """Let someone else have written a run of this uid before."""
        self.tiled.perform(EnsureContainer(self.parent))
        self.tiled.nodes[*self.parent, uid] = NodeState({"start": {"uid": uid, "theirs": True}})

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        steps_max, time_max = self.around.steps + STEPS_MAX, self.clock.now_s + REST_S_MAX
        while not reached():
            if self.around.steps > steps_max or self.clock.now_s > time_max or not self.clock.turn():
                raise HistoryError(f"no end of {what}: {self._standing()}")
            if self._violations():
                raise HistoryError("stopped at the first violation")

    def _heal(self) -> None:
        self._trace("world", "heals", "")
        self.faults.healed = True
        self.wire.down_until_s = self.wire.broken_until_s = self.wire.routeless_until_s = 0.0
        self.wire.rows_max = None
        self.around.poll_s = 0.3

    def _idle(self) -> None:
        """Let so much time pass that runs which nobody stopped may be given up."""
        self.around.poll_s = 6.0 if self.options.impatient else 20.0
        until_s = self.clock.now_s + max(1.5 * self.policy.idle_s_max, IDLE_S_MIN)
        while self.clock.now_s < until_s and self.clock.turn():
            if self._violations():
                raise HistoryError("stopped at the first violation")
        self.around.poll_s = 0.3
        self._until(self._at_rest, "coming to rest after the idle time")

    def _at_rest(self) -> bool:
        ends = all(
            self.group.committed(home) == partition.high
            for home, partition in self.partitions.items()
            if partition.high
        )
        return ends and all(map(self.oracle.complete, self.partitions))

    def _standing(self) -> str:
        places = [f"{home} {self.group.committed(home)} of {part.high}" for home, part in self.partitions.items()]
        open_homes = [str(home) for home in self.partitions if not self.oracle.complete(home)]
        return f"committed {places}, unfinished runs in {open_homes}"

    def _violations(self) -> list[str]:
        found = (
            self._failure,
            self.reopened.violations,
            self.group.violations,
            self.tiled.violations,
            self.wire.violations,
        )
        return [*(line for lines in found for line in lines), *self.oracle.violations]

    # ------------------------------------------------------------ the beamline

    def _publish(self, home: Home, items: list[Item], backlog: int) -> None:
        partition = self.partitions[home]
        while items:
            gap = self._rng.choice((0,) * 8 + (1, 3))
            item = items.pop(0)
            record = partition.publish(item.value, gap=gap, timestamp_ms=round(1000 * self.clock.now_s))
            self.oracle.published(record, item)
            self.reopened.published(record, item)
            backlog = max(0, backlog - 1)
            silence_s = items[0].silence_s if items else 0.0
            if not backlog or silence_s:
                pause_s = max(silence_s, self._rng.expovariate(4.0))
                if silence_s and self._cuts.random() < CUT_SHARE:
                    self.clock.after(0.9 * pause_s, self._cut_log)
                self.clock.after(pause_s, partial(self._publish, home, items, backlog))
                return
        partition.mark(self._rng.choice((0, 0, 2)))
        self._publishing -= 1

    # ------------------------------------------------------------ members

    def _nonce(self) -> str:
        return f"{self._rng.getrandbits(40):010x}"

    def _resume_point(self, home: Home) -> ResumePoint | None:
        stored = self.group.commits.get(home)
        return ResumePoint.decode(stored.metadata) if stored else None

    def _owner_of(self, path: Path) -> str | None:
        home = next((self.plan.home_of[key] for key in path if key in self.plan.home_of), None)
        return None if home is None else self.group.owners.get(home)

    def _announced(self, name: str, path: Path, state: str) -> None:
        """Judge what the owner announces: a zombie may have looked at the run before its successor went on with it."""
        if self._owner_of(path) == name:
            self.oracle.announced(path, state)

    def _name(self) -> str:
        self._births += 1
        return f"member-{self._births}"

    @property
    def _calmed(self) -> Policy:
        """The limits with which a process is started once all faults ceased: somebody has looked after the breaker.

        A log in which as much is refused as ended the last one would end every next one, too.
        """
        calm = Policy()
        return replace(self.policy, breaker_window=calm.breaker_window, breaker_share_max=calm.breaker_share_max)

    def _birth(self) -> None:
        self.coordinator.join(self._bear())

    def _bear(self) -> Member:
        engine = self._make_engine(self._calmed if self.faults.healed else self.policy, self._nonce)
        threads = self.policy.requests_max
        member = Member(self._name(), engine, self.around, threads, lambda: self._died(member))
        self._processes.append(member)
        return member

    def _died(self, member: Member) -> None:
        """Let a supervisor start another one; the group finds out at once, or when the session ends."""
        self._processes.remove(member)
        static = self._rng.random() < 0.5
        session_s = 0.0 if member.ended_in_order else self._rng.uniform(0.0, 6.0)
        restart_s = self._rng.uniform(0.0, 3.0)
        if static:
            session_s = min(session_s, restart_s)
        self.clock.after(session_s, partial(self.coordinator.leave, member.name))
        if len(self._processes) < self._members_wanted:
            self.clock.after(restart_s, self._birth)

    # ------------------------------------------------------------ faults that have their moment

    def _strike(self, fault: Fault) -> None:
        if fault in (Fault.OUTAGE, Fault.TILED_RESTART):
            if self._strikes(fault):
                self.wire.break_off(down_s=self._rng.uniform(*((1.0, 6.0) if fault is Fault.OUTAGE else (0.0, 0.5))))
            return
        if fault is Fault.DATABASE_RESTART:
            self._break_database(self._rng.choice((1, 1, 2)))
            return
        if fault is Fault.ROUTE_GONE:
            if self._strikes(fault):
                self.wire.routeless_until_s = self.clock.now_s + self._rng.uniform(0.5, 10.0)
            return
        if fault is Fault.RETENTION:
            self._cut_log()
            return
        able = [member for member in self._processes if not member.hung and not member.draining]
        if able and self._strikes(fault):
            self._strike_member(fault, self._rng.choice(able))

    def _strikes(self, fault: Fault) -> bool:
        """Whether a fault that has its moment may strike; it is told if so."""
        if not self.faults.allows(fault):
            return False
        self._trace("world", fault, "")
        return True

    def _break_database(self, times: int) -> None:
        """Have Tiled answer 500 to everything, once or twice; what was under way may be lost, too."""
        if not self._strikes(Fault.DATABASE_RESTART):
            return
        self.wire.broken_until_s = self.clock.now_s + self._rng.choice((0.5, 5.0, 20.0)) * self._rng.random()
        if times > 1:
            again_s = self.wire.broken_until_s - self.clock.now_s + self._rng.uniform(0.0, 3.0)
            self.clock.after(again_s, partial(self._break_database, times - 1))

    def _strike_member(self, fault: Fault, member: Member) -> None:
        match fault:
            case Fault.CRASH:
                member.crash()
            case Fault.SHUTDOWN:
                member.drain(self._rng.choice((1.0, 60.0)))
            case Fault.REBALANCE:
                self._members_wanted = self._rng.choice((1, 2))
                if len(self._processes) < 2:
                    self._birth()
                self.coordinator.balance()
            case Fault.HANG:
                member.hang(partial(self._frozen, member), in_effects=self._rng.random() < 0.5)
            case Fault.ZOMBIE:
                self._forget(member)
                self.clock.after(self._rng.uniform(0.0, 6.0), partial(self._tell_lost, member))

    def _frozen(self, member: Member) -> None:
        self.clock.after(self._rng.uniform(0.2, 3.0), partial(self._forget, member))
        self.clock.after(self._rng.uniform(3.0, 12.0), member.wake)
        self.clock.after(self._rng.uniform(12.0, 14.0), partial(self._tell_lost, member))

    def _forget(self, member: Member) -> None:
        """Let the group count it out; often somebody else is there to take over."""
        self._trace(member.name, "forgotten", "by its group")
        self.coordinator.leave(member.name)
        if len(self._processes) < 2 and self._rng.random() < 0.7:
            self._birth()

    def _tell_lost(self, member: Member) -> None:
        if member.alive and member not in self.coordinator.members:
            member.lose(partial(self._join_again, member))

    def _join_again(self, member: Member) -> None:
        if member in self.coordinator.members:
            return  # it heard of an earlier loss meanwhile
        self.wire.client_renamed(member.name)
        member.name = self._name()
        self.coordinator.join(member)

    def _cut_log(self) -> None:
        """Delete what was committed, and a little of what an open run may still want to read again."""
        for home, partition in self.partitions.items():
            committed = self.group.committed(home)
            if committed and committed > partition.low and self.faults.allows(Fault.RETENTION):
                partition.truncate(self._rng.randint(partition.low, committed))
                self.oracle.cut(home, partition.low)
                self.reopened.cut(home, partition.low)

    def _trace(self, who: str, what: str, about: object) -> None:
        if self._trace_line is not None:
            self._trace_line(f"{self.clock.now_s:9.3f} {who:9} {what} {about!s:.400}")
