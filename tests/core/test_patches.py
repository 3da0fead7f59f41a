"""Rewriting where files are: rules see plain paths, the first that matches counts, the rest of a document stays."""

from typing import Any

import pytest

from tiled_ingest.core.decoding.patches import joined, rewriting

RULES = [("^/ioc/data", "/mnt/data"), ("^/mnt", "/never"), (r"^s3://old-(\w+)/", r"s3://new-\1/")]


@pytest.mark.parametrize(
    ("uri", "moved"),
    [
        ("file://localhost/ioc/data/a%20b.h5", "file://localhost/mnt/data/a%20b.h5"),
        ("file:///ioc/data/", "file:///mnt/data/"),
        ("file://localhost/else/a.h5", "file://localhost/else/a.h5"),
        ("s3://old-x/a.h5", "s3://new-x/a.h5"),
        ("http://[", "http://["),
    ],
)
def test_uris(uri: str, moved: str) -> None:
    doc = {"uid": "q", "uri": uri, "parameters": {}}
    assert rewriting(RULES)["stream_resource"](doc) == {**doc, "uri": moved}


@pytest.mark.parametrize(
    ("root", "path", "moved"),
    [
        ("/ioc", "data/a.h5", ("", "/mnt/data/a.h5")),
        ("/ioc", "/data/a.h5", ("", "/mnt/data/a.h5")),
        ("", "/ioc/data/a.h5", ("", "/mnt/data/a.h5")),
        ("/else", "a.h5", ("/else", "a.h5")),
        (None, 3, (None, 3)),
    ],
)
def test_old_resources(root: Any, path: Any, moved: tuple[Any, Any]) -> None:
    doc = {"uid": "q", "root": root, "resource_path": path}
    found = rewriting(RULES)["resource"](doc)
    assert (found["root"], found["resource_path"]) == moved


def test_without_rules_nothing_is_patched() -> None:
    assert rewriting([]) == {}


def test_several_patches_follow_each_other() -> None:
    patches = joined(rewriting([("^/a", "/b")]), {"resource": lambda doc: {**doc, "seen": doc["resource_path"]}}, {})
    assert patches["resource"]({"resource_path": "/a/x"})["seen"] == "/b/x"
    assert set(patches) == {"resource", "stream_resource"}
