"""The writes of the layout against a real Tiled, on both storages."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiled.catalog import in_memory
from tiled.client import Context, from_context, from_uri
from tiled.server.app import build_app

from tests.rig.application import EverybodyMay
from tiled_ingest.core.writes import (
    Append,
    CloseStreams,
    CreateContainer,
    CreateTable,
    Denied,
    Done,
    EnsureContainer,
    Exists,
    FindOpenRuns,
    GetNode,
    Json,
    Keys,
    Missing,
    Node,
    OpenRun,
    Path,
    PutSource,
    ReadKeys,
    Rejected,
    Request,
    TableSource,
    Unknown,
    UpdateMetadata,
)
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session

pytestmark = pytest.mark.real

COLUMNS: dict[str, pa.DataType] = {
    "seq_num": pa.int64(),
    "time": pa.float64(),
    "x": pa.float64(),
    "n": pa.int64(),
    "label": pa.string(),
    "ts_x": pa.float64(),
}
SCHEMA = pa.schema(COLUMNS)


@pytest.fixture
def session(tiled_server: Any) -> Iterator[Session]:
    session = Session.at(tiled_server.uri, tiled_server.api_key, timeout_s=30)
    yield session
    session.close()


@pytest.fixture
def reader(tiled_server: Any) -> Iterator[Any]:
    """Tiled's own client, as readers use it."""
    client = from_uri(tiled_server.uri, api_key=tiled_server.api_key)
    yield client
    client.context.close()


def done(session: Session, request: Request) -> Any:
    outcome = perform(session, request)
    assert isinstance(outcome, Done), outcome
    return outcome.value


