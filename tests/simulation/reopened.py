"""Judges what becomes of runs that were given up when their publishers speak again.

A late document of a run that the present claim gave up is in Tiled, unless the log had lost the run's beginning before
it came; and nothing says that a run is open again before a successor would know of it.
"""

from collections.abc import Callable

from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.writes import Path

from .documents import Item, Json, Plan, Role, Run
from .kafka_model import Letter
from .tiled_model import TiledModel

REFUSALS = {"late", "orphan"}


class Reopened:
    """Judges one history.

    Parameters
    ----------
    stored
        The resume point that is committed for a partition.
    dormant_max
        How many runs a claim remembers that it gave up.
    """

    def __init__(
        self, plan: Plan, tiled: TiledModel, stored: Callable[[Home], ResumePoint | None], dormant_max: int
    ) -> None:
        self.violations: list[str] = []
        self._plan, self._tiled, self._stored, self._dormant_max = plan, tiled, stored, dormant_max
        self._lows: dict[Home, int] = {}
        self._first: dict[str, int] = {}  # offsets of starts
        self._said: dict[str, list[int]] = {}  # offsets of a run's documents
        self._named: dict[str, list[int]] = {}  # and with those that are refused
        self._headless: set[tuple[str, int]] = set()  # documents that came after the log had lost their run's beginning

    # ------------------------------------------------------------ what happens

    def published(self, record: Record, item: Item) -> None:
        """Note what came into the log."""
        if item.role is Role.DUPLICATE or self._plan.home_of.get(item.run) != record.home:
            return
        if item.role is Role.RUN:
            self._first.setdefault(item.run, record.offset)
            self._said.setdefault(item.run, []).append(record.offset)
        # What will be refused opens a run again, too: only a run that was rebuilt can tell.
        self._named.setdefault(item.run, []).append(record.offset)
        if self._is_lost(item.run, record.home):
            self._headless.add((item.run, record.offset))

    def cut(self, home: Home, low: int) -> None:
        """Note that the log begins at `low` now."""
        self._lows[home] = low

    def updated(self, path: Path, before: Json, after: Json) -> None:
        """Judge a metadata update: one that opens a run again comes when that is safe."""
        was, now = before.get("tiled_ingest") or {}, after.get("tiled_ingest") or {}
        run = self._plan.runs.get(path[-1]) if path else None
        if run is None or (was.get("state"), now.get("state")) != ("abandoned", "open"):
            return
        if "failing" in now:
            return  # the decision that it fails, over what a zombie wrote that had given it up: nobody goes on with it
        home = self._plan.home_of[run.uid]
        point = self._stored(home)
        if point is None or point.epoch != now["epoch"] or self._tiled.overwritten(path):
            return  # a zombie's, or one that landed late
        if point.start > self._first[run.uid]:
            self.violations.append(
                f"{run.uid} is open again, but a successor resumes at {point.start}, after its start"
            )
        since = next((offset for offset in self._named[run.uid] if offset > was["source"]["last_offset"]), None)
        if since is None:
            self.violations.append(f"{run.uid} is open again, but nothing of it came since it was given up")
        elif (run.uid, since) in self._headless:
            self.violations.append(f"{run.uid} is open again, but the log had lost its beginning before {since} came")

    def refused(self, letter: Letter) -> None:
        """Judge a dead letter of a partition's owner: it may not be of a run that this very claim gave up."""
        run = self._run_of(letter.record)
        if run is None or letter.code not in REFUSALS:
            return
        path = next((path for path in self._tiled.nodes if path[-1:] == (run.uid,)), None)
        point = self._stored(letter.record.home)
        if path is None or point is None or self._tiled.overwritten(path) or self._forgets(letter.record.home):
            return
        facts = self._tiled.nodes[path].metadata.get("tiled_ingest") or {}
        ours = (facts.get("state"), facts.get("epoch")) == ("abandoned", point.epoch)
        if ours and not self._is_lost(run.uid, letter.record.home):
            where = f"{letter.record.home}@{letter.record.offset}"
            self.violations.append(
                f"{where} is a dead letter, though this claim gave up its run, and could go on with it"
            )

    # ------------------------------------------------------------ what is known

    def _is_lost(self, run: str, home: Home) -> bool:
        return self._first[run] < self._lows.get(home, 0)

    def _forgets(self, home: Home) -> bool:
        return self._dormant_max < sum(1 for where in self._plan.home_of.values() if where == home)

    def _run_of(self, record: Record) -> Run | None:
        return next((self._plan.runs[uid] for uid, said in self._said.items()
                     if self._plan.home_of[uid] == record.home and record.offset in said), None)  # fmt: skip
