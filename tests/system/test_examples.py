"""What Tiled's documentation shows a reader, done with runs that the service wrote.

Navigate, search, slice, export, locate files, plain HTTP, metadata and their revisions; live subscribers have
`tests/tiled/test_live.py`. Not here: Tiled 0.2.20 answers 500 to who asks it for chunks as Zarr, of TiledWriter's too.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tifffile
from PIL import Image
from tiled.client import from_uri
from tiled.client.utils import get_asset_filepaths
from tiled.queries import Contains, FullText, In, Key, Like, NotEq, SpecsQuery

from tests.differential.compose import Composer, key
from tests.differential.detectors import tiff_sequence
from tests.differential.recorder import Documents
from tests.system.publishing import Publication, uid_of
from tests.system.service import Service
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

pytestmark = pytest.mark.real

PLANS = ("scan", "count", "scan")
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
X, LABELS = [0.0, 0.5, 1.0], ["a", "b", "c"]
ROWS = list(zip(X, LABELS, strict=True))


def scan(number: int) -> Documents:
    run = Composer(scan_id=number, plan_name=PLANS[number - 1], sample={"name": "quartz", "mass_mg": 10 * number})
    keys = {"x": key(), "label": key("string"), "img": key("array", [4, 5], dtype_numpy="|u1")}
    run.descriptor(keys, object_keys={"det": list(keys)}, configuration={}, hints={})
    for x, label, image in zip(X, LABELS, IMAGES, strict=True):
        run.event({"x": x, "label": label, "img": image})
    return run.stop()


@dataclass(frozen=True)
class Catalog:
    """A node with runs: three scans, and one whose images are TIFF files of a detector."""

    server: TiledServer
    client: Any
    root: str
    uids: list[str]

    @property
    def node(self) -> Any:
        return self.client[self.root]

    @property
    def table(self) -> Any:
        return self.client[self.root, self.uids[0], "primary"].base["internal"]

    @property
    def image(self) -> Any:
        return self.client[self.root, self.uids[0], "primary", "img"]

    def get(self, route: str, *path: str, **params: Any) -> Any:
        """GET a page of the API about a node below ours; return the answer."""
        where = "/".join((self.root, *path))
        answer = self.client.context.http_client.get(f"{self.server.uri}/{route}/{where}", params=params)
        return answer.raise_for_status()


@pytest.fixture(scope="module")
def catalog(broker: Broker, tiled_server: TiledServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    root = f"examples-{uuid.uuid4().hex[:12]}"  # when tests are shared out anew it may be made again, beside the first
    topic = f"{root}.docs"
    broker.create_topic(topic, 1)
    runs = [*map(scan, (1, 2, 3)), tiff_sequence(tmp_path_factory.mktemp("detectors"))]
    Publication(broker.bootstrap_servers, topic, [document for run in runs for document in run]).publish()
    settings = {
        "beamline": "test",
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": f"{topic}.ingest",
        "kafka.topics": [topic],
        "tiled.uri": tiled_server.uri,
        "tiled.api_key": tiled_server.api_key,
        "tiled.routes": [{"topic": ".*", "path": root}],
    }
    service = Service(tmp_path_factory.mktemp("service"), settings).start("--until-end")
    assert service.ended(120.0) == 0, service.tail()
    client = from_uri(tiled_server.uri, api_key=tiled_server.api_key)
    yield Catalog(tiled_server, client, root, [uid_of(run) for run in runs])
    client.context.close()


def found(results: Any) -> list[int]:
    return sorted(run.start["scan_id"] for run in results.values())


def rows(frame: Any) -> list[tuple[float, str]]:
    """A table's rows by value: PostgreSQL has no order of rows, nor the server of columns that are chosen."""
    return sorted(frame[["x", "label"]].itertuples(index=False, name=None))


def test_navigate(catalog: Catalog) -> None:
    node, (first, *_, last) = catalog.node, catalog.uids
    assert list(node) == catalog.uids == [uid for uid, _ in node.items()]
    assert (node.keys().first(), node.keys().last(), node.keys()[1:3]) == (first, last, catalog.uids[1:3])
    assert node.values().last().metadata == node[last].metadata == node.values()[3].metadata
    streams = [
        catalog.client[f"{catalog.root}/{first}/primary"],
        catalog.client[catalog.root, first, "primary"],
        node[first]["primary"],
    ]
    assert len({stream.metadata["uid"] for stream in streams}) == 1
    assert sorted(streams[0].base) == ["img", "internal"]
    assert sorted(streams[0]) == sorted(["seq_num", "time", "x", "label", "img", "ts_x", "ts_label", "ts_img"])


def test_search(catalog: Catalog) -> None:
    scans = catalog.node.search(FullText("quartz"))
    assert found(scans) == found(catalog.node.search(Contains("start.sample.name", "quartz"))) == [1, 2, 3]
    assert found(scans.search(Key("start.plan_name") == "scan").search(Key("start.sample.mass_mg") > 10)) == [3]
    assert found(scans.search(NotEq("start.plan_name", "scan"))) == [2]
    assert found(scans.search(Like("start.plan_name", "sc%"))) == found(scans.search(In("start.scan_id", [1, 3])))
    assert len(catalog.node.search(SpecsQuery(["BlueskyRun"]))) == 4
    assert len(catalog.node.search(FullText("nowhere"))) == 0
    assert [run.start["scan_id"] for run in scans.sort(("start.scan_id", -1)).values()] == [3, 2, 1]
    plans = scans.distinct("start.plan_name", counts=True)["metadata"]["start.plan_name"]
    assert sorted((each["value"], each["count"]) for each in plans) == [("count", 1), ("scan", 2)]