def rows(first: int, count: int, schema: pa.Schema = SCHEMA) -> pa.Table:
    seq_num = np.arange(first, first + count)
    columns = {
        "seq_num": seq_num,
        "time": 1.7e9 + seq_num / 7,
        "x": seq_num * 0.5,
        "n": seq_num * 10,
        "label": [f"row {k}" for k in seq_num],
        "ts_x": 1.7e9 + seq_num / 7,
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def new_run(session: Session, parent: Path = (), **ours: Any) -> Path:
    uid = str(uuid.uuid4())
    metadata = {"start": {"uid": uid, "time": 1.7e9, "scan_id": 7}, "tiled_ingest": {"state": "open", **ours}}
    done(session, CreateContainer(parent, uid, metadata, (("BlueskyRun", "3.0"),), None))
    return (*parent, uid)


def new_stream(session: Session, run: Path, name: str = "primary") -> Path:
    data_keys = {key: {"dtype": "number", "shape": [], "source": "test"} for key in ("x", "n", "label")}
    metadata = {
        "uid": str(uuid.uuid4()),
        "time": 1.7e9,
        "data_keys": data_keys,
        "configuration": {},
        "hints": {},
    }
    specs = (("BlueskyEventStream", "3.0"), ("composite", None))
    done(session, CreateContainer(run, name, metadata, specs, None))
    return (*run, name)


def new_table(
    session: Session, parent: Path, key: str = "internal", schema: pa.Schema = SCHEMA, epoch: int = 1
) -> TableSource:
    properties = {"tiled_ingest": {"epoch": epoch, "nonce": "abc", "orders": [list(schema.names)]}}
    source = done(session, CreateTable(parent, key, schema, {"x": {}}, None, properties))
    assert isinstance(source, TableSource)
    return source


@pytest.fixture
def run(session: Session) -> Path:
    return new_run(session)


@pytest.fixture
def stream(session: Session, run: Path) -> Path:
    return new_stream(session, run)


def seq_nums(session: Session, path: Path) -> list[int]:
    found: Keys = done(session, ReadKeys(path))
    return sorted(int(n) for n in found.seq_num)


# ---------------------------------------------------------------- creating, appending, reading back


def test_what_exists_is_an_answer(session: Session, run: Path, stream: Path) -> None:
    new_table(session, stream)
    assert perform(session, CreateContainer((), run[0], {}, (), None)) == Exists()
    assert perform(session, CreateContainer(run, "primary", {}, (), None)) == Exists()
    assert perform(session, CreateTable(stream, "internal", SCHEMA, {}, None, {})) == Exists()


def test_what_is_below_nothing_is_missing(session: Session) -> None:
    nowhere = ("no-such-run", "primary")
    for request in (
        CreateContainer(nowhere, "x", {}, (), None),
        CreateTable(nowhere, "internal", SCHEMA, {}, None, {}),
        Append(nowhere, rows(1, 1)),
        ReadKeys(nowhere),
        GetNode(nowhere),
        UpdateMetadata(nowhere, {"a": 1}),
    ):
        assert isinstance(perform(session, request), Missing), request


def test_a_new_table_tells_its_source(tiled_server: Any, session: Session, stream: Path) -> None:
    source = new_table(session, stream, epoch=5)
    assert source.id > 0
    assert source.schema == SCHEMA
    assert source.storage in {"duckdb", "postgresql"}
    assert str(source.dataset[0]).startswith("table_")
    assert source.properties["tiled_ingest"]["epoch"] == 5
    node: Node = done(session, GetNode((*stream, "internal")))
    assert node == Node({"x": {}}, source)


def test_appended_rows_are_read_back_whole(session: Session, stream: Path) -> None:
    new_table(session, stream)
    path = (*stream, "internal")
    assert seq_nums(session, path) == []
    done(session, Append(path, rows(1, 3)))
    done(session, Append(path, rows(4, 2)))
    found: Keys = done(session, ReadKeys(path))
    order = np.argsort(found.seq_num)
    assert found.seq_num.dtype == np.int64
    assert found.time.dtype == np.float64
    assert found.seq_num[order].tolist() == [1, 2, 3, 4, 5]
    assert found.time[order].tolist() == (1.7e9 + np.arange(1, 6) / 7).tolist()  # to the last bit


def test_a_table_without_keys_never_answers(session: Session, stream: Path) -> None:
    new_table(session, stream, "internal_1", pa.schema({"x": pa.float64()}))
    done(session, Append((*stream, "internal_1"), pa.table({"x": [1.0]})))
    # PostgreSQL leaves the columns out, DuckDB fails: never confirmed, in any case
    assert isinstance(perform(session, ReadKeys((*stream, "internal_1"))), Rejected | Unknown)


def test_a_node_without_a_table_has_no_source(session: Session, run: Path) -> None:
    node: Node = done(session, GetNode(run))
    assert node.source is None
    assert node.metadata["start"]["uid"] == run[0]


def test_the_run_is_a_bluesky_run(reader: Any, session: Session, run: Path, stream: Path) -> None:
    new_table(session, stream)
    done(session, Append((*stream, "internal"), rows(1, 4)))
    done(session, UpdateMetadata(run, {"stop": {"exit_status": "success"}}))
    done(session, CloseStreams(((*stream, "internal"), stream, run)))
    found = reader[run[0]]
    assert type(found).__name__.startswith("BlueskyRun")
    data = found["primary"].read()
    assert sorted(data["x"].values.tolist()) == [0.5, 1.0, 1.5, 2.0]
    assert found.metadata["stop"]["exit_status"] == "success"


# ---------------------------------------------------------------- the switch


def permuted(source: TableSource) -> pa.Schema:
    return pa.schema(list(reversed(list(source.schema))))


def test_a_switch_puts_the_new_dataset_before_readers(reader: Any, session: Session, run: Path, stream: Path) -> None:
    live, child = (*stream, "internal"), (*stream, "internal", "rebuild-2-ab")
    old = new_table(session, stream)
    done(session, Append(live, rows(1, 5)))
    new = new_table(session, live, "rebuild-2-ab", permuted(old), epoch=2)
    assert new.dataset != old.dataset
    done(session, Append(child, rows(1, 7, new.schema)))
    assert seq_nums(session, live) == [1, 2, 3, 4, 5]

    done(session, PutSource(live, replace(new, id=old.id)))
    assert seq_nums(session, live) == list(range(1, 8))
    node: Node = done(session, GetNode(live))
    assert node.source == replace(new, id=old.id)  # its storage too: no association was lost
    done(session, PutSource(child, replace(old, id=new.id)))
    assert seq_nums(session, child) == [1, 2, 3, 4, 5]

    stale = perform(session, Append(live, rows(100, 50)))  # the old owner's order of columns
    assert isinstance(stale, Unknown), stale
    assert stale.status == 500
    assert seq_nums(session, live) == list(range(1, 8))
    done(session, Append(live, rows(8, 2, new.schema)))
    assert seq_nums(session, live) == list(range(1, 10))

    found = reader[run[0]]["primary"]
    assert set(found) == set(SCHEMA.names)
    assert list(found.base) == ["internal"]
    assert sorted(found.read()["n"].values.tolist()) == [10 * k for k in range(1, 10)]


def test_a_switch_may_widen_a_column(session: Session, stream: Path) -> None:
    live = (*stream, "internal")
    old = new_table(session, stream)
    done(session, Append(live, rows(1, 2)))
    wider = pa.schema([pa.field("n", pa.float64()) if f.name == "n" else f for f in permuted(old)])
    new = new_table(session, live, "rebuild-2-ab", wider, epoch=2)
    done(session, Append((*live, "rebuild-2-ab"), rows(1, 3, wider)))
    done(session, PutSource(live, replace(new, id=old.id)))
    assert seq_nums(session, live) == [1, 2, 3]
    node: Node = done(session, GetNode(live))
    assert node.source is not None
    assert node.source.schema.field("n").type == pa.float64()


def test_a_source_that_is_not_there_cannot_be_put(session: Session, stream: Path) -> None:
    source = new_table(session, stream)
    gone = perform(session, PutSource((*stream, "internal"), replace(source, id=10**6)))
    assert isinstance(gone, Missing)


# ---------------------------------------------------------------- metadata


def test_an_update_replaces_whole_keys_and_keeps_none(session: Session, run: Path) -> None:
    stop = {
        "exit_status": "fail",
        "reason": None,
        "num_events": {"primary": 3},
        "deep": {"x": [None, {"y": None}]},
    }
    done(session, UpdateMetadata(run, {"stop": stop, "a/b~c": 1, "tiled_ingest": {"state": "complete"}}))
    done(session, UpdateMetadata(run, {"stop": stop, "nothing": None}))
    metadata = done(session, GetNode(run)).metadata
    assert metadata["stop"] == stop
    assert metadata["a/b~c"] == 1
    assert metadata["nothing"] is None
    assert metadata["tiled_ingest"] == {"state": "complete"}
    assert metadata["start"]["uid"] == run[0]


def test_an_update_keeps_no_revision_and_the_specs(reader: Any, session: Session, run: Path) -> None:
    done(session, UpdateMetadata(run, {"stop": {"exit_status": "success"}}))
    found = reader[run[0]]
    assert len(found.metadata_revisions[:]) == 0
    assert [spec.name for spec in found.specs] == ["BlueskyRun"]


def test_numbers_that_json_lacks_become_null(session: Session, run: Path) -> None:
    done(session, UpdateMetadata(run, {"odd": [float("nan"), float("inf"), np.float64(2.5), np.arange(3)]}))
    assert done(session, GetNode(run)).metadata["odd"] == [None, None, 2.5, [0, 1, 2]]


@pytest.mark.parametrize("value", [2**70, "\ud800", {1: "a"}, object()], ids=["int", "surrogate", "key", "object"])
def test_what_json_cannot_hold_is_rejected_unsent(session: Session, run: Path, value: Any) -> None:
    outcome = perform(session, UpdateMetadata(run, {"a": value}))
    assert isinstance(outcome, Rejected)
    assert "a" not in done(session, GetNode(run)).metadata


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "50%",
        "why?",
        "a#b",
        "é中 ñ",
        "a&b=c",
        "%2F",
        "semi;colon",
        "..",
        ".",
        "plus+",
        '"quoted"',
        "\\",
    ],
)
def test_names_are_quoted(session: Session, run: Path, name: str) -> None:
    stream = new_stream(session, run, name)
    new_table(session, stream)
    path = (*stream, "internal")
    done(session, Append(path, rows(1, 2)))
    assert seq_nums(session, path) == [1, 2]
    done(session, UpdateMetadata(stream, {"mark": name}))
    assert done(session, GetNode((*run, name))).metadata["mark"] == name
    done(session, CloseStreams((path, stream)))


