"""What is to be done with each run, decided before anything is written.

The running service is left in peace by one rule: a run is written anew only when no claim of the service, past or
future, writes to it again. That is so when the group has committed past all that the run has in its partition, and the
run is not open: then the service knows it, at most, as one that is over, and what still comes of it is `late`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tiled_ingest.core.decoding.eras import Eras
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home
from tiled_ingest.core.runs.letters import Members
from tiled_ingest.core.runs.runs import can_be_key
from tiled_ingest.kafka.messages import to_record
from tiled_ingest.kafka.topics import is_named
from tiled_ingest.settings import Kafka
from tiled_ingest.tools.log import messages

from .builder import Place
from .places import CLOSED, InTiled, Partition, Places
from .spool import Spool, Spooled

Verdict = Literal["create", "replace", "reopen", "done", "wait", "leave"]
CONFLICTING = "conflicting_run"


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes
    ----------
    verdict
        `create`: it is not in Tiled. `replace`: it failed. `reopen`: it ended without some of its documents. `done`:
        exactly these documents were built into it before. `wait`: not now. `leave`: not by this command.
    why
        A sentence.
    place
        What a builder needs; `None` unless it is to be written.
    """

    spooled: Spooled
    verdict: Verdict
    why: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How runs are treated.

    Attributes
    ----------
    gather
        What Tiled holds of a run is read from the topic, too, and joined with what there is.
    anew
        A run that has ended is built anew though nothing is known to be missing.
    adopt
        Runs that someone else began are finished.
    cut
        Where the reading of each partition ended: a run without a stop may go on there.
    """

    gather: bool = True
    anew: bool = False
    adopt: bool = False
    cut: Mapping[Home, int] = field(default_factory=dict)


GATHERED = Manner()


class Undecided(Exception):
    """The run is not to be written; the verdict is `wait` or `leave`."""

    def __init__(self, verdict: Verdict, why: str) -> None:
        super().__init__(why)
        self.verdict: Verdict = verdict


class Judge:
    """Decides, and gathers what is missing from the topic."""

    def __init__(self, kafka: Kafka, policy: Policy, places: Places, spool: Spool, manner: Manner = GATHERED) -> None:
        self._kafka = kafka
        self._policy = policy
        self._places = places
        self._spool = spool
        self._manner = manner

    def judge(self, uid: str) -> Case:
        """Decide about a run of the spool; its documents are complete and in order then.

        Raises
        ------
        IngestError
            Kafka or Tiled cannot be read.
        """
        try:
            return self._judged(uid)
        except Undecided as error:
            return Case(self._spool.of(uid), error.verdict, str(error))

    def _judged(self, uid: str) -> Case:
        if not can_be_key(uid):
            raise Undecided("leave", "no run can be called so in Tiled")
        node = self._places.in_tiled(uid)
        spooled = self._without_others(uid)
        known = (node.facts.get("rebuilt") or {}) if node else {}
        if not self._manner.gather and not self._manner.anew and node and node.ended and not known.get("refused"):
            return Case(spooled, "done", "it is there already; to build it anew: --run UID --replace")
        source = self._source(node, spooled)
        home = Home(source["topic"], source["partition"])
        partition = self._places.partition(home)
        is_same_topic = partition.topic_id == source["topic_id"] != ""
        if is_same_topic and is_named(home.topic, self._kafka.topics):
            self._check_settled(node, spooled, source, home, partition)
        elif node and node.state == "open" and node.source and not self._manner.anew:
            raise Undecided("leave", "it is open: someone may be writing it")
        is_in_part = (node is not None and node.state not in {"", "failed"}) or home not in spooled.starts
        if self._manner.gather and is_in_part:
            self._add_from_log(uid, source, home, partition if is_same_topic else None)
        # Also those that the log brought back: refused again, they were a reason to build the run anew, for ever.
        self._spool.drop_other_starts(uid, home, source["first_offset"])
        spooled = self._spool.of(uid)
        self._check_whole(spooled, home)
        self._check_ended(node, spooled)
        digest = self._spool.put_in_order(uid)
        if node and node.state in CLOSED and known.get("digest") == digest and not known.get("refused"):
            return Case(spooled, "done", "exactly these documents were built into it before")
        last = max(source.get("last_offset", -1), spooled.last.get(home, -1))
        epoch = 1 + max(node.epoch if node else 0, partition.epoch if is_same_topic else 0)
        place = Place(uid, {**source, "last_offset": last}, epoch, spooled.documents, digest)
        return Case(spooled, *_doing(node), place)

    def _without_others(self, uid: str) -> Spooled:
        """Leave out the documents of another run that has the same uid."""
        self._spool.drop(uid, CONFLICTING)
        spooled = self._spool.of(uid)
        if not spooled.documents:
            raise Undecided("leave", "another run has this uid")
        return spooled

    def _source(self, node: InTiled | None, spooled: Spooled) -> dict[str, Any]:
        """Return where the run comes from: as its metadata says, else by its start."""
        if node is not None and node.source:
            return dict(node.source)
        if node is not None and not self._manner.adopt:
            raise Undecided("leave", "someone else wrote it; to finish it: tiled-ingest replay --adopt")
        if not spooled.starts:
            raise Undecided("leave", "it is not in Tiled, and its start is not here")
        home, first = next(iter(spooled.starts.items()))
        topic_id = self._places.partition(home).topic_id
        source = {"topic": home.topic, "topic_id": topic_id, "partition": home.partition}
        return source | {"first_offset": first}

    def _check_settled(
        self, node: InTiled | None, spooled: Spooled, source: dict[str, Any], home: Home, partition: Partition
    ) -> None:
        if node is not None and node.state == "open":
            raise Undecided("wait", "the service is writing it: when it has ended")
        last = max(int(source.get("last_offset", -1)), spooled.last.get(home, -1))
        if partition.committed <= last:
            committed = "nothing" if partition.committed < 0 else f"up to {partition.committed}"
            raise Undecided("wait", f"the group has committed {committed} of {home}, the run reaches to {last}")

    def _add_from_log(self, uid: str, source: dict[str, Any], home: Home, partition: Partition | None) -> None:
        """Put what Tiled holds of the run down, too, as the topic has it."""
        first = source["first_offset"]
        if partition is None or partition.low > first:
            begins = "is gone" if partition is None else f"begins at {partition.low}"
            raise Undecided("leave", f"its beginning is lost: it began at {first} of {home}, the log {begins}")
        members = Members([("run", uid), *self._spool.names_of(uid)], Eras(self._policy))
        stop = int(source.get("last_offset", partition.committed - 1)) + 1
        for found in messages(self._kafka, home, first, stop):
            for record in map(to_record, found):
                if members(record):
                    self._spool.add(record, uid)
        self._spool.follow_names()

    def _check_ended(self, node: InTiled | None, spooled: Spooled) -> None:
        """A run without a stop may still be published, and the service, which refuses it, knows it."""
        if spooled.ends or (node is not None and node.state in CLOSED):
            return
        if spooled.newest_ms < 0:
            return
        silent_s = time.time() - spooled.newest_ms / 1000
        if silent_s < self._policy.idle_s_max:
            raise Undecided("wait", f"it has no stop yet, and the last document came {silent_s:.0f} s ago")

    def _check_whole(self, spooled: Spooled, home: Home) -> None:
        """A part of a topic may hold a part of a run."""
        if not spooled.starts:
            raise Undecided("leave", "its start is not here")
        stop = self._manner.cut.get(home)
        if stop is not None and not spooled.ends and stop < self._places.partition(home).high:
            raise Undecided("leave", f"its stop does not come before {stop}, where the reading ended")


def _doing(node: InTiled | None) -> tuple[Verdict, str]:
    if node is None:
        return "create", "it is not in Tiled"
    if node.state == "failed":
        return "replace", "it failed, or was being built"
    if not node.source:
        return "replace", "someone else began it"
    return "reopen", f"it is {node.state} without these"
