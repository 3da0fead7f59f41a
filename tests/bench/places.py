"""Where a benchmark happens: a broker, and servers of Tiled that hold nothing yet."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import httpx

from tests.bench.topics import Topics
from tests.rig.fixtures import postgres_tiled
from tests.rig.postgres import Postgres
from tiled_ingest.demo.broker import Broker, broker_or_existing
from tiled_ingest.demo.tiled_server import TiledServer

Storage = Literal["duckdb", "postgresql"]
_REQUEST_S_MAX = 120.0


@dataclass(frozen=True)
class Node:
    """An empty container for the runs of one arm."""

    server: TiledServer
    storage: Storage
    key: str

    @property
    def uri(self) -> str:
        return f"{self.server.uri}/metadata/{self.key}"

    @property
    def http(self) -> httpx.Client:
        """A client of the server's API; to be closed."""
        headers = {"Authorization": f"Apikey {self.server.api_key}"}
        return httpx.Client(base_url=self.server.uri, headers=headers, timeout=_REQUEST_S_MAX)


class Place:
    """The parts, started when they are needed first; leave the block to end them."""

    def __init__(self, folder: Path | None = None) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self._broker: Broker | None = None
        self._postgres: Postgres | None = None
        self._topics: Topics | None = None

    def __enter__(self) -> Place:
        if self._folder is None:
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tiled-ingest-bench-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def folder(self) -> Path:
        """Where arms leave their logs."""
        assert self._folder is not None, "enter it first"
        return self._folder

    @property
    def broker(self) -> Broker:
        if self._broker is None:
            self._broker = self._stack.enter_context(broker_or_existing())
        return self._broker

    @property
    def topics(self) -> Topics:
        if self._topics is None:
            self._topics = Topics(self.broker)
        return self._topics

    @contextmanager
    def tiled(self, storage: Storage, readable: Path | None = None) -> Iterator[TiledServer]:
        """Run a server with nothing in it, for this block; `readable` is a folder of files that it may serve."""
        with self._server(storage, readable) as server:
            yield server

    def _server(self, storage: Storage, readable: Path | None) -> AbstractContextManager[TiledServer]:
        if storage == "duckdb":
            return TiledServer(readable_folders=[readable] if readable else [])
        if self._postgres is None:
            self._postgres = self._stack.enter_context(Postgres())
        return postgres_tiled(self._postgres)


def new_node(server: TiledServer, storage: Storage) -> Node:
    """Make an empty container."""
    node = Node(server, storage, f"arm-{uuid.uuid4().hex[:12]}")
    body = {"id": node.key, "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}
    with node.http as http:
        http.post("/metadata/", json=body).raise_for_status()
    return node
