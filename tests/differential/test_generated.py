"""The differential test on documents that hypothesis draws, on an application of Tiled in this process.

`GENERATED_EXAMPLES=500` draws so many on each storage, others each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky_tiled_plugins import TiledWriter as Theirs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiled.client import from_context

from tests.rig.application import application
from tests.rig.fixtures import new_databases
from tiled_ingest import TiledWriter

from .allowed import sorted_out
from .compare import differences
from .generated import runs
from .recorder import Documents
from .sources import uid_of
from .tree import Catalog

ASKED = os.environ.get("GENERATED_EXAMPLES")
EXAMPLES = int(ASKED or 10)  # half a second each, on an idle machine


@pytest.fixture(scope="module", params=["duckdb", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(storage: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    uris = new_databases(request.getfixturevalue("postgres")) if storage == "postgresql" else {}
    with application(tmp_path_factory.mktemp("tiled"), **uris) as context:
        made = from_context(context)
        for name in ("theirs", "ours"):
            made.create_container(name)
        yield made


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=ASKED is None,
    phases=[Phase.generate],  # shrinking would write each run into two catalogs, for minutes
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_generated_runs_become_the_same_tree(client: Any, storage: str, data: st.DataObject) -> None:
    # TiledWriter's way with an infinity in metadata makes a run that cannot be read from PostgreSQL.
    documents: Documents = data.draw(runs(infinities=storage != "postgresql"))
    for name, writer in (("theirs", Theirs), ("ours", TiledWriter)):
        callback = writer(client[name], batch_size=3)
        for kind, doc in documents:
            callback(kind, doc)
    trees = [Catalog(client, (name,)).run(uid_of(documents)) for name in ("theirs", "ours")]
    _, unlisted = sorted_out(differences(*trees))
    assert not unlisted, "\n".join(map(str, unlisted))
