"""The same documents through TiledWriter and through ours: all of Tiled is compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from event_model import DocumentNames, UnresolvableForeignKeyError, schema_validators

from .allowed import ALLOWED, sorted_out
from .compare import differences, of_values
from .conftest import Scene
from .recorder import renewed
from .round_trip import not_as_published
from .sources import (
    EXPORTER_FAILS,
    LIBRARY_FAILS,
    LIBRARY_FAILS_ON,
    MAKERS,
    NOT_YET,
    NOT_YET_READ_BACK,
    NOT_YET_THROUGH_KAFKA,
    uid_of,
)

pytestmark = pytest.mark.real
DOCS = Path(__file__).parents[2] / "docs" / "differences.md"


COMPARABLE = [name for name in MAKERS if name not in LIBRARY_FAILS]


def _sources(names: Iterable[str], not_yet: Mapping[str, str]) -> list[Any]:
    return [
        pytest.param(name, marks=[pytest.mark.xfail(reason=not_yet[name], strict=True)] if name in not_yet else [])
        for name in names
    ]


def _library_fails(scene: Scene, source: str) -> bool:
    """Whether there is nothing to compare with on this storage; then the library must fail indeed."""
    if (source, scene.storage) not in LIBRARY_FAILS_ON:
        return False
    with pytest.raises(httpx.HTTPStatusError, match="Server error"):
        scene.write("theirs", renewed(scene.sources.documents(source)))
    return True


def _assert_same(scene: Scene, writer: str, source: str) -> None:
    if _library_fails(scene, source):
        return
    _, unlisted = sorted_out(differences(scene.tree("theirs", source), scene.tree(writer, source)))
    assert not unlisted, "\n".join(map(str, unlisted))


# ---------------------------------------------------------------- the tree


@pytest.mark.parametrize("source", _sources(COMPARABLE, NOT_YET))
def test_in_process_the_tree_is_the_same(scene: Scene, source: str) -> None:
    _assert_same(scene, "ours", source)


@pytest.mark.parametrize("source", [name for name in COMPARABLE if name not in NOT_YET_THROUGH_KAFKA])
def test_through_kafka_the_tree_is_the_same(through_kafka: Scene, source: str) -> None:
    _assert_same(through_kafka, "kafka", source)


def test_every_allowed_difference_is_met_and_documented(scene: Scene) -> None:
    """What is allowed and never seen is no longer true; what is allowed and not told is a surprise."""
    met: set[str] = set()
    for source in (
        name for name in COMPARABLE if name not in NOT_YET and (name, scene.storage) not in LIBRARY_FAILS_ON
    ):
        met |= sorted_out(differences(scene.tree("theirs", source), scene.tree("ours", source)))[0]
    wanted = (allowed for allowed in ALLOWED if allowed.met_by_sources and allowed.not_on != scene.storage)
    assert met >= {allowed.name for allowed in wanted}
    told = re.findall(r"^### (.*)$", DOCS.read_text(), re.MULTILINE)
    assert {allowed.name for allowed in ALLOWED} <= set(told)


@pytest.mark.parametrize("source", LIBRARY_FAILS)
def test_the_library_still_fails_on(scene: Scene, source: str) -> None:
    with pytest.raises(UnresolvableForeignKeyError):
        scene.write("theirs", scene.sources.documents(source))


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize("source", _sources(MAKERS, NOT_YET_READ_BACK))
def test_everything_published_can_be_read_back(scene: Scene, source: str) -> None:
    documents = scene.sources.documents(source)
    scene.tree("ours", source)
    assert not_as_published(scene.place("ours"), documents) == []


@pytest.mark.parametrize("source", EXPORTER_FAILS)
def test_the_exporter_still_fails_on(scene: Scene, source: str) -> None:
    scene.tree("ours", source)
    run = scene.place("ours")[uid_of(scene.sources.documents(source))]
    with pytest.raises(httpx.HTTPStatusError, match="Server error"):
        list(run.documents())


@pytest.mark.parametrize("source", _sources([name for name in COMPARABLE if name not in EXPORTER_FAILS], NOT_YET))
def test_the_documents_that_tiled_makes_are_the_same(scene: Scene, source: str) -> None:
    """`run.documents()`: what the server's exporter makes of the tree."""
    if _library_fails(scene, source):
        return
    uid = uid_of(scene.sources.documents(source))
    told = {}
    for writer in ("theirs", "ours"):
        scene.tree(writer, source)
        told[writer] = [[name, _plain(doc)] for name, doc in scene.place(writer)[uid].documents()]
    _, unlisted = sorted_out(of_values(told["theirs"], told["ours"]))
    assert not unlisted, "\n".join(map(str, unlisted))
    for name, doc in told["ours"]:
        if name in ("start", "stop"):
            schema_validators[DocumentNames[name]].validate(doc)


def _plain(doc: Any) -> Any:
    return json.loads(json.dumps(doc))
