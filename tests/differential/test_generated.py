"""The differential test on documents that hypothesis draws: two applications of Tiled in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bluesky_tiled_plugins import TiledWriter as Theirs
from hypothesis import HealthCheck, Phase, given, settings
from tiled.client import from_context

from tests.rig.application import application
from tiled_ingest import TiledWriter

from .allowed import sorted_out
from .compare import differences
from .generated import runs
from .recorder import Documents
from .sources import uid_of
from .tree import Catalog

EXAMPLES = 10  # half a second each, on an idle machine


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with application(tmp_path_factory.mktemp("tiled")) as context:
        made = from_context(context)
        for name in ("theirs", "ours"):
            made.create_container(name)
        yield made


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # shrinking would write each run into two catalogs, for minutes
    suppress_health_check=list(HealthCheck),
)
@given(documents=runs())
def test_generated_runs_become_the_same_tree(client: Any, documents: Documents) -> None:
    for name, writer in (("theirs", Theirs), ("ours", TiledWriter)):
        callback = writer(client[name], batch_size=3)
        for kind, doc in documents:
            callback(kind, doc)
    trees = [Catalog(client, (name,)).run(uid_of(documents)) for name in ("theirs", "ours")]
    _, unlisted = sorted_out(differences(*trees))
    assert not unlisted, "\n".join(map(str, unlisted))