@pytest.mark.parametrize("name", ["", "a/b"])
def test_names_that_no_address_reaches_are_rejected(session: Session, run: Path, name: str) -> None:
    assert isinstance(perform(session, CreateContainer(run, name, {}, (), None)), Rejected)
    assert isinstance(perform(session, GetNode((*run, name))), Rejected)
    assert done(session, GetNode(run)).metadata["start"]


# ---------------------------------------------------------------- several requests in one


def test_closing_what_is_not_there_is_fine(session: Session, run: Path, stream: Path) -> None:
    new_table(session, stream)
    done(session, CloseStreams(((*stream, "no-such"), (*stream, "internal"), stream, run)))


def test_a_route_is_created_once_with_its_spec_at_the_end(reader: Any, session: Session) -> None:
    path = (f"raw {uuid.uuid4()}", "2026", "proposal-1")
    done(session, EnsureContainer(path))
    done(session, EnsureContainer(path))
    done(session, EnsureContainer((*path[:2], "proposal-2")))
    done(session, EnsureContainer(()))
    specs = [[(s.name, s.version) for s in reader["/".join(path[:n])].specs] for n in (1, 2, 3)]
    assert specs == [[], [], [("CatalogOfBlueskyRuns", "3.0")]]
    run = new_run(session, path)
    assert reader["/".join(path)][-1].metadata["start"]["uid"] == run[-1]


def test_what_stands_in_a_routes_way_is_told(session: Session, stream: Path) -> None:
    """Tiled would create runs below a table, too, and no reader would find them."""
    new_table(session, stream)
    for way in ((*stream, "internal"), (*stream, "internal", "proposal-1")):
        refused = perform(session, EnsureContainer(way))
        assert isinstance(refused, Rejected)
        assert "/internal is no container for runs but of the family table" in refused.detail


