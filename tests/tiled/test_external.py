"""External data against a real Tiled, beside TiledWriter: the same nodes, and the values that the files hold."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from bluesky_tiled_plugins.writing.consolidators import HDF5Consolidator
from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer
from tiled.client import from_uri

from tests.core.test_engine import POLICY, World
from tests.rig import detectors
from tests.rig.detectors import JPEG, TIFF, Documents, Recording, Script
from tiled_ingest.core.decoding.patches import rewriting
from tiled_ingest.core.external.assets import AssetPlan, Datum, Resource, Span, Use
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.writes import (
    Denied,
    Done,
    GetNode,
    Missing,
    Outcome,
    Registered,
    RegisterExternal,
    Rejected,
    Unknown,
)
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.tiled import formats as formats_module
from tiled_ingest.tiled import plugins
from tiled_ingest.tiled.formats import Formats
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session

pytestmark = pytest.mark.real

UINT8 = {"shape": [6, 8], "dtype_numpy": "|u1", "external": "FILE:"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detectors")


@pytest.fixture(scope="module")
def session(tiled_duckdb: TiledServer) -> Iterator[Session]:
    session = Session.at(tiled_duckdb.uri, tiled_duckdb.api_key)
    yield session
    session.close()


@pytest.fixture(scope="module")
def client(tiled_duckdb: TiledServer) -> Any:
    made = from_uri(tiled_duckdb.uri, api_key=tiled_duckdb.api_key)
    if "theirs" not in made:  # or another test has made it
        made.create_container("theirs")
    return made


def ingest(session: Session, documents: Documents, policy: Policy = POLICY, formats: Formats | None = None) -> World:
    """Let the real engine write through the real adapter, with a log of its own."""
    world = World(policy, tiled=partial(perform, session, formats=formats))  # type: ignore[arg-type]
    world.assign()
    world.publish(*documents)
    world.settle()
    assert world.stop is None
    return world


def theirs(client: Any, documents: Documents, **options: Any) -> Any:
    writer = TiledWriter(client["theirs"], **options)
    for name, doc in copy.deepcopy(documents):
        writer(name, doc)
    return client["theirs"][documents[0][1]["uid"]]


def nodes(run: Any) -> dict[tuple[str, str], Any]:
    """Every external node: its data source without Tiled's numbers, metadata, specs, tags."""
    found = {}
    for stream in run:
        base = run[stream].base
        for key in base:
            (source,) = base[key].include_data_sources().data_sources()
            if source.management == "external":
                found[stream, key] = _described(base[key], source)
    return found


def _described(node: Any, source: Any) -> Any:
    told = dataclasses.asdict(source) | {"id": None}
    told["assets"] = sorted(({**asset, "id": None} for asset in told["assets"]), key=lambda asset: str(asset["num"]))
    attributes = node.item["attributes"]
    return told, dict(node.metadata), node.specs, attributes["structure_family"], attributes.get("access_tags")


# ---------------------------------------------------------------- the same as TiledWriter


def old_spec(folder: Path, spec: str = "AD_TIFF", points: int = 3, per_point: int = 2) -> Recording:
    """An area detector as ophyd describes it: a resource for each point, which has several frames."""
    script = Script()
    descriptor = script.descriptor(cam={**UINT8, "shape": [per_point, 6, 8]})
    for point in range(points):
        resource = script.resource(
            spec, str(folder), "camera/", template="%s%s_%3.3d.tiff", filename=f"p{point}", frame_per_point=per_point
        )
        script.event(descriptor, point + 1, cam=script.datum(resource, point, point_number=point))
    return Recording(script.stop(primary=points))


def old_hdf5(folder: Path) -> Recording:
    """Frames that are counted on from resource to resource, and a datum after its event."""
    script = Script()
    descriptor = script.descriptor(cam=UINT8)
    for number in range(2):
        resource = script.resource("AD_HDF5", str(folder), f"file{number}.h5", frame_per_point=1)
        for frame in range(3):
            seq_num = 3 * number + frame + 1
            script.event(descriptor, seq_num, cam=script.datum(resource, frame, frame=frame))
    return Recording(script.stop(primary=6))


