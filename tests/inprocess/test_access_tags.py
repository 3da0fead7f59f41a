"""`tiled_access_tags` and `tiled_specs`, on a server with an access policy, in whose catalog two tags are defined."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky_tiled_plugins import TiledWriter as Theirs
from tiled.client import from_context
from tiled.client.utils import ClientError

from tests.differential.compose import Composer, key
from tests.differential.recorder import Documents
from tests.differential.tree import Catalog
from tests.rig.application import application
from tiled_ingest import TiledWriter
from tiled_ingest.core.errors import TiledRejected

from .documents import facts, give, rows, uid_of


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with application(tmp_path_factory.mktemp("guarded"), tags=["proposal-7", "staff"]) as context:
        yield from_context(context)


def tagged_run(**start: Any) -> Documents:
    """Two streams; the second column proves too narrow, so that a child of the table is made, too."""
    run = Composer(**start)
    for name in ("primary", "baseline"):
        run.descriptor({"x": key("integer")}, name=name, object_keys={"dev": ["x"]})
        for value in (1, 2.5):
            run.event({"x": value}, name=name)
    return run.stop()


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("proposal-7", ["proposal-7"]),
        (["proposal-7"], ["proposal-7"]),
        (["staff", "proposal-7"], ["proposal-7", "staff"]),
        (("staff",), ["staff"]),
        (None, []),
    ],
)
def test_every_node_has_the_runs_tags(guarded: Any, tags: Any, wanted: list[str]) -> None:
    documents = tagged_run(**({} if tags is None else {"tiled_access_tags": tags}))
    give(TiledWriter(guarded, batch_size=1), documents)
    uid = uid_of(documents)
    tree = Catalog(guarded, ()).run(uid)
    nodes = {(), ("primary",), ("primary", "internal"), ("baseline",), ("baseline", "internal")}
    assert {path: node.access for path, node in tree.items()} == dict.fromkeys(nodes, wanted)
    assert "tiled_access_tags" not in guarded[uid].metadata["start"]
    assert rows(guarded, uid) == [1, 2.5]


def test_a_list_of_tags_means_the_same_to_the_library(guarded: Any) -> None:
    documents = tagged_run(tiled_access_tags=["staff"])
    below = {name: guarded.create_container(f"{name}-{uuid.uuid4().hex}") for name in ("theirs", "ours")}
    for name, writer in (("theirs", Theirs), ("ours", TiledWriter)):
        give(writer(below[name]), documents)
    trees = {name: Catalog(guarded, tuple(place.path_parts)).run(uid_of(documents)) for name, place in below.items()}
    access = {name: {path: node.access for path, node in tree.items()} for name, tree in trees.items()}
    assert access["ours"] == access["theirs"]


def test_the_library_fails_on_a_bare_string(guarded: Any) -> None:
    """The reason for this difference: when it is mended there, the docs must say so."""
    with pytest.warns(UserWarning, match="RunRouter"), pytest.raises(ClientError, match="422"):
        give(Theirs(guarded), tagged_run(tiled_access_tags="staff")[:1])


def test_a_tag_that_is_not_defined_fails_the_run(guarded: Any) -> None:
    documents = tagged_run(tiled_access_tags=["proposal-8"])
    with pytest.warns(UserWarning, match="RunRouter"), pytest.raises(TiledRejected, match="proposal-8"):
        give(TiledWriter(guarded), documents[:1])
    assert uid_of(documents) not in guarded


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("Mine", [("Mine", None)]),
        (["Mine", {"name": "Yours", "version": "2"}], [("Mine", None), ("Yours", "2")]),
        (None, []),
    ],
)
def test_specs_of_the_start_come_first(guarded: Any, asked: Any, wanted: list[Any]) -> None:
    documents = tagged_run(**({} if asked is None else {"tiled_specs": asked}))
    give(TiledWriter(guarded), documents)
    specs = guarded[uid_of(documents)].specs
    assert [(spec.name, spec.version) for spec in specs] == [*wanted, ("BlueskyRun", "3.0")]
    assert facts(guarded, uid_of(documents))["state"] == "complete"
