"""How long a request is tried, and when it is the request that is at fault: retries, and the judgement of a 500.

Most failures say only "not now": we wait, and try again, for ever. A bare 500 may also say "never": Tiled answers so to
what it, or its database, cannot store. It is told from an outage by a write of our own, which Tiled must take if it
takes any (`proof`), in this order and in one lane: ours is taken, the request answers 500, ours is taken, ... So often
in turn (`WITNESSES_MIN`) no outage comes and goes, while one that ends lets the request itself through first.

A request that reads rows or values back holds nothing of the documents that could be at fault. What breaks it, again
and again, while small writes pass, may be another client: embedded storage (DuckDB) has one connection for all, and a
query that begins ends another's whose answer is still on its way; the longer a read takes, the surer. So it is tried
for minutes (`READ_WITNESSES_MIN`).

Until then a 500 is the trouble of its lane alone: it neither pauses the intake nor keeps other lanes waiting.
"""

import zlib
from dataclasses import dataclass, field

from tiled_ingest.core.errors import ServerErrors, TiledRejected
from tiled_ingest.core.steps import Procedure, Sleep, Surroundings, refuse
from tiled_ingest.core.writes import (
    CountRows,
    CreateArray,
    CreateContainer,
    CreateTable,
    Done,
    Exists,
    Missing,
    Outcome,
    ReadArray,
    ReadKeys,
    ReadRows,
    Request,
    Unknown,
    Unprocessed,
)

from .proof import is_taken

LOSSES_MAX = 20  # of confirmed rows, in a row: the pauses between them add up to minutes
WITNESSES_MIN = 3  # of an outage that begins or ends between two requests there may be one
READ_WITNESSES_MIN = 20  # with the longest pauses of the policy, three to four minutes


class Bare:
    """A node was made, but only with our own facts: what the run wants in it is still to be written."""


@dataclass
class Patience:
    """Consecutive failures of one request, and how long to wait after each.

    Parameters
    ----------
    witnesses_min
        Of so many server errors, each right after a write of ours that was taken, the request is at fault.
    """

    around: Surroundings
    lane: str
    witnesses_min: int = WITNESSES_MIN
    failures: int = 0
    server_errors: int = 0  # in a row
    witnessed: int = 0  # of them, how many came right after a write that was taken
    proven: bool = False  # since the last of them Tiled has taken a write of our own
    away: bool = False  # or it has not
    _why: str = field(default="", init=False)

    def bear(self, request: Request, outcome: Outcome) -> Procedure[None]:
        """Count a failure and wait as long as it asks for; of too many server errors in a row, find out the cause.

        Raises
        ------
        TiledRejected
            Tiled refuses this write; `ServerErrors`: it answers it with server errors while it takes others.
        Forbidden
            We may not write here at all.
        """
        yield self.after(outcome)
        yield from self.examine(request)

    def examine(self, request: Request) -> Procedure[None]:
        """After too many server errors in a row, see whether Tiled takes a write of our own; if not, it is away."""
        if not self._in_doubt:
            return
        taken = yield from is_taken(self.around, self.lane, request)
        self.proven, self.away = taken is True, taken is False
        if self.away:
            yield Sleep(self._backoff(), why=self._why)

    def after(self, outcome: Outcome) -> Sleep:
        """Count a failure and say how long to wait; jitter is drawn from the lane's name, so that it can be replayed.

        Raises as `bear` does.
        """
        refuse(outcome)
        self.failures += 1
        self._count_server_error(outcome)
        asked = outcome.retry_after_s if isinstance(outcome, Unprocessed) else None
        self._why = getattr(outcome, "detail", "")
        return Sleep(max(self._backoff(), asked or 0.0), down=self.away or not self.server_errors, why=self._why)

    def after_loss(self, lost: str) -> Sleep:
        """Count that Tiled does not show what it has confirmed, and say how long to wait before it is written again.

        DuckDB loses rows while another client writes: soon again, if that goes on.

        Raises
        ------
        TiledRejected
            It never shows them.
        """
        self.failures += 1
        if self.failures > LOSSES_MAX:
            raise TiledRejected(lost)
        return Sleep(self._backoff(), down=False, why=lost)

    @property
    def _in_doubt(self) -> bool:
        """Whether so many server errors came in a row that the request itself may be at fault."""
        return self.server_errors >= self.around.policy.server_errors_max

    def _count_server_error(self, outcome: Outcome) -> None:
        if not (isinstance(outcome, Unknown) and outcome.may_be_for_ever):
            self.server_errors = self.witnessed = 0
            self.proven = self.away = False
            return
        self.server_errors += 1
        self.witnessed += self.proven
        self.proven = False
        if self.witnessed >= self.witnesses_min:
            error = f"{self.server_errors} server errors in a row, while Tiled takes other writes: {outcome.detail}"
            raise ServerErrors(error)

    def _backoff(self) -> float:
        policy = self.around.policy
        longest = min(policy.backoff_s_max, policy.backoff_s_min * 2.0 ** min(self.failures - 1, 30))
        jitter: float = zlib.crc32(f"{self.lane}/{self.failures}".encode()) / 2**32
        return longest * (0.5 + 0.5 * jitter)


def insist(
    around: Surroundings, lane: str, request: Request, patience: Patience | None = None
) -> Procedure[Done | Exists | Missing]:
    """Perform a request that may be repeated until Tiled gives an answer to it."""
    reads_data = isinstance(request, ReadKeys | ReadRows | ReadArray | CountRows)
    patience = patience or Patience(around, lane, READ_WITNESSES_MIN if reads_data else WITNESSES_MIN)
    while True:
        outcome: Outcome = yield request
        if isinstance(outcome, Done | Exists | Missing):
            return outcome
        yield from patience.bear(request, outcome)


Create = CreateContainer | CreateTable | CreateArray


def create(around: Surroundings, lane: str, request: Create, bare: Create) -> Procedure[Done | Exists | Missing | Bare]:
    """Make a node below which, or beside which, nothing can be tried before it is there.

    After too many server errors in a row `bare` is asked for: the same node, with nothing in it that comes from a
    document. If Tiled makes it, `Bare` is returned: what is written to it then can be judged. If not, it is an outage.
    """
    patience = Patience(around, lane)
    while True:
        outcome: Outcome = yield request
        if isinstance(outcome, Done | Exists | Missing):
            return outcome
        yield patience.after(outcome)
        if patience.server_errors < around.policy.server_errors_max:
            continue
        outcome = yield bare
        if isinstance(outcome, Done):
            return Bare()
        if isinstance(outcome, Exists | Missing):
            return outcome
        patience.away = True
        yield patience.after(outcome)