def test_slice(catalog: Catalog) -> None:
    assert catalog.image[:].tolist() == catalog.image.read().tolist() == IMAGES.tolist()
    assert catalog.image[1:, :2, -2:].tolist() == IMAGES[1:, :2, -2:].tolist()
    assert catalog.image[2].tolist() == IMAGES[2].tolist()
    assert list(catalog.table) == catalog.table.columns
    assert rows(catalog.table.read(["x", "label"])) == ROWS
    assert sorted(catalog.table["x"].read()) == X
    dataset = catalog.node[catalog.uids[0]]["primary"].read(["x", "img"])
    assert dataset["img"].isel(time=1, drop=True).values.tolist() == IMAGES[1].tolist()


def test_slice_with_dask(catalog: Catalog) -> None:
    client = from_uri(catalog.server.uri, "dask", api_key=catalog.server.api_key)
    stream = client[catalog.root, catalog.uids[0], "primary"].base
    assert stream["img"].read()[:, 1, 3:].compute().tolist() == IMAGES[:, 1, 3:].tolist()
    assert stream["internal"].read(["x"])["x"].sum().compute() == sum(X)
    client.context.close()


def test_export_a_table(catalog: Catalog, tmp_path: Path) -> None:
    readers = {"csv": pd.read_csv, "xlsx": pd.read_excel, "parquet": pd.read_parquet, "arrow": _from_arrow}
    for ending, read in readers.items():
        path = tmp_path / f"table.{ending}"
        catalog.table.export(str(path), columns=["x", "label"])
        assert rows(read(path)) == ROWS, ending
    buffer = io.BytesIO()
    catalog.table.export(buffer, columns=["x"], format="application/json")
    assert sorted(json.loads(buffer.getvalue())["x"]) == X


def _from_arrow(path: Path) -> Any:
    return pa.ipc.open_file(path.read_bytes()).read_all().to_pandas()


def test_export_an_array(catalog: Catalog, tmp_path: Path) -> None:
    catalog.image.export(str(tmp_path / "image.tiff"), slice=np.s_[1])
    assert tifffile.imread(tmp_path / "image.tiff").tolist() == IMAGES[1].tolist()
    catalog.image.export(str(tmp_path / "image.png"), slice=np.s_[1])
    with Image.open(tmp_path / "image.png") as image:
        assert image.size == (5, 4)
    catalog.image.export(str(tmp_path / "image.csv"), slice=np.s_[1, :2, 3:])
    assert np.loadtxt(tmp_path / "image.csv", delimiter=",").tolist() == IMAGES[1, :2, 3:].tolist()
    assert {"image/png", "image/tiff", "text/csv", "application/json"} <= set(catalog.image.formats)


def test_locate_and_download_files(catalog: Catalog, tmp_path: Path) -> None:
    camera = catalog.client[catalog.root, catalog.uids[-1], "primary", "cam"]
    paths = get_asset_filepaths(camera)
    assert [path.name for path in paths] == [f"img_{frame:04d}.tif" for frame in range(3)]
    assert [tifffile.imread(path).tolist() for path in paths] == camera.read().reshape(3, 5, 7).tolist()
    assert camera.data_sources()[0].mimetype == "multipart/related;type=image/tiff"
    copies = camera.raw_export(str(tmp_path), max_workers=1)
    assert sorted(Path(copy).read_bytes() for copy in copies) == sorted(path.read_bytes() for path in paths)


def test_plain_http(catalog: Catalog) -> None:
    uid = catalog.uids[0]
    about = catalog.get("metadata", uid).json()["data"]["attributes"]
    assert about["metadata"]["start"]["scan_id"] == 1
    condition = {"filter[eq][condition][key]": "start.scan_id", "filter[eq][condition][value]": 2}
    assert [each["id"] for each in catalog.get("search", **condition).json()["data"]] == [catalog.uids[1]]
    image = (uid, "primary", "img")
    assert catalog.get("array/full", *image, slice="0,:2,3:", format="json").json() == IMAGES[0, :2, 3:].tolist()
    assert catalog.get("array/block", *image, block="0,0,0", format="json").json()[0] == IMAGES[0].tolist()
    table = (uid, "primary", "internal")
    answer = catalog.get("table/full", *table, format="csv", column=["x", "label"]).text
    assert rows(pd.read_csv(io.StringIO(answer))) == ROWS
    assert catalog.get("container/full", uid, "primary", format="json").json()["contents"].keys() == {"img", "internal"}


def test_metadata_and_their_revisions(catalog: Catalog) -> None:
    """A reader's remark on a run is kept beside ours, and the earlier state can be had again."""
    run = catalog.node[catalog.uids[1]]
    before = dict(run.metadata)
    run.update_metadata({"remark": {"color": "blue"}})
    assert catalog.node[catalog.uids[1]].metadata == {**before, "remark": {"color": "blue"}}
    assert list(catalog.node.search(FullText("blue"))) == [catalog.uids[1]]
    (revision,) = run.metadata_revisions[:]
    assert revision["attributes"]["metadata"] == before
