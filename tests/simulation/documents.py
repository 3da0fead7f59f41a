"""What a beamline could publish: interleaved runs with everything that the field's publishers do to them."""

import json
import random
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any

import msgpack

from tiled_ingest.core.record import Home

Json = dict[str, Any]

LAYOUTS: tuple[dict[str, str], ...] = (
    {"x": "number"},
    {"x": "number", "n": "integer"},
    {"x": "number", "s": "string"},
    {"x": "number", "n": "integer", "s": "string"},
    {"x": "number", "array": "array"},
    {"ragged": "ragged", "n": "integer", "array": "array"},
)
SHAPES: dict[str, list[int | None]] = {"array": [3], "ragged": [None]}
PAGE_ROWS_MAX = 4
# What makes another document of one that keeps its uid. Of datums nothing: they are kept only while an open run may use
# them, so that another one of the same id is refused at some times, and is nobody's at others.
_OTHERWISE: dict[str, Json] = {
    "descriptor": {"hints": {"motor": {"fields": []}}},
    "resource": {"resource_path": "b"},
    "stream_resource": {"uri": "file:///other"},
}
ARRAYS = frozenset(SHAPES)  # keys of data that have nodes of their own


class Role(StrEnum):
    """What must become of a record."""

    RUN = auto()  # in Tiled exactly once, or with the whole run in the dead letters
    DUPLICATE = auto()  # published before; harmless
    INVALID = auto()  # in the dead letters


@dataclass(frozen=True)
class Item:
    """A record to publish, what it is, and how long nothing is published before it."""

    role: Role
    value: bytes | None
    run: str = ""
    name: str = ""
    doc: Json = field(default_factory=dict)
    silence_s: float = 0.0


@dataclass
class Run:
    """A run as published; what the oracle expects of it follows from this alone."""

    uid: str
    items: list[Item]
    streams: dict[str, str] = field(default_factory=dict)  # descriptor's uid -> stream's name
    stopped: bool = False
    uneven: bool = False  # `num_events` does not say how many rows there are (a lost event, a rewind at the end)
    foreign: bool = False  # someone else wrote a node of this uid before
    rejected: bool = False  # Tiled refuses its rows
    poison: str = ""  # what of it Tiled answers with 500 for ever: its start, its stop, ...

    @property
    def start(self) -> Json:
        """The start document."""
        return self.items[0].doc


def encode(name: str, doc: Json) -> bytes:
    """As bluesky-kafka does."""
    packed: bytes = msgpack.dumps((name, doc))
    return packed


