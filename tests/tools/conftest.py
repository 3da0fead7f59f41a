"""What the tools look at: runs that the service has written, on each storage, and a way to spoil them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from tiled.structures.table import TableStructure

from tests.rig.fixtures import topics_of
from tests.system.conftest import duckdb_scene  # noqa: F401 - a fixture
from tests.system.conftest import scene as each_scene
from tests.system.publishing import Documents, by_run, interleaved, runs
from tests.system.scene import Scene
from tiled_ingest.demo.broker import Broker
from tiled_ingest.settings import Settings, load

ARROW = "application/vnd.apache.arrow.file"


scene = each_scene  # a fixture, too


@dataclass
class Written:
    """A topic whose runs the service has written into Tiled, completely.

    Attributes
    ----------
    runs
        Documents of each run, by uid.
    """

    scene: Scene
    runs: dict[str, Documents]
    _untouched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._untouched = list(self.runs)

    def take(self) -> Any:
        """Return a run that no other test has spoiled, as a Tiled client."""
        return self.scene.client[self._untouched.pop(0)]

    @property
    def settings(self) -> Settings:
        return settings_of(self.scene)


def settings_of(scene: Scene, **more: str) -> Settings:
    """The settings of the scene's service, straight to Tiled."""
    return load(
        None,
        {
            "beamline": "test",
            "kafka.bootstrap_servers": scene.broker.bootstrap_servers,
            "kafka.group_id": scene.group,
            "kafka.topics": scene.topic,
            "tiled.uri": scene.tiled.uri,
            "tiled.api_key": scene.tiled.api_key,
            **more,
        },
        {},
    )


@pytest.fixture(scope="module", params=["duckdb", "postgresql"])
def written(
    request: pytest.FixtureRequest, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Written]:
    """Six runs, interleaved three by three, written by one service that has ended since."""
    tiled = request.getfixturevalue({"duckdb": "tiled_duckdb", "postgresql": "tiled_postgres"}[request.param])
    scene = Scene(broker, tiled, topics_of(broker), tmp_path_factory.mktemp("written"))
    try:
        yield Written(scene, by_run(written_by_service(scene, 2)))
    finally:
        scene.close()


def written_by_service(scene: Scene, rounds: int = 1) -> Documents:
    """Publish runs, and let a service write them and end."""
    documents = [document for seed in range(rounds) for document in interleaved(runs(), seed)]
    scene.publication(documents).publish()
    service = scene.service().start()
    scene.settle(limit_s=240)
    assert service.stop() == 0
    return documents


Change = Callable[[pa.Table], pa.Table]


def rewrite(run: Any, stream: str, change: Change) -> None:
    """Replace the rows of a stream's table."""
    container = run[stream].base
    node = container["internal"]
    table = change(read(node))
    metadata = dict(node.metadata)
    container.delete_contents("internal", external_only=False)
    schema = table.schema.remove_metadata()
    new = container.create_appendable_table(schema=schema, key="internal", metadata=metadata)
    new.append_partition(0, table)


def read(node: Any) -> pa.Table:
    """The table's rows as Arrow, in the order of its structure."""
    buffer = io.BytesIO()
    node.export(buffer, format=ARROW)
    table = pa.ipc.open_file(pa.BufferReader(buffer.getvalue())).read_all()
    structure: TableStructure = node.structure()
    return table.select(structure.columns).cast(structure.arrow_schema_decoded)
