"""Detectors that write files, from Kafka to readers: the values that stand in the files, whatever dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.rig import detectors
from tests.rig.detectors import JPEG, TIFF, Recording, Script
from tests.rig.fixtures import TopicFactory
from tests.system.publishing import Publication
from tests.system.scene import Scene
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

pytestmark = pytest.mark.real

API = r"/api/v1"
SOURCES: dict[str, Callable[[Path], Recording]] = {
    "npy": detectors.npy_scan,
    "step": detectors.hdf5_step,
    "fly": detectors.hdf5_fly,
    "tiff": partial(detectors.images, mimetype=TIFF),
    "jpeg": partial(detectors.images, mimetype=JPEG),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detectors")


@pytest.fixture
def scene(broker: Broker, tiled_duckdb: TiledServer, topic: TopicFactory, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(broker, tiled_duckdb, topic, tmp_path)
    yield made
    made.close()


def check(scene: Scene, recording: Recording) -> None:
    """Every file is read through Tiled, value by value, and the run is complete."""
    run = scene.client[recording.uid]
    assert run.metadata["tiled_ingest"]["state"] == "complete"
    assert recording.expected
    for (stream, key), expected in recording.expected.items():
        held = run[stream].base[key].read()
        np.testing.assert_array_equal(held, np.reshape(expected, held.shape))
        assert len(held) == len(expected)


def test_what_detectors_wrote_is_read_through_tiled(scene: Scene, folder: Path) -> None:
    recordings = []
    for name, make in SOURCES.items():
        (folder / name).mkdir()
        recordings.append(make(folder / name))
    scene.service().start()
    for recording in recordings:
        scene.publication(recording.documents).publish()
    scene.settle()
    for recording in recordings:
        check(scene, recording)
    assert scene.letters() == []


def flown(folder: Path, frames: int = 240) -> Recording:
    """A fly scan whose detector begins a second file half-way, and a stream_datum for each frame."""
    script, half = Script(), frames // 2
    values = np.arange(frames * 6, dtype=np.int32).reshape(frames, 2, 3)
    spec = {"shape": [2, 3], "dtype_numpy": "<i4", "external": "STREAM:"}
    descriptor = script.descriptor(camera=spec)
    for number in range(2):
        path = folder / f"fly{number}.h5"
        with h5py.File(path, "w") as file:
            file["/entry/data"] = values[number * half : (number + 1) * half]
        uri = f"file://localhost{path}"
        resource = script.stream_resource("camera", uri, "application/x-hdf5", dataset="/entry/data")
        for row in range(half):
            script.stream_datum(resource, descriptor, row, row + 1, number * half + row + 1)
    return Recording(script.stop(primary=frames), {("primary", "camera"): values})


def strike(scene: Scene, publication: Publication, upto: float, method: str, path: str, when: str) -> None:
    """Kill the service at a request, while documents come, up to a share of all; then start it again."""
    (service,) = scene.services
    cut = scene.cut_at(method, path, service.kill, when=when)
    publication.steadily(upto, portion=6)
    scene.wait_for(cut)
    publication.pause()
    scene.notes.append(f"{method} {path}: {cut}")
    service.start()


def test_a_crash_in_a_fly_scan_leaves_the_same_tree(scene: Scene, tmp_path: Path, folder: Path) -> None:
    recording = flown(folder)
    service, publication = scene.service(), scene.publication(recording.documents)
    service.start()
    node, source = rf"{API}/register/.*/primary", rf"{API}/data_source/.*/camera"
    strike(scene, publication, 0.3, "POST", node, "after")
    strike(scene, publication, 0.6, "PUT", source, "before")
    strike(scene, publication, 0.9, "PUT", source, "after")
    publication.publish()
    scene.settle()
    check(scene, recording)
    assert scene.letters() == []
    (held,) = scene.client[recording.uid]["primary"].base["camera"].include_data_sources().data_sources()
    names = [Path(asset.data_uri).name for asset in sorted(held.assets, key=lambda asset: asset.num)]
    assert (names, held.structure["shape"]) == (["fly0.h5", "fly1.h5"], [240, 2, 3])


def test_places_of_files_are_rewritten_by_a_setting(scene: Scene, folder: Path) -> None:
    recording = flown(folder, 8)
    for name, doc in recording.documents:
        if name == "stream_resource":
            doc["uri"] = doc["uri"].replace(str(folder), "/on/the/detectors/computer")
    rule = {"match": "^/on/the/detectors/computer", "replace": str(folder)}
    scene.service(tiled__patches=[rule]).start()
    scene.publication(recording.documents).publish()
    scene.settle()
    check(scene, recording)


def test_without_the_package_the_service_stops_and_says_what_to_install(
    scene: Scene, folder: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / "bluesky_tiled_plugins"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(__name__)\n")
    service = scene.service()
    service.variables["PYTHONPATH"] = str(hidden.parent)
    service.start()
    publication = scene.publication(flown(folder, 8).documents)
    publication.publish()
    assert service.ended(60) == 1
    (line,) = service.lines("stopped")
    assert line["reason"] == "Forbidden"
    assert "install tiled-ingest[external]" in line["error"]
    assert scene.letters() == []
    assert scene.committed() < scene.end()