def by_stream_resource(
    mimetype: str, shape: list[int], *, counts: tuple[int, ...] = (3,), place: str = "{}", **parameters: Any
) -> Any:
    def made(folder: Path) -> Recording:
        script = Script()
        descriptor = script.descriptor(cam={**UINT8, "shape": shape})
        for number, count in enumerate(counts):
            uri = f"file://localhost{folder}/{place.format(number)}"
            named = {"filename": f"file{number}"} if "template" in parameters else {}
            resource = script.stream_resource("cam", uri, mimetype, **parameters, **named)
            first = sum(counts[:number])
            for row in range(count):  # indices go on, or restart, as the detector likes
                start = row if parameters.get("dataset") else first + row
                script.stream_datum(resource, descriptor, start, start + 1, first + row + 1)
        return Recording(script.stop(primary=sum(counts)))

    return made


HDF5 = "application/x-hdf5"
SOURCES: dict[str, Callable[[Path], Recording]] = {
    "ophyd.sim img (NPY)": detectors.npy_scan,
    "ophyd-async, step (HDF5)": detectors.hdf5_step,
    "ophyd-async, fly (HDF5)": detectors.hdf5_fly,
    "TIFF sequence": partial(detectors.images, mimetype=TIFF),
    "JPEG sequence": partial(detectors.images, mimetype=JPEG),
    "AD_TIFF": old_spec,
    "AD_HDF5, frames": old_hdf5,
    "HDF5, chunks": by_stream_resource(HDF5, [2, 6, 8], dataset="/d", chunk_shape=[1, 1, 6, 8], swmr=False),
    "HDF5, slice": by_stream_resource(HDF5, [6], dataset="/d", slice=":,1", squeeze=True),
    "HDF5, scalars": by_stream_resource(HDF5, [1], dataset="/d"),
    "HDF5, multiplier": by_stream_resource(HDF5, [1, 6, 8], dataset="/d", multiplier=4),
    "HDF5, concat": by_stream_resource(HDF5, [2, 6], dataset="/d", join_method="concat", chunk_shape=[2]),
    "HDF5, two files": by_stream_resource(HDF5, [6, 8], dataset="/d", counts=(3, 2)),
    "HDF5, many files": by_stream_resource(HDF5, [1, 6], dataset="/d", template="_%d.h5"),
    "TIFF, two resources": by_stream_resource(TIFF, [6, 8], template="%s_%d.tif", counts=(3, 2), place="camera/"),
    "TIFF, files of frames": by_stream_resource(TIFF, [4, 6, 8], template="_%d.tif", chunk_shape=[2, 6, 8]),
    "CSV": by_stream_resource("text/csv;header=absent", [3, 2], delimiter=";"),
    "bytes": by_stream_resource("application/octet-stream", [], template="%s_%d.raw", counts=(2, 2), place="raw/"),
    "bytes, one file": by_stream_resource("application/octet-stream", [], spec="STRANGE", counts=(1,)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_nodes_are_those_of_tiled_writer(name: str, session: Session, client: Any, folder: Path) -> None:
    place = folder / name.replace(" ", "_").replace(",", "")
    place.mkdir()
    recording = SOURCES[name](place)
    world = ingest(session, recording.documents)
    ours = client[recording.uid]
    assert nodes(ours) == nodes(theirs(client, recording.documents))
    assert nodes(ours), "nothing was compared"
    assert (world.codes, ours.metadata["tiled_ingest"]["state"]) == ([], "complete")
    for (stream, key), expected in recording.expected.items():
        held = ours[stream].base[key].read()
        np.testing.assert_array_equal(held, np.reshape(expected, held.shape))


def test_a_site_says_what_a_spec_is(session: Session, client: Any, folder: Path) -> None:
    recording = old_spec(folder, "OUR_CAM")
    ingest(session, recording.documents, formats=Formats({"OUR_CAM": JPEG}))
    ours, other = client[recording.uid], theirs(client, recording.documents, spec_to_mimetype={"OUR_CAM": JPEG})
    assert nodes(ours) == nodes(other)
    assert ours["primary"].base["cam"].include_data_sources().data_sources()[0].mimetype == JPEG


def test_patches_are_as_those_of_tiled_writer(session: Session, client: Any, folder: Path) -> None:
    recording = old_hdf5(folder)

    def elsewhere(doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, "root": "/elsewhere"}

    def shifted(doc: dict[str, Any]) -> dict[str, Any]:
        assert doc["datum_kwargs"]["_resource_spec"] == "AD_HDF5"
        return {**doc, "datum_kwargs": {"point_number": doc["datum_kwargs"]["frame"] + 2}}

    patches = {"resource": elsewhere, "datum": shifted}
    ingest(session, recording.documents, dataclasses.replace(POLICY, patches=patches))
    assert nodes(client[recording.uid]) == nodes(theirs(client, recording.documents, patches=patches))


def test_files_on_another_mount_are_rewritten_by_settings(session: Session, client: Any, folder: Path) -> None:
    recording = by_stream_resource(HDF5, [6], dataset="/d")(Path("/ioc/data"))
    rules = rewriting([("^/ioc", str(folder))])
    ingest(session, recording.documents, dataclasses.replace(POLICY, patches=rules))
    ((source, *_),) = nodes(client[recording.uid]).values()
    assert [asset["data_uri"] for asset in source["assets"]] == [f"file://localhost{folder}/data/0"]


# ---------------------------------------------------------------- what TiledWriter fails on


@pytest.mark.parametrize("mimetype", [TIFF, "application/octet-stream"])
def test_each_resource_has_its_files_where_it_says(mimetype: str, session: Session, client: Any, folder: Path) -> None:
    recording = by_stream_resource(mimetype, [6, 8], template="_%d", counts=(2, 1))(folder)
    ingest(session, recording.documents)
    ((source, *_),) = nodes(client[recording.uid]).values()
    names = [asset["data_uri"].removeprefix(f"file://localhost{folder}/") for asset in source["assets"]]
    assert names == ["0_0", "0_1", "1_0"]


def test_an_opaque_file_is_one_asset_however_many_events_it_holds(session: Session, client: Any, folder: Path) -> None:
    recording = by_stream_resource("application/octet-stream", [], counts=(3,))(folder)
    ingest(session, recording.documents)
    ((source, *_),) = nodes(client[recording.uid]).values()
    assert [asset["data_uri"] for asset in source["assets"]] == [f"file://localhost{folder}/0"]


def test_files_that_are_named_again_keep_their_place() -> None:
    plan, formats = AssetPlan(), Formats()
    for uid in ("a", "b", "c"):
        doc = {"uid": uid, "data_key": "cam", "mimetype": HDF5, "parameters": {"dataset": "/d"}}
        doc["uri"] = f"file://localhost/{'a' if uid == 'c' else uid}.h5"
        plan.add(Use(Resource("stream_resource", doc, 0), "d"), Span(0, 2), Span(1, 3))
    built = formats.build(RegisterExternal(("r", "s", "cam"), {**UINT8, "dtype": "array"}, plan, None))
    assert [(asset["data_uri"][-4:], asset["num"]) for asset in built.assets] == [("a.h5", 0), ("b.h5", 1)]
    assert built.size == 6


@pytest.mark.parametrize("chunk_shape", [[0], [None, 6, 8], [1, 1, 1, 1, 1], [-1, 6], [1, 2**62]])
def test_a_chunk_shape_that_says_nothing_is_left_out(
    chunk_shape: list[Any], session: Session, client: Any, folder: Path
) -> None:
    recording = by_stream_resource(HDF5, [6, 8], dataset="/d", chunk_shape=chunk_shape)(folder)
    ingest(session, recording.documents)
    ((source, *_),) = nodes(client[recording.uid]).values()
    assert source["structure"]["shape"] == [3, 6, 8]
    fits = chunk_shape == [1, 2**62]
    assert source["structure"]["chunks"][0] == ([1, 1, 1] if fits else [3])
    assert ("chunk_shape" in str(client[recording.uid].metadata.get("notes"))) != fits


@pytest.mark.parametrize(
    ("mimetype", "shape", "parameters", "counts"),
    [
        (HDF5, [None, 8], {"dataset": "/d"}, (3,)),  # of no fixed shape
        (HDF5, [6, 8], {"chunk_shape": 3, "dataset": "/d"}, (3,)),  # no shape at all
        (TIFF, [6, 8], {}, (3,)),  # no template
        (TIFF, [6, 8], {"template": "%0999999999d"}, (3,)),  # a gigabyte for each name
        (TIFF, [6, 8], {"template": "{:0999999999d}"}, (3,)),
        ("image/unheard-of", [6, 8], {}, (3,)),  # no adapter in Tiled
        ("text/csv;header=absent", [6, 8], {}, (3, 2)),  # only one file
    ],
)
def test_documents_that_nobody_can_use_cost_only_their_key(
    mimetype: str,
    shape: list[Any],
    parameters: Any,
    counts: tuple[int, ...],
    session: Session,
    client: Any,
    folder: Path,
) -> None:
    recording = by_stream_resource(mimetype, shape, counts=counts, **parameters)(folder)
    stop = recording.documents.pop()
    script = Script()
    descriptor = script.descriptor("other")
    script.event(descriptor, 1)
    rest = [(name, doc | {"run_start": recording.uid} if name == "descriptor" else doc)
            for name, doc in script.documents[1:]]  # fmt: skip
    world = ingest(session, [*recording.documents, *rest, stop])
    external = [at for at, (name, _) in enumerate(recording.documents) if name.startswith("stream_")]
    assert sorted(world.codes) == [(offset, "external_refused") for offset in external]
    run = client[recording.uid]
    assert run["other"].base["internal"].read()["seq_num"].tolist() == [1]
    assert run.metadata["tiled_ingest"]["state"] == "incomplete"
    assert any("External data primary/cam: not written any further" in note for note in run.metadata["notes"])


def test_a_second_file_of_another_dataset_ends_only_what_comes_with_it(
    session: Session, client: Any, folder: Path
) -> None:
    recording = by_stream_resource(HDF5, [6], dataset="/d", counts=(2, 2))(folder)
    second = [at for at, (name, _) in enumerate(recording.documents) if name == "stream_resource"][1]
    recording.documents[second][1]["parameters"]["dataset"] = "/other"
    world = World(POLICY, tiled=partial(perform, session))  # type: ignore[arg-type]
    world.assign()
    for document in recording.documents:
        world.publish(document)
        world.tick()
    world.settle()
    assert [offset for offset, _ in world.codes] == [second, second + 1, second + 2]
    ((source, *_),) = nodes(client[recording.uid]).values()
    assert source["structure"]["shape"] == [2, 6]


# ---------------------------------------------------------------- registrations


@pytest.fixture
def stream(session: Session) -> tuple[str, str]:
    script = Script()
    script.descriptor()
    ingest(session, script.documents)
    return script.uid, "primary"


def request(stream: tuple[str, ...], rows: int, uri: str = "file://localhost/x.h5", **more: Any) -> RegisterExternal:
    doc = {"uid": "q", "data_key": "cam", "uri": uri, "mimetype": HDF5, "parameters": {"dataset": "/d"}}
    plan = AssetPlan()
    plan.add(Use(Resource("stream_resource", doc, 0), "d"), Span(0, rows), Span(1, rows + 1))
    return RegisterExternal((*stream, "cam"), {**UINT8, "dtype": "array"}, plan, None, **more)


def size(client: Any, stream: tuple[str, ...]) -> int:
    return int(client["/".join(stream)].base["cam"].shape[0])


def done(outcome: Outcome) -> Registered:
    assert isinstance(outcome, Done), outcome
    assert isinstance(outcome.value, Registered)
    return outcome.value


class Counting:
    """A session that remembers what was asked."""

    def __init__(self, session: Session) -> None:
        self.asked: list[str] = []
        self._session = session

    def request(self, method: str, *parts: Any, **more: Any) -> Any:
        self.asked.append(method)
        return self._session.request(method, *parts, **more)


def test_it_never_becomes_smaller_unless_it_is_exact(session: Session, client: Any, stream: tuple[str, ...]) -> None:
    done(perform(session, request(stream, 5)))
    assert done(perform(session, request(stream, 3))).size == 5
    assert size(client, stream) == 5
    assert done(perform(session, request(stream, 3, exact=True))).size == 3
    assert size(client, stream) == 3


def test_it_costs_two_requests_at_first_one_afterwards_none_without_news(
    session: Session, client: Any, stream: tuple[str, ...]
) -> None:
    counting: Any = Counting(session)
    known = done(perform(counting, request(stream, 2)))
    assert counting.asked == ["GET", "POST"]
    known = done(perform(counting, request(stream, 4, known=known)))
    assert counting.asked[2:] == ["PUT"]
    done(perform(counting, request(stream, 4, known=known)))
    done(perform(counting, request(stream, 3, known=known)))
    assert counting.asked[3:] == []
    done(perform(counting, request(stream, 4, exact=True)))
    assert counting.asked[3:] == ["GET"], "what is right is not written again"
    assert size(client, stream) == 4


def test_a_node_of_another_kind_is_left_alone(session: Session, client: Any, stream: tuple[str, ...]) -> None:
    client["/".join(stream)].base.create_container("cam")
    outcome = perform(session, request(stream, 2))
    assert isinstance(outcome, Rejected)
    assert "another kind" in outcome.detail


def test_without_its_stream_it_is_missing(session: Session) -> None:
    assert isinstance(perform(session, request(("no-such", "stream"), 2)), Missing)


def test_without_the_package_it_is_a_mistake_of_the_configuration(
    session: Session, stream: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats_module, "PACKAGE", "not_installed_here")
    outcome = perform(session, request(stream, 2), Formats())
    assert isinstance(outcome, Denied)
    assert "install tiled-ingest[external]" in outcome.detail


def test_files_that_nobody_sees_yet_are_registered_and_refused_only_to_readers(
    session: Session, stream: tuple[str, ...]
) -> None:
    done(perform(session, request(stream, 2, uri="file://localhost/outside/of/readable/storage.h5")))
    assert isinstance(perform(session, GetNode((*stream, "cam"))), Done)
    answer = session.request("GET", "array/full", (*stream, "cam"), headers={"Accept": "application/octet-stream"})
    assert isinstance(answer, Unknown)
    assert answer.status == 500


def test_the_array_is_readable_while_it_grows(session: Session, client: Any, folder: Path) -> None:
    place = folder / "growing"
    place.mkdir()
    recording = detectors.images(place, TIFF)
    expected = recording.expected["primary", "camera"]
    world = World(POLICY, tiled=partial(perform, session))  # type: ignore[arg-type]
    world.assign()
    sizes = []
    for document in recording.documents[:-1]:
        world.publish(document)
        world.tick()
        run = client[recording.uid]
        if "primary" in run and "camera" in run["primary"].base:
            held = run["primary"].base["camera"].read()
            np.testing.assert_array_equal(held, expected[: len(held)])
            sizes.append(len(held))
    assert sizes == [1, 2, 3, 4]


# ---------------------------------------------------------------- a site's plugins


class Site:
    """What an entry point may lead to."""

    class Ours(HDF5Consolidator):  # type: ignore[misc]
        """Reads from a dataset of its own."""

        supported_mimetypes = {"application/x-ours"}  # noqa: RUF012

        def adapter_parameters(self) -> dict[str, Any]:
            return {"dataset": "/ours", "seq_nums": len(self._seqnums_to_indices_map)}

    consolidators = {"application/x-ours": Ours}  # noqa: RUF012
    spec_to_mimetype = {"OURS": "application/x-ours"}  # noqa: RUF012
    patches = {"resource": lambda doc: {**doc, "root": "/patched"}}  # noqa: RUF012
    normalizer = RunNormalizer


def test_a_plugin_brings_formats_and_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "site"

        def load(self) -> Any:
            return Site

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point()] if group == plugins.GROUP else [])
    formats, patches = plugins.load(["site"])
    resource = patches["resource"](
        {"uid": "q", "spec": "ours", "root": "/", "resource_path": "a", "resource_kwargs": {}}
    )
    plan = AssetPlan()

    plan.add(Use(Resource("resource", resource, 0), "d", Datum("q/0", "q", {}, 1)), Span(0, 3), Span(1, 4))
    built = formats.build(RegisterExternal(("r", "primary", "cam"), {**UINT8, "dtype": "array"}, plan, None))
    assert built.source["mimetype"] == "application/x-ours"
    assert built.source["parameters"] == {"dataset": "/ours", "seq_nums": 3}
    assert [asset["data_uri"] for asset in built.assets] == ["file://localhost/patched/a"]


def test_a_plugin_that_is_not_there_is_named() -> None:
    with pytest.raises(Exception, match=r"tiled\.plugins: no entry point 'absent'"):
        plugins.load(["absent"])
