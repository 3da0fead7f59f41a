"""The rig itself: parts that do not do what we believe would make every other test worthless."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer
from tiled.client import from_uri
from tiled.structures.core import Spec

from tests.rig.fixtures import TopicFactory
from tests.rig.proxy import FaultProxy
from tests.rig.reader import compare_run
from tiled_ingest.demo.beamline import read_documents
from tiled_ingest.demo.broker import Broker, KafkaBroker
from tiled_ingest.demo.processes import Process, ProcessError, free_port
from tiled_ingest.demo.tiled_server import TiledServer

Connect = Callable[..., Any]
TABLE = pa.table({"seq_num": pa.array([1, 2], pa.int64()), "x": pa.array([0.5, None], pa.float64())})
APPEND = r"/table/partition/"


def produce(bootstrap_servers: str, topic: str, value: bytes) -> None:
    errors: list[Any] = []
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    producer.flush(20)
    assert errors == [None]


def consume(bootstrap_servers: str, topic: str, count: int, limit_s: float = 20) -> list[bytes]:
    settings = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": uuid.uuid4().hex,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + limit_s
    while len(values) < count and time.monotonic() < deadline:
        values += [message.value() for message in consumer.consume(count - len(values), 0.2)]
    consumer.close()
    return values


def test_no_port_is_given_twice() -> None:
    """One fault run in twenty acts met a broker with two listeners on one port."""
    ports = [free_port() for _ in range(600)]
    assert len(set(ports)) == len(ports)


def test_no_port_is_given_to_two_processes() -> None:
    """A service that was killed for a moment found its port taken by another worker's."""
    port = free_port()
    ask = f"from tiled_ingest.demo import processes as p; p._PORTS = range({port}, {port + 1}); print(p.free_port())"
    other = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    assert "found no free TCP port" in other.stderr, other


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(server, uri=None)` returns a client that is closed after the test."""
    with ExitStack() as clients:

        def create(server: TiledServer, uri: str | None = None) -> Any:
            client = from_uri(uri or server.uri, api_key=server.api_key)
            clients.callback(client.context.http_client.close)
            return client

        yield create


def new_table(client: Any) -> Any:
    return client.create_appendable_table(TABLE.schema, key=f"table-{uuid.uuid4().hex}")


def arrow_body(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def append_through(proxy: FaultProxy, server: TiledServer, node: Any, timeout_s: float = 20.0) -> httpx.Response:
    url = node.uri.replace("/metadata/", "/table/partition/").replace(server.uri, proxy.uri)
    headers = {
        "Authorization": f"Apikey {server.api_key}",
        "Content-Type": "application/vnd.apache.arrow.file",
    }
    with httpx.Client(timeout=timeout_s) as client:
        return client.patch(url, params={"partition": 0}, content=arrow_body(TABLE), headers=headers)


def rows_of(node: Any) -> list[int]:
    return sorted(node.read()["seq_num"])


@pytest.fixture
def proxy(tiled_duckdb: TiledServer) -> Iterator[FaultProxy]:
    with FaultProxy(tiled_duckdb.port) as running:
        yield running


@pytest.mark.real
def test_message_makes_the_round_trip(broker: Broker, topic: TopicFactory) -> None:
    name = topic("round-trip")
    produce(broker.bootstrap_servers, name, b"hello")
    assert consume(broker.bootstrap_servers, name, 1) == [b"hello"]


@pytest.mark.real
def test_killed_broker_keeps_its_data(tmp_path: Path) -> None:
    with KafkaBroker(tmp_path / "kafka") as broker:
        broker.create_topic("kept", partitions=2)
        produce(broker.bootstrap_servers, "kept", b"before")
        broker.kill()
        assert not broker.running
        broker.restart()
        produce(broker.bootstrap_servers, "kept", b"after")
        assert sorted(consume(broker.bootstrap_servers, "kept", 2)) == [b"after", b"before"]
    assert not broker.running


@pytest.mark.real
def test_tiled_appends_and_reads(tiled_server: TiledServer, connect: Connect) -> None:
    node = new_table(connect(tiled_server))
    node.append_partition(0, TABLE)
    node.append_partition(0, TABLE)
    assert rows_of(node) == [1, 1, 2, 2]


@pytest.mark.real
def test_key_is_not_among_the_arguments(tiled_duckdb: TiledServer) -> None:
    assert httpx.get(f"{tiled_duckdb.uri}/metadata/").status_code == 401
    arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not any(tiled_duckdb.api_key.encode() in line for line in arguments)


@pytest.mark.real
def test_swallowed_reply_did_its_work(tiled_duckdb: TiledServer, proxy: FaultProxy, connect: Connect) -> None:
    node = new_table(connect(tiled_duckdb))
    counted: list[int] = []
    fault = proxy.swallow_reply("PATCH", APPEND, after=lambda: counted.append(len(rows_of(node))))
    with pytest.raises(httpx.TransportError):
        append_through(proxy, tiled_duckdb, node)
    assert rows_of(node) == [1, 2]
    assert counted == [2], "the callback runs after the work"
    assert [exchange.status for exchange in fault.exchanges] == [200]
    assert append_through(proxy, tiled_duckdb, node).status_code == 200, "only the first is swallowed"


@pytest.mark.real
def test_held_request_arrives_after_its_client_left(
    tiled_duckdb: TiledServer, proxy: FaultProxy, connect: Connect
) -> None:
    node = new_table(connect(tiled_duckdb))
    fault = proxy.hold("PATCH", APPEND, body=lambda body: len(body) > 100)
    with pytest.raises(httpx.ReadTimeout):
        append_through(proxy, tiled_duckdb, node, timeout_s=0.3)
    assert fault.hit.is_set()
    assert rows_of(node) == []
    fault.release()
    assert fault.finished.wait(20)
    assert rows_of(node) == [1, 2]


@pytest.mark.real
def test_held_request_arrives_after_a_restart(connect: Connect, tmp_path: Path) -> None:
    with TiledServer(tmp_path / "tiled") as server, FaultProxy(server.port) as proxy:
        node = new_table(connect(server))
        node.append_partition(0, TABLE)
        assert httpx.get(f"{proxy.uri}/").status_code == 200
        fault = proxy.hold("PATCH", APPEND, before=server.kill)  # from the proxy's thread, which ends before the server
        with pytest.raises(httpx.ReadTimeout):
            append_through(proxy, server, node, timeout_s=0.5)
        server.restart()
        fault.release()
        assert fault.finished.wait(20)
        assert fault.exchanges[0].status == 200
        key = node.uri.rsplit("/", 1)[-1]
        assert rows_of(connect(server)[key]) == [1, 1, 2, 2], "what the killed server held, and what came late"


@pytest.mark.real
def test_other_faults(tiled_duckdb: TiledServer, proxy: FaultProxy, connect: Connect) -> None:
    node = new_table(connect(tiled_duckdb))
    proxy.answer("PATCH", APPEND, 429, retry_after_s=7)
    answer = append_through(proxy, tiled_duckdb, node)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    proxy.clear()
    proxy.cut_request("PATCH", APPEND, 400)
    with pytest.raises(httpx.TransportError):
        append_through(proxy, tiled_duckdb, node)
    proxy.clear()
    assert rows_of(node) == [], "neither of them reached the table"
    proxy.cut_reply("PATCH", APPEND, 10)
    with pytest.raises(httpx.TransportError):
        append_through(proxy, tiled_duckdb, node)
    proxy.clear()
    proxy.delay("PATCH", APPEND, 0.3)
    started = time.monotonic()
    assert append_through(proxy, tiled_duckdb, node).status_code == 200
    assert time.monotonic() - started >= 0.3
    assert rows_of(node) == [1, 1, 2, 2]
    assert [exchange.status for exchange in proxy.exchanges] == [429, None, 200, 200]


@pytest.mark.real
def test_proxy_serves_the_client_over_kept_connections(
    tiled_duckdb: TiledServer, proxy: FaultProxy, connect: Connect
) -> None:
    node = new_table(connect(tiled_duckdb, proxy.uri))
    for _ in range(3):
        node.append_partition(0, TABLE)
    assert rows_of(node) == [1, 1, 1, 2, 2, 2]
    assert sum(exchange.method == "PATCH" for exchange in proxy.exchanges) == 3


@pytest.mark.real
@pytest.mark.parametrize("plan", ["with_baseline", "aborted"])
def test_beamline_publishes_what_it_records(broker: Broker, topic: TopicFactory, tmp_path: Path, plan: str) -> None:
    name, record = topic("beamline"), tmp_path / "published.jsonl"
    command = [
        sys.executable,
        "-m",
        "tiled_ingest.demo.beamline",
        "--bootstrap-servers",
        broker.bootstrap_servers,
    ]
    options = ["--topic", name, "--plan", plan, "--points", "3", "--record", str(record)]
    ended = subprocess.run([*command, *options], check=True, capture_output=True, text=True, timeout=60)
    documents = read_documents(record)
    assert documents[0][1]["uid"] == ended.stdout.strip()
    assert documents[-1][1]["exit_status"] == {"with_baseline": "success", "aborted": "abort"}[plan]
    assert [document[0] for document in documents].count("event") == {"with_baseline": 5, "aborted": 3}[plan]
    values = consume(broker.bootstrap_servers, name, len(documents))
    received = [msgpack.unpackb(value, object_hook=numpy_scalar) for value in values]
    assert received == [[kind, doc] for kind, doc in documents]


def numpy_scalar(value: dict[Any, Any]) -> Any:
    """Decode msgpack-numpy's scalars without importing it: importing patches msgpack for every test."""
    if "nd" in value and value["nd"] is False:
        return np.frombuffer(value["data"], np.dtype(value["type"]))[0].item()
    return value


@pytest.mark.real
def test_reader_sees_what_is_wrong(tiled_server: TiledServer, connect: Connect) -> None:
    documents = small_run()
    client = connect(tiled_server)
    write_by_hand(client, documents)
    uid = documents[0][1]["uid"]
    assert compare_run(client, uid, documents, "duckdb") == []

    turned = [*documents[:2], documents[3], documents[2], *documents[4:]]
    assert compare_run(client, uid, turned, "postgresql") == []
    assert compare_run(client, uid, turned, "duckdb") == [
        "stream 'primary': internal: 2 rows out of order, the first at 0"
    ]
    changed = copy.deepcopy(documents)
    changed[3][1]["data"]["x"] = 0.25
    assert any("seq_num 2, x" in text for text in compare_run(client, uid, changed))
    more = [*documents[:-1], ("event", {**documents[3][1], "uid": "another", "seq_num": 9}), documents[-1]]
    assert compare_run(client, uid, more) == ["stream 'primary': internal: 1 rows missing: seq_num 9"]
    client[uid]["primary"].base["internal"].append_partition(0, hand_made_table(documents))
    assert compare_run(client, uid, documents) == ["stream 'primary': internal: 3 rows duplicated: seq_num 1, 2, 3"]


def small_run() -> list[tuple[str, dict[str, Any]]]:
    uid, descriptor = str(uuid.uuid4()), str(uuid.uuid4())
    values: list[tuple[float | None, int]] = [(float("nan"), 1), (0.5, 2), (None, 2**53 - 1)]
    events: list[tuple[str, dict[str, Any]]] = [
        (
            "event",
            {
                "uid": str(uuid.uuid4()),
                "descriptor": descriptor,
                "seq_num": number,
                "time": 100.0 + number,
                "data": {"x": x, "n": n, "pair": [n, 0]},
                "timestamps": {"x": 1.0, "n": 2.0, "pair": 3.0},
                "filled": {},
            },
        )
        for number, (x, n) in enumerate(values, start=1)
    ]
    data_keys: dict[str, Any] = {
        key: {"dtype": kind, "shape": [], "source": ""} for key, kind in (("x", "number"), ("n", "integer"))
    }
    data_keys["pair"] = {"dtype": "array", "shape": [2], "source": ""}
    return [
        ("start", {"uid": uid, "time": 1.0, "huge": 2**60, "nested": {"pair": (1, 2)}}),
        ("descriptor", {"uid": descriptor, "run_start": uid, "name": "primary", "data_keys": data_keys}),
        *events,
        ("stop", {"uid": str(uuid.uuid4()), "run_start": uid, "exit_status": "success", "time": 2.0}),
    ]


def hand_made_table(documents: list[tuple[str, dict[str, Any]]]) -> pa.Table:
    events = [doc for name, doc in documents if name == "event"]
    columns = {name: [event[name] for event in events] for name in ("seq_num", "time")}
    for key in ("x", "n", "pair"):
        columns[key] = [event["data"][key] for event in events]
    for key in ("x", "n", "pair"):
        columns[f"ts_{key}"] = [event["timestamps"][key] for event in events]
    return pa.table(columns)


def write_by_hand(client: Any, documents: list[tuple[str, dict[str, Any]]]) -> None:
    start, stop = documents[0][1], documents[-1][1]
    metadata = {"start": {**start, "huge": 2**53 - 1}, "stop": stop}
    run = client.create_container(key=start["uid"], metadata=metadata, specs=[Spec("BlueskyRun", "3.0")])
    specs = [Spec("BlueskyEventStream", "3.0"), Spec("composite")]
    table = hand_made_table(documents)
    run.create_container(key="primary", metadata={}, specs=specs)
    stream = client[start["uid"]]["primary"]
    stream.base.create_appendable_table(table.schema, key="internal").append_partition(0, table)


def test_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    parent = Process("a parent", [sys.executable, "-c", PARENT, str(tmp_path)], tmp_path / "parent.log")
    parent.start()
    try:
        parent.wait_until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), limit_s=20)
        child = int((tmp_path / "pid").read_text())
        assert is_alive(child), "it outlives the thread that started it"
        os.kill(parent.pid or 0, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while is_alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_alive(child)
    finally:
        parent.kill()


PARENT = """
import pathlib, sys, threading, time
from tiled_ingest.demo.processes import Process
folder = pathlib.Path(sys.argv[1])
child = Process("a child", ["sleep", "100"], folder / "child.log")
thread = threading.Thread(target=child.start)
thread.start()
thread.join()
time.sleep(0.3)
(folder / "pid").write_text(str(child.pid))
time.sleep(100)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_failed_start_shows_the_log(tmp_path: Path) -> None:
    process = Process("a failure", ["sh", "-c", "echo because; exit 3"], tmp_path / "log")
    process.start()
    with pytest.raises(ProcessError, match=r"(?s)a failure ended with status 3.*because"):
        process.wait_until(lambda: False, limit_s=10)


def test_process_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    process = Process("a stubborn one", ["sh", "-c", "trap '' TERM; echo up; sleep 100 & wait; wait"], tmp_path / "log")
    process.start()
    process.wait_until(lambda: "up" in process.log_tail(), limit_s=10)
    process.stop(limit_s=0.3)
    assert process.returncode == -signal.SIGKILL


def test_what_is_started_knows_nothing_of_the_shells_own_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who runs the tests beside a real service has its settings in the shell."""
    monkeypatch.setenv("TILED_INGEST_KAFKA__GROUP_ID", "production")
    monkeypatch.setenv("FROM_THE_SHELL", "yes")
    process = Process("a look around", ["env"], tmp_path / "log", env={"TILED_INGEST_BEAMLINE": "sim"})
    process.start()
    assert process.wait(10) == 0
    seen = set((tmp_path / "log").read_text().splitlines())
    assert {"FROM_THE_SHELL=yes", "TILED_INGEST_BEAMLINE=sim"} <= seen
    assert not [line for line in seen if "production" in line]
