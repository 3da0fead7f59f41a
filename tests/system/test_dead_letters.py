"""Dead letters that their topic does not take whole, and a topic that takes none: with real parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.rig.cluster import Cluster
from tests.rig.fixtures import topics_of
from tests.system.publishing import Documents, message, runs, uid_of, wait_until
from tests.system.scene import Scene
from tests.tools.conftest import settings_of
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.tools.dlq import Choice, Collected, collect, planned
from tiled_ingest.tools.letters import Torn, read_letters
from tiled_ingest.tools.progress import Silent

pytestmark = pytest.mark.real

GARBAGE_BYTES = 5_000_000
SIZES = pytest.mark.parametrize("takes", [1_000_000, 100_000])


def prepare(scene: Scene, takes: int) -> None:
    """Topics: one that holds large documents, one for dead letters that does not."""
    scene.topic = scene.new_topic("big.docs", 1, {"max.message.bytes": "20000000"})
    scene.broker.create_topic(letters_topic(scene), 1, {"max.message.bytes": str(takes)})


def letters_topic(scene: Scene) -> str:
    return f"{scene.group}.dead-letters"


def alter(scene: Scene, setting: str, value: str) -> None:
    """Change a setting of the topic for dead letters."""
    resource = ConfigResource(ResourceType.TOPIC, letters_topic(scene))
    resource.add_incremental_config(ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET))
    admin = AdminClient({"bootstrap.servers": scene.broker.bootstrap_servers})
    admin.incremental_alter_configs([resource])[resource].result(20)


def produce(scene: Scene, *values: bytes) -> None:
    large = {"message.max.bytes": 30_000_000, "enable.idempotence": True}
    producer = ck.Producer({"bootstrap.servers": scene.broker.bootstrap_servers, **large})
    for value in values:
        producer.produce(scene.topic, value, b"session", 0)
    assert producer.flush(30) == 0


def garbage() -> bytes:
    return b"\xc1" + os.urandom(GARBAGE_BYTES)


def run_with_frames(frames: int = 2, elements: int = 375_000) -> tuple[Documents, list[Any]]:
    """A run each event of which holds 3 MB that cannot be compressed."""
    uid, descriptor = str(uuid.uuid4()), str(uuid.uuid4())
    key = {"dtype": "array", "dtype_numpy": "<f8", "shape": [elements], "source": "sim"}
    data = [np.random.default_rng(number).random(elements) for number in range(frames)]
    events: Documents = [
        (
            "event",
            {
                "uid": str(uuid.uuid4()),
                "descriptor": descriptor,
                "time": 3.0 + number,
                "seq_num": number + 1,
                "data": {"frame": frame},
                "timestamps": {"frame": 3.0 + number},
                "filled": {},
            },
        )
        for number, frame in enumerate(data)
    ]
    described = {"uid": descriptor, "run_start": uid, "time": 2.0, "name": "primary", "data_keys": {"frame": key}}
    end = {"uid": str(uuid.uuid4()), "run_start": uid, "time": 99.0, "exit_status": "success"}
    return [("start", {"uid": uid, "time": 1.0}), ("descriptor", described), *events, ("stop", end)], data


def collected(scene: Scene) -> Collected:
    torn: list[Torn] = []
    return collect(read_letters(settings_of(scene).kafka, torn), torn, Choice(), 100)


@SIZES
def test_a_refused_document_that_is_larger_than_the_topic_takes_is_a_letter_in_parts(
    duckdb_scene: Scene, takes: int
) -> None:
    scene = duckdb_scene
    prepare(scene, takes)
    service, large, good = scene.service().start_claimed(), garbage(), runs(1)[0]
    produce(scene, large)
    scene.publication(good).publish()
    scene.settle()
    scene.compare(good, "complete")
    found = collected(scene)
    (letter,) = found.letters
    assert (letter.code, letter.value, letter.position) == ("undecodable", large, (scene.topic, 0, 0))
    assert letter.parts > GARBAGE_BYTES // takes
    assert (found.documents, found.repeated, found.torn) == (1, 0, [])
    assert len(scene.letters()) == letter.parts
    assert service.stop() == 0


@SIZES
def test_a_failed_run_with_large_events_is_redriven_from_its_parts(duckdb_scene: Scene, takes: int) -> None:
    scene = duckdb_scene
    prepare(scene, takes)
    documents, frames = run_with_frames()
    uid = uid_of(documents)
    scene.proxy.answer("POST", rf"/api/v1/metadata/{uid}$", 422, times=None)
    produce(scene, *(message(name, doc) for name, doc in documents))
    service = scene.service().start_claimed()
    scene.settle()
    assert service.stop() == 0
    scene.proxy.clear()
    assert scene.state(uid) == "failed"
    found = collected(scene)
    assert [letter.value for letter in found.letters] == [message(name, doc) for name, doc in documents], "in order"
    assert [letter.parts > 1 for letter in found.letters] == [name == "event" for name, _ in documents]
    with planned(settings_of(scene), Choice()) as rebuild:
        done = rebuild.write(Silent(), 20.0)
    assert done.passed, done.built
    assert scene.state(uid) == "complete"
    assert np.array_equal(scene.client[uid]["primary"]["frame"].read(), np.stack(frames))


def test_killed_half_way_the_letter_comes_again_and_is_one(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    prepare(scene, 20_000)
    service, large = scene.service().start_claimed(), garbage()
    produce(scene, large)
    reader = ck.Consumer({"bootstrap.servers": scene.broker.bootstrap_servers, "group.id": "nobody"})
    place = ck.TopicPartition(letters_topic(scene), 0)
    wait_until(lambda: reader.get_watermark_offsets(place, timeout=20)[1] > 2, "some parts are out")
    service.kill()
    reader.close()
    found = collected(scene)
    assert found.letters == []
    (torn,) = found.torn
    assert 0 < torn.there < torn.parts
    assert scene.committed() < 1, "nothing may be committed past it"
    command = [sys.executable, "-m", "tiled_ingest.cli", "dlq", "list", "--json", *options(scene)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert (said["documents"], [each["offset"] for each in said["incomplete"]]) == (0, [0])
    with planned(settings_of(scene), Choice()) as rebuild:
        assert not rebuild.plan.passed, "it must not pass for nothing to do"

    service.start()
    scene.settle()
    found = collected(scene)
    assert [letter.value for letter in found.letters] == [large]
    assert (found.documents, found.torn) == (1, [])


def options(scene: Scene) -> list[str]:
    values = {
        "beamline": "test",
        "kafka.bootstrap_servers": scene.broker.bootstrap_servers,
        "kafka.group_id": scene.group,
        "kafka.topics": scene.topic,
        "tiled.uri": scene.tiled.uri,
    }
    return [option for name, value in values.items() for option in ("--set", f"{name}={value}")]


# ---------------------------------------------------------------- docs/runbooks/TiledIngestAbsent.md, DeadLetterFailed


def test_a_topic_that_takes_nothing_stops_it_with_the_next_step(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    prepare(scene, 500)
    service, large = scene.service().start_claimed(), garbage()
    produce(scene, large)
    assert service.ended(60) == 1
    (stopped,) = service.lines("stopped")
    assert stopped["reason"] == "DeadLetterFailed"
    for part in (letters_topic(scene), f"{scene.topic}[0] at 0", str(len(large)), "raise its max.message.bytes"):
        assert part in stopped["error"], stopped["error"]

    alter(scene, "max.message.bytes", "50000")
    service.start()
    scene.settle()
    assert [letter.value for letter in collected(scene).letters] == [large]


def test_a_refused_document_outlives_a_topic_that_takes_nothing_for_a_while_and_a_kill(
    tiled_postgres: TiledServer, tmp_path: Path
) -> None:
    """Its run is not called complete before: who finds that so takes all of it for settled."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(3, {"group.initial.rebalance.delay.ms": "0"}))
        scene = stack.enter_context(closing(Scene(cluster, tiled_postgres, topics_of(cluster), tmp_path)))
        cluster.create_topic(letters_topic(scene), 1, {"min.insync.replicas": "3"})
        documents, another = runs(2)
        descriptor = next(doc for name, doc in documents if name == "descriptor")
        unnamed = {**descriptor, "uid": str(uuid.uuid4()), "name": "a/b"}
        service = scene.service().start_claimed()
        leader = cluster.leader(scene.topic, 0)
        away = next(each for each in cluster.brokers if each is not leader)
        away.kill()  # everything else goes on
        scene.publication([documents[0], ("descriptor", unnamed), *documents[1:]]).publish()
        scene.publication(another).publish()
        service.wait_for("run_closed")
        time.sleep(1.0)
        assert (scene.letters(), scene.state(uid_of(documents))) == ([], "open")
        service.kill()
        away.restart()
        service.start()
        scene.settle()
        (held,) = scene.letters()
        assert (held.code, held.value) == ("schema", message("descriptor", unnamed))
        scene.compare(documents + another, "complete")


def test_a_topic_that_was_deleted_stops_it_and_is_made_again_at_the_next_start(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    service = scene.service(kafka__properties={"topic.metadata.propagation.max.ms": "1000"}).start_claimed()
    admin = AdminClient({"bootstrap.servers": scene.broker.bootstrap_servers})
    admin.delete_topics([letters_topic(scene)])[letters_topic(scene)].result(20)
    wait_until(lambda: letters_topic(scene) not in admin.list_topics(timeout=20).topics, "it is gone")
    scene.produce(b"no document of ours")
    assert service.ended(60) == 1
    (stopped,) = service.lines("stopped")
    assert stopped["reason"] == "DeadLetterFailed"
    assert letters_topic(scene) in stopped["error"]
    assert "create the topic, or let the service do so" in stopped["error"], stopped["error"]
    service.start()
    scene.settle()
    assert [letter.code for letter in scene.letters()] == ["undecodable"]
