"""The compose files: by the specification's schema, by what they promise, and by a real run of the same processes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from deploy.native import started
from tiled.client import from_uri

from tests.deploy.tools import CHART, ROOT, compose_schema, run
from tiled_ingest.settings import Limits, load

DEPLOY = ROOT / "deploy"
FILES = [DEPLOY / "compose.yaml", DEPLOY / "compose.monitoring.yaml"]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def services() -> dict[str, Any]:
    """The services of both files."""
    return {name: each for path in FILES for name, each in yaml.safe_load(path.read_text())["services"].items()}


@each_file
def test_the_schema_takes_them(path: Path) -> None:
    validator = jsonschema.Draft201909Validator(json.loads(compose_schema().read_text()))
    content = yaml.safe_load(path.read_text())
    content.pop("name", None)  # this copy of the schema is older than the project's name
    assert [error.message for error in validator.iter_errors(content)] == []
    content["services"][next(iter(content["services"]))]["enviroment"] = {}
    assert not validator.is_valid(content)


@each_file
def test_no_password_has_a_default(path: Path) -> None:
    text = path.read_text()
    assert "${" in text
    assert set(re.findall(r"\$\{[^}]*\}", text)) == set(re.findall(r"\$\{\w+:\?[^}]+\}", text))
    secret = re.compile(r"^\s+\w*(?:PASSWORD|API_KEY)\w*: (.*)$", re.MULTILINE)
    assert all(value.startswith("${") for value in secret.findall(text))
    named = set(re.findall(r"\$\{(\w+)", text))
    assert named <= {line.rstrip("=") for line in (DEPLOY / "dev" / "example.env").read_text().split() if "=" in line}


def test_every_mounted_file_is_there() -> None:
    mounts = [each for service in services().values() for each in service.get("volumes", []) if each.startswith(".")]
    sources = [(DEPLOY / mount.split(":")[0]).resolve() for mount in mounts]
    assert [path for path in sources if not path.is_file()] == []
    assert {CHART / "files" / "alerts.yaml", CHART / "files" / "dashboard.json"} <= set(sources)


def test_the_broker_keeps_its_records_in_its_volume() -> None:
    """Not only beside it: then they go with the container. The image's own place is under /tmp."""
    kafka = services()["kafka"]
    mounted = {target for name, target in (each.split(":") for each in kafka["volumes"]) if not name.startswith(".")}
    assert kafka["environment"].get("KAFKA_LOG_DIRS") in mounted
    composed = yaml.safe_load(FILES[0].read_text())
    assert {each.split(":")[0] for each in kafka["volumes"]} <= set(composed["volumes"])


def test_images_are_pinned_and_ports_are_local() -> None:
    for name, service in services().items():
        assert re.search(r":(v?\d[\w.]*|dev)$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_the_service_has_the_rights_that_it_has_in_a_pod() -> None:
    ingest = services()["ingest"]
    assert ingest["read_only"] is True
    assert ingest["cap_drop"] == ["ALL"]
    assert ingest["security_opt"] == ["no-new-privileges:true"]
    limits = Limits()
    assert int(ingest["stop_grace_period"].rstrip("s")) >= limits.drain_s_max + limits.commit_s_max + 10


def test_its_settings_are_settings() -> None:
    environment: Mapping[str, str] = services()["ingest"]["environment"]
    assert load(environ=environment).beamline == "sim"


@pytest.mark.timeout(900)  # Tiled's catalog is made in a new PostgreSQL
def test_the_same_processes_without_containers_bring_runs_into_tiled() -> None:
    """What a newcomer does with `python -m deploy.native`, up to a reader's look."""
    with started() as native:
        runs = native.run_beamline()
        native.wait_until_settled()
        client = from_uri(native.tiled_uri, api_key=native.api_key)
        states = {uid: client[uid].metadata["tiled_ingest"]["state"] for uid in runs}
        told = [each for each in native.check() if each.name.startswith(("tiled", "topic")) and each.verdict != "ok"]
        addresses = native.addresses()
        rows = [len(client[uid]["primary"].base["internal"].read()) for uid in runs]
        client.context.http_client.close()
    assert list(states.values()) == ["complete"] * 3
    assert rows == [20, 10, 10]
    assert told == [], "the preflight, with all that readers want"
    where = dict(line.split(": ", 1) for line in addresses.splitlines())
    assert list(where) == ["Tiled", "Kafka", "service"]
    assert where["Kafka"] == native.composed.here("kafka:9092")


def test_native_says_how_to_use_it() -> None:
    assert "--keep" in run([sys.executable, "-m", "deploy.native", "--help"])
