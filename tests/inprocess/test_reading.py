"""What the docstrings of bluesky-tiled-plugins tell a reader to do, done with runs of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bluesky_tiled_plugins.queries import PartialUID, ScanID, ScanIDRange, TimeRange
from tiled.queries import Eq, Key
from tiled.structures.core import Spec

from tests.differential.compose import Composer, key
from tests.differential.recorder import Documents
from tiled_ingest import TiledWriter

from .documents import give, uid_of

TIME = 1_700_000_000.0  # when the first run started; each next one a day later
DAY_S = 86_400.0


def scan(number: int) -> Documents:
    run = Composer(scan_id=number, plan_name=["count", "scan"][number % 2], time=TIME + (number - 1) * DAY_S)
    run.descriptor({"x": key("number"), "img": key("array", shape=[20])}, object_keys={"dev": ["x", "img"]})
    for point in range(3):
        run.event({"x": point / 2, "img": [float(point)] * 20})
    return run.stop()


@pytest.fixture(scope="module")
def written() -> list[Documents]:
    return [scan(number) for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def catalog(client: Any, written: list[Documents]) -> Any:
    place = client.create_container("runs", specs=[Spec("CatalogOfBlueskyRuns", "3.0")])
    for documents in written:
        give(TiledWriter(place), documents)
    return client["runs"]


def test_a_run_is_found_by_its_place_its_number_and_its_uid(catalog: Any, written: list[Documents]) -> None:
    uids = [uid_of(documents) for documents in written]
    assert catalog[-1].start["uid"] == uids[-1]
    assert [catalog[number].start["uid"] for number in (1, 2, 3)] == uids
    assert catalog.scan_id[2].start["uid"] == catalog.uid[uids[1][:8]].start["uid"] == uids[1]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (lambda _: ScanID(3), [3]),
        (lambda _: ScanIDRange(1, 3), [1, 2]),
        (lambda uid: PartialUID(uid[:8]), [1]),
        (lambda _: TimeRange(since=TIME + DAY_S / 2, timezone="UTC"), [2, 3]),
        (lambda _: TimeRange(until=TIME + DAY_S / 2, timezone="UTC"), [1]),
        (lambda _: Eq("start.plan_name", "scan"), [1, 3]),
        (lambda _: Key("stop.exit_status") == "success", [1, 2, 3]),
    ],
)
def test_searches_find_our_runs(
    catalog: Any, written: list[Documents], query: Callable[[str], Any], found: list[int]
) -> None:
    results = catalog.search(query(uid_of(written[0])))
    assert sorted(run.start["scan_id"] for run in results.values()) == found


def test_a_run_reads_as_the_docstrings_say(catalog: Any, written: list[Documents]) -> None:
    run, documents = catalog[1], written[0]
    assert run.start is run.metadata["start"]
    assert run.start == documents[0][1]
    assert run.stop == documents[-1][1]
    assert [name for name, _ in run.items()] == ["primary"]
    stream = run["primary"]
    assert stream.descriptors[0]["uid"] == documents[1][1]["uid"]
    dataset = stream.read()
    assert dataset["x"].values.tolist() == [0.0, 0.5, 1.0]
    assert dataset["img"].values.tolist() == [[float(point)] * 20 for point in range(3)]
    assert stream.read(["x"])["x"].values.tolist() == stream["x"].read().tolist() == [0.0, 0.5, 1.0]


def test_the_older_interface_reads_the_same(catalog: Any) -> None:
    run = catalog.v2[1]
    assert run.primary.read()["x"].values.tolist() == [0.0, 0.5, 1.0]
    assert run.v3["primary"].read()["x"].values.tolist() == [0.0, 0.5, 1.0]


def test_a_run_of_ours_is_valid_to_its_readers(catalog: Any) -> None:
    catalog[1].v3.validate(raise_on_error=True)
