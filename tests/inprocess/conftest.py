"""An application of Tiled in this process: SQLite catalog, DuckDB tables, no server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tiled.catalog import from_uri
from tiled.client import Context, from_context
from tiled.server.app import build_app


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("tiled")
    storage = [str(folder / "files"), f"duckdb:///{folder / 'tables.duckdb'}"]
    catalog = from_uri(f"sqlite:///{folder / 'catalog.db'}", writable_storage=storage, init_if_not_exists=True)
    with Context.from_app(build_app(catalog)) as context:
        yield from_context(context)
