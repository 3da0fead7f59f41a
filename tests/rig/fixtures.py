"""The rig's parts as fixtures. `KAFKA_BOOTSTRAP_SERVERS` names a broker to use instead of our own, `TEST_TILED_PYTHON`
an interpreter whose Tiled is started instead of the pinned one (`python -m tests.versions`).
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.rig.postgres import Postgres
from tiled_ingest.demo.broker import Broker, broker_or_existing
from tiled_ingest.demo.tiled_server import TiledServer

TopicFactory = Callable[..., str]
TILED_PYTHON = os.environ.get("TEST_TILED_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """Run a broker for the session: leave it running. A test that kills one starts its own."""
    with broker_or_existing() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(scope="session")
def tiled_duckdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TiledServer]:
    """Run Tiled with an SQLite catalog and DuckDB tables: one client at a time, please.

    It may read what tests write below their temporary folders, as detectors would.
    """
    with TiledServer(readable_folders=[tmp_path_factory.getbasetemp()], python=TILED_PYTHON) as running:
        yield running


@pytest.fixture(scope="session")
def tiled_postgres(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TiledServer]:
    """Run Tiled with its catalog and tables in PostgreSQL; it may read what tests write."""
    with postgres_tiled(postgres, readable_folders=[tmp_path_factory.getbasetemp()]) as running:
        yield running


@pytest.fixture(scope="session", params=["duckdb", "postgresql"])
def tiled_server(request: pytest.FixtureRequest) -> TiledServer:
    """Each storage in turn."""
    server: TiledServer = request.getfixturevalue(
        {"duckdb": "tiled_duckdb", "postgresql": "tiled_postgres"}[request.param]
    )
    return server


@pytest.fixture
def topic(broker: Broker) -> TopicFactory:
    """`topic(hint="docs", partitions=1, config=None)` makes a fresh topic and returns its name."""
    return topics_of(broker)


def topics_of(broker: Broker) -> TopicFactory:
    """Return what makes fresh topics at this broker."""

    def create(hint: str = "docs", partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = f"{hint}.{uuid.uuid4().hex[:12]}"
        broker.create_topic(name, partitions, config)
        return name

    return create


def postgres_tiled(postgres: Postgres, folder: Path | None = None, **options: Any) -> TiledServer:
    """Return a Tiled server, not yet started, on two fresh databases; `options` are `TiledServer`'s."""
    databases: dict[str, Any] = {**new_databases(postgres), **options}
    return TiledServer(folder, **databases, python=TILED_PYTHON)


def new_databases(postgres: Postgres) -> dict[str, str]:
    """Return the addresses of two fresh databases: `catalog_uri` and `storage_uri`."""
    mark = uuid.uuid4().hex[:8]
    catalog, tables = (postgres.create_database(f"{part}_{mark}") for part in ("catalog", "tables"))
    return {"catalog_uri": postgres.uri(catalog, "postgresql+asyncpg"), "storage_uri": postgres.uri(tables)}
