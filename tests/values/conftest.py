"""A stage, and Tiled's own client to see what is on it, on each storage in turn."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tiled.client import from_uri

from tests.values.stage import Stage
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.tiled.session import Session


@pytest.fixture
def stage(tiled_server: TiledServer) -> Iterator[Stage]:
    session = Session.at(tiled_server.uri, tiled_server.api_key, timeout_s=30)
    made = Stage(session)
    made.world.logs = {}
    made.world.assign()
    yield made
    session.close()


@pytest.fixture(scope="session")
def readers() -> Iterator[dict[str, Any]]:
    clients: dict[str, Any] = {}
    yield clients
    for client in clients.values():
        client.context.close()


@pytest.fixture
def reader(tiled_server: TiledServer, readers: dict[str, Any]) -> Any:
    if tiled_server.uri not in readers:
        readers[tiled_server.uri] = from_uri(tiled_server.uri, api_key=tiled_server.api_key)
    return readers[tiled_server.uri]


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())
