"""A broker that wants TLS and a password, and a Tiled key that expires: the right ones work, wrong ones are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.rig.accounts import Accounts
from tests.rig.fixtures import topics_of
from tests.rig.secure import PASSWORD, SecureBroker, secure_broker
from tests.system.publishing import interleaved, runs, uid_of
from tests.system.scene import Scene
from tests.system.service import Service
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.tiled.probe import SCOPES_NEEDED

pytestmark = pytest.mark.real
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    made = secure_broker(tmp_path_factory.mktemp("secure") / "kafka")
    with made.broker:
        yield made


@pytest.fixture
def scene(secure: SecureBroker, tiled_duckdb: TiledServer, tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(secure.broker, tiled_duckdb, topics_of(secure.broker), tmp_path)) as made:
        yield made


def service_of(scene: Scene, secure: SecureBroker, password: str, **more: Any) -> Service:
    """A service that knows the password from a file only."""
    secret = scene.folder / "password"
    secret.write_text(password + "\n")
    properties = {**secure.client_properties, "sasl.password_file": str(secret), **more}
    return scene.service(kafka__bootstrap_servers=secure.bootstrap_servers, kafka__properties=properties)


def test_tls_and_scram_with_the_password_in_a_file(secure: SecureBroker, scene: Scene) -> None:
    service = service_of(scene, secure, PASSWORD).start()
    publication = scene.publication(runs(1)[0])
    publication.publish()
    scene.produce(b"no document of ours")
    scene.settle()
    scene.compare(publication.published, "complete")
    assert [letter.code for letter in scene.letters()] == ["undecodable"]
    shown = service.text() + service.get("/metrics")[1] + service.get("/status")[1] + service.get("/")[1]
    assert PASSWORD not in shown


def test_a_wrong_password_stops_it_and_is_not_shown(secure: SecureBroker, scene: Scene) -> None:
    service = service_of(scene, secure, "a-wrong-sentinel-51ab").start()
    assert service.ended(40) == 1
    stopped = service.lines("stopped")[-1]
    assert stopped["reason"] == "Forbidden"
    assert "Authentication failed" in stopped["error"]
    assert "a-wrong-sentinel-51ab" not in service.text()


def test_an_expired_certificate_is_waited_for_and_told(tiled_duckdb: TiledServer, tmp_path: Path) -> None:
    """It can be renewed while we wait."""
    secure = secure_broker(tmp_path / "kafka", expired=True)
    with ExitStack() as stack:
        stack.enter_context(secure.broker)
        scene = stack.enter_context(closing(Scene(secure.broker, tiled_duckdb, topics_of(secure.broker), tmp_path)))
        service = service_of(scene, secure, PASSWORD).start()
        assert "certificate verify failed" in service.wait_for("kafka_error")["error"]
        assert any("certificate verify failed" in reason for reason in service.status()["not_ready"])
        assert service.stop() == 0
        assert len(service.text().splitlines()) < 10, "a line for every attempt hides what matters"


KEY_S = 20  # Tiled keeps what it knows of a key for a moment: the end comes a little later


def test_a_key_that_expires_mid_run_stops_it_and_a_new_one_goes_on(broker: Broker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        accounts = Accounts(tmp_path / "accounts")
        stack.callback(accounts.tiled.stop)
        accounts.start()
        scene = stack.enter_context(closing(Scene(broker, accounts.tiled, topics_of(broker), tmp_path)))
        key = accounts.key(SCOPES_NEEDED, expires_in=KEY_S)
        service = scene.service(tiled__api_key=key).start_claimed()
        publication = scene.publication(interleaved(runs(2)))
        publication.steadily(0.9, portion=2, pause_s=0.5)
        service.wait_for("flush")
        assert service.ended(KEY_S + 40) == 1
        publication.pause()
        stopped = service.lines("stopped")[-1]
        assert (stopped["reason"], "401" in stopped["error"]) == ("Forbidden", True)
        assert key not in service.text()
        assert 0 < scene.committed() < scene.end()
        scene.service("renewed", tiled__api_key=accounts.key(SCOPES_NEEDED)).start()
        publication.publish()
        scene.settle()
        scene.verify()


def test_the_example_consumer_logs_in_too(secure: SecureBroker, scene: Scene, tmp_path: Path) -> None:
    topic = scene.new_topic("completed")
    publication = scene.publication(runs(1)[0])
    publication.publish()
    service = service_of(scene, secure, PASSWORD)
    service.settings["kafka.completed_topic"] = topic
    service.start()
    scene.settle()
    given = {**secure.client_properties, "sasl.password": PASSWORD}
    (tmp_path / "client").write_text("# ours\n" + "".join(f"{name} = {value}\n" for name, value in given.items()))
    command = [sys.executable, "-m", "deploy.examples.on_completed", "--topic", topic, "--runs", "1"]
    where = ["--bootstrap-servers", secure.bootstrap_servers, "--properties", str(tmp_path / "client")]
    done = subprocess.run(
        [*command, *where, "--tiled", scene.tiled.uri], cwd=ROOT,
        env={**os.environ, "TILED_API_KEY": scene.tiled.api_key},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["uid"] == uid_of(publication.published)