class Author:
    """Writes runs. All numbers in them are unique, so that every row can be told from every other."""

    def __init__(self, rng: random.Random, *, external: bool = True, arrays: bool = True) -> None:
        self._rng = rng
        self._serial = 0
        self._external = external
        self._layouts = [layout for layout in LAYOUTS if arrays or not ARRAYS & layout.keys()]

    def run(self) -> Run:
        """Write a run with its documents in order, some of them published twice."""
        rng, uid = self._rng, self._uid("run")
        run = Run(uid, [])
        self.add(run, "start", {"uid": uid, "time": self._time(), "scan_id": self._serial, "plan_name": "scan"})
        writers: list[_Stream | _Detector] = [
            self._stream(run, name) for name in rng.sample(("primary", "baseline", "monitor"), rng.choice((0, 1, 1, 2)))
        ]
        if self._external:
            kinds = rng.sample((_Flown, _Stepped), rng.choice((0, 1, 1, 2)))
            writers += [kind(self, rng, run) for kind in kinds]
        counts: dict[str, int] = {}
        while writers:
            writer = rng.choice(writers)
            if not writer.write():
                writers.remove(writer)
                counts[writer.name] = writer.seq_num
                run.uneven |= writer.seq_num < writer.seq_num_max
        if rng.random() < 0.85:
            run.stopped = True
            stop = {
                "uid": self._uid("stop"),
                "run_start": uid,
                "time": self._time(),
                "exit_status": "success",
            }
            self.add(run, "stop", {**stop, "reason": "", "num_events": counts})
        return run

    def invalid(self, runs: list[Run], queue: list[Item]) -> Item:
        """Make a record that belongs into the dead letters, wherever it comes after what is in the queue."""
        rng = self._rng
        values: list[bytes | None] = [
            None,
            b"",
            b"garbage",
            rng.randbytes(20),
            json.dumps(["start", {"uid": "json"}]).encode(),
            encode("bmm", {"uid": self._uid("bmm")}),
            encode("event", self.event("no-such-descriptor", 1, {"x": "number"})),
            encode(
                "stop",
                {"uid": self._uid("stop"), "run_start": "no-such-run", "time": 1.0, "exit_status": "success"},
            ),
            encode("start", {"time": "not a number"}),
        ]
        if not runs or rng.random() < 0.5:
            return Item(Role.INVALID, rng.choice(values))
        run = rng.choice(runs)
        return Item(Role.INVALID, self._refused(run, [item for item in queue if item.run == run.uid]), run.uid)

    def _refused(self, run: Run, before: list[Item]) -> bytes:
        """Make what is refused of a run: what names it otherwise than before, a stream that cannot be a node's key,
        or rows one of which belongs to nothing.
        """
        impostor = {"uid": run.uid, "time": self._time(), "plan_name": "impostor"}
        unnamed = {"uid": self._uid("descriptor"), "run_start": run.uid, "name": "a/b", "time": self._time()}
        rest: Json = {"data_keys": {}, "configuration": {}, "hints": {}, "object_keys": {}}
        choices = [("start", impostor), ("descriptor", {**unnamed, **rest})]
        for item in before:
            if item.role is Role.RUN and (others := _OTHERWISE.get(item.name)):
                choices.append((item.name, {**item.doc, **others}))
            if item.name == "descriptor":
                of = (item.doc["uid"], self._uid("no-descriptor"))
                events = {uid: [self.event(uid, 90, {"x": "number"})] for uid in self._rng.sample(of, 2)}
                choices.append(("bulk_events", events))
        return encode(*self._rng.choice(choices))

    def late(self, run: Run) -> Item:
        """Make a document that comes after its run's stop, or in a partition that is not its run's."""
        descriptor = next(iter(run.streams), "no-such-descriptor")
        ranges = {"indices": {"start": 98, "stop": 99}, "seq_nums": {"start": 99, "stop": 100}}
        late: dict[str, Json] = {
            "event": self.event(descriptor, 99, {"x": "number"}),
            "descriptor": {"uid": self._uid("descriptor"), "run_start": run.uid, "name": "late", "time": self._time(),
                           "data_keys": {"x": _data_key("x", "number")}, "configuration": {}, "hints": {},
                           "object_keys": {}},
            "stop": {"uid": self._uid("stop"), "run_start": run.uid, "time": self._time(), "exit_status": "fail"},
            "stream_datum": {"uid": self._uid("late"), "stream_resource": "late", "descriptor": descriptor, **ranges},
        }  # fmt: skip
        name = self._rng.choice(("event", "event", *late))
        return Item(Role.INVALID, encode(name, late[name]), run.uid)

    # ------------------------------------------------------------ documents

    def event(self, descriptor: str, seq_num: int, layout: dict[str, str]) -> Json:
        """Make an event whose values nobody else has."""
        data = {key: self._value(dtype) for key, dtype in layout.items()}
        timestamps = {key: self._time() for key in data}
        common = {
            "uid": self._uid("event"),
            "descriptor": descriptor,
            "seq_num": seq_num,
            "time": self._time(),
        }
        return {**common, "data": data, "timestamps": timestamps, "filled": {}}

    def _stream(self, run: Run, name: str) -> "_Stream":
        return _Stream(self, self._rng, run, name, self._rng.choice(self._layouts))

    def descriptor(self, run: Run, name: str, layout: dict[str, str]) -> str:
        """Publish a descriptor; its uid."""
        uid = self._uid("descriptor")
        run.streams[uid] = name
        keys = {key: _data_key(key, dtype) for key, dtype in layout.items()}
        doc: Json = {"uid": uid, "run_start": run.uid, "name": name, "time": self._time(), "data_keys": keys}
        configuration = {"motor": {"data": {"v": self._serial}, "timestamps": {"v": 1.0}, "data_keys": {}}}
        configuration["motor"]["data_keys"] = {"v": {"source": "sim:v", "dtype": "integer", "shape": []}}
        rest = {"configuration": configuration, "hints": {}, "object_keys": {"motor": list(keys)}}
        self.add(run, "descriptor", {**doc, **rest})
        return uid

    def external(self, run: Run, name: str) -> str:
        """Publish the descriptor of a stream whose `img` is in files; its uid."""
        uid = self._uid("descriptor")
        run.streams[uid] = name
        keys = {key: {"source": f"sim:{key}", "dtype": "array", "shape": [2]} for key in ("img",)}
        keys["img"]["external"] = "FILE:"
        doc: Json = {"uid": uid, "run_start": run.uid, "name": name, "time": self._time(), "data_keys": keys}
        self.add(run, "descriptor", {**doc, "configuration": {}, "hints": {}, "object_keys": {"cam": ["img"]}})
        return uid

    def uid(self, kind: str) -> str:
        """Make a uid that nobody else has."""
        return self._uid(kind)

    def add(self, run: Run, name: str, doc: Json) -> None:
        """Publish a document, now and then twice, but never after its run's stop."""
        run.items.append(Item(Role.RUN, encode(name, doc), run.uid, name, doc))
        if name != "stop" and len(run.items) > 2 and self._rng.random() < 0.05:
            again = self._rng.choice([item for item in run.items if item.role is Role.RUN])
            run.items.append(Item(Role.DUPLICATE, again.value, run.uid, again.name, again.doc))

    def _value(self, dtype: str) -> float | int | str | list[int]:
        self._serial += 1
        if dtype in SHAPES:  # now and then of another length
            length = 3 if self._rng.random() < 0.9 else self._rng.choice((1, 2, 4))
            return [self._serial, *(self._serial % (7 + number) for number in range(length - 1))]
        if dtype == "integer":
            return self._serial
        return self._serial + 0.25 if dtype == "number" else f"value {self._serial}"

    def _time(self) -> float:
        self._serial += 1
        return 1_700_000_000.0 + self._serial / 8

    def _uid(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}-{self._serial:06d}-{self._rng.getrandbits(32):08x}"


