"""The judge: it knows what was published, and what Tiled and the dead-letter topic hold; no engine.

Safety, at every stored commit: what is below it is in Tiled where readers look, or in the dead letters. In
the end: each run has exactly its rows, its documents and its state. (Liveness is the world's to watch: that
the end comes.)
"""

import math
from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.writes import Path

from .documents import ARRAYS, Item, Json, Plan, Role, Run
from .kafka_model import CompletedTopic, DeadLetterTopic
from .order import KEEPS_ORDER, is_part, letters_out_of_order, misplaced
from .tiled_model import Row, TiledModel

RowKey = tuple[tuple[str, Any], ...]
Frame = tuple[str, int]  # resource, index
PARTS_MAX = 12  # of a table, with the smallest limit of columns
FINAL = ("complete", "incomplete", "failed", "abandoned")
SHARED = {"datum"}  # may be of any open run, whatever its resource says: kept for them all
UNHEARD_S = 2.0  # so long a record may be in the log before its owner, who listens, has received it


@dataclass(frozen=True)
class Published:
    """A record in the log, and what it is."""

    record: Record
    item: Item


def row_key(row: Row) -> RowKey:
    """Name a row by its content alone: the order of columns is storage's, a null is a missing value."""
    return tuple(sorted((name, value) for name, value in row.items() if value is not None))


def rows_of(item: Item) -> Iterator[Row]:
    """List the rows that an event, or a page of them, must become."""
    doc = item.doc
    events = [doc] if item.name == "event" else _unpack(doc)
    for event in events:
        inside = {key for key in event["data"] if event.get("filled", {}).get(key, True)}
        stamps = {f"ts_{key}": value for key, value in event["timestamps"].items() if key in inside}
        values = {key: value for key, value in event["data"].items() if key in inside and key not in ARRAYS}
        yield {"seq_num": event["seq_num"], "time": event["time"], **values, **stamps}


def frames_of(item: Item) -> list[Frame]:
    """List the rows of files that a document brings."""
    doc = item.doc
    if item.name == "stream_datum":
        return [(doc["stream_resource"], index) for index in range(*doc["indices"].values())]
    if item.name == "event" and "img" in doc["data"]:
        resource, _, index = doc["data"]["img"].rpartition("/")
        return [(resource, int(index))]
    return []


def values_of(item: Item, key: str) -> list[Any]:
    """List the values that an event, or a page of them, must add to an array."""
    held = item.doc["data"].get(key)
    return [] if held is None else [held] if item.name == "event" else held


def as_held(value: list[Any]) -> list[float]:
    """Return a value without what fills it up."""
    return [float(number) for number in value if number == number]  # noqa: PLR0124  not NaN


def _unpack(page: Json) -> Iterator[Json]:
    for index in range(len(page["seq_num"])):
        parts = {part: {key: page[part][key][index] for key in page[part]} for part in ("data", "timestamps")}
        yield {"seq_num": page["seq_num"][index], "time": page["time"][index], **parts}


