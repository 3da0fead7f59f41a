"""`replay` with real parts: files of every format and parts of a topic, each run whole, and only once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
from bluesky_tiled_plugins import TiledWriter
from event_model import sanitize_doc

from tests.system.publishing import Documents, interleaved, message, runs, uid_of
from tests.system.scene import Scene
from tests.tools.conftest import settings_of
from tests.tools.test_redrive import facts, options, through
from tests.tools.test_verify_topic import produce, small_run
from tiled_ingest.tools.progress import Silent
from tiled_ingest.tools.replay import FileSource, Replayed, TopicSource, WrongSource, prepared, source
from tiled_ingest.tools.verify import Wanted, verify

pytestmark = pytest.mark.real


def replay(scene: Scene, *texts: str, run: str = "", **how: Any) -> Replayed:
    sources = [source(text) for text in texts]
    with prepared(settings_of(scene), sources, runs=frozenset({run} - {""}), **how) as found:
        return found.write(Silent(), 20.0)


def verdicts(replayed: Replayed) -> dict[str, str]:
    return {case.spooled.uid: case.verdict for case in replayed.cases}


def as_lines(documents: Documents) -> bytes:
    return b"".join(json.dumps({"name": name, "doc": sanitize_doc(doc)}).encode() + b"\n" for name, doc in documents)


def as_pairs(documents: Documents) -> bytes:
    return b"".join(json.dumps([name, sanitize_doc(doc)]).encode() + b"\n" for name, doc in documents)


def as_array(documents: Documents) -> bytes:
    return json.dumps([{"name": name, "doc": sanitize_doc(doc)} for name, doc in documents], indent=1).encode()


def as_msgpack(documents: Documents) -> bytes:
    return b"".join(message(name, doc) for name, doc in documents)


def test_files_of_every_format_and_again(scene: Scene, tmp_path: Path) -> None:
    written = runs() + runs(1)
    for write, documents in zip((as_lines, as_pairs, as_array, as_msgpack), written, strict=True):
        (tmp_path / write.__name__).write_bytes(write(documents))
    files = [str(path) for path in sorted(tmp_path.iterdir()) if path.name.startswith("as_")]
    done = replay(scene, *files)
    assert done.passed, (done.cases, done.built)
    assert set(verdicts(done).values()) == {"create"}
    for documents in written:
        scene.compare(documents, "complete")
    before = [facts(scene, uid_of(documents)) for documents in written]
    again = replay(scene, *files)
    assert set(verdicts(again).values()) == {"done"}
    assert [facts(scene, uid_of(documents)) for documents in written] == before


def test_a_part_of_a_topic_that_no_service_reads(scene: Scene) -> None:
    other = scene.new_topic("replay.docs")
    documents = interleaved(runs())
    scene.publication(documents, topic=other).publish()
    half = len(documents) // 2
    cut = replay(scene, f"topic:{other}:0:0-{half}")
    assert set(verdicts(cut).values()) == {"leave"}, "none of them has ended there"
    done = replay(scene, f"topic:{other}")
    assert done.passed, (done.cases, done.built)
    scene.compare(documents, "complete")
    settings = settings_of(scene, **{"kafka.topics": other})
    assert verify(settings, Wanted(), Silent()).passed, "as if the service had been there"


def test_what_the_service_has_in_hand_waits_and_what_it_wrote_is_left(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    one = small_run([1, 2])
    produce(scene, one)
    waiting = replay(scene, f"topic:{scene.topic}")
    assert verdicts(waiting) == {uid_of(one): "wait"}
    assert uid_of(one) not in scene.client
    through(scene)
    before = facts(scene, uid_of(one))
    assert verdicts(replay(scene, f"topic:{scene.topic}")) == {uid_of(one): "done"}
    assert facts(scene, uid_of(one)) == before
    anew = replay(scene, f"topic:{scene.topic}", run=uid_of(one), anew=True)
    assert verdicts(anew) == {uid_of(one): "reopen"}
    assert anew.passed, anew.built
    scene.compare(one, "complete")
    assert facts(scene, uid_of(one))["source"] == before["source"]


def test_a_run_that_someone_else_began_is_finished_only_if_asked(scene: Scene, tmp_path: Path) -> None:
    (documents,) = runs(1)
    writer = TiledWriter(scene.client, batch_size=10)
    for name, doc in documents[: len(documents) // 2]:
        writer(name, doc)
    file = tmp_path / "run.msgpack"
    file.write_bytes(as_msgpack(documents))
    left = replay(scene, str(file))
    assert verdicts(left) == {uid_of(documents): "leave"}
    assert "tiled_ingest" not in scene.client[uid_of(documents)].metadata
    adopted = replay(scene, str(file), adopt=True)
    assert adopted.passed, (adopted.cases, adopted.built)
    scene.compare(documents, "complete")
    assert verdicts(replay(scene, str(file), adopt=True)) == {uid_of(documents): "done"}


def test_another_run_of_the_uid_is_not_adopted(duckdb_scene: Scene, tmp_path: Path) -> None:
    scene = duckdb_scene
    documents = small_run([1, 2])
    writer = TiledWriter(scene.client)
    for name, doc in documents[:2]:
        writer(name, doc)
    other: Documents = [("start", {**documents[0][1], "sample": "another"}), *documents[1:]]
    file = tmp_path / "run.jsonl"
    file.write_bytes(as_lines(other))
    done = replay(scene, str(file), adopt=True)
    assert not done.passed
    assert "another run has this uid" in done.built[uid_of(documents)].error
    assert "tiled_ingest" not in scene.client[uid_of(documents)].metadata


def test_the_command_says_what_is_wrong(duckdb_scene: Scene, tmp_path: Path) -> None:
    scene = duckdb_scene
    documents = small_run([1, 2])
    file = tmp_path / "run.jsonl"
    file.write_bytes(as_lines(documents) + b'{"name": "event", "doc": {"half a li{"name": "stop"}\n')
    command = [sys.executable, "-m", "tiled_ingest.cli", "replay"]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [*command, *arguments, *options(scene, scene.tiled.uri)]
        return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)

    dry = call(str(file), "--dry-run", "--json")
    assert json.loads(dry.stdout)["runs"][0]["verdict"] == "create"
    assert uid_of(documents) not in scene.client
    ran = call(str(file))
    assert ran.returncode == 1, "one line is no document"
    assert "1 documents that are of no run here, or cannot be read" in ran.stdout
    assert f"file:run.jsonl:0:{len(documents) + 1}  unreadable: undecodable" in ran.stdout
    assert dry.returncode == 1, "it says before what the real one says"
    scene.compare(documents, "complete")
    wrong = call(str(tmp_path / "absent"))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert call(str(file), "--replace").returncode == 2


def test_what_is_refused_is_named_each_time(duckdb_scene: Scene, tmp_path: Path) -> None:
    """An event that cannot be read, and says of which run it is: the run is built without it, and never called done."""
    scene = duckdb_scene
    documents = small_run([1, 2, 3])
    name, event = documents[3]
    broken: Documents = [*documents[:3], (name, {**event, "seq_num": "three"}), *documents[4:]]
    file = tmp_path / "run.jsonl"
    file.write_bytes(as_lines(broken))
    command = [sys.executable, "-m", "tiled_ingest.cli", "replay", str(file), *options(scene, scene.tiled.uri)]
    for verdict in ("create", "reopen"):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (ran.returncode, ran.stderr) == (1, "")
        assert f"{verdict:<8} {uid_of(documents)}" in ran.stdout
        assert f"file:run.jsonl:0:4  unreadable {event['uid']}: schema: " in ran.stdout
    file.write_bytes(as_lines(documents))
    assert replay(scene, str(file), run=uid_of(documents), anew=True).passed
    scene.compare(documents, "complete")


def test_sources_are_files_or_parts_of_topics(tmp_path: Path) -> None:
    assert source("topic:a.b-c") == TopicSource("a.b-c")
    assert source("topic:a:3") == TopicSource("a", 3)
    assert source("topic:a:3:10-20") == TopicSource("a", 3, 10, 20)
    assert source("topic:a:3:-20") == TopicSource("a", 3, 0, 20)
    for wrong in (str(tmp_path / "absent"), "topic:a:3:20-10", "topic:a:3:-0"):
        with pytest.raises(WrongSource):
            source(wrong)
    file = tmp_path / "cut.msgpack"
    whole = msgpack.dumps(("start", {"uid": "a", "time": 1.0}))
    file.write_bytes(whole + whole[:-3])
    assert [record.value for record in FileSource(file).records()] == [whole, whole[:-3]]
    assert time.time() * 1000 >= next(FileSource(file).records()).timestamp_ms > 0


NAN = b'["event", {"time": NaN, "data": {"x": Infinity}}]'
HOSTILE = [
    b'["start", {"n": ' + b"9" * 30 + b"}]",
    b'["start", ' + b"[" * 5_000 + b"]" * 5_000 + b"]",
    b'["start", {"uid": "\xff"}]',
    b'["start", {"uid": "\\ud800"}]',
]


def read(path: Path, text: bytes) -> list[bytes | None]:
    path.write_bytes(text)
    return [record.value for record in FileSource(path).records()]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_line_that_no_message_can_hold_is_no_obstacle_to_the_others(tmp_path: Path, hostile: bytes) -> None:
    sound = msgpack.packb(["stop", {"uid": "s"}])
    before, middle, after = read(tmp_path / "lines", b"\n".join([sound_json(), hostile, sound_json()]))
    assert (before, after) == (sound, sound)
    assert middle == hostile + b"\n"
    in_array = read(tmp_path / "array", b"[\n" + b",\n".join([sound_json(), hostile]) + b"]")
    assert in_array in ([sound, b"what no message can hold"], [(tmp_path / "array").read_bytes()])


def sound_json() -> bytes:
    return b'["stop", {"uid": "s"}]'


def test_numbers_as_python_spells_them_are_read(tmp_path: Path) -> None:
    """Those of bluesky's own JSON writers, which our backup is written by."""
    (line,) = read(tmp_path / "lines", NAN)
    (element,) = read(tmp_path / "array", b"[\n" + NAN + b"]")
    assert line == element is not None
    kind, doc = msgpack.unpackb(line)
    assert (kind, doc["data"]["x"]) == ("event", float("inf"))
    assert doc["time"] != doc["time"]
