"""The topic of completed runs, on real parts: what is said of a run, when, and what an analysis makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from tests.system.publishing import by_run, interleaved, runs
from tests.system.scene import Scene
from tiled_ingest.settings import load
from tiled_ingest.tools.check import check

pytestmark = pytest.mark.real
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def topic_of(duckdb_scene: Scene) -> str:
    return duckdb_scene.new_topic("completed")


def announced(scene: Scene, topic: str, look: Callable[[dict[str, Any]], object] = lambda _: None) -> list[Any]:
    """All that is in the topic now; `look` at each as soon as it is read."""
    settings = {"bootstrap.servers": scene.broker.bootstrap_servers, "group.id": uuid.uuid4().hex}
    consumer = ck.Consumer(settings | {"enable.partition.eof": True})
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    found: list[Any] = []
    while (message := consumer.poll(20)) is not None and not message.error():
        found.append(json.loads(message.value()))
        assert message.key() == found[-1]["uid"].encode()
        look(found[-1])
    consumer.close()
    return found


def test_each_run_is_announced_once_tiled_has_it(duckdb_scene: Scene, topic_of: str) -> None:
    scene = duckdb_scene
    service = scene.service(kafka__completed_topic=topic_of).start()
    publication = scene.publication(interleaved(runs()))
    publication.publish()
    scene.settle()
    said = announced(scene, topic_of)
    expected = by_run(publication.published)
    assert Counter(each["uid"] for each in said) == dict.fromkeys(expected, 1)
    for each in said:
        assert (each["version"], each["beamline"], each["state"], each["path"]) == (
            1,
            "test",
            "complete",
            [each["uid"]],
        )
        assert each["rows"] == scene.client[each["uid"]].metadata["tiled_ingest"]["rows"]
        assert sum(each["rows"].values()) > 60
    assert len(service.lines("run_closed")) == 3
    assert not [each for each in check(load(environ=service.environment)) if each.verdict == "failed"]


def test_the_example_analyses_each_run(duckdb_scene: Scene, topic_of: str) -> None:
    scene = duckdb_scene
    scene.service(kafka__completed_topic=topic_of).start()
    publication = scene.publication(interleaved(runs(2)))
    publication.publish()
    scene.settle()
    command = [sys.executable, "-m", "deploy.examples.on_completed", "--topic", topic_of, "--runs", "2"]
    where = ["--bootstrap-servers", scene.broker.bootstrap_servers, "--tiled", scene.tiled.uri]
    done = subprocess.run(
        [*command, *where], cwd=ROOT, env={**os.environ, "TILED_API_KEY": scene.tiled.api_key},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    results = {each["uid"]: each["means"] for each in map(json.loads, done.stdout.splitlines())}
    for uid, documents in by_run(publication.published).items():
        primary = next(doc["uid"] for name, doc in documents if name == "descriptor" and doc["name"] == "primary")
        frames: list[float] = []
        for _, doc in documents:
            if doc.get("descriptor") == primary:
                value = doc["data"]["frames"]
                frames += value if isinstance(value, list) else [value]
        assert results[uid]["primary"]["frames"] == pytest.approx(sum(frames) / len(frames))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_end_announces_it_all_the_same(duckdb_scene: Scene, topic_of: str, when: str) -> None:
    """Killed when Tiled calls the run complete, and before anybody was told."""
    scene = duckdb_scene
    service = scene.service(kafka__completed_topic=topic_of).start_claimed()
    publication = scene.publication(runs(1)[0])
    publication.publish_to(0.9)
    service.wait_for("flush")
    cut = scene.cut_at("DELETE", "/stream/close/", service.kill, when=when)
    publication.publish()
    scene.wait_for(cut)
    assert announced(scene, topic_of) == []
    service.start()
    scene.settle()
    scene.verify()
    assert [each["state"] for each in announced(scene, topic_of)] == ["complete"]


def test_a_missing_topic_keeps_the_end_unsettled_until_it_is_there(duckdb_scene: Scene) -> None:
    scene, topic = duckdb_scene, f"completed.{uuid.uuid4().hex[:8]}"
    soon = {"topic.metadata.propagation.max.ms": "200"}  # a missing topic is believed to be missing so soon
    service = scene.service(kafka__completed_topic=topic, kafka__properties=soon).start()
    publication = scene.publication(runs(1)[0])
    publication.publish()
    refused = service.wait_for("announcement_refused")
    assert "UNKNOWN_TOPIC" in refused["detail"]
    assert service.lines("run_closed") == []
    assert scene.committed() == scene.end() - 1
    (failed,) = [each for each in check(load(environ=service.environment)) if each.verdict == "failed"]
    assert (failed.name, "create it" in failed.hint) == (f"topic {topic}", True)
    scene.broker.create_topic(topic)
    scene.settle()
    scene.compare(publication.published, "complete")
    assert len(announced(scene, topic)) == 1
