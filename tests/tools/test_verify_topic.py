"""What `verify` makes of a topic that holds more than good runs: dead letters, repetitions, edges, unfinished runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import confluent_kafka as ck
import msgpack
import pytest

from tests.system.publishing import Documents, message, runs, uid_of
from tests.system.scene import Scene
from tests.tools.conftest import Written, rewrite, settings_of
from tests.tools.test_verify import changed, look, sentences
from tiled_ingest.tools.progress import Silent
from tiled_ingest.tools.verify import NothingToRead, Report, Wanted, verify
from tiled_ingest.tools.verify.tell import lines

pytestmark = pytest.mark.real


def small_run(values: list[Any], *, dtype: str = "integer", stop: bool = True, **start: Any) -> Documents:
    """One event for each value of the key `x`."""
    uid, descriptor = str(uuid.uuid4()), str(uuid.uuid4())
    keys = {"x": {"dtype": dtype, "shape": [], "source": "sim"}}
    events: Documents = [
        (
            "event",
            {
                "uid": str(uuid.uuid4()),
                "descriptor": descriptor,
                "time": 10.0 + number,
                "seq_num": number,
                "data": {"x": value},
                "timestamps": {"x": 10.0 + number},
                "filled": {},
            },
        )
        for number, value in enumerate(values, 1)
    ]
    end = {"uid": str(uuid.uuid4()), "run_start": uid, "time": 99.0, "exit_status": "success"}
    described = {"uid": descriptor, "run_start": uid, "time": 2.0, "name": "primary", "data_keys": keys}
    begin: Documents = [("start", {"uid": uid, "time": 1.0, **start}), ("descriptor", described)]
    return [*begin, *events, *([("stop", end)] if stop else [])]


def produce(scene: Scene, documents: Documents) -> None:
    scene.produce(*(message(name, doc) for name, doc in documents))


def through(scene: Scene) -> None:
    """Let a service settle everything, and end."""
    service = scene.service().start()
    scene.settle(limit_s=240)
    assert service.stop() == 0


def checked(scene: Scene, **wanted: Any) -> Report:
    return verify(settings_of(scene), Wanted(**wanted), Silent())


def test_documents_are_in_tiled_or_dead_letters_or_missed(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    misfits = small_run([1, "OFF", 3])
    twice = small_run([5, 6, 7])
    orphan = ("event", {**small_run([1])[2][1]})
    produce(scene, [*misfits, *twice[:3], *twice[2:4], orphan, *twice[4:], *runs(1)[0]])
    scene.produce(b"garbage", None, message("start", {"uid": "no time"}))
    through(scene)

    report = checked(scene)
    assert report.passed, [sentences(run) for run in report.runs] + report.partitions[0].differences
    assert report.dead_letters == {"value_misfit": 1, "orphan": 1, "undecodable": 1, "tombstone": 1, "schema": 1}
    by_uid = {run.uid: run for run in report.runs}
    assert by_uid[misfits[0][1]["uid"]].dead_letters == {"value_misfit": 1}
    assert by_uid[misfits[0][1]["uid"]].streams[0].counts.expected == 3, "a row with a null is a row"
    assert by_uid[twice[0][1]["uid"]].repeated == 1

    # What nobody has settled is missed, and named by its offset.
    end = scene.end()
    scene.produce(b"more garbage", message(*orphan), message("stop", {"run_start": "unknown", "uid": "u", "time": 1.0}))
    late = small_run([8])
    produce(scene, late)
    report = checked(scene)
    assert not report.passed
    partition = report.partitions[0]
    assert [text.split(" ")[1] for text in partition.differences] == [str(end), str(end + 1), str(end + 2)]
    assert [run.verdict for run in report.runs if run.uid == late[0][1]["uid"]] == ["missing"]
    assert checked(scene, committed=True).passed, "beyond the group's commit nothing is settled yet"


NS = 1_795_000_000_000_000_001  # nanoseconds: a float does not tell it from its neighbours


@pytest.mark.parametrize(
    ("values", "dtype", "wrong"),
    [
        ([NS, True, 5], "integer", NS - 1),  # a truth value among them: Arrow makes no column of these by itself
        ([NS, [NS, 7], 5], "integer", [NS - 1]),
        ([NS, "OFF", 0.5, 5], "string", str(NS - 1)),
    ],
)
def test_a_large_integer_is_compared_to_the_last_digit(scene: Scene, values: list[Any], dtype: str, wrong: Any) -> None:
    documents = small_run(values, dtype=dtype)
    produce(scene, documents)
    through(scene)
    report = checked(scene)
    assert report.passed, sentences(report.runs[0])
    assert report.runs[0].streams[0].rounded == []
    rewrite(scene.client[uid_of(documents)], "primary", changed("x", 1, wrong))
    report = checked(scene)
    assert report.runs[0].streams[0].counts.different == 1
    assert f"{wrong!r} instead of {NS}" in sentences(report.runs[0])


def test_what_the_server_rounds_is_compared_as_far_as_it_says_it(scene: Scene) -> None:
    """A null in a column of integers makes Tiled's server send floats: no reader sees the last digits."""
    documents = small_run([NS, "OFF", 5])
    produce(scene, documents)
    through(scene)
    report = checked(scene)
    assert report.passed, sentences(report.runs[0])
    assert report.runs[0].streams[0].rounded == ["x"]
    assert any("their last digits are not compared" in line for line in lines(report))
    for changed_by, seen in ((1, False), (1_000, True)):
        rewrite(scene.client[uid_of(documents)], "primary", changed("x", 1, NS - changed_by))
        assert checked(scene).passed is not seen


