"""`check` against a real broker and a real Tiled."""

import socket
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from tiled_ingest.settings import Settings, load
from tiled_ingest.tools.check import Finding, check, passed

pytestmark = pytest.mark.real


def settings(broker: Any, tiled_server: Any, topic: str, **changes: str) -> Settings:
    overrides = {
        "beamline": "sim",
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": f"group-{topic}",
        "kafka.topics": topic,
        "kafka.dead_letter_topic": f"{topic}-dead",
        "tiled.uri": tiled_server.uri,
        "tiled.api_key": tiled_server.api_key,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return load(None, overrides, {})


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def keys(tiled_server: Any) -> list[str]:
    answer = httpx.get(
        f"{tiled_server.uri}/search/", headers={"Authorization": f"Apikey {tiled_server.api_key}"}
    ).raise_for_status()
    return [item["id"] for item in answer.json()["data"]]


def test_all_is_there(broker: Any, tiled_server: Any, topic: Any) -> None:
    name = topic()
    broker.create_topic(f"{name}-dead")
    findings = check(settings(broker, tiled_server, name))
    assert passed(findings), findings
    found = by_name(findings)
    assert "1 partition" in found[f"topic {name}"].detail
    assert "new" in found["group"].detail
    assert found["tiled writing"].detail == "created, appended, read back, switched"
    embedded = "embedded" in found["tiled storage"].detail
    assert found["tiled storage"].verdict == ("warning" if embedded else "ok")
    assert found["clock"].verdict == "ok"
    assert "tiled clean-up" not in found
    assert not [key for key in keys(tiled_server) if key.startswith("tiled-ingest-check-")]


def test_topics_that_are_missing(broker: Any, tiled_server: Any, topic: Any) -> None:
    name = topic()
    findings = by_name(check(settings(broker, tiled_server, name, kafka__topics=f'["{name}x", "^{name}y"]')))
    assert findings[f"topic {name}x"].verdict == "failed"
    assert findings[f"topic ^{name}y"].verdict == "warning"
    assert findings["dead letters"].verdict == "failed"
    listed = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10).topics
    assert not {f"{name}x", f"{name}-dead"} & set(listed)  # looking created nothing


def test_a_topic_whose_messages_may_be_too_large(broker: Any, tiled_server: Any, topic: Any) -> None:
    name = topic()
    found = by_name(check(settings(broker, tiled_server, name, limits__message_bytes_max="1000")))
    assert found[f"topic {name}"].verdict == "warning"


def test_a_wrong_key(broker: Any, tiled_server: Any, topic: Any) -> None:
    wrong = "0123456789abcdef" * 2
    findings = check(settings(broker, tiled_server, topic(), tiled__api_key=wrong))
    assert by_name(findings)["tiled login"].verdict == "failed"
    assert wrong not in repr(findings)


def test_a_node_that_is_not_there(broker: Any, tiled_server: Any, topic: Any) -> None:
    uri = f"{tiled_server.uri}/metadata/nowhere"
    found = by_name(check(settings(broker, tiled_server, topic(), tiled__uri=uri)))
    assert "failed" in {found[name].verdict for name in ("tiled", "tiled login") if name in found}


def test_nobody_is_there(broker: Any, tiled_server: Any, topic: Any) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        findings = check(
            settings(
                broker,
                tiled_server,
                topic(),
                kafka__bootstrap_servers=address,
                tiled__uri=f"http://{address}",
            )
        )
    assert {finding.name: finding.verdict for finding in findings} == {
        "settings": "ok", "kafka": "failed", "tiled": "failed",
    }  # fmt: skip