def _data_key(key: str, dtype: str) -> Json:
    if dtype not in SHAPES:
        return {"source": f"sim:{key}", "dtype": dtype, "shape": []}
    return {"source": f"sim:{key}", "dtype": "array", "shape": SHAPES[dtype], "dtype_numpy": "<i8"}


class _Stream:
    """Writes one stream of a run, a document at a time."""

    def __init__(self, author: Author, rng: random.Random, run: Run, name: str, layout: dict[str, str]) -> None:
        self.name = name
        self.seq_num = self.seq_num_max = 0
        self._author, self._rng, self._run, self._layout = author, rng, run, layout
        self._descriptor = ""
        self._left = rng.choice((0, 1, 3, 8, 14))
        self._widens = "n" in layout and rng.random() < 0.3

    def write(self) -> bool:
        """Publish the next document; false when the stream has no more."""
        if not self._descriptor or self._rng.random() < 0.03:
            self._descriptor = self._author.descriptor(self._run, self.name, self._layout)
            return True
        if self._left == 0:
            return False
        self._left -= 1
        kind = self._rng.random()
        if kind < 0.1:
            self._page(self._rng.randint(1, PAGE_ROWS_MAX))
        else:
            self._author.add(self._run, "event", self._event(rewind=kind > 0.9 and self.seq_num > 1))
        return True

    def _event(self, *, rewind: bool = False) -> Json:
        if rewind:
            self.seq_num -= self._rng.randint(1, 2)
        self.seq_num += 1
        if self._rng.random() < 0.02 and not rewind:
            self._run.uneven = True
            self.seq_num += 1
        self.seq_num_max = max(self.seq_num_max, self.seq_num)
        event = self._author.event(self._descriptor, self.seq_num, self._layout)
        if self._widens and self._rng.random() < 0.3:
            event["data"]["n"] += 0.5
            for key in ARRAYS & event["data"].keys():
                event["data"][key][0] += 0.5
        return event

    def _page(self, rows: int) -> None:
        events = [self._event() for _ in range(rows)]
        page = {key: [event[key] for event in events] for key in ("uid", "seq_num", "time")}
        columns: Json = {"descriptor": self._descriptor, **page}
        for part in ("data", "timestamps"):
            columns[part] = {key: [event[part][key] for event in events] for key in self._layout}
        self._author.add(self._run, "event_page", {**columns, "filled": {}})


class _Detector:
    """A detector that writes files, now and then a new one."""

    name = ""

    def __init__(self, author: Author, rng: random.Random, run: Run) -> None:
        self.seq_num = self.seq_num_max = 0
        self._author, self._rng, self._run = author, rng, run
        self._descriptor = self._resource = ""
        self._left = rng.choice((1, 4, 12))
        self._frames = 0  # in the file that is written now

    def write(self) -> bool:
        """Publish the next documents; false when the detector has no more."""
        if not self._descriptor:
            self._descriptor = self._author.external(self._run, self.name)
        elif not self._resource or self._rng.random() < 0.1:
            self._resource, self._frames = self._author.uid("resource"), 0
            self._open()
        elif self._left:
            self._left -= 1
            self._expose()
            self.seq_num_max = self.seq_num
        else:
            return False
        return True

    def _open(self) -> None:
        raise NotImplementedError

    def _expose(self) -> None:
        raise NotImplementedError


