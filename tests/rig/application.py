"""An application of Tiled in this process, no server: SQLite catalog and DuckDB tables, or databases elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tiled.catalog import from_uri
from tiled.client import Context
from tiled.server.app import build_app


class EverybodyMay:
    """The least of an access policy: everybody may everything; Tiled itself refuses tags that are not defined."""

    async def allowed_scopes(self, *_: Any) -> set[str]:
        return {"read:metadata", "read:data", "write:metadata", "write:data", "create:node", "register"}

    async def filters(self, *_: Any) -> list[Any]:
        return []

    async def init_node(self, *_: Any, access_tags: Any = None) -> tuple[bool, Any]:
        return False, access_tags

    async def modify_node(self, *_: Any, access_tags: Any = None) -> tuple[bool, Any]:
        return False, access_tags


@contextmanager
def application(
    folder: Path,
    tags: Sequence[str] = (),
    *,
    catalog_uri: str | None = None,
    storage_uri: str | None = None,
    **catalog: Any,
) -> Iterator[Context]:
    """Run an application on this folder; with `tags`, one with an access policy in whose catalog they are defined.

    Without addresses of databases these are files in the folder; `tags` can be defined only there.
    """
    storage = [str(folder / "files"), storage_uri or f"duckdb:///{folder / 'tables.duckdb'}"]
    uri = catalog_uri or f"sqlite:///{folder / 'catalog.db'}"
    nodes = from_uri(uri, writable_storage=storage, init_if_not_exists=True, **catalog)
    with Context.from_app(build_app(nodes, access_policy=EverybodyMay() if tags else None)) as context:
        if tags:
            define_tags(folder / "catalog.db", tags)
        yield context


def define_tags(catalog: Path, tags: Sequence[str]) -> None:
    """Define access tags in a catalog's database, an SQLite file."""
    with closing(sqlite3.connect(catalog)) as database, database:
        rows = [(tag,) for tag in tags]
        database.executemany("INSERT INTO access_tags (name, is_public) VALUES (?, false)", rows)