def test_paths_begin_at_the_node_of_the_address(tiled_server: Any, session: Session) -> None:
    base = f"node é {uuid.uuid4()}"
    done(session, EnsureContainer((base,)))
    below = Session.at(f"{tiled_server.uri}/metadata/{base}", tiled_server.api_key)
    run = new_run(below)
    below.close()
    assert isinstance(perform(session, GetNode(run)), Missing)
    assert done(session, GetNode((base, *run))).metadata["start"]["uid"] == run[0]


def test_open_runs_are_found_with_their_largest_epoch(session: Session) -> None:
    parent = (f"catalog-{uuid.uuid4()}",)
    done(session, EnsureContainer(parent))
    ours = {"topic_id": "t-1", "partition": 3, "first_offset": 17}
    bare = new_run(session, parent, source=ours, epoch=4)
    switched = new_run(session, parent, source=ours, epoch=2)
    stream = new_stream(session, switched, "50% of?")
    done(session, UpdateMetadata(stream, {"_config_updates": [{"uid": "later", "time": 1.0}]}))
    new_table(session, stream, epoch=3)
    new_table(session, (*stream, "internal"), "rebuild-9-x", permuted(TableSource(0, SCHEMA, {})), epoch=9)
    new_run(session, parent, source={**ours, "partition": 4})
    new_run(session, parent, source={**ours, "topic_id": "t-2"})
    done(
        session,
        UpdateMetadata(new_run(session, parent, source=ours), {"tiled_ingest": {"state": "complete"}}),
    )

    found: tuple[OpenRun, ...] = done(session, FindOpenRuns(parent, "t-1", 3))
    assert {run.path: run.epoch_max for run in found} == {bare: 4, switched: 9}
    first = done(session, GetNode(stream)).metadata["uid"]
    assert {run.path: run.descriptors for run in found} == {bare: (), switched: (first, "later")}
    assert all(run.metadata["tiled_ingest"]["source"]["first_offset"] == 17 for run in found)
    assert done(session, FindOpenRuns(("no-such",), "t-1", 3)) == ()


def test_open_runs_are_found_below_containers_that_a_route_made(session: Session) -> None:
    parent = (f"catalog-{uuid.uuid4()}",)
    proposals = [(*parent, "pass-1"), (*parent, "pass-2")]
    for proposal in proposals:
        done(session, EnsureContainer(proposal))
    ours = {"topic_id": "t-deep", "partition": 0, "first_offset": 5}
    runs = {new_run(session, proposal, source=ours, epoch=3) for proposal in proposals}
    found: tuple[OpenRun, ...] = done(session, FindOpenRuns(parent, "t-deep", 0, levels=1))
    assert {run.path for run in found} == runs
    assert {run.epoch_max for run in found} == {3}


def test_open_runs_of_many_pages_are_all_found(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiled_ingest.tiled.open_runs._PAGE", 3)
    parent = (f"catalog-{uuid.uuid4()}",)
    done(session, EnsureContainer(parent))
    ours: Json = {"topic_id": "t-1", "partition": 0}
    runs = {new_run(session, parent, source=ours) for _ in range(8)}
    found: tuple[OpenRun, ...] = done(session, FindOpenRuns(parent, "t-1", 0))
    assert len(found) == 8
    assert {run.path for run in found} == runs


# ---------------------------------------------------------------- how it is done


def test_it_goes_through_the_client_that_is_given(reader: Any) -> None:
    session = Session.from_context(reader.context, tuple(reader.path_parts))
    run = new_run(session)
    assert from_context(reader.context)[run[0]].metadata["start"]["uid"] == run[0]
    session.close()
    assert run[0] in reader  # the client still works


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, tiled_ingest.tiled.layout, tiled_ingest.tiled.probe\n"
        "print(*{'pandas', 'dask', 'numba', 'xarray', 'bluesky_tiled_plugins'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == ""


# ---------------------------------------------------------------- access tags


def test_access_tags_are_sent_and_a_refused_one_denies(tmp_path: FilePath) -> None:
    storage = [f"duckdb:///{tmp_path / 'tables.duckdb'}"]
    app = build_app(in_memory(named_memory=tmp_path.name, writable_storage=storage), access_policy=EverybodyMay())
    with Context.from_app(app) as context:
        session = Session.from_context(context)
        done(session, CreateContainer((), "run", {}, (), None))
        for request in (
            CreateContainer((), "tagged", {}, (), ("proposal-7",)),
            CreateTable(("run",), "internal", SCHEMA, {}, ("proposal-7",), {}),
        ):
            refused = perform(session, request)
            assert isinstance(refused, Denied)
            assert "proposal-7" in refused.detail
