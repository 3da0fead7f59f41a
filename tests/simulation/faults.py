"""What can go wrong in a history, and how often. Every fault is drawn and counted here.

Each history draws its own rates, with many of them zero: a history in which everything fails at once explores
less than one in which a few things fail often.
"""

import random
from collections import Counter
from enum import StrEnum, auto


class Fault(StrEnum):
    """A kind of fault. Each must strike somewhere in the histories of the gate."""

    # a request to Tiled
    REPLY_LOST = auto()  # applied, but the answer never came
    UNSENT = auto()  # the connection failed before the request was sent
    BUSY = auto()  # 503 with Retry-After: certainly not applied
    SERVER_ERROR = auto()  # 500, and no effect
    LATE_APPLIED = auto()  # answered "unknown"; its target was looked up at once, written later
    LATE_RESOLVED = auto()  # answered "unknown"; looked up and written later
    # Tiled as a whole
    OUTAGE = auto()
    TILED_RESTART = auto()
    DATABASE_RESTART = auto()  # Tiled answers 500 to everything for a while, often several times in a row
    ROUTE_GONE = auto()  # what stands before Tiled answers 404 to everything for a while
    BODY_LIMIT = auto()  # what stands before Tiled refuses larger appends (413)
    REJECTION = auto()  # Tiled refuses the rows of one run
    DEADLY_REFUSAL = auto()  # DuckDB: an append that is refused takes Tiled down, often again when it is sent again
    TWO_WRITERS = auto()  # DuckDB: rows of an append that is confirmed are lost, as another client's was under way
    POISON = auto()  # Tiled answers 500 to one request of a run, however often it comes
    # a member of the group
    CRASH = auto()
    CRASH_IN_EFFECTS = auto()  # between two effects of one step
    ORPHANED_REQUEST = auto()  # its client died; it is applied, and perhaps much later
    HANG = auto()  # frozen longer than its session, then works on for a while
    ZOMBIE = auto()  # lost its partitions and does not know for a while
    REBALANCE = auto()
    OVERRUN = auto()  # the drain missed its deadline
    SHUTDOWN = auto()  # asked to end, in order
    BREAKER_OPEN = auto()  # so much was refused that it ended by itself
    # Kafka
    COMMIT_LOST = auto()  # neither stored nor confirmed
    COMMIT_UNCONFIRMED = auto()  # stored, but not confirmed
    COMMIT_FENCED = auto()  # by a member that is none any more
    COMMIT_STALE = auto()  # of a generation that is just over, by a member that keeps its partition in the next one
    LOG_UNREADABLE = auto()
    RETENTION = auto()  # the log lost what was committed
    DEAD_LETTER_UNCONFIRMED = auto()  # written, but not confirmed
    DEAD_LETTER_LOST = auto()  # neither written nor confirmed
    DEAD_LETTER_SLOW = auto()  # it takes seconds, and all that are sent after it wait, too


# Drawn per opportunity (a request, an effect, a commit...). What has a moment of its own is in `MOMENTS`.
RATES: dict[Fault, float] = {
    Fault.REPLY_LOST: 0.08,
    Fault.UNSENT: 0.05,
    Fault.BUSY: 0.05,
    Fault.SERVER_ERROR: 0.05,
    Fault.LATE_APPLIED: 0.05,
    Fault.LATE_RESOLVED: 0.05,
    Fault.CRASH_IN_EFFECTS: 0.01,
    Fault.ORPHANED_REQUEST: 0.5,
    Fault.OVERRUN: 0.3,
    Fault.COMMIT_LOST: 0.1,
    Fault.COMMIT_UNCONFIRMED: 0.1,
    Fault.COMMIT_STALE: 0.05,
    Fault.LOG_UNREADABLE: 0.2,
    Fault.DEAD_LETTER_UNCONFIRMED: 0.05,
    Fault.DEAD_LETTER_LOST: 0.05,
    Fault.DEAD_LETTER_SLOW: 0.2,
}
MOMENTS = (
    Fault.OUTAGE,
    Fault.TILED_RESTART,
    Fault.DATABASE_RESTART,
    Fault.ROUTE_GONE,
    Fault.CRASH,
    Fault.HANG,
    Fault.ZOMBIE,
    Fault.REBALANCE,
    Fault.SHUTDOWN,
    Fault.RETENTION,
)


class Faults:
    """Decides whether a fault strikes.

    Parameters
    ----------
    strikes_max
        After so many strikes nothing fails any more; this is how a failing history is made shorter.
    without
        Kinds that never strike.
    heal_s
        When they cease.
    storm
        Whether all of them strike.
    """

    def __init__(
        self,
        rng: random.Random,
        strikes_max: int | None,
        without: frozenset[Fault],
        heal_s: float = 30.0,
        *,
        storm: bool = False,
    ) -> None:
        self._rng = rng
        self._left = strikes_max if strikes_max is not None else 1 << 30
        self._without = without
        self.healed = False
        self.hit: Counter[Fault] = Counter()
        share = 1.0 if storm else rng.choice((0.15, 0.4, 0.8))
        factors = (0.3, 1.0) if storm else (0.3, 1.0, 2.0)
        self.rates = {
            fault: rate * rng.choice(factors) if rng.random() < share else 0.0 for fault, rate in RATES.items()
        }
        count = 10 if storm else rng.choice((0, 1, 3, 6))
        self.moments = [(rng.uniform(0.1, 25.0) * (heal_s / 30.0), rng.choice(MOMENTS)) for _ in range(count)]

    def strikes(self, fault: Fault) -> bool:
        """Draw whether `fault` strikes here."""
        return self._rng.random() < self.rates[fault] and self.allows(fault)

    def allows(self, fault: Fault) -> bool:
        """Whether a fault that has its moment may strike; it counts if so."""
        if self.healed or self._left == 0 or fault in self._without:
            return False
        self._left -= 1
        self.hit[fault] += 1
        return True
