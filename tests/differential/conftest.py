"""A container for each writer, on each storage of Tiled."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from bluesky_tiled_plugins import TiledWriter as Theirs
from tiled.client import from_uri

from tests.system.publishing import Publication
from tests.system.service import Service
from tiled_ingest import TiledWriter
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

from .recorder import Documents
from .sources import MAKERS, NOT_YET_THROUGH_KAFKA, Sources, uid_of
from .tree import Catalog, Node, Path

Tree = dict[Path, Node]
WRITERS: dict[str, Callable[..., Any]] = {"theirs": Theirs, "ours": TiledWriter}


@dataclass
class Scene:
    """A server, and what each writer makes of each source there."""

    server: TiledServer
    client: Any
    sources: Sources
    trees: dict[tuple[str, str], Tree] = field(default_factory=dict)

    @property
    def storage(self) -> str:
        return self.server.storage

    def tree(self, writer: str, source: str) -> Tree:
        """Return what a writer makes of a source: written once."""
        if (writer, source) not in self.trees:
            documents = self.sources.documents(source)
            self.write(writer, documents)
            self.trees[writer, source] = self.read(writer, uid_of(documents))
        return self.trees[writer, source]

    def write(self, writer: str, documents: Documents, **options: Any) -> None:
        callback = WRITERS[writer](self.place(writer), **options)
        for name, doc in copy.deepcopy(documents):
            callback(name, doc)

    def read(self, writer: str, uid: str) -> Tree:
        return Catalog(self.client, (writer,)).run(uid)

    def place(self, writer: str) -> Any:
        """The container in which a writer's runs are."""
        if writer not in self.client:
            self.client.create_container(writer, specs=["CatalogOfBlueskyRuns"])
        return self.client[writer]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("detectors"))


@pytest.fixture(scope="session")
def scene(tiled_server: TiledServer, sources: Sources) -> Iterator[Scene]:
    client = from_uri(tiled_server.uri, api_key=tiled_server.api_key)
    yield Scene(tiled_server, client, sources)
    client.context.close()


@pytest.fixture(scope="session")
def through_kafka(scene: Scene, broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Every source through Kafka and the service, one run after the other in one partition."""
    topic = f"differential.{uuid.uuid4().hex[:12]}"
    broker.create_topic(topic, 1)
    scene.place("kafka")
    runs = [scene.sources.documents(name) for name in MAKERS if name not in NOT_YET_THROUGH_KAFKA]
    Publication(broker.bootstrap_servers, topic, [document for run in runs for document in run]).publish()
    settings = {
        "beamline": "test",
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": f"{topic}.ingest",
        "kafka.topics": [topic],
        "tiled.uri": f"{scene.server.uri}/metadata/kafka",
        "tiled.api_key": scene.server.api_key,
    }
    service = Service(tmp_path_factory.mktemp("service"), settings)
    service.start()
    try:
        service.wait_for("run_closed", count=len(runs), limit_s=120.0)
        assert service.stop() == 0, service.tail()
    finally:
        service.kill()
    for name in MAKERS:
        if name not in NOT_YET_THROUGH_KAFKA:
            scene.trees["kafka", name] = scene.read("kafka", uid_of(scene.sources.documents(name)))
    return scene
