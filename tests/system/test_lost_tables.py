"""A table that Tiled has confirmed, and whose database does not have it: it answers 500 for ever, others do not.

DuckDB in Tiled comes to that by itself, when another client's read ends in the middle of the table's creation; on
PostgreSQL somebody must drop it. No document is at fault, so no run may fail for it.
"""

from __future__ import annotations

import pytest
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from tests.rig.postgres import Postgres
from tests.system.publishing import runs, uid_of
from tests.system.scene import Scene
from tests.system.test_crashes import NODE
from tests.system.test_readers import only_primary

pytestmark = pytest.mark.real


def drop(postgres: Postgres, name: str) -> None:
    """Drop an SQL table, in whichever of Tiled's databases it is."""
    with dbapi.connect(postgres.uri(), autocommit=True) as server, server.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'tables_%'")
        databases = [row[0] for row in cursor.fetchall()]
    for database in databases:
        with dbapi.connect(postgres.uri(database), autocommit=True) as tables, tables.cursor() as cursor:
            cursor.execute(f'DROP TABLE IF EXISTS "{name}"')


def test_a_table_that_is_lost_before_its_first_rows_is_written_anew(postgres_scene: Scene, postgres: Postgres) -> None:
    scene = postgres_scene
    documents = only_primary(runs()[0])
    uid = uid_of(documents)
    dropped: list[str] = []

    def lose() -> None:
        (source,) = scene.client[uid]["primary"].base["internal"].data_sources()
        drop(postgres, source.parameters["table_name"])
        dropped.append(source.parameters["table_name"])

    scene.proxy.watch("POST", rf"{NODE}/{uid}/primary$", after=lose)
    service = scene.service(tiled__timeout_s=30.0).start()  # the first client of Tiled takes seconds to be made
    scene.publication(documents).publish()
    scene.settle()
    assert dropped, "the proxy did not see the table's creation"
    assert service.lines("unreadable"), "the table was there after all"
    scene.verify()
