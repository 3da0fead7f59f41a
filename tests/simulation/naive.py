"""A sink as one would write it in an afternoon: one record at a time, retry what fails, commit what is done.

It is right while nothing fails, and wrong under nearly every fault: it shows that the models let a sink work,
and that the oracle sees what goes wrong. It shares nothing with the engine but the contract.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from itertools import count

import msgpack
import pyarrow as pa

from tiled_ingest.core.effects import (
    Answered,
    Ask,
    Assigned,
    Commit,
    DeadLetter,
    DeadLettered,
    Drain,
    Effect,
    EndReached,
    Input,
    Records,
    Released,
    Resume,
    Revoked,
)
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.snapshot import EngineSnapshot
from tiled_ingest.core.writes import (
    Append,
    CreateContainer,
    CreateTable,
    EnsureContainer,
    Exists,
    GetNode,
    Outcome,
    Request,
    Unknown,
    Unprocessed,
    UpdateMetadata,
)

from .documents import Item, Json, Role
from .oracle import rows_of

TYPES: dict[str, pa.DataType] = {"number": pa.float64(), "integer": pa.float64(), "string": pa.string()}
Work = Generator[Request | DeadLetter, Outcome, None]


@dataclass
class Stream:
    """A stream: where its rows go, and what they look like."""

    run: str
    path: tuple[str, ...]
    schema: pa.Schema
    created: bool = False
    updates: list[Json] = field(default_factory=list)


@dataclass
class Partition:
    """One partition: what waits, and what is being done."""

    waiting: deque[Record | int] = field(default_factory=deque)
    work: Work | None = None
    asked: Request | DeadLetter | None = None
    offset: int = 0
    taking: bool = True


class NaiveEngine:
    """Wrong, but short."""

    def __init__(self, policy: Policy, nonce: Callable[[], str]) -> None:  # noqa: ARG002
        self._parent = tuple(policy.routes[0][1].split("/")) if policy.routes else ()
        self._tickets = count(1)
        self._partitions: dict[Home, Partition] = {}
        self._asked: dict[int, Home] = {}
        self._runs: dict[str, bool] = {}  # uid -> still open and ours
        self._streams: dict[str, Stream] = {}
        self._homes: dict[str, Home] = {}
        self._seen: dict[str, Json] = {}
        self._draining = False

    full = busy = False

    def idle_s(self, _now_s: float) -> float:
        return 1.0

    def snapshot(self) -> EngineSnapshot:
        return EngineSnapshot((), (), 0, None, None, None, paused=False, ending=self._draining)

    @property
    def finished(self) -> bool:
        return self._draining and self.drained(self._partitions)

    def drained(self, homes: Iterable[Home]) -> bool:
        return all(home not in self._partitions or self._partitions[home].work is None for home in homes)

    def step(self, now_s: float, input: Input) -> list[Effect]:  # noqa: A002, ARG002
        match input:
            case Assigned(home=home):
                self._partitions[home] = Partition()
                return [Resume((home,))]
            case Revoked(homes=homes) | Released(homes=homes):
                self._let_go(homes, at_once=isinstance(input, Released))
            case Drain():
                self._draining = True
            case Records(records=records):
                return self._take(records)
            case EndReached(home=home, next_offset=next_offset):
                self._partitions[home].waiting.append(next_offset)
                return self._next(home)
            case Answered(ticket=ticket, outcome=outcome):
                return self._answered(ticket, outcome)
            case DeadLettered(ticket=ticket):
                return self._answered(ticket, None)
        return []

    def _let_go(self, homes: Iterable[Home], *, at_once: bool) -> None:
        for home in self._partitions.keys() & set(homes):
            self._partitions[home].taking = False
            if at_once:
                del self._partitions[home]

    def _take(self, records: list[Record]) -> list[Effect]:
        for record in records:
            self._partitions[record.home].waiting.append(record)
        homes = dict.fromkeys(record.home for record in records)
        return [effect for home in homes for effect in self._next(home)]

    def _answered(self, ticket: int, outcome: Outcome | None) -> list[Effect]:
        home = self._asked.pop(ticket)
        partition = self._partitions.get(home)
        if partition is None or partition.work is None:
            return []
        if isinstance(outcome, Unknown | Unprocessed):
            return [self._ask(home, partition.asked)]
        return self._advance(home, partition, outcome)

    def _next(self, home: Home) -> list[Effect]:
        partition = self._partitions[home]
        if partition.work is not None or not partition.waiting or not partition.taking or self._draining:
            return []
        head = partition.waiting.popleft()
        if isinstance(head, int):
            return [Commit(next(self._tickets), home, head, ""), *self._next(home)]
        partition.offset, partition.work = head.offset, self._work(head)
        return self._advance(home, partition, None)

    def _advance(self, home: Home, partition: Partition, outcome: Outcome | None) -> list[Effect]:
        assert partition.work is not None
        try:
            return [self._ask(home, partition.work.send(outcome))]  # type: ignore[arg-type]
        except StopIteration:
            partition.work = None
            return [Commit(next(self._tickets), home, partition.offset + 1, ""), *self._next(home)]

    def _ask(self, home: Home, wanted: Request | DeadLetter | None) -> Effect:
        ticket = next(self._tickets)
        self._asked[ticket], self._partitions[home].asked = home, wanted
        if isinstance(wanted, DeadLetter):
            return DeadLetter(ticket, wanted.record, wanted.reason, wanted.code, wanted.error, wanted.run)
        assert wanted is not None
        return Ask(ticket, str(home), wanted)

    def _work(self, record: Record) -> Work:
        dead = DeadLetter(0, record, "InvalidDocument", "naive", "", "")
        try:
            name, doc = msgpack.loads(record.value or b"")
            uid = doc["uid"] if isinstance(doc["uid"], str) else doc["uid"][0]
            if uid in self._seen:
                if self._seen[uid] != doc:
                    yield dead
                return
            work = {"start": self._start, "descriptor": self._descriptor, "stop": self._stop}.get(name, self._rows)
            run = self._run_of(name, doc)
            if name != "start" and (not self._runs[run] or self._homes[run] != record.home):
                yield dead
                return
        except (ValueError, TypeError, KeyError, msgpack.UnpackException):
            yield dead
            return
        refused = yield from work(record, doc)
        if refused:
            yield dead
        self._seen[uid] = doc

    def _run_of(self, name: str, doc: Json) -> str:
        if name in ("event", "event_page"):
            return self._streams[doc["descriptor"]].run
        return str(doc["uid"] if name == "start" else doc["run_start"])

    def _start(self, record: Record, doc: Json) -> Generator[Request, Outcome, bool]:
        self._homes[doc["uid"]] = record.home
        ours = {"state": "open", "source": {"topic_id": "?", "partition": record.partition}}
        yield EnsureContainer(self._parent)
        metadata = {"start": doc, "tiled_ingest": ours}
        outcome = yield CreateContainer(self._parent, doc["uid"], metadata, (), None)
        self._runs[doc["uid"]] = True
        if isinstance(outcome, Exists):
            outcome = yield GetNode((*self._parent, doc["uid"]))
            self._runs[doc["uid"]] = "tiled_ingest" in outcome.value.metadata  # type: ignore[union-attr]
        return not self._runs[doc["uid"]]

    def _descriptor(self, record: Record, doc: Json) -> Generator[Request, Outcome, bool]:  # noqa: ARG002
        if "/" in doc["name"]:
            return True
        path = (*self._parent, doc["run_start"], doc["name"])
        known = next((stream for stream in self._streams.values() if stream.path[:-1] == path), None)
        if known is not None:
            self._streams[doc["uid"]] = known
            known.updates.append({"uid": doc["uid"]})
            yield UpdateMetadata(path, {"_config_updates": known.updates})
            return False
        keys = {key: TYPES[entry["dtype"]] for key, entry in doc["data_keys"].items()}
        stamps = {f"ts_{key}": pa.float64() for key in keys}
        schema = pa.schema({"seq_num": pa.int64(), "time": pa.float64(), **keys, **stamps})
        self._streams[doc["uid"]] = Stream(doc["run_start"], (*path, "internal"), schema)
        yield CreateContainer(path[:-1], doc["name"], {"uid": doc["uid"]}, (), None)
        return False

    def _rows(self, record: Record, doc: Json) -> Generator[Request, Outcome, bool]:  # noqa: ARG002
        stream = self._streams[doc["descriptor"]]
        if not stream.created:
            yield CreateTable(stream.path[:-1], stream.path[-1], stream.schema, {}, None, {})
            stream.created = True
        name = "event" if isinstance(doc["uid"], str) else "event_page"
        rows = list(rows_of(Item(Role.RUN, None, stream.run, name, doc)))
        yield Append(stream.path, pa.Table.from_pylist(rows, schema=stream.schema))
        return False

    def _stop(self, record: Record, doc: Json) -> Generator[Request, Outcome, bool]:  # noqa: ARG002
        metadata = {"stop": doc, "tiled_ingest": {"state": "complete"}}
        yield UpdateMetadata((*self._parent, doc["run_start"]), metadata)
        self._runs[doc["run_start"]] = False
        return False
