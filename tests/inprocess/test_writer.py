"""`TiledWriter` where a user can see it."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import DuringTask
from bluesky_tiled_plugins import TiledWriter as Theirs
from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer
from ophyd.sim import hw

from tests.differential.compose import Composer, key, new_uid
from tiled_ingest import TiledWriter
from tiled_ingest.core.errors import InvalidDocument, TiledRejected
from tiled_ingest.demo.tiled_server import TiledServer

from .documents import facts, give, rows, run_of, uid_of

# ---------------------------------------------------------------- a drop-in


def test_the_arguments_are_those_of_the_library_and_an_age() -> None:
    theirs = inspect.signature(Theirs.__init__).parameters
    ours = inspect.signature(TiledWriter.__init__).parameters
    assert set(ours) - set(theirs) == {"age_s_max"}
    assert list(theirs) == list(ours)[: len(theirs)]
    for name in set(theirs) - {"normalizer"}:  # the same class by another name
        assert ours[name].default == theirs[name].default, name
        assert ours[name].kind == theirs[name].kind, name


def test_the_package_is_light_until_the_writer_is_asked_for() -> None:
    program = (
        "import sys, tiled_ingest, tiled_ingest.wiring\n"
        "heavy = {'pandas', 'dask', 'bluesky_tiled_plugins', 'tiled_ingest.inprocess'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from tiled_ingest import TiledWriter\n"
        "assert 'tiled_ingest.inprocess' in sys.modules\n"
    )
    hidden = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=hidden)


def test_a_run_engine_writes_what_its_plan_does(client: Any) -> None:
    engine = RunEngine({}, context_managers=[], during_task=DuringTask(), call_returns_result=False)
    writer = TiledWriter(client)
    token = engine.subscribe(writer)
    devices = hw()
    (uid,) = engine(bp.scan([devices.det], devices.motor, -1, 1, 5))
    assert rows(client, uid, "motor") == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert client[uid].metadata["stop"]["exit_status"] == "success"
    assert facts(client, uid)["state"] == "complete"

    engine.unsubscribe(token)
    (unseen,) = engine(bp.count([devices.det]))
    assert unseen not in client


def test_from_uri_and_from_profile(tiled_duckdb: TiledServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, api_key = tiled_duckdb.uri, tiled_duckdb.api_key
    (tmp_path / "profiles.yml").write_text(f"mine:\n  uri: {uri}\n")
    monkeypatch.setenv("TILED_PROFILES", str(tmp_path))
    for writer in (
        TiledWriter.from_uri(uri, api_key=api_key, batch_size=2, age_s_max=60),
        TiledWriter.from_profile("mine", api_key=api_key, max_array_size=4, backup_dictionary={}),
    ):
        documents = run_of("number", [0.5, 1.5])
        give(writer, documents)
        assert rows(writer.client, uid_of(documents)) == [0.5, 1.5]
        writer.client.context.close()


def test_a_node_below_the_root_is_where_runs_go(client: Any) -> None:
    below = client.create_container("beamline").create_container("2026")
    documents = run_of("number", [0.5])
    give(TiledWriter(below), documents)
    assert uid_of(documents) in below
    assert uid_of(documents) not in client


# ---------------------------------------------------------------- when rows are written


def test_nodes_are_there_at_once_and_rows_when_a_batch_is_full(client: Any) -> None:
    writer = TiledWriter(client, batch_size=3)
    documents = run_of("integer", [1, 2, 3, 4])
    uid = uid_of(documents)
    give(writer, documents[:1])
    assert uid in client
    give(writer, documents[1:4])
    assert list(client[uid]) == ["primary"]
    assert "internal" not in client[uid]["primary"].base
    give(writer, documents[4:5])
    assert rows(client, uid) == [1, 2, 3]
    give(writer, documents[5:])
    assert rows(client, uid) == [1, 2, 3, 4]


def test_a_batch_of_one_is_written_at_once(client: Any) -> None:
    writer = TiledWriter(client, batch_size=0)
    documents = run_of("integer", [1, 2])
    give(writer, documents[:3])
    assert rows(client, uid_of(documents)) == [1]


def test_rows_are_not_older_than_asked_for(client: Any) -> None:
    writer = TiledWriter(client, age_s_max=0.2)
    documents = run_of("integer", [1, 2])
    uid = uid_of(documents)
    give(writer, documents[:3])
    until_s = time.monotonic() + 30
    while "internal" not in client[uid]["primary"].base:
        assert time.monotonic() < until_s, "nobody wrote the row"
        time.sleep(0.05)
    assert rows(client, uid) == [1]
    give(writer, documents[3:])
    assert rows(client, uid) == [1, 2]
    while any(thread.name == "tiled-ingest-age" for thread in threading.enumerate()):
        assert time.monotonic() < until_s, "the thread outlived its runs"
        time.sleep(0.05)


def test_several_runs_at_once(client: Any) -> None:
    writer = TiledWriter(client, batch_size=2)
    runs = [run_of("integer", range(start, start + 7)) for start in (0, 100)]
    for pair in zip(*runs, strict=True):
        give(writer, pair)
    assert [rows(client, uid_of(run)) for run in runs] == [list(range(7)), list(range(100, 107))]


def test_runs_from_several_threads(client: Any) -> None:
    writer = TiledWriter(client, batch_size=2)
    runs = [run_of("integer", range(start, start + 5)) for start in (0, 100, 200)]
    threads = [threading.Thread(target=give, args=(writer, run)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [rows(client, uid_of(run)) for run in runs] == [list(range(start, start + 5)) for start in (0, 100, 200)]


def test_what_is_changed_after_the_call_is_not_written(client: Any) -> None:
    writer = TiledWriter(client)
    buffer = np.array([1.0, 2.0])
    documents = run_of("array", [buffer, (3.0, 4.0)], shape=[2])
    give(writer, documents[:3])
    buffer[:] = 99
    give(writer, documents[3:])
    assert [list(row) for row in rows(client, uid_of(documents))] == [[1.0, 2.0], [3.0, 4.0]]


# ---------------------------------------------------------------- what is raised


def test_a_refused_document_is_raised_and_the_run_goes_on(client: Any) -> None:
    writer = TiledWriter(client)
    documents = run_of("integer", [1, 2, 3])
    broken = {key: value for key, value in documents[3][1].items() if key != "seq_num"} | {"seq_num": "two"}
    give(writer, documents[:3])
    with pytest.raises(InvalidDocument, match="schema"):
        writer("event", broken)
    give(writer, documents[4:])
    uid = uid_of(documents)
    assert rows(client, uid) == [1, 3]
    assert facts(client, uid)["state"] == "incomplete"
    assert any("counts 3 events, 2 came" in note for note in client[uid].metadata["notes"])


def test_a_value_that_fits_no_column_is_raised_and_null(client: Any) -> None:
    documents = run_of("number", [0.5, "OFF", 1.5])
    writer = TiledWriter(client)
    give(writer, documents[:-1])
    with pytest.raises(InvalidDocument, match="value_misfit"):
        give(writer, documents[-1:])
    found = rows(client, uid_of(documents))
    assert found[0] == 0.5
    assert np.isnan(found[1])
    assert found[2] == 1.5
    assert facts(client, uid_of(documents))["state"] == "complete"


def test_a_key_that_no_descriptor_names_is_left_out_with_a_note(client: Any) -> None:
    """As in TiledWriter, which leaves it out, too, in silence: neither an error nor a backup."""
    store: dict[str, Any] = {}
    documents = run_of("number", [0.5, 1.5])
    documents[2][1]["data"]["stray"] = 7
    documents[2][1]["timestamps"]["stray"] = 1.0
    give(TiledWriter(client, backup_dictionary=store), documents)
    uid = uid_of(documents)
    assert store == {}
    assert rows(client, uid) == [0.5, 1.5]
    assert client[uid]["primary"].base["internal"].columns == ["seq_num", "time", "x", "ts_x"]
    assert facts(client, uid)["state"] == "complete"
    note = "Stream 'primary': no descriptor names 'stray'; what events say of it is not in Tiled."
    assert note in client[uid].metadata["notes"]


def test_the_same_run_twice_is_raised_and_nothing_doubled(client: Any) -> None:
    documents = run_of("integer", [1, 2])
    give(TiledWriter(client), documents)
    with pytest.warns(UserWarning, match="RunRouter"), pytest.raises(InvalidDocument, match="foreign_run"):
        give(TiledWriter(client), documents[:1])
    assert rows(client, uid_of(documents)) == [1, 2]
    assert facts(client, uid_of(documents))["state"] == "complete"


def _give_until_refused(client: Any, writer: TiledWriter, documents: Any) -> None:
    """Give a run, of which somebody deletes the table after the first event: Tiled refuses what follows."""
    give(writer, documents[:3])
    stream = client[uid_of(documents)]["primary"].base
    stream.delete_contents("internal", recursive=True, external_only=False)
    give(writer, documents[3:])


# ---------------------------------------------------------------- patches, normalizers, validation


def test_patches_change_what_is_written(client: Any) -> None:
    documents = run_of("integer", [1, 2])
    before = copy.deepcopy(documents)

    def start(doc: Any) -> Any:
        doc["beamline"] = "xyz"
        return doc

    def event(doc: Any) -> Any:
        doc["data"]["x"] *= 10
        return doc

    give(TiledWriter(client, patches={"start": start, "event": event}), documents)
    assert client[uid_of(documents)].metadata["start"]["beamline"] == "xyz"
    assert rows(client, uid_of(documents)) == [10, 20]
    assert documents == before, "the caller's documents are the caller's"


class Tenfold(RunNormalizer):  # type: ignore[misc]
    """A site's own normalizer."""

    def event(self, doc: Any) -> None:
        doc = copy.deepcopy(doc)
        doc["data"]["x"] *= 10
        super().event(doc)


