"""A scene for every test of this folder. What was noted goes into the report, and of a failure the services' logs."""

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
    scenes = [made for made in getattr(item, "funcargs", {}).values() if isinstance(made, Scene)]
    for made in scenes if report.when == "call" else ():
        report.user_properties.extend(("note", note) for note in made.notes)
        report.sections.append(("what happened", "\n".join(made.notes)))
        if report.failed:
            report.sections.extend((f"log of {each.name}", each.tail(LINES_SHOWN)) for each in made.services)
    return report
