"""Requests that may be repeated are repeated, with patience; and what other tests drive procedures with.

`play` checks a procedure against a script of requests and answers; `drive` lets it talk to `MiniTiled`, a Tiled of
dicts, in which single requests can be made to fail.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pyarrow as pa
import pytest

from tiled_ingest.core import writes as w
from tiled_ingest.core.decoding.eras import Eras
from tiled_ingest.core.effects import LogRead
from tiled_ingest.core.errors import Forbidden, TiledRejected
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.runs.documents import content_hash
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.steps import (
    Announcement,
    Claiming,
    Letter,
    Letters,
    LogChunk,
    Naming,
    Procedure,
    RefusalsOut,
    Retaking,
    Sleep,
    Standing,
    Weather,
)
from tiled_ingest.core.writing.datasets import OURS
from tiled_ingest.core.writing.patience import READ_WITNESSES_MIN, WITNESSES_MIN, Bare, Patience, create, insist
from tiled_ingest.core.writing.proof import is_taken

HOME = Home("t", 0)
TOPIC_ID = "topic-id"
POLICY = Policy(late_write_s_max=1.0, server_errors_max=3)
STAMP_MS = 1_700_000_000_000


# ---------------------------------------------------------------- documents


def record(offset: int, name: str, doc: Any, home: Home = HOME) -> Record:
    value = msgpack.dumps((name, doc), default=msgpack_numpy.encode)
    return Record(home.topic, home.partition, offset, STAMP_MS + offset, None, value)


def start_doc(uid: str = "r", **more: Any) -> dict[str, Any]:
    return {"uid": uid, "time": 1.0, **more}


def descriptor_doc(uid: str = "d", run: str = "r", name: str = "primary", **dtypes: str) -> dict[str, Any]:
    spelled = dtypes or {"x": "number", "i": "integer"}
    data_keys = {key: {"dtype": dtype, "shape": [], "source": "s"} for key, dtype in spelled.items()}
    return {"uid": uid, "time": 1.0, "run_start": run, "name": name, "data_keys": data_keys}


def event_doc(seq_num: int, uid: str = "", descriptor: str = "d", **data: Any) -> dict[str, Any]:
    values = data or {"x": float(seq_num), "i": seq_num}
    doc = {"descriptor": descriptor, "uid": uid or f"{descriptor}/{seq_num}", "time": 100.0 + seq_num, "filled": {}}
    return {**doc, "seq_num": seq_num, "data": values, "timestamps": dict.fromkeys(values, 1.0)}


def page_doc(*seq_nums: int, descriptor: str = "d") -> dict[str, Any]:
    events = [event_doc(number, descriptor=descriptor) for number in seq_nums]
    heads = {name: [event[name] for event in events] for name in ("uid", "time", "seq_num")}
    parts = {part: {key: [event[part][key] for event in events] for key in ("x", "i")} for part in ("data",)}
    stamps = {key: [1.0] * len(events) for key in ("x", "i")}
    return {"descriptor": descriptor, **heads, **parts, "timestamps": stamps, "filled": {}}


def stop_doc(run: str = "r", num_events: dict[str, int] | None = None) -> dict[str, Any]:
    doc = {"uid": f"{run}-stop", "time": 2.0, "run_start": run, "exit_status": "success"}
    return {**doc, "num_events": num_events or {}}


def run_of(start: dict[str, Any] | None = None, *, first_offset: int = 0, inherited: bool = False) -> Run:
    start = start or start_doc()
    return Run(HOME, (), start, content_hash(start), first_offset, inherited=inherited)


# ---------------------------------------------------------------- what a procedure may know


class Around:
    """The surroundings of a procedure, without a claim."""

    def __init__(self, policy: Policy = POLICY, epoch: int = 3, nonce: str = "mine") -> None:
        self.policy = policy
        self.weather = Weather()
        self.home = HOME
        self.topic_id = TOPIC_ID
        self.epoch = epoch
        self.nonce = nonce
        self.decode = Eras(policy)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.standings: dict[str, Standing] = {"r": Standing(("r",), {"state": "open"}, None)}
        self._words = 0

    def fresh_nonce(self) -> str:
        self._words += 1
        return f"n{self._words}"

    def tell(self, event: str, **fields: Any) -> None:
        self.told.append((event, fields))

    def standing(self, lane: str) -> Standing | None:
        return self.standings.get(lane)


def play(procedure: Procedure[Any], *script: tuple[Any, Any]) -> Any:
    """Drive a procedure through pairs of what it must want (a value, a type, a predicate) and the answer to it."""
    answer = None
    for number, (expected, next_answer) in enumerate(script):
        step = procedure.send(answer)
        assert _is_meant(expected, step), f"step {number}: {step} instead of {expected}"
        answer = next_answer
    try:
        step = procedure.send(answer)
    except StopIteration as ended:
        return ended.value
    return pytest.fail(f"one step more: {step}")


def _is_meant(expected: Any, step: Any) -> bool:
    if isinstance(expected, type):
        return isinstance(step, expected)
    return bool(expected(step)) if callable(expected) else bool(expected == step)


# ---------------------------------------------------------------- a Tiled of dicts

Fault = Callable[[w.Request], "w.Outcome | None"]


@dataclass
class MiniTiled:
    """Nodes by path, rows by dataset. `faults` are asked first: an outcome of theirs is the answer."""

    storage: str = "duckdb"
    nodes: dict[w.Path, w.Node] = field(default_factory=lambda: {(): w.Node({})})
    rows: dict[tuple[Any, Any], list[pa.Table]] = field(default_factory=dict)
    asked: list[w.Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    closed: list[w.Path] = field(default_factory=list)
    externals: dict[w.Path, w.RegisterExternal] = field(default_factory=dict)  # what was written last
    stored: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)  # by asset, as far as rows were written

    def __call__(self, request: w.Request) -> w.Outcome:
        self.asked.append(request)
        for fault in self.faults:
            if (outcome := fault(request)) is not None:
                return outcome
        return self.apply(request)

    def apply(self, request: w.Request) -> w.Outcome:  # noqa: C901, PLR0911, PLR0912 - one case a request
        match request:
            case w.CreateContainer():
                return self._create((*request.parent, request.key), w.Node(request.metadata))
            case w.CreateTable():
                return self._create_table(request)
            case w.CreateArray():
                return self._create_array(request)
            case w.EnsureContainer():
                for end in range(1, len(request.path) + 1):
                    self.nodes.setdefault(request.path[:end], w.Node({}))
                return w.Done()
            case w.FindOpenRuns():
                return w.Done(tuple(self._open_runs(request)))
            case w.CloseStreams():
                self.closed += request.paths
                return w.Done()
            case w.RegisterExternal():
                return self._register(request)
        if request.path not in self.nodes:
            return w.Missing()
        node = self.nodes[request.path]
        match request:
            case w.UpdateMetadata():
                self.nodes[request.path] = replace(node, metadata={**node.metadata, **request.metadata})
            case w.PutSource():
                self.nodes[request.path] = replace(node, source=request.source)
            case w.Append():
                return self._append(node, request)
            case w.ReadKeys():
                return w.Done(keys_of(self.table_at(request.path)))
            case w.GetNode():
                return w.Done(node)
            case w.CountRows():
                table = self.table_at(request.path)
                return w.Done(0 if table is None else table.num_rows)
            case w.PutArray():
                self.nodes[request.path] = replace(node, array=request.source)
            case w.PatchArray():
                self._patch(node, request)
            case w.ReadArray():
                return w.Done(self._stored(node)[request.start : request.stop])
        return w.Done()

    def _register(self, request: w.RegisterExternal) -> w.Outcome:
        if request.path[:-1] not in self.nodes:
            return w.Missing()
        held = self.externals.get(request.path)
        size = request.known.size if request.known else held.plan.rows if held else -1
        if request.exact or request.plan.rows > size:
            self.shrink(request)
        return w.Done(w.Registered(1, max(size, request.plan.rows), 1, {"spec": "AD_HDF5"}))

    def shrink(self, request: w.RegisterExternal) -> None:
        """Let the node be what the request says, whatever it was."""
        self.nodes.setdefault(request.path, w.Node({}))
        self.externals[request.path] = request

    def _create_array(self, request: w.CreateArray) -> w.Outcome:
        path = (*request.parent, request.key)
        source = replace(request.source, id=len(self.nodes), assets=(w.Asset("/".join(path), "data_uri"),))
        answer = self._create(path, w.Node(request.metadata, None, source))
        return w.Done(source) if isinstance(answer, w.Done) else answer

    def _patch(self, node: w.Node, request: w.PatchArray) -> None:
        held, stop = self._stored(node), request.offset + len(request.array)
        longer = np.zeros((max(stop, len(held)), *request.array.shape[1:]), request.array.dtype)
        longer[: len(held)] = held
        longer[request.offset : stop] = request.array
        assert node.array is not None
        self.stored[node.array.assets[0].uri] = longer
        grown = replace(node.array, shape=(len(longer), *node.array.shape[1:]))
        self.nodes[request.path] = replace(node, array=grown)

    def _stored(self, node: w.Node) -> np.ndarray[Any, Any]:
        source = node.array
        assert source is not None
        return self.stored.get(
            source.assets[0].uri, np.zeros((0, *(size or 0 for size in source.shape[1:])), source.dtype)
        )

    def values_at(self, path: w.Path) -> list[Any]:
        """What a reader of a regular array sees."""
        node = self.nodes[path]
        assert node.array is not None
        values: list[Any] = self._stored(node)[: node.array.shape[0]].tolist()
        return values

    def _create(self, path: w.Path, node: w.Node) -> w.Outcome:
        if path[:-1] not in self.nodes:
            return w.Missing()
        if path in self.nodes:
            return w.Exists()
        self.nodes[path] = node
        return w.Done(node.source)

    def _create_table(self, request: w.CreateTable) -> w.Outcome:
        number = len(self.rows) + 1
        parameters = {"table_name": "table", "dataset_id": number}
        source = w.TableSource(number, request.schema, parameters, request.properties, self.storage)
        answer = self._create((*request.parent, request.key), w.Node(request.metadata, source))
        if isinstance(answer, w.Done):
            self.rows[source.dataset] = []
        return answer

    def _append(self, node: w.Node, request: w.Append) -> w.Outcome:
        assert node.source is not None
        if request.table.schema.names != node.source.schema.names:
            return w.Rejected("the columns are others", 400)
        self.rows[node.source.dataset].append(request.table)
        return w.Done()

    def _open_runs(self, request: w.FindOpenRuns) -> Iterator[w.OpenRun]:
        for path, node in self.nodes.items():
            facts = node.metadata.get(OURS, {})
            where = facts.get("source", {})
            ours = (where.get("topic_id"), where.get("partition")) == (request.topic_id, request.partition)
            if ours and facts["state"] == "open" and path[: len(request.parent)] == request.parent:
                streams = [other for at, other in self.nodes.items() if at[:-1] == path and "uid" in other.metadata]
                named = [uid for stream in streams for uid in _descriptors(stream.metadata)]
                yield w.OpenRun(path, node.metadata, facts["epoch"], tuple(named))

    def table_at(self, path: w.Path) -> pa.Table | None:
        source = self.nodes[path].source
        assert source is not None
        tables = self.rows[source.dataset]
        return pa.concat_tables([table.select(tables[0].schema.names) for table in tables]) if tables else None

    def seq_nums(self, path: w.Path) -> list[int]:
        table = self.table_at(path)
        return [] if table is None else [int(number) for number in keys_of(table).seq_num]

    def facts(self, path: w.Path) -> dict[str, Any]:
        facts: dict[str, Any] = self.nodes[path].metadata[OURS]
        return facts

    def count(self, kind: type) -> int:
        return sum(isinstance(request, kind) for request in self.asked)


def _descriptors(metadata: dict[str, Any]) -> list[str]:
    return [metadata["uid"], *(update["uid"] for update in metadata.get("_config_updates", []))]


def keys_of(table: pa.Table | None) -> w.Keys:
    if table is None:
        return w.Keys(np.empty(0, np.int64), np.empty(0))
    return w.Keys(table["seq_num"].to_numpy(), table["time"].to_numpy())


def once(kind: type, *outcomes: w.Outcome, where: Callable[[Any], bool] = lambda _: True) -> Fault:
    """The next requests of this kind are answered so, without being applied."""
    left = list(outcomes)
    return lambda request: left.pop(0) if left and isinstance(request, kind) and where(request) else None


def always(kind: type | tuple[type, ...], outcome: w.Outcome) -> Fault:
    return lambda request: outcome if isinstance(request, kind) else None


@dataclass
class Trace:
    """What a procedure did besides asking Tiled, in order, and its result."""

    result: Any = None
    steps: list[Any] = field(default_factory=list)

    @property
    def slept_s(self) -> float:
        return sum(step.seconds for step in self.steps if isinstance(step, Sleep))

    @property
    def letters(self) -> list[Letter]:
        return [letter for step in self.steps if isinstance(step, Letters) for letter in step.letters]


def drive(procedure: Procedure[Any], tiled: MiniTiled, log: Iterable[Record] = (), *, low: int = 0) -> Trace:
    """Let a procedure talk to a Tiled and a log until it ends; a log chunk has at most three records."""
    trace, log = Trace(), list(log)
    answer: Any = None
    while True:
        try:
            step = procedure.send(answer)
        except StopIteration as ended:
            trace.result = ended.value
            return trace
        trace.steps.append(step)
        match step:
            case LogChunk():
                answer = chunk_of(log, step.start, step.stop, low)
            case Sleep() | Letters() | RefusalsOut() | Announcement() | Claiming() | Naming() | Retaking():
                answer = None
            case _:
                answer = tiled(step)


def chunk_of(log: list[Record], start: int, stop: int, low: int = 0, ticket: int = 0) -> LogRead:
    found = [held for held in log if max(start, low) <= held.offset < stop]
    return LogRead(ticket, found[:3], found[3].offset if len(found) > 3 else stop, low)


# ---------------------------------------------------------------- insist


NODE = w.GetNode(("r",))


def awake(step: Any) -> bool:
    """A wait that keeps nobody else waiting."""
    return isinstance(step, Sleep) and not step.down


def down(step: Any) -> bool:
    """A wait for Tiled as a whole."""
    return isinstance(step, Sleep) and step.down


@pytest.mark.parametrize("answer", [w.Done(7), w.Exists(), w.Missing("gone")])
def test_an_answer_is_an_answer(answer: w.Outcome) -> None:
    assert play(insist(Around(), "r", NODE), (NODE, answer)) == answer


@pytest.mark.parametrize("failure", [w.Unknown("reset"), w.Unknown("bad gateway", 502), w.Unprocessed("refused")])
def test_what_may_be_repeated_is_repeated_for_ever(failure: w.Outcome) -> None:
    script = [pair for _ in range(50) for pair in ((NODE, failure), (Sleep, None))]
    assert play(insist(Around(), "r", NODE), *script, (NODE, w.Done())) == w.Done()


def failed_with(outcome: w.Outcome, around: Around | None = None) -> Iterator[Sleep]:
    patience = Patience(around or Around(), "r")
    while True:
        yield patience.after(outcome)


def test_waits_grow_up_to_a_limit_and_are_jittered() -> None:
    policy = Policy(backoff_s_min=0.1, backoff_s_max=15.0)
    waits = [sleep.seconds for sleep, _ in zip(failed_with(w.Unknown("x"), Around(policy)), range(40), strict=False)]
    for number, wait in enumerate(waits):
        longest = min(15.0, 0.1 * 2.0**number)
        assert 0.5 * longest <= wait <= longest
    assert len(set(waits)) == 40


def test_waits_can_be_replayed_and_differ_between_lanes() -> None:
    waits = [Patience(Around(), lane).after(w.Unknown("x")).seconds for lane in ("a", "b", "a")]
    assert waits[0] == waits[2] != waits[1]


def test_retry_after_is_honoured() -> None:
    assert next(failed_with(w.Unprocessed("busy", 77.0))) == Sleep(77.0, down=True, why="busy")
    assert next(failed_with(w.Unprocessed("busy", 0.0))).seconds > 0


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (w.Rejected("a shape", 422), TiledRejected),
        (w.Rejected("gone for good", 410), TiledRejected),
        (w.Denied("Invalid API key", 401), Forbidden),
        (w.Denied("access tag", 401), Forbidden),
        (w.Denied("Not enough scopes", 403), Forbidden),
        (w.Denied("Access Tag 'x' is not allowed", 403), TiledRejected),
    ],
)
def test_what_waiting_cannot_change_is_raised(outcome: w.Outcome, error: type[Exception]) -> None:
    with pytest.raises(error):
        play(insist(Around(), "r", NODE), (NODE, outcome))


BOOM = w.Unknown("boom", 500)
PROOF = w.UpdateMetadata(("r",), {OURS: {"state": "open"}})
FAILED = [(NODE, BOOM), (awake, None)]
DOUBTED = FAILED * POLICY.server_errors_max
TAKEN = (PROOF, w.Done())
REFUSED = [(PROOF, BOOM), (down, None)]


def test_server_errors_reject_only_what_fails_again_and_again_between_writes_that_are_taken() -> None:
    script = [*DOUBTED, TAKEN, *FAILED, TAKEN, *FAILED, TAKEN, (NODE, BOOM)]
    assert WITNESSES_MIN == 3
    with pytest.raises(TiledRejected, match="boom"):
        play(insist(Around(), "r", NODE), *script)


@pytest.mark.parametrize("seen", range(WITNESSES_MIN + 1))
def test_an_outage_rejects_nothing_whenever_it_begins_and_ends(seen: int) -> None:
    """It may begin just after a proof, and end just before one; then the request is let through first."""
    began_within = [TAKEN, *FAILED] if seen else []
    script = [*DOUBTED, *began_within, *[*REFUSED, (NODE, BOOM), (down, None)] * 20, TAKEN, (NODE, w.Done())]
    assert play(insist(Around(), "r", NODE), *script) == w.Done()


def test_another_failure_shows_that_tiled_is_not_well_and_the_count_begins_anew() -> None:
    reset = [(NODE, w.Unknown("reset")), (down, None)]
    script = [*DOUBTED, TAKEN, *FAILED, TAKEN, *FAILED, TAKEN, *reset, *DOUBTED, TAKEN, (NODE, w.Done())]
    assert play(insist(Around(), "r", NODE), *script) == w.Done()


def test_a_server_error_is_the_trouble_of_its_lane_until_a_write_of_our_own_fails_too() -> None:
    script = [*DOUBTED, *REFUSED, (NODE, BOOM), (down, None), TAKEN, *FAILED, TAKEN, (NODE, w.Done())]
    assert play(insist(Around(), "r", NODE), *script) == w.Done()


@pytest.mark.parametrize(("root", "sleep"), [(w.Done(w.Node({})), awake), (BOOM, down)])
def test_without_a_node_of_our_own_a_write_is_never_judged(root: w.Outcome, sleep: Any) -> None:
    ensure, looked = w.EnsureContainer(("raw",)), (w.GetNode(()), root)
    failed = [(ensure, BOOM), (awake, None)]
    away = [(down, None)] if root is BOOM else []
    more = [(ensure, BOOM), (sleep, None), looked, *away] * 20
    script = [*failed * POLICY.server_errors_max, looked, *away, *more, (ensure, w.Done())]
    assert play(insist(Around(), "other", ensure), *script) == w.Done()


def test_a_node_that_cannot_be_read_while_others_can_is_given_up() -> None:
    root = (w.GetNode(()), w.Done(w.Node({})))
    script = [*DOUBTED, root, *FAILED, root, *FAILED, root, (NODE, BOOM)]
    with pytest.raises(TiledRejected, match="boom"):
        play(insist(Around(), "other", NODE), *script)


READS = [
    w.ReadKeys(("r",)),
    w.ReadRows(("r",), ()),
    w.CountRows(("r",), "x"),
    w.ReadArray(("r",), 0, 1, np.dtype(float), ()),
]


def broken_between_proofs(read: w.Request, times: int) -> list[tuple[Any, Any]]:
    """Each of so many reads is answered 500, though the writes of ours that are tried in between are taken."""
    write = w.PatchArray if isinstance(read, w.ReadArray) else w.Append
    make = w.CreateArray if isinstance(read, w.ReadArray) else w.CreateTable
    between = [(make, w.Done()), (write, w.Done()), (read, BOOM), (awake, None)]
    return [*[(read, BOOM), (awake, None)] * POLICY.server_errors_max, *between * times]


@pytest.mark.parametrize("read", READS)
def test_a_read_that_other_clients_break_for_minutes_fails_no_run(read: w.Request) -> None:
    """On DuckDB whoever reads in a loop breaks long reads of ours, hardly ever the small writes of a proof."""
    made = broken_between_proofs(read, READ_WITNESSES_MIN - 1)
    proven = [(lambda _: True, w.Done()), (lambda _: True, w.Done())]
    assert play(insist(Around(), "r", read), *made, *proven, (read, w.Done(7))) == w.Done(7)


@pytest.mark.parametrize("read", READS)
def test_a_read_that_is_never_answered_fails_its_run_in_the_end(read: w.Request) -> None:
    *made, _ = broken_between_proofs(read, READ_WITNESSES_MIN)
    with pytest.raises(TiledRejected, match="boom"):
        play(insist(Around(), "r", read), *made)


# ---------------------------------------------------------------- proofs are of the kind of what failed


def kinds_asked(request: w.Request, *answers: w.Outcome) -> tuple[bool | None, list[Any]]:
    asked: list[Any] = []
    left = list(answers)
    procedure = is_taken(Around(), "r", request)
    try:
        step = procedure.send(None)
        while True:
            asked.append(step)
            step = procedure.send(left.pop(0))
    except StopIteration as ended:
        return ended.value, asked


LIVE_TABLE, ONE_ROW = ("r", "primary", "internal"), pa.table({"x": [1]})
ROWS = (w.Append(LIVE_TABLE, ONE_ROW), w.ReadKeys(LIVE_TABLE), w.CountRows(LIVE_TABLE, "x"), w.ReadRows(LIVE_TABLE, ()))


@pytest.mark.parametrize("request_", [*ROWS, w.CreateTable(LIVE_TABLE, "rebuild-3-n", ONE_ROW.schema, {}, None, {})])
def test_rows_are_proven_by_rows_of_our_own_that_no_reader_sees(request_: w.Request) -> None:
    taken, (table, append) = kinds_asked(request_, w.Done(), w.Done())
    assert taken is True
    assert isinstance(table, w.CreateTable)
    assert isinstance(append, w.Append)
    assert append.path == (*table.parent, table.key) == (*LIVE_TABLE, table.key)
    assert append.table.schema == table.schema
    assert kinds_asked(request_, w.Done(), BOOM)[0] is False
    assert kinds_asked(request_, BOOM)[0] is False


ARRAY = ("r", "primary", "image")


@pytest.mark.parametrize(
    "request_", [w.PatchArray(ARRAY, 0, np.zeros(1)), w.ReadArray(ARRAY, 0, 1, np.dtype(float), ())]
)
def test_arrays_are_proven_by_an_array_of_our_own(request_: w.Request) -> None:
    taken, (made, patch) = kinds_asked(request_, w.Done(), w.Done())
    assert taken is True
    assert isinstance(made, w.CreateArray)
    assert isinstance(patch, w.PatchArray)
    assert patch.path == (*made.parent, made.key) == (*ARRAY, made.key)
    assert kinds_asked(request_, w.Done(), BOOM)[0] is False
    assert kinds_asked(request_, BOOM)[0] is False


# ---------------------------------------------------------------- nodes below which nothing can be tried yet


MAKE = w.CreateContainer((), "r", {"start": {"note": "bad"}}, (), None)
BARE = w.CreateContainer((), "r", {"start": {}}, (), None)
MAKE_DOUBTED = [(MAKE, BOOM), (awake, None)] * POLICY.server_errors_max


def test_a_node_that_is_not_made_as_it_is_wanted_is_made_bare() -> None:
    assert isinstance(play(create(Around(), "r", MAKE, BARE), *MAKE_DOUBTED, (BARE, w.Done())), Bare)


def test_a_node_that_is_not_made_even_bare_waits_for_tiled() -> None:
    away = [(BARE, BOOM), (down, None), (MAKE, BOOM), (down, None)]
    script = [*MAKE_DOUBTED, *away * 20, (BARE, BOOM), (down, None), (MAKE, w.Done())]
    assert play(create(Around(), "r", MAKE, BARE), *script) == w.Done()


def test_a_gateway_that_fails_rejects_nothing_however_often() -> None:
    script = [(NODE, w.Unknown("bad gateway", 502)), (down, None)] * 100
    assert play(insist(Around(), "r", NODE), *script, (NODE, w.Done())) == w.Done()


def test_what_holds_the_rows_is_learnt_from_whatever_shows_a_table() -> None:
    table = w.TableSource(1, pa.schema({}), {}, {}, "postgresql")
    for seen in (table, w.Node({}, table)):
        weather = Weather()
        weather.note(w.Done(seen))
        weather.note(w.Done(w.Node({})))
        assert weather.storage == "postgresql"