def test_a_normalizer_of_a_site_comes_first(client: Any) -> None:
    documents = run_of("integer", [1, 2])
    give(TiledWriter(client, normalizer=Tenfold), documents)
    assert rows(client, uid_of(documents)) == [10, 20]
    assert "_run_normalizer_notes" not in client[uid_of(documents)].metadata["stop"]


@pytest.mark.parametrize("normalizer", [None, RunNormalizer])
def test_the_librarys_normalizer_and_none_are_taken(client: Any, normalizer: Any) -> None:
    documents = run_of("integer", [1, 2])
    give(TiledWriter(client, normalizer=normalizer), documents)
    assert rows(client, uid_of(documents)) == [1, 2]


def test_validation_is_deprecated_and_done(client: Any) -> None:
    with pytest.warns(DeprecationWarning, match="validate") as caught:
        writer = TiledWriter(client, validate=True)
    assert caught[0].filename == __file__
    documents = run_of("integer", [1])
    give(writer, documents)
    assert rows(client, uid_of(documents)) == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TiledWriter(client, validate=False)


# ---------------------------------------------------------------- backup


def test_a_failed_run_is_wholly_in_the_backup(client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store: dict[str, Any] = {}
    writer = TiledWriter(client, batch_size=1, backup_directory=str(tmp_path), backup_dictionary=store)
    documents = run_of("number", [0.5, np.float64(1.5), 2.5])
    with caplog.at_level(logging.ERROR):
        _give_until_refused(client, writer, documents)  # raises nothing
    uid = uid_of(documents)
    name = uid.partition("-")[0]
    lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["start", "descriptor", *["event_page"] * 3, "stop"]
    assert [line["doc"]["data"]["x"] for line in lines if line["name"] == "event_page"] == [[0.5], [1.5], [2.5]]
    assert [entry["name"] for entry in store[name]] == [line["name"] for line in lines]
    assert "routed to the backup" in caplog.text
    assert facts(client, uid)["state"] == "failed"


def test_the_backup_holds_what_the_librarys_holds(client: Any, tmp_path: Path) -> None:
    """A duplicate start makes either of them fail at once."""
    documents = run_of("integer", [1, 2])
    give(TiledWriter(client), documents)
    for name, writer in (("theirs", Theirs), ("ours", TiledWriter)):
        give(writer(client, backup_directory=str(tmp_path / name)), documents)
    file = f"{uid_of(documents).partition('-')[0]}.jsonl"
    assert (tmp_path / "ours" / file).read_text() == (tmp_path / "theirs" / file).read_text()


def test_a_refused_document_sends_the_run_to_the_backup_without_a_stop(client: Any) -> None:
    store: dict[str, Any] = {}
    writer = TiledWriter(client, batch_size=1, backup_dictionary=store)
    documents = run_of("integer", [1, 2, 3])
    documents[3][1]["seq_num"] = "two"
    give(writer, documents)
    uid = uid_of(documents)
    assert [entry["name"] for entry in store[uid.partition("-")[0]]] == [
        "start",
        "descriptor",
        *["event_page"] * 3,
        "stop",
    ]
    assert "stop" not in client[uid].metadata
    assert facts(client, uid)["state"] == "failed"


def _unreadable(run: Composer) -> None:
    """External data of a kind that Tiled cannot read: refused when it is registered, at stop."""
    resource = new_uid()
    parameters = {"dataset": "/a", "chunk_shape": [1]}
    what = {"mimetype": "application/x-strange", "uri": "file://localhost/none", "parameters": parameters}
    run.add("stream_resource", uid=resource, run_start=run.uid, data_key="cam", **what)
    at = {"indices": {"start": 0, "stop": 1}, "seq_nums": {"start": 1, "stop": 2}}
    descriptor = next(doc["uid"] for kind, doc in run.documents if kind == "descriptor")
    run.add("stream_datum", uid=f"{resource}/0", stream_resource=resource, descriptor=descriptor, **at)


@pytest.mark.parametrize("batch_size", [1, 10_000])
@pytest.mark.parametrize("what", ["a value", "an array", "a file"])
def test_a_run_with_a_backup_fails_whole_whatever_the_batch_size(client: Any, what: str, batch_size: int) -> None:
    """What is found out at the stop only must not leave a run that passes for complete."""
    run = Composer()
    keys = {"x": key(), "z": key("array", [20], dtype_numpy="<f8"), "cam": key("array", [2], external="STREAM:")}
    run.descriptor(keys, object_keys={"dev": list(keys)})
    for number in range(3):
        bad = number == 1
        z: Any = ["OFF"] * 20 if bad and what == "an array" else [0.5] * 20
        run.event({"x": "OFF" if bad and what == "a value" else 1.5, "z": z})
    if what == "a file":
        _unreadable(run)
    documents = run.stop()
    store: dict[str, Any] = {}
    writer = TiledWriter(client, batch_size=batch_size, backup_dictionary=store)
    give(writer, documents)
    uid = uid_of(documents)
    kept = [entry["name"] for entry in store[uid.partition("-")[0]]]
    assert (len(kept), kept[0], kept[-1]) == (len(documents), "start", "stop")
    assert "stop" not in client[uid].metadata
    assert facts(client, uid)["state"] == "failed"


def test_without_a_backup_a_failure_is_raised_once_and_marked(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    documents = run_of("number", [0.5, 1.5, 2.5])
    writer = TiledWriter(client, batch_size=1)
    with pytest.raises(TiledRejected, match="is gone"):
        _give_until_refused(client, writer, documents)
    give(writer, documents[4:])
    assert facts(client, uid_of(documents))["state"] == "failed"
    assert client[uid_of(documents)].metadata["stop"] == documents[-1][1]


# ---------------------------------------------------------------- processes


def test_a_run_does_not_survive_a_fork(client: Any) -> None:
    writer = TiledWriter(client)
    documents = run_of("integer", [1, 2])
    give(writer, documents[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads: that is the point
        child = os.fork()
    if not child:
        try:
            writer(*documents[3])
        except KeyError:
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    give(writer, documents[3:])
    assert rows(client, uid_of(documents)) == [1, 2]