def test_a_run_without_a_stop_is_no_difference(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    documents = small_run([1, 2, 3], stop=False)
    produce(scene, documents)
    through(scene)
    report = checked(scene)
    assert report.passed, sentences(report.runs[0])
    assert report.runs[0].state == "open"
    assert report.runs[0].remarks == ["no stop document came; open in Tiled"]
    # But what it has said so far counts.
    produce(scene, small_run([4])[2:3])
    assert not checked(scene).passed


def test_a_failed_run_must_be_in_the_dead_letters_wholly(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    documents = small_run([1, 2, 3])
    uid = documents[0][1]["uid"]
    produce(scene, documents)
    through(scene)
    run = scene.client[uid]
    run.update_metadata({"tiled_ingest": {**run.metadata["tiled_ingest"], "state": "failed"}})

    report = checked(scene)
    assert (report.runs[0].verdict, report.runs[0].state) == ("different", "failed")
    assert "failed, but 6 of its documents are not in the dead letters" in sentences(report.runs[0])

    letters(scene, documents[:5])
    assert "failed, but 1 of its documents" in sentences(checked(scene).runs[0])
    letters(scene, [("stop", {**documents[5][1], "time": 7.0})], first=5)
    assert not checked(scene).passed, "a letter with other bytes is another document's"
    letters(scene, documents[5:], first=5)
    report = checked(scene)
    assert report.passed
    assert report.runs[0].verdict == "failed"
    assert report.runs[0].dead_letters == {"run_failed": 6}


def letters(scene: Scene, documents: Documents, first: int = 0) -> None:
    """Write dead letters for documents that stand at these offsets."""
    producer = ck.Producer({"bootstrap.servers": scene.broker.bootstrap_servers})
    for offset, (name, doc) in enumerate(documents, first):
        said = {"reason": "TiledRejected", "code": "run_failed", "topic": scene.topic, "partition": "0"}
        headers = [(f"tiled_ingest.{key}", value.encode()) for key, value in {**said, "offset": str(offset)}.items()]
        producer.produce(f"{scene.group}.dead-letters", message(name, doc), b"session", headers=headers)
    assert producer.flush(20) == 0


def test_runs_are_found_wherever_routes_put_them(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    routes = json.dumps([{"topic": ".*", "path": "proposals/{start[group]}"}])
    one, other = small_run([1], group="a"), small_run([2, 3], group="b")
    produce(scene, [*one, *other])
    service = scene.service(tiled__routes=json.loads(routes)).start()
    scene.settle(limit_s=240)
    assert service.stop() == 0
    settings = settings_of(scene, **{"tiled.routes": routes})
    assert verify(settings, Wanted(), Silent()).verdicts() == {"same": 2}
    assert verify(settings, Wanted(runs=frozenset({other[0][1]["uid"]})), Silent()).verdicts() == {"same": 1}
    scene.client["proposals/a"].delete_contents(one[0][1]["uid"], recursive=True, external_only=False)
    assert verify(settings, Wanted(), Silent()).verdicts() == {"same": 1, "missing": 1}


# ---------------------------------------------------------------- parts of the topic


def test_edges_of_a_range_are_said_and_not_wrong(written: Written) -> None:
    first_round = sum(map(len, list(written.runs.values())[:3]))
    report = look(written, first_offset=100, next_offset=first_round + 150)
    assert report.passed, [sentences(run) for run in report.runs] + report.partitions[0].differences
    verdicts = report.verdicts()
    assert verdicts["cut"] >= 1
    assert any("began before the range" in text for text in report.partitions[0].remarks)
    assert report.documents == first_round + 50

    whole = look(written, first_offset=first_round, next_offset=2 * first_round)
    assert whole.passed
    assert whole.verdicts() == {"same": 3}


def test_a_range_of_time(written: Written) -> None:
    count = sum(map(len, written.runs.values()))
    later = datetime.fromtimestamp(time.time() + 3600, UTC)
    nothing = look(written, since=later)
    assert (nothing.documents, nothing.passed, nothing.is_empty) == (0, False, True)
    before_all = look(written, since=datetime(1960, 1, 1, tzinfo=UTC), until=datetime(1969, 1, 1, tzinfo=UTC))
    assert (before_all.documents, before_all.passed) == (0, False)
    assert look(written, since=datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)).documents == count
    assert look(written, until=datetime(9999, 12, 31, tzinfo=UTC)).documents == count
    with pytest.raises(NothingToRead, match="--until is not after --since"):
        look(written, since=later, until=later)
    assert look(written, until=later).documents == count

    taken = records_of(written.scene)
    stamps = [stamp for _, stamp in taken]
    starts = [offset for offset, (name, _) in enumerate(taken) if name == "start"]
    assert len(stamps) == count
    earlier, later = (datetime.fromtimestamp(stamps[at] / 1000, UTC) for at in (count // 3, 2 * count // 3))
    first, following = (sum(stamp < cut.timestamp() * 1000 for stamp in stamps) for cut in (earlier, later))
    assert 0 < first < following < count, "both times cut inside the data"
    for since, until, wanted in (
        (None, later, (0, following)),
        (earlier, None, (first, count)),
        (earlier, later, (first, following)),
        (None, earlier, (0, first)),
    ):
        report = look(written, since=since, until=until)
        told = [sentences(run) for run in report.runs] + report.partitions[0].differences
        compares = any(wanted[0] <= offset < wanted[1] for offset in starts)  # of one that began before it is told
        assert (report.passed, report.is_empty) == (compares, not compares), told
        assert [(each.first_offset, each.next_offset) for each in report.partitions] == [wanted]
        assert report.documents == wanted[1] - wanted[0]


def records_of(scene: Scene) -> list[tuple[str, int]]:
    """The name of each document in the topic, and when the broker took it (ms), in the order of the log."""
    consumer = ck.Consumer({"bootstrap.servers": scene.broker.bootstrap_servers, "group.id": f"times.{scene.group}"})
    try:
        end = scene.end()
        consumer.assign([ck.TopicPartition(scene.topic, 0, 0)])
        messages = [consumer.poll(20) for _ in range(end)]
    finally:
        consumer.close()
    taken = [message for message in messages if message and not message.error()]
    return [(msgpack.loads(message.value())[0], message.timestamp()[1]) for message in taken]


def test_one_run_is_read_from_where_it_begins(written: Written) -> None:
    uid = list(written.runs)[-1]
    report = look(written, runs=frozenset({uid}))
    assert report.passed
    assert [run.uid for run in report.runs] == [uid]
    assert report.documents < sum(map(len, written.runs.values())), "only its part of the topic is read"


def test_a_run_that_nobody_published(written: Written) -> None:
    report = look(written, runs=frozenset({"no-such-run"}))
    assert not report.passed
    assert report.not_in_topic == ["run 'no-such-run': its start is not in the range"]


def test_where_nothing_is_committed_nothing_is_judged(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    produce(scene, small_run([1, 2]))
    assert scene.committed() == -1
    report = checked(scene, committed=True)
    assert not report.passed, "nothing is proved"
    assert (report.documents, report.runs) == (0, [])
    partition = report.partitions[0]
    assert (partition.first_offset, partition.next_offset, partition.high) == (0, 0, 5)
    told = "\n".join(lines(report))
    assert "the group has committed nothing here: nothing is compared" in told
    assert "Nothing was compared, so nothing is proved: 0 records" in told
    assert not checked(scene).passed, "without the limit the run is missing"


def test_what_does_not_exist_is_refused(written: Written) -> None:
    with pytest.raises(NothingToRead, match="no topic absent"):
        look(written, topics=("absent",))
    with pytest.raises(NothingToRead, match="no partition 7"):
        look(written, partitions=frozenset({7}))


# ---------------------------------------------------------------- the command


def command(written: Written, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = written.settings
    named = {
        "beamline": "test",
        "kafka.bootstrap_servers": settings.kafka.bootstrap_servers,
        "kafka.group_id": settings.kafka.group_id,
        "kafka.topics": settings.kafka.topics[0],
        "tiled.uri": settings.tiled.uri,
        "tiled.api_key": written.scene.tiled.api_key,
    }
    options = [option for name, value in named.items() for option in ("--set", f"{name}={value}")]
    whole = [sys.executable, "-m", "tiled_ingest.cli", "verify", *options, *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_says_it_in_json_and_in_a_table(written: Written) -> None:
    uid = list(written.runs)[-1]
    said = command(written, "--run", uid, "--json")
    assert (said.returncode, said.stderr) == (0, "")
    report = json.loads(said.stdout)
    assert report["passed"]
    assert [run["uid"] for run in report["runs"]] == [uid]
    said = command(written, "--run", uid)
    assert uid in said.stdout
    assert "Tiled holds what the topic holds" in said.stdout


def test_the_command_fails_for_a_difference_and_refuses_what_is_not_there(written: Written) -> None:
    said = command(written, "--run", "nobody")
    assert said.returncode == 1
    assert "DIFFERENCES" in said.stdout
    said = command(written, "--since", "2026-11-23", "--until", "2026-11-22")
    assert (said.returncode, said.stderr) == (2, "tiled-ingest: verify: --until is not after --since\n")
    said = command(written, "--topic", "absent")
    assert (said.returncode, said.stderr) == (2, "tiled-ingest: verify: no topic absent\n")
