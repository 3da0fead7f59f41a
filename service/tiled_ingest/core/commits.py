"""When an offset is committed: at intervals, when a partition is left, and once to claim it. Never twice at once."""

from collections.abc import Iterable

from .claim import Claim
from .effects import Commit, CommitFailed, Committed
from .offsets import Commitment
from .outbox import Outbox
from .policy import Policy
from .schedule import Lane

AGAIN_S_MIN = 0.1  # after a refusal the loop must poll before the next commit: only there it hears what became of us


class Commits:
    """Commits under way, and which are due."""

    def __init__(self, out: Outbox, policy: Policy) -> None:
        self._out = out
        self._interval_s = policy.commit_interval_s
        self._last_s = 0.0
        self._under_way: dict[int, tuple[Claim, Lane | None, Commitment]] = {}
        self._to_be_named: list[tuple[Lane, int]] = []  # that wait until a commit names their run

    def send_claim(self, lane: Lane, offset: int, metadata: str) -> None:
        """Commit a claim; whoever waits for it is `lane`."""
        self._send(lane.claim, lane, Commitment(offset, offset), metadata)

    def await_naming(self, lane: Lane, first_offset: int) -> None:
        """Let a lane wait until a commit is confirmed that names its run as one that is being opened again."""
        self._to_be_named.append((lane, first_offset))

    def send_due(self, claims: Iterable[Claim], leaving: Iterable[Claim]) -> None:
        """Commit what has moved on: of all, once the interval is over; at once of those that are being left, or for
        which a lane waits.
        """
        urgent = [*leaving, *(lane.claim for lane, _ in self._to_be_named if not lane.dropped)]
        due = self._out.now_s - self._last_s >= self._interval_s
        if due:
            self._last_s = self._out.now_s
        for claim in claims if due else urgent:
            if claim.live and self._is_allowed(claim) and (point := claim.to_commit) != claim.committed:
                self._send(claim, None, point, claim.metadata(point))

    def _is_allowed(self, claim: Claim) -> bool:
        given_up = claim.fenced and claim.leaving
        return not given_up and self._out.now_s >= claim.commit_after_s and not self.is_under_way(claim)

    def is_under_way(self, claim: Claim) -> bool:
        """Whether a commit of this claim is not answered yet."""
        return any(committing is claim for committing, _, _ in self._under_way.values())

    def _send(self, claim: Claim, lane: Lane | None, point: Commitment, metadata: str) -> None:
        ticket = self._out.ticket()
        self._under_way[ticket] = claim, lane, point
        self._out.put(Commit(ticket, claim.home, point.committable, metadata))

    def confirmed(self, given: Committed) -> list[Lane]:
        """Note that the broker confirmed; returns the lanes that waited for it."""
        claim, lane, point = self._under_way.pop(given.ticket)
        claim.fenced = False
        if lane is not None:
            return [lane]
        before = claim.committed.committable if claim.committed else point.committable
        claim.committed = point
        self._out.tell("committed", home=claim.home, number=point.committable - before)
        return self._named_by(claim, point)

    def _named_by(self, claim: Claim, point: Commitment) -> list[Lane]:
        waiting = [pair for pair in self._to_be_named if not pair[0].dropped]
        named = [pair for pair in waiting if pair[0].claim is claim and pair[1] in point.reopening]
        self._to_be_named = [pair for pair in waiting if pair not in named]
        return [lane for lane, _ in named]

    def failed(self, given: CommitFailed) -> Lane | None:
        """Note that the broker did not confirm; returns the lane that may try again.

        Fenced: either the group will soon say that we lost the partition, or only a generation is over, and in the next
        one the partition is still ours, of which nobody tells us. So a commit is tried again until we are told; the
        group takes it from none but its members.
        """
        claim, lane, _ = self._under_way.pop(given.ticket)
        claim.fenced = given.fenced
        claim.commit_after_s = self._out.now_s + max(self._interval_s, AGAIN_S_MIN)
        self._out.tell("commit_failed", home=str(claim.home), detail=given.detail, fenced=given.fenced)
        return lane