class Oracle:
    """Judges one history."""

    def __init__(
        self,
        plan: Plan,
        tiled: TiledModel,
        dead_letters: DeadLetterTopic,
        parent: Path,
        announcements: CompletedTopic | None = None,
        *,
        idle_s_max: float,
    ) -> None:
        self.violations: list[str] = []
        self.residual: set[str] = set()  # runs that the design's documented residual risk has hit
        self._announcements, self._idle_s_max = announcements, idle_s_max
        self._plan, self._tiled, self._dead_letters, self._parent = plan, tiled, dead_letters, parent
        self._log: dict[Home, list[Published]] = {home: [] for home in plan.queues}
        self._judged: dict[Home, int] = dict.fromkeys(plan.queues, 0)  # how many were found settled
        self._lows: dict[Home, int] = {}  # what retention has left of each log
        self._counted: dict[Path, tuple[object, int, Counter[RowKey]]] = {}

    def published(self, record: Record, item: Item) -> None:
        """Note what came into the log."""
        self._log[record.home].append(Published(record, item))

    def cut(self, home: Home, low: int) -> None:
        """Note that the log begins at `low` now; judge first what nobody can be asked for afterwards."""
        for uid, run in self._plan.runs.items():
            if self._plan.home_of[uid] == home and any(self._records(run)) and not self._lost_its_beginning(run):
                self._judge_before_cut(run)
        self._lows[home] = low

    def _judge_before_cut(self, run: Run) -> None:
        """Of a run that Tiled calls failed, all that was committed is in the dead letters, while the log is whole.

        Later the log may have lost it: then only what is left is judged.
        """
        if self._state(run) != "failed" or self._tiled.overwritten((*self._parent, run.uid)):
            return
        home = self._plan.home_of[run.uid]
        self._judge_all_dead(run, self._log[home][: self._judged[home]])

    def table_of(self, run: Run, descriptor: str) -> Path:
        """Where the rows of a descriptor's stream must be."""
        return (*self._parent, run.uid, run.streams[descriptor], "internal")

    # ------------------------------------------------------------ safety, at every commit

    def committed(self, home: Home, offset: int) -> None:
        """Judge a stored commit: everything below it is settled. Nothing is asked twice."""
        log = self._log[home]
        while self._judged[home] < len(log) and log[self._judged[home]].record.offset < offset:
            published = log[self._judged[home]]
            if why := self._unsettled(published):
                where = f"{home}@{published.record.offset}"
                self.violations.append(f"{home} committed at {offset}, but {where} is not settled: {why}")
            self._judged[home] += 1

    def _is_dead(self, record: Record) -> bool:
        return (record.home, record.offset) in self._dead_letters.letters

    def _is_refused(self, record: Record) -> bool:
        """Whether its owner has made it a dead letter. A zombie that gave a run up may do so, too."""
        return (record.home, record.offset) in self._dead_letters.owned

    def _unsettled(self, published: Published) -> str | None:
        """Why a record is not settled; `None` if it is."""
        if self._is_dead(published.record) or published.item.role is Role.DUPLICATE:
            return None
        if published.item.role is Role.INVALID:
            return "it is no valid document, and not in the dead letters"
        return self._not_in_tiled(self._plan.runs[published.item.run], published)

    def _not_in_tiled(self, run: Run, published: Published) -> str | None:
        item = published.item
        node = self._tiled.nodes.get((*self._parent, run.uid))
        if node is None:
            return "its run has no node"
        if run.foreign:
            return (
                None
                if self._may_be_anyones(run, published)
                else "its run is someone else's, and it is not in the dead letters"
            )
        match item.name:
            case "descriptor":
                there = self.table_of(run, item.doc["uid"])[:-1] in self._tiled.nodes
                return None if there else "its stream has no node"
            case "event" | "event_page" | "stream_datum":
                return self._frames_unsettled(run, published) or self._rows_unsettled(run, item)
            case "stop":
                return self._stop_unsettled(run, node.metadata)
        return None

    def _frames_unsettled(self, run: Run, published: Published) -> str | None:
        item = published.item
        path = (*self.table_of(run, item.doc["descriptor"])[:-1], "img")
        wanted = frames_of(item)
        if item.name == "event" and wanted and self._datum_at(published) > published.record.offset:
            return None  # its datum will be held instead
        if Counter(wanted) <= Counter(self._tiled.frames(path)) or self._tiled.displaced(path):
            return None
        return f"{sorted(wanted)} is not in {path}"

    def _datum_at(self, event: Published) -> float:
        """Where the datum stands that an event names; infinite if it never came."""
        datum_id = event.item.doc["data"]["img"]
        places = (
            other.record.offset
            for other in self._log[event.record.home]
            if other.item.name == "datum" and other.item.doc["datum_id"] == datum_id
        )
        return next(places, math.inf)

    def _rows_unsettled(self, run: Run, item: Item) -> str | None:
        if item.name == "stream_datum":
            return None
        path = self.table_of(run, item.doc["descriptor"])
        for key in ARRAYS:
            node = (*path[:-1], key)
            for value in values_of(item, key):
                there = [*self._tiled.live_values(node), *self._tiled.swallowed_values(node)]
                lost = as_held(value) not in map(as_held, there)
                if lost and not (
                    self._tiled.displaced(node) and as_held(value) in map(as_held, self._tiled.all_values(node))
                ):
                    return f"the value {value} is not in {node}"
        live = self._count(path)
        for row in rows_of(item):
            found = live[row_key(row)]
            if found == 1 or (self._displaced(path) and self._anywhere(path, row)) or self._swallowed(path, row):
                continue
            strayed = not found and self._tiled.strayed(path) and self._anywhere(path, row)  # until the stop's audit
            if strayed or (found and self._tiled.unfenced(path)):
                self.residual.add(run.uid)
                continue
            return f"the row of seq_num {row['seq_num']} is in {path} {found} times"
        return None

    def _stop_unsettled(self, run: Run, metadata: Json) -> str | None:
        if "stop" not in metadata and not self._tiled.overwritten((*self._parent, run.uid)):
            return "its run has no stop in Tiled"
        return self._unannounced(run)

    def _unannounced(self, run: Run) -> str | None:
        """Why the end of a run is not settled as far as the topic of completed runs goes."""
        told = self._announcements is None or self._announcements.states.get((*self._parent, run.uid))
        return None if told or self._lost_its_beginning(run) else "its run is over, and was not announced"

    def announced(self, path: Path, state: str) -> None:
        """Judge an announcement: Tiled holds the run, in this state, before it is sent."""
        if self._announcements is None:
            self.violations.append(f"{path} was announced, though there is no topic for it")
        metadata = self._tiled.nodes[path].metadata
        told = (metadata.get("tiled_ingest") or {}).get("state")
        # A zombie may complete a run of which its successor finds the beginning deleted, and so marks it failed.
        given_up = told == "failed" and self._lost_its_beginning(self._plan.runs[path[-1]])
        if told != state and not given_up and not self._tiled.overwritten(path):
            self.violations.append(f"{path} was announced as {state}, but Tiled has {metadata}")

    def _count(self, path: Path) -> Counter[RowKey]:
        """Count the live rows by content; counted anew only if they changed."""
        rows = self._live_rows(path)
        known = self._counted.get(path)
        if known is None or known[0] is not rows or known[1] != len(rows):
            known = self._counted[path] = (rows, len(rows), Counter(map(row_key, rows)))
        return known[2]

    def _parts(self, path: Path) -> list[Path]:
        """The tables among which the columns are shared; the table itself, if it is not split."""
        parts = ((*path[:-1], f"{path[-1]}_{number}") for number in range(PARTS_MAX))
        return [part for part in parts if part in self._tiled.nodes] or [path]

    def _live_rows(self, path: Path) -> list[Row]:
        parts = [self._tiled.live_rows(part) for part in self._parts(path)]
        return parts[0] if len(parts) == 1 else [dict(ChainMap(*shares)) for shares in zip(*parts, strict=False)]

    def _displaced(self, path: Path) -> bool:
        return any(map(self._tiled.displaced, self._parts(path)))

    def _anywhere(self, path: Path, row: Row) -> bool:
        """Whether the row is in a dataset that a late switch hides, in each of its parts."""
        for part in self._parts(path):
            held = list(self._tiled.all_rows(part))
            if not self._holds(row, held):
                return False
        return True

    def _swallowed(self, path: Path, row: Row) -> bool:
        """Whether the row was confirmed, and lost because two clients wrote at once: only until its run is over.

        The service cannot know before its audit at the stop, which writes such rows again: no run may end without them.
        """
        parts = self._parts(path)
        if not any(map(self._tiled.swallowed_rows, parts)):
            return False
        return all(
            self._holds(row, [*self._tiled.live_rows(part), *self._tiled.swallowed_rows(part)]) for part in parts
        )

    @staticmethod
    def _holds(row: Row, rows: list[Row]) -> bool:
        """Whether a part's share of the row is among these rows of it."""
        share = {name: value for name, value in row.items() if rows and name in rows[0]}
        return any(row_key(each) == row_key(share) for each in rows)

    # ------------------------------------------------------------ in the end

    def complete(self, home: Home) -> bool:
        """Whether every stopped run of a partition has reached a final state (what the world waits for)."""
        return all(
            self._state(run) in FINAL or self._tiled.overwritten((*self._parent, run.uid))
            for run in self._plan.runs.values()
            if self._plan.home_of[run.uid] == home and run.stopped and not run.foreign
        )

    def judge_end(self) -> None:
        """Judge what is there after everything has come to rest."""
        for home, log in self._log.items():
            self._judge_letters(home, log)
        self._judge_order_of_letters()
        for run in self._plan.runs.values():
            if run.foreign:
                self._judge_foreign(run)
            elif self._is_failed(run):
                self._judge_failed(run)
            else:
                self._judge_run(run)

    def _is_failed(self, run: Run) -> bool:
        """Whether it failed; where a late update hid that, dead letters of a run that had to fail say so."""
        had_to = run.rejected or run.poison or self._lost_its_beginning(run)
        dead = had_to and any(self._is_dead(published.record) for published in self._records(run))
        hidden = self._state(run) not in FINAL and self._tiled.overwritten((*self._parent, run.uid))
        if dead and hidden:
            self.residual.add(run.uid)
            return True
        return self._state(run) == "failed"

    def _state(self, run: Run) -> str:
        node = self._tiled.nodes.get((*self._parent, run.uid))
        return "" if node is None else str((node.metadata.get("tiled_ingest") or {}).get("state", ""))

    def _records(self, run: Run, log: Sequence[Published] | None = None) -> Iterable[Published]:
        for published in self._log[self._plan.home_of[run.uid]] if log is None else log:
            if published.item.run == run.uid and published.item.role is Role.RUN:
                yield published

    def _judge_order_of_letters(self) -> None:
        """The letters of a run come in the order of its documents.

        Not those of one whose beginning the log has lost: others may be taken for that of another run, so that some of
        its documents wait, and some are refused at once: the start of an impostor, say, that begins it anew, and waits
        until Tiled has told whose the node is. Nor a further start: it is refused at once, too; nor what may be of
        several runs: it waits for all of them.
        """
        log = (published for records in self._log.values() for published in records)
        items = {(each.record.home, each.record.offset): each.item for each in log}
        beheaded = {uid for uid, run in self._plan.runs.items() if self._lost_its_beginning(run)}
        letters = [
            letter
            for letter in self._dead_letters.log
            if beheaded.isdisjoint({(item := items[letter.record.home, letter.record.offset]).run, letter.run})
            and (item.name != "start" or item.role is Role.RUN)
            and item.name not in SHARED
        ]
        self.violations += letters_out_of_order(letters, {place: item.run for place, item in items.items()})

    def _judge_letters(self, home: Home, log: list[Published]) -> None:
        known = {published.record.offset: published for published in log}
        for (letter_home, offset), letter in self._dead_letters.letters.items():
            if letter_home == home and known[offset].record != letter.record:
                self.violations.append(f"the dead letter of {home}@{offset} is not the record as it was")
        for published in log:
            if published.item.role is Role.INVALID and not self._is_dead(published.record):
                self.violations.append(f"{home}@{published.record.offset} is invalid, and not in the dead letters")

    def _judge_foreign(self, run: Run) -> None:
        path = (*self._parent, run.uid)
        below = [other for other in self._tiled.nodes if other[: len(path)] == path and other != path]
        if below or self._tiled.nodes[path].metadata != {"start": {"uid": run.uid, "theirs": True}}:
            self.violations.append(f"{run.uid} is someone else's, and was changed: {below}")
        self._judge_all_dead(run)

    def _judge_failed(self, run: Run) -> None:
        if self._lost_its_beginning(run):
            self._judge_remainder(run)
            return
        if not (run.rejected or run.poison):
            self.violations.append(f"{run.uid} failed, though Tiled never rejected it")
        self._judge_all_dead(run)

    def _lost_its_beginning(self, run: Run) -> bool:
        start = next(published.record for published in self._records(run))
        return start.offset < self._lows.get(start.home, 0)

    def _was_refused(self, run: Run, record: Record) -> bool:
        """Whether it is a dead letter that is not in Tiled, too: what is replayed after the log lost the run's start
        cannot be recognised, so that it may be in both.
        """
        return self._is_refused(record) and not self._lost_its_beginning(run)

    def _last(self, run: Run) -> float:
        """Where a run ends that was given up, as its node says; infinite for all others.

        Also for one whose beginning the log has lost: a start that is repeated may have begun it anew, and then the
        node says where that ended. It says nothing of what earlier claims, which knew the whole run, had written and
        not committed; their successor, which knew neither stream nor resource, refused the same documents.
        """
        if self._state(run) != "abandoned" or self._lost_its_beginning(run):
            return math.inf
        last: int = self._tiled.nodes[*self._parent, run.uid].metadata["tiled_ingest"]["source"]["last_offset"]
        return last

    def _judge_remainder(self, run: Run) -> None:
        """A run whose beginning the log has lost fails: what the log still has is in Tiled or in the dead letters."""
        for published in self._records(run):
            there = published.record.offset >= self._lows.get(published.record.home, 0)
            if there and (why := self._unsettled(published)):
                where = f"{published.record.home}@{published.record.offset}"
                self.violations.append(f"{run.uid} lost its beginning, and its {published.item.name} at {where}: {why}")

    def _may_be_anyones(self, run: Run, published: Published) -> bool:
        """Whether nobody may have known of a run when this document of it came: then a datum may be of any open run."""
        forgotten = self._was_silent(run, published.record) or self._lost_its_beginning(run)
        return forgotten and published.item.name in SHARED

    def _was_silent(self, run: Run, record: Record) -> bool:
        said = [each.record.timestamp_ms for each in self._records(run) if each.record.offset <= record.offset]
        limit_ms = 1000 * (self._idle_s_max - UNHEARD_S)
        return any(later - earlier >= limit_ms for earlier, later in pairwise(said))

    def _judge_all_dead(self, run: Run, log: Sequence[Published] | None = None) -> None:
        for published in self._records(run, log):
            if not self._is_dead(published.record) and not self._may_be_anyones(run, published):
                where = f"{published.record.home}@{published.record.offset}"
                self.violations.append(
                    f"{run.uid} is refused, but its {published.item.name} at {where} is no dead letter"
                )

    def _judge_run(self, run: Run) -> None:
        path = (*self._parent, run.uid)
        if path not in self._tiled.nodes:
            self.violations.append(f"{run.uid} is not in Tiled")
            return
        if not self._lost_its_beginning(run):
            self._judge_sound(run)
        self._judge_metadata(run, self._tiled.nodes[path].metadata)
        if self._state(run) == "abandoned":
            self._judge_given_up(run)
        if self._state(run) in ("complete", "incomplete", "abandoned") and (why := self._unannounced(run)):
            self.violations.append(f"{run.uid}: {why}")
        self._judge_rows(run)

    def _silence_s(self, run: Run, last: float) -> float:
        """The longest silence of a run between its last document in Tiled and the first that was refused."""
        spoken_s, silence_s = math.inf, 0.0
        for published in self._log[self._plan.home_of[run.uid]]:
            record, item = published.record, published.item
            if item.run != run.uid or item.role is Role.INVALID:
                continue
            silence_s = max(silence_s, record.timestamp_ms / 1000 - spoken_s)
            if item.role is Role.RUN and record.offset > last:
                return silence_s
            if record.offset >= last:
                spoken_s = record.timestamp_ms / 1000
        return math.inf

    def _judge_metadata(self, run: Run, metadata: Json) -> None:
        self._blame(run, list(self._wrong_metadata(run, metadata)))

    def _judge_sound(self, run: Run) -> None:
        """Of a run that was not given up no document is a dead letter, but for what may be another's, too."""
        dead = [each for each in self._records(run) if self._is_dead(each.record) and not self._is_shared(run, each)]
        if any(not self._is_refused(each.record) for each in dead):
            self.residual.add(run.uid)
        if self._state(run) != "abandoned":
            refused = [each.item.name for each in dead if self._is_refused(each.record)]
            self._blame(run, [f"a sound {name} of {run.uid} is a dead letter" for name in refused])

    def _is_shared(self, run: Run, published: Published) -> bool:
        """Whether it is a dead letter of another run, which may use it: one that came again after its own run's end."""
        letter = self._dead_letters.letters[published.record.home, published.record.offset]
        return published.item.name in SHARED and letter.run not in {"", run.uid}

    def _blame(self, run: Run, wrong: list[str]) -> None:
        """What is wrong with a run is the documented risk where a late update of its node explains it."""
        if wrong and self._tiled.overwritten((*self._parent, run.uid)):
            self.residual.add(run.uid)
        else:
            self.violations += wrong

    def _judge_given_up(self, run: Run) -> None:
        """A run that was given up ends where its node says: what came before is in Tiled, what came after is refused;
        and its publisher had been silent for long enough in between.
        """
        if self._lost_its_beginning(run):
            return
        last = self._last(run)
        wrong = [
            f"{run.uid} was given up at {last}, but its {each.item.name} at {each.record.offset} is "
            f"{'a' if each.record.offset <= last else 'no'} dead letter"
            for each in self._records(run)
            if (each.record.offset > last) != self._is_refused(each.record) and each.item.name not in SHARED
        ]
        if (silence_s := self._silence_s(run, last)) < self._idle_s_max - UNHEARD_S:
            wrong.append(f"{run.uid} was given up at {last}, though it was silent for {silence_s:.1f} s only")
        if wrong and (*self._parent, run.uid) in self._tiled.crossed:
            self.residual.add(run.uid)  # a zombie gave it up, another one's switch landed then: ADR 0018
        else:
            self._blame(run, wrong)

    def _wrong_metadata(self, run: Run, metadata: Json) -> Iterator[str]:
        state = self._state(run)
        if metadata.get("start") != run.start:
            yield f"{run.uid} has another start in Tiled: {metadata.get('start')}"
        stop = run.items[-1].doc if run.stopped and not self._stopped_late(run) else None
        if metadata.get("stop") != stop:
            yield f"{run.uid} should have the stop {stop}, but has {metadata.get('stop')}"
        partly = run.uneven or self._lost_its_beginning(run)  # a start that is repeated may begin it anew
        allowed = ("complete", "incomplete") if partly else ("complete",)
        if state not in (allowed if stop is not None else ("abandoned",)):
            yield f"{run.uid} (stopped: {run.stopped}) is {state!r} in Tiled"

    def _stopped_late(self, run: Run) -> bool:
        """Whether its stop came after the run was given up."""
        return self._state(run) == "abandoned" and any(
            published.item.name == "stop" and self._is_refused(published.record) for published in self._records(run)
        )

    def _judge_rows(self, run: Run) -> None:
        wanted: dict[Path, list[RowKey]] = {}
        frames: dict[Path, list[tuple[float, Frame]]] = {}
        updates: dict[Path, list[str]] = {}
        arrays: dict[Path, list[Any]] = {}
        for published in self._records(run):
            item = published.item
            if item.name == "descriptor" and not self._was_refused(run, published.record):
                updates.setdefault(self.table_of(run, item.doc["uid"])[:-1], []).append(item.doc["uid"])
            elif (taken := frames_of(item)) and not self._was_refused(run, published.record):
                path = (*self.table_of(run, item.doc["descriptor"])[:-1], "img")
                whole_at = self._whole_at(published)
                there = whole_at <= self._last(run) and whole_at < math.inf
                frames.setdefault(path, []).extend((whole_at, frame) for frame in taken if there)
            if item.name in ("event", "event_page") and not self._was_refused(run, published.record):
                path = self.table_of(run, item.doc["descriptor"])
                wanted.setdefault(path, []).extend(map(row_key, rows_of(item)))
                for key in ARRAYS & item.doc["data"].keys():
                    arrays.setdefault((*path[:-1], key), []).extend(values_of(item, key))
        for path, rows in wanted.items():
            self._compare(run, path, rows)
        for path, placed in frames.items():
            self._compare_frames(run, path, [frame for _, frame in sorted(placed, key=itemgetter(0))])
        for path, values in arrays.items():
            self._compare_values(run, path, values)
        for path, descriptors in updates.items():
            self._judge_stream(run, path, descriptors)

    def _whole_at(self, published: Published) -> float:
        """Where a document and the datum that it names are both there; infinite if they never are."""
        at = float(published.record.offset)
        return max(at, self._datum_at(published)) if published.item.name == "event" else at

    def _compare(self, run: Run, path: Path, wanted: list[RowKey]) -> None:
        """A table has its rows, each once, and in the order of the log where the storage keeps it."""
        told = self._wrong_rows(path, wanted)
        if not told:
            return
        if self._lost_its_beginning(run) and self._are_some(path, wanted):
            self._judge_remainder(run)
        elif any(self._tiled.hidden(part) or self._tiled.unfenced(part) for part in self._parts(path)):
            self.residual.add(run.uid)
        else:
            self.violations.append(f"{path} of {len(wanted)} rows: {told}")

    def _wrong_rows(self, path: Path, wanted: list[RowKey]) -> str:
        held, due = self._count(path), Counter(wanted)
        if held != due:
            lost, more = due - held, held - due
            return f"{lost.total()} lost {sorted(lost)[:2]}, {more.total()} too many {sorted(more)[:2]}"
        if len({len(self._tiled.live_rows(part)) for part in self._parts(path)}) > 1:
            return "its parts have different lengths"
        if self._tiled.storage in KEEPS_ORDER and (where := misplaced(self._row_keys(path), wanted)):
            return f"out of order: {where}"
        return ""

    def _are_some(self, path: Path, wanted: list[RowKey]) -> bool:
        """Whether what is there is some of what was published, in its order where the storage keeps it."""
        if self._tiled.storage in KEEPS_ORDER:
            return is_part(self._row_keys(path), wanted)
        return self._count(path) <= Counter(wanted)

    def _row_keys(self, path: Path) -> list[RowKey]:
        return list(map(row_key, self._live_rows(path)))

    def _compare_frames(self, run: Run, path: Path, due: list[Frame]) -> None:
        """External data have their rows in the order in which all that is needed for each was there."""
        shown = self._tiled.frames(path)
        if shown == due or (self._lost_its_beginning(run) and is_part(shown, due)):
            return
        held, wanted = Counter(shown), Counter(due)
        hidden = self._state(run) == "abandoned" and self._tiled.overwritten((*self._parent, run.uid))
        if self._tiled.hidden(path) or hidden:
            self.residual.add(run.uid)
            return
        lost, more = wanted - held, held - wanted
        told = f"{sorted(lost)} lost, {sorted(more)} too many" if lost or more else misplaced(shown, due)
        self.violations.append(f"{path} of {len(due)} frames: {told}")

    def _compare_values(self, run: Run, path: Path, wanted: list[Any]) -> None:
        """An array has its values in the order of the log."""
        held, due = (list(map(as_held, values)) for values in (self._tiled.live_values(path), wanted))
        if held == due or (self._lost_its_beginning(run) and is_part(held, due)):
            return
        if self._tiled.hidden(path):
            self.residual.add(run.uid)
            return
        self.violations.append(f"{path} should hold {wanted}, but holds {held}")

    def _judge_stream(self, run: Run, path: Path, descriptors: list[str]) -> None:
        node = self._tiled.nodes.get(path)
        updates = node.metadata.get("_config_updates", []) if node else []
        held = [node.metadata.get("uid"), *(each["uid"] for each in updates)] if node else []
        # Of a run that a zombie gave up a successor may have written more.
        if held == descriptors or self._lacks_refused_only(run, held, descriptors):
            return
        if node is None:
            self.violations.append(f"the stream {path} is not in Tiled")
        elif any(map(self._tiled.overwritten, (path, path[:-1]))):
            self.residual.add(run.uid)
        else:
            self.violations.append(f"{path} has the descriptors {held}, not {descriptors}")

    def _lacks_refused_only(self, run: Run, held: list[str], descriptors: list[str]) -> bool:
        """Whether a run whose beginning the log has lost lacks no descriptors but some that are dead letters."""
        if not self._lost_its_beginning(run) or not is_part(held, descriptors):
            return False
        told = (each for each in self._records(run) if each.item.name == "descriptor" and self._is_refused(each.record))
        return set(descriptors).difference(held) <= {each.item.doc["uid"] for each in told}
