"""The Tiled that the suite starts is taken by `run` and `check`, or refused, clearly and before anything is done."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import httpx
import pytest

from tests.differential.compose import Composer, key
from tests.rig.fixtures import TopicFactory
from tests.system.publishing import Publication
from tests.system.service import Service
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.settings import load
from tiled_ingest.tools.check import check, passed

pytestmark = pytest.mark.real
OLDEST = (0, 2, 20)


def _version(tiled: TiledServer) -> str:
    return str(httpx.get(f"{tiled.uri}/", timeout=30).raise_for_status().json()["library_version"])


def _committed(broker: Broker, topic: str, group: str) -> int:
    consumer = ck.Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group, "log_level": 2})
    try:
        return int(consumer.committed([ck.TopicPartition(topic, 0)], 20)[0].offset)
    finally:
        consumer.close()


def test_this_tiled_is_taken_or_refused(
    broker: Broker, tiled_server: TiledServer, topic: TopicFactory, tmp_path: Path
) -> None:
    run = Composer()
    run.descriptor({"x": key()})
    run.event({"x": 0.5})
    name, group = topic(), f"versions.{uuid.uuid4().hex[:8]}"
    Publication(broker.bootstrap_servers, name, run.stop()).publish()
    settings: dict[str, Any] = {
        "beamline": "test",
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": group,
        "kafka.topics": [name],
        "tiled.uri": tiled_server.uri,
        "tiled.api_key": tiled_server.api_key,
    }
    service = Service(tmp_path, settings).start("--until-end")
    status = service.ended(60.0)
    findings = check(load(environ=service.environment))
    version, held = _version(tiled_server), _held(tiled_server, run.uid)
    if tuple(map(int, version.split(".")[:3])) >= OLDEST:
        assert (status, held, _committed(broker, name, group)) == (0, 200, 4), service.tail()
        assert passed(findings), findings
        return
    assert (held, _committed(broker, name, group)) == (404, ck.OFFSET_INVALID)
    sentence = f"Tiled {version} is too old: 0.2.20 or newer is needed"
    assert status == 1
    assert sentence in service.text()
    assert [(each.name, each.detail) for each in findings if each.verdict == "failed"] == [("tiled version", sentence)]


def _held(tiled: TiledServer, uid: str) -> int:
    """What Tiled answers when it is asked for the run."""
    key = {"Authorization": f"Apikey {tiled.api_key}"}
    return httpx.get(f"{tiled.uri}/metadata/{uid}", headers=key, timeout=30).status_code
