"""What readiness and `check` are told about Tiled."""

import json
from typing import Any

import pytest

from tests.tiled.scripted import ABOUT, ScriptedServer, answer
from tiled_ingest.core.writes import Denied, Done, Missing, Outcome, Unprocessed
from tiled_ingest.demo.processes import free_port
from tiled_ingest.tiled.probe import SCOPES_NEEDED, Found, probe
from tiled_ingest.tiled.session import Session

NODE = answer(body=json.dumps({"data": {"attributes": {"metadata": {}, "structure_family": "container"}}}).encode())


def probed(uri: str, key: str | None = None) -> Outcome:
    session = Session.at(uri, key)
    try:
        return probe(session)
    finally:
        session.close()


@pytest.mark.real
def test_a_real_tiled_is_found(tiled_server: Any) -> None:
    outcome = probed(tiled_server.uri, tiled_server.api_key)
    assert isinstance(outcome, Done)
    found: Found = outcome.value
    assert found.version.startswith("0.")
    assert found.scopes is None  # a single-user server does not tell
    assert not found.scopes_missing


@pytest.mark.real
def test_a_real_tiled_without_the_node_or_the_key(tiled_server: Any) -> None:
    assert isinstance(probed(f"{tiled_server.uri}/metadata/nowhere", tiled_server.api_key), Missing)
    assert isinstance(probed(tiled_server.uri, "0123456789abcdef"), Denied)


def test_nobody_there() -> None:
    assert isinstance(probed(f"http://127.0.0.1:{free_port()}"), Unprocessed)


@pytest.mark.parametrize("version", ["0.2.19", "0.1.0b17", "unknown", ""])
def test_an_old_tiled_is_refused_by_name(version: str) -> None:
    with ScriptedServer(about={**ABOUT, "library_version": version}) as server:
        outcome = probed(server.uri)
        assert server.seen == []
    assert isinstance(outcome, Denied)
    assert "0.2.20" in outcome.detail


@pytest.mark.parametrize("version", ["0.2.20", "0.2.20.dev3+gabc", "0.3", "1.0.0rc1"])
def test_a_newer_tiled_is_taken(version: str) -> None:
    with ScriptedServer(NODE, answer(404), about={**ABOUT, "library_version": version}) as server:
        assert isinstance(probed(server.uri), Done)


def test_the_scopes_of_a_key_are_told() -> None:
    key = answer(body=json.dumps({"scopes": ["read:metadata", "read:data"]}).encode())
    with ScriptedServer(NODE, key) as server:
        outcome = probed(server.uri)
    assert isinstance(outcome, Done)
    assert outcome.value.scopes_missing == SCOPES_NEEDED - {"read:metadata", "read:data"}


def test_an_inheriting_key_has_its_owners_scopes() -> None:
    key = answer(body=json.dumps({"scopes": ["inherit"]}).encode())
    owner = answer(body=json.dumps({"roles": [{"scopes": sorted(SCOPES_NEEDED)}]}).encode())
    with ScriptedServer(NODE, key, owner) as server:
        outcome = probed(server.uri)
    assert isinstance(outcome, Done)
    assert not outcome.value.scopes_missing
