"""A scene for every test of this folder; when a test fails, what its services said is shown."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.rig.fixtures import TopicFactory
from tests.system.scene import Scene
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

LINES_SHOWN = 150


@pytest.fixture
def scene(broker: Broker, tiled_server: TiledServer, topic: TopicFactory, tmp_path: Path) -> Iterator[Scene]:
    """A fresh topic and group, for each storage of Tiled in turn."""
    made = Scene(broker, tiled_server, topic, tmp_path)
    yield made
    made.close()


@pytest.fixture
def duckdb_scene(broker: Broker, tiled_duckdb: TiledServer, topic: TopicFactory, tmp_path: Path) -> Iterator[Scene]:
    """The same where the storage plays no part."""
    made = Scene(broker, tiled_duckdb, topic, tmp_path)
    yield made
    made.close()


@pytest.fixture
def postgres_scene(broker: Broker, tiled_postgres: TiledServer, topic: TopicFactory, tmp_path: Path) -> Iterator[Scene]:
    """The same where several write at once: DuckDB in Tiled is for one client at a time."""
    made = Scene(broker, tiled_postgres, topic, tmp_path)
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        arguments = getattr(item, "funcargs", {})
        for made in arguments.values():
            for service in made.services if isinstance(made, Scene) else ():
                report.sections.append((f"log of {service.name}", service.tail(LINES_SHOWN)))
    return report
