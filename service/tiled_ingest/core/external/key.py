"""One external data key of one stream: what the log has said about it, and what of that Tiled has not confirmed.

The plan is a function of the run's documents in their order, so that whoever reads the log again from the run's start
comes to the same one. Nothing of it is kept anywhere else.
"""

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.runs.acceptance import Seen
from tiled_ingest.core.writes import Path, Registered

from .assets import AssetPlan, Indexer, Span


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows of a key that wait for their turn in the lane.

    Attributes
    ----------
    hold
        What keeps the documents' offsets from being committed.
    offsets
        Where the documents stand that are not in Tiled without this: what becomes dead letters if Tiled refuses.
    kinds
        How many documents of which kind.
    """

    plan: AssetPlan
    hold: Hold
    offsets: frozenset[int]
    kinds: Counter[str]
    rows: int
    timestamp_ms: int
    reason: str


class External:
    """The node of one external data key, as the run's documents want it.

    Parameters
    ----------
    description
        The data key as the (normalised) descriptor describes it.

    Attributes
    ----------
    unmet
        Events whose datum has not come.
    known
        What Tiled has confirmed to this claim.
    refusal
        Why this key is written no further; empty as long as it is.
    """

    def __init__(self, stream: Path, key: str, description: dict[str, Any]) -> None:
        self.path = (*stream, key)
        self.description = description
        self.plan = AssetPlan()
        self.indexer = Indexer()
        self.unmet = 0
        self.known: Registered | None = None
        self.refusal = ""
        self._seen: dict[str, Seen] = {}
        self._offsets = array("q")
        self._kinds: Counter[str] = Counter()
        self._hold: Hold | None = None
        self._rows = 0  # in the plan when the oldest waiting document came
        self.since_s = 0.0
        self._timestamp_ms = 0

    @property
    def key(self) -> str:
        """The data key, which is the node's."""
        return self.path[-1]

    # ------------------------------------------------------------ the plan

    def is_new(self, resource: str, start: int, uid: str) -> bool:
        """Whether a stream_datum of this uid was not accepted before."""
        return self._seen.setdefault(resource, Seen()).add(start + 1, uid)

    def has(self, resource: str, start: int, uid: str) -> bool:
        """Whether a stream_datum of this uid was accepted before; this accepts nothing."""
        return resource in self._seen and self._seen[resource].has(start + 1, uid)

    def has_room(self, indices: Span, policy: Policy) -> bool:
        """Whether so many more rows are still what a detector may have: a hostile range costs nothing to claim."""
        return self.plan.rows + indices.rows <= policy.external_rows_max

    # ------------------------------------------------------------ what waits for Tiled

    @property
    def waiting(self) -> bool:
        """Whether documents wait to be written."""
        return self._hold is not None

    @property
    def first_offset(self) -> int:
        """The offset of the oldest waiting document; there must be one."""
        return self._offsets[0]

    def begin(self, hold: Hold, now_s: float, timestamp_ms: int) -> None:
        """Open a batch: its first document is about to be noted."""
        self._hold, self.since_s, self._timestamp_ms = hold, now_s, timestamp_ms
        self._rows = self.plan.rows

    def note(self, kind: str, offset: int) -> None:
        """Note a document whose effect is in the plan, and not yet in Tiled."""
        self._offsets.append(offset)
        self._kinds[kind] += 1

    def is_due(self, now_s: float, policy: Policy, force: str | None) -> bool:
        """Whether what waits is old enough, much enough, or forced."""
        old = now_s - self.since_s >= policy.external_age_s_max
        return self.waiting and (force is not None or old or self.plan.rows - self._rows >= policy.rows_max)

    def take(self, force: str | None) -> Waiting:
        """Take all that waits; there must be something."""
        if self._hold is None:
            raise AssertionError(f"nothing waits for {self.key}")
        rows = self.plan.rows - self._rows
        offsets = frozenset(self._offsets)
        taken = Waiting(self.plan.copy(), self._hold, offsets, self._kinds, rows, self._timestamp_ms, force or "age")
        self._hold, self._offsets, self._kinds = None, array("q"), Counter()
        return taken

    def drop(self) -> list[Hold]:
        """Forget that something waits; return its hold."""
        return [self.take("dropped").hold] if self.waiting else []