class _Flown(_Detector):
    """A detector that is flown: stream_datums, and no events."""

    name = "fly"

    def _open(self) -> None:
        doc = {"uid": self._resource, "run_start": self._run.uid, "data_key": "img", "mimetype": "application/x-hdf5"}
        self._author.add(self._run, "stream_resource", {**doc, "uri": f"file:///{self._resource}", "parameters": {}})

    def _expose(self) -> None:
        frames = self._rng.choice((1, 1, 3))
        indices = {"start": self._frames, "stop": self._frames + frames}
        seq_nums = {"start": self.seq_num + 1, "stop": self.seq_num + 1 + frames}
        self._frames, self.seq_num = self._frames + frames, self.seq_num + frames
        doc = {"uid": self._author.uid("datum"), "stream_resource": self._resource, "descriptor": self._descriptor}
        self._author.add(self._run, "stream_datum", {**doc, "indices": indices, "seq_nums": seq_nums})


class _Stepped(_Detector):
    """A detector of old: events name datums, which come before or after them."""

    name = "step"

    def _open(self) -> None:
        doc = {"uid": self._resource, "run_start": self._run.uid, "spec": "AD_HDF5", "root": "/", "resource_path": "a"}
        self._author.add(self._run, "resource", {**doc, "resource_kwargs": {}})

    def _expose(self) -> None:
        self.seq_num += 1
        datum_id = f"{self._resource}/{self._frames}"
        event = self._author.event(self._descriptor, self.seq_num, {})
        event |= {"data": {"img": datum_id}, "timestamps": {"img": event["time"]}, "filled": {"img": False}}
        kwargs = {"indices": {"start": self._frames, "stop": self._frames + 1}}
        datum = {"datum_id": datum_id, "resource": self._resource, "datum_kwargs": kwargs}
        self._frames += 1
        pair = [("datum", datum), ("event", event)]
        for name, doc in pair if self._rng.random() < 0.7 else pair[::-1]:
            self._author.add(self._run, name, doc)


@dataclass
class Plan:
    """What one history publishes: per partition, in order."""

    runs: dict[str, Run]
    home_of: dict[str, Home]
    queues: dict[Home, list[Item]]


def plan(
    rng: random.Random, homes: list[Home], runs_max: int | None, *, external: bool = True, arrays: bool = True
) -> Plan:
    """Interleave a few runs over the partitions, with what else comes along."""
    author, result = Author(rng, external=external, arrays=arrays), Plan({}, {}, {home: [] for home in homes})
    count = min(rng.randint(2, 6), runs_max if runs_max is not None else 6)
    for home in homes:
        mine = [author.run() for _ in range(max(1, count // len(homes)))]
        for run in mine:
            result.runs[run.uid] = run
            result.home_of[run.uid] = home
            run.foreign = rng.random() < 0.05
        result.queues[home] = _interleave(rng, author, mine)
    if len(homes) > 1 and rng.random() < 0.2:
        _scatter(rng, author, result)
    return result


def _scatter(rng: random.Random, author: Author, result: Plan) -> None:
    """Let an event of some run arrive in a partition that is not its home."""
    run = rng.choice(list(result.runs.values()))
    queue = next(queue for home, queue in result.queues.items() if home != result.home_of[run.uid])
    queue.insert(rng.randint(0, len(queue)), author.late(run))


def _interleave(rng: random.Random, author: Author, runs: list[Run]) -> list[Item]:
    waiting, begun, queue = [list(run.items) for run in runs], list[Run](), list[Item]()
    together_max = rng.randint(1, 3)
    while waiting:
        items = rng.choice(waiting[:together_max])
        if len(items) and items[0].name == "start" and items[0].role is Role.RUN:
            begun += [run for run in runs if run.uid == items[0].run]
        queue.append(items.pop(0))
        if not items:
            waiting.remove(items)
            if (run := next(run for run in runs if run.uid == queue[-1].run)).stopped and rng.random() < 0.2:
                queue.append(author.late(run))
        if rng.random() < 0.04:
            queue.append(author.invalid(begun, queue))
    return queue
