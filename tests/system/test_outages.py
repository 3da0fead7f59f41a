"""What goes wrong at a beamline beside crashes: outages, refusals, garbage, lost logs, replicas that come and go."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import msgpack
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from confluent_kafka.admin import AdminClient

from tests.kafka.trouble import frozen
from tests.rig.fixtures import postgres_tiled, topics_of
from tests.rig.postgres import Postgres
from tests.system.publishing import Documents, interleaved, key_for, message, runs, uid_of
from tests.system.scene import Scene, alone
from tests.system.service import START_LIMIT_S
from tiled_ingest.demo.broker import Broker, KafkaBroker
from tiled_ingest.demo.processes import free_port
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.kafka.source import _ASK_S_MAX, _OUT_S_MAX

pytestmark = pytest.mark.real

APPEND = r"/api/v1/table/partition/"
SESSION_S = 6.0
PROTOCOLS: dict[str, dict[str, str]] = {
    "cooperative-sticky": {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"},
    "consumer": {"group.protocol": "consumer"},
}


# ---------------------------------------------------------------- Tiled refuses us


def test_a_wrong_key_stops_it_and_makes_no_dead_letters(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    service, publication = scene.service(tiled__api_key="0" * 32), scene.publication(runs(1)[0])
    publication.publish()
    assert service.start().ended() != 0
    stopped = service.lines("stopped")[-1]
    assert (stopped["reason"], stopped["level"]) == ("Forbidden", "error")
    assert "401" in stopped["error"]
    assert "0" * 32 not in service.text()
    assert scene.letters() == []
    assert scene.committed() <= 0


def test_a_key_that_loses_its_right_mid_run_stops_it(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    service, publication = scene.service(), scene.publication(interleaved(runs(2)))
    refusal = scene.proxy.answer("PATCH", APPEND, 401, nth=4, times=None)
    publication.steadily(0.7)
    assert service.start().ended(40) != 0
    assert service.lines("stopped")[-1]["reason"] == "Forbidden"
    assert refusal.hit.is_set()
    assert scene.committed() < scene.end()
    scene.proxy.clear()
    service.start()
    publication.pause()
    publication.publish()
    scene.settle()
    scene.verify()


# ---------------------------------------------------------------- Tiled answers 500


def test_a_run_of_which_tiled_takes_nothing_fails_alone_and_the_end_is_reached(duckdb_scene: Scene) -> None:
    """Nobody else writes: what Tiled takes is shown by a write of our own."""
    scene = duckdb_scene
    documents = runs(1)[0]
    scene.proxy.answer("POST", rf"/api/v1/metadata/{uid_of(documents)}$", 500, times=None)  # its streams' nodes
    publication = scene.publication(documents)
    publication.publish()
    service = scene.service().start("--until-end")
    assert service.ended(60) == 0
    assert scene.committed() == scene.end()
    assert Counter(letter.code for letter in scene.letters()) == {"run_failed": len(publication.published)}
    assert scene.state(uid_of(documents)) == "failed"
    assert not service.lines("tiled_down")


def test_a_run_of_which_tiled_takes_nothing_keeps_no_other_waiting(postgres_scene: Scene) -> None:
    scene = postgres_scene
    poison, sound = runs(2)
    scene.proxy.answer("POST", rf"/api/v1/metadata/{uid_of(poison)}$", 500, times=None)
    service = scene.service().start_claimed()
    scene.publication(poison[:-1]).publish()
    service.wait_for("run_opened")
    scene.publication(sound).publish()
    service.wait_for("run_closed", run=uid_of(sound), state="complete")
    assert not service.lines("run_failed")  # it is still tried
    assert not service.lines("tiled_down")
    service.wait_for("run_failed")
    scene.compare(sound, "complete")


def test_a_database_that_is_restarted_again_and_again_fails_no_run(broker: Broker, tmp_path: Path) -> None:
    """Tiled answers 500 to everything meanwhile; runs are opened, live and closed as it comes back."""
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres())
        tiled = stack.enter_context(postgres_tiled(postgres))
        scene = stack.enter_context(closing(Scene(broker, tiled, topics_of(broker), tmp_path)))
        service = scene.service().start_claimed()
        publication = scene.publication(interleaved(runs(3)))
        for share, away_s in ((0.2, 1.0), (0.4, 5.0), (0.6, 0.0), (0.8, 8.0)):
            publication.publish_to(share)
            postgres.kill()
            time.sleep(away_s)
            postgres.restart()
            publication.publish_to(share + 0.1)
        publication.publish()
        scene.settle(limit_s=120.0)
        scene.notes.append(f"{len(service.lines('tiled_down'))} outages noticed")
        assert not service.lines("run_failed")
        scene.verify()


# ---------------------------------------------------------------- what stands before Tiled answers


def test_a_proxy_that_has_lost_its_way_to_tiled_fails_no_run(scene: Scene) -> None:
    """It answers 404 to everything, as if every node were gone."""
    service = scene.service().start_claimed()
    publication = scene.publication(interleaved(runs(3)))
    publication.publish_to(0.4)
    service.wait_for("run_opened")
    scene.proxy.answer(".*", "", 404, times=None, page=b"404 page not found")
    publication.publish_to(0.8)
    service.wait_for("tiled_down")
    assert service.get("/readyz")[0] == 503
    time.sleep(3.0)
    scene.proxy.clear()
    publication.publish()
    scene.settle()
    assert scene.letters() == []
    scene.verify()


def test_a_proxy_that_takes_no_large_bodies_gets_small_ones(scene: Scene) -> None:
    """The backlog of an outage comes in batches that were never met live."""
    limit = scene.proxy.answer("PATCH", APPEND, 413, times=None, page=b"<html>", body=lambda body: len(body) > 6_000)
    scene.publication(interleaved(runs(3))).publish()
    scene.service().start_claimed()
    scene.settle()
    assert limit.hit.is_set()
    assert scene.letters() == []
    scene.verify()


# ---------------------------------------------------------------- Kafka is away


def test_it_starts_before_kafka_and_waits_for_it(tiled_duckdb: TiledServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(KafkaBroker(tmp_path / "kafka"))
        scene = stack.enter_context(closing(Scene(broker, tiled_duckdb, topics_of(broker), tmp_path)))
        publication = scene.publication(runs(1)[0])
        publication.publish()
        broker.kill()
        service = scene.service().start()
        said = service.wait_for("kafka_error")["error"]
        assert said.startswith(f"no answer from {broker.bootstrap_servers}; waiting for it")
        assert "Connection refused" in said
        reasons = ["no partition is assigned", f"Kafka's client says: {said}"]
        service.wait_until(lambda: service.status()["not_ready"] == reasons, "not ready for this reason", poll_s=0.1)
        assert service.live
        broker.restart()
        scene.settle()
        scene.verify()


@pytest.mark.parametrize("stands_still", [False, pytest.param(True, marks=alone)], ids=["dead", "standing still"])
def test_a_broker_that_is_away_for_long_ends_nothing_and_floods_no_log(
    tiled_duckdb: TiledServer, tmp_path: Path, stands_still: bool
) -> None:
    """So long that the group counts us out, and that we ask about it: librdkafka ended the process after that."""
    with ExitStack() as stack:
        broker = stack.enter_context(KafkaBroker(tmp_path / "kafka"))
        scene = stack.enter_context(closing(Scene(broker, tiled_duckdb, topics_of(broker), tmp_path)))
        service = scene.service(membership="dynamic", kafka__properties=PROTOCOLS["cooperative-sticky"]).start_claimed()
        publication = scene.publication(runs(1)[0])
        publication.publish_to(0.5)
        scene.settle()
        process = service.process
        with away(broker, stands_still=stands_still):
            time.sleep(SESSION_S + _OUT_S_MAX + 2 * _ASK_S_MAX + 3.0)
            assert service.running, service.tail()
            complaints = [line for line in service.lines() if line["logger"] == "tiled_ingest.kafka"]
        own = len(service.lines("kafka_error"))
        scene.notes.append(f"{len(complaints)} lines of librdkafka, {own} of ours")
        assert len(complaints) < 20, service.tail()
        assert 0 < own < 5, service.tail()
        publication.publish()
        scene.settle()
        assert (service.process, service.running) == (process, True)
        scene.verify()


@contextmanager
def away(broker: KafkaBroker, *, stands_still: bool) -> Iterator[None]:
    """A broker that is not there, or one that accepts connections and says nothing."""
    if stands_still:
        with frozen(broker):
            yield
        return
    broker.kill()
    yield
    broker.restart()


def test_it_ends_when_it_is_told_to_while_it_waits_for_kafka(duckdb_scene: Scene) -> None:
    service = duckdb_scene.service(kafka__bootstrap_servers=f"127.0.0.1:{free_port()}").start()
    service.wait_for("kafka_error")
    assert service.stop() == 0
    assert [line["why"] for line in service.lines("ended")] == ["asked to end before it had begun"]


def test_it_ends_when_it_is_told_to_while_tiled_looks_at_its_key(duckdb_scene: Scene) -> None:
    """It joins no group then: nobody has to wait for its leaving."""
    scene = duckdb_scene
    asked = scene.proxy.hold("GET", r"/api/v1/")
    service = scene.service().start()
    assert asked.hit.wait(START_LIMIT_S)
    assert service.stop() == 0
    assert [line["why"] for line in service.lines("ended")] == ["asked to end before it had begun"]
    assert not service.lines("claimed")


# ---------------------------------------------------------------- the operator


def test_sigterm_writes_and_commits_what_has_arrived(postgres_scene: Scene) -> None:
    scene = postgres_scene
    service = scene.service(batch__age_s_max=600.0)  # nothing is written for its age
    publication = scene.publication(interleaved(runs(2)))
    publication.publish_to(0.5)
    service.start_claimed()
    service.wait_until(lambda: service.metric("tiled_ingest_buffered_bytes") > 0, "rows wait", poll_s=0.1)
    assert service.stop() == 0
    assert {line["reason"] for line in service.lines("flush")} == {"shutdown"}
    assert scene.committed() == scene.end()
    scene.compare(publication.published, "open")
    service.start()
    publication.publish()
    scene.settle()
    scene.verify()


def test_rows_can_be_read_while_the_run_is_open(scene: Scene) -> None:
    service, publication = scene.service().start_claimed(), scene.publication(runs(1)[0])
    begun_s = time.monotonic()
    publication.publish_to(0.5)
    service.wait_until(lambda: scene.committed() == scene.end(), "all is written", poll_s=0.05)
    scene.notes.append(f"{len(publication.published)} documents after {time.monotonic() - begun_s:.2f} s")
    scene.compare(publication.published, "open")


def test_a_run_that_never_stops_is_closed_and_holds_nothing_up(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    service = scene.service(runs__idle_s_max=2.0).start_claimed()
    endless, ending = runs(2)
    endless = [(name, doc) for name, doc in endless if name != "stop"]
    scene.publication(endless).publish()
    service.wait_until(lambda: scene.committed() == scene.end(), "all is written", poll_s=0.1)
    assert scene.resume_point() == 0
    service.wait_for("run_closed", state="abandoned")
    scene.publication(ending).publish()
    scene.settle()
    service.wait_until(lambda: scene.resume_point() == scene.committed(), "the resume point moves on", poll_s=0.1)
    scene.compare(endless, "abandoned")
    scene.compare(ending, "complete")
    scene.produce(message(*endless[-1]))  # a repetition
    scene.settle()
    assert scene.letters() == []


# ---------------------------------------------------------------- what is in the topic


def test_what_is_no_document_of_a_run_of_ours_is_a_dead_letter_with_its_reason(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    scene.divide(2)
    home, stray = key_for(0, 2), key_for(1, 2)
    good, scattered, lost = runs()
    lost = [(name, doc) for name, doc in lost if name != "start"]
    schema = ("start", {"uid": 1, "time": "noon"})
    service = scene.service().start()
    service.wait_for("claimed", count=2)
    scene.publication(good[:50] + scattered[:30], key=home).publish()
    service.wait_for("run_opened", count=2)
    scene.produce(b"\xc1\x00garbage", b'{"name": "start"}', None, message("bmm", {"a": 1}), message(*schema))
    scene.publication(scattered[30:40], key=stray).publish()
    scene.publication(lost, key=home).publish()
    scene.publication(good[50:] + scattered[40:], key=home).publish()
    scene.settle(0, 1)
    scene.compare(good, "complete")
    scene.compare(scattered[:30] + scattered[40:], "incomplete")
    codes = Counter(letter.code for letter in scene.letters())
    expected = {"undecodable": 2, "tombstone": 1, "unknown_kind": 1, "schema": 1}
    assert codes == Counter(expected | {"orphan": len(lost), "scattered_run": 10})
    assert {letter.headers["reason"] for letter in scene.letters()} == {"InvalidDocument"}


def test_a_run_that_someone_else_wrote_is_left_alone(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    foreign, ours = runs(2)
    plain: Documents = [(name, doc) for name, doc in foreign if name != "event_page"]
    writer = TiledWriter(scene.client)
    for name, doc in plain:
        writer(name, doc)
    before = scene.client[uid_of(plain)].metadata
    scene.publication(interleaved([plain, ours])).publish()
    service = scene.service().start()
    scene.settle()
    assert service.running
    letters = scene.letters()
    assert Counter(letter.code for letter in letters) == {"foreign_run": len(plain)}
    assert [letter.value for letter in letters] == [message(name, doc) for name, doc in plain]
    assert scene.client[uid_of(plain)].metadata == before
    scene.compare(ours, "complete")


class _Intruder:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_message_cannot_run_code(duckdb_scene: Scene, tmp_path: Path) -> None:
    scene = duckdb_scene
    documents = runs(1)[0]
    at = next(index for index, (name, doc) in enumerate(documents) if name == "event" and "spectrum" in doc["data"])
    name, doc = documents[at]

    def trapped(path: Path) -> bytes:
        array = np.array([_Intruder(path)], dtype=object)
        return message(name, {**doc, "data": {**doc["data"], "spectrum": array}})

    with suppress(Exception):  # what is no array is no matter
        msgpack.loads(trapped(tmp_path / "proof"))
    assert (tmp_path / "proof").exists(), "the trap does not work even where it should"

    service, publication = scene.service().start(), scene.publication(documents)
    publication.publish(at)
    scene.produce(trapped(tmp_path / "intruder"))
    publication.publish()
    scene.settle()
    assert service.running
    assert [letter.code for letter in scene.letters()] == ["object_array"]
    assert not (tmp_path / "intruder").exists()
    scene.compare(documents, "complete")


# ---------------------------------------------------------------- the log


def test_documents_that_were_deleted_before_they_were_read_stop_it(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    service, publication = scene.service().start(), scene.publication(runs(1)[0])
    publication.publish_to(0.3)
    scene.settle()
    assert service.stop() == 0
    publication.publish_to(0.6)
    committed = scene.committed()
    place = ck.TopicPartition(scene.topic, 0, scene.end() - 5)
    admin = AdminClient({"bootstrap.servers": scene.broker.bootstrap_servers})
    admin.delete_records([place])[place].result(20)
    assert service.start().ended() != 0
    stopped = service.lines("stopped")[-1]
    assert stopped["reason"] == "OffsetOutOfRange"
    assert str(committed) in stopped["error"]
    assert scene.committed() == committed
    assert scene.letters() == []
    lost = scene.end() - 5 - committed
    service.start("--accept-gap").wait_for("claimed")
    other = scene.publication(runs(1)[0])
    other.publish()
    scene.settle()
    scene.compare(other.published, "complete")
    assert service.metric("tiled_ingest_offset_gap_messages_total", topic=scene.topic) == lost


# ---------------------------------------------------------------- to the end, and no further


def test_until_end_says_when_there_is_nothing_to_read(duckdb_scene: Scene) -> None:
    service = duckdb_scene.service(kafka__topics=["no.such.topic"]).start("--until-end")
    assert service.ended(40) == 1
    assert "no topic that exists" in service.lines("stopped")[-1]["error"]


def test_until_end_ends_also_where_others_own_all_partitions(postgres_scene: Scene) -> None:
    scene = postgres_scene
    owner = scene.service("owner", membership="dynamic").start_claimed()
    publication = scene.publication(runs(1)[0])
    publication.publish()
    guest = scene.service("guest", membership="dynamic").start("--until-end")
    assert guest.ended(60) == 0
    assert owner.running
    scene.settle()
    scene.verify()


# ---------------------------------------------------------------- replicas


@pytest.mark.parametrize(
    "protocol",
    ["cooperative-sticky", pytest.param("consumer", marks=alone)],  # its broker lets members hear of each other in 5 s
)
def test_replicas_join_and_leave_mid_run(postgres_scene: Scene, protocol: str) -> None:
    scene = postgres_scene
    scene.divide(2)
    settings: dict[str, Any] = {"kafka__properties": PROTOCOLS[protocol], "membership": "dynamic"}
    one, two = scene.service("one", **settings), scene.service("two", **settings)
    publications = [scene.publication(interleaved(runs(2), home), key=key_for(home, 2)) for home in (0, 1)]

    def publish(upto: float) -> None:
        for publication in publications:
            publication.steadily(upto, pause_s=0.1)

    publish(0.5)
    one.start().wait_for("claimed", count=2)
    one.wait_for("flush", count=4)
    two.start_claimed()
    publish(0.8)
    two.wait_for("flush")
    assert one.stop() == 0
    two.wait_for("claimed", count=2)
    one.start_claimed()
    for publication in publications:
        publication.done()
        publication.publish()
    scene.settle(0, 1)
    scene.verify()
    failed = one.lines("commit_failed", of_all=True) + two.lines("commit_failed")
    # Of a generation that is being replaced, or just was, a commit may be refused; it is sent again.
    replaced = ("REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION")
    assert all(line["detail"].startswith(replaced) for line in failed), failed
