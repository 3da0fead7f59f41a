"""Many beamlines in one instance: twenty topics, each routed to a node of its own, and two of them go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pytest
from bluesky_tiled_plugins import TiledWriter

from tests.rig.reader import compare_run
from tests.system.publishing import Documents, Publication, runs, uid_of
from tests.system.scene import Scene
from tests.system.service import Service
from tiled_ingest.core.writes import CreateContainer, CreateTable, Done
from tiled_ingest.settings import load
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session
from tiled_ingest.tools.check import check

pytestmark = pytest.mark.real
BEAMLINES = [f"bl{number:02}" for number in range(20)]
OBSTRUCTED, FOREIGN = "bl07", "bl13"
CODES = {"run_failed": OBSTRUCTED, "foreign_run": FOREIGN}
WELL = [name for name in BEAMLINES if name not in {OBSTRUCTED, FOREIGN}]


def node_of(scene: Scene, beamline: str) -> tuple[str, str]:
    return f"facility-{scene.group}", beamline


def obstruct(scene: Scene) -> None:
    """Put a table where a beamline's runs should go."""
    facility, name = node_of(scene, OBSTRUCTED)
    session = Session.at(scene.tiled.uri, scene.tiled.api_key)
    schema = pa.schema([pa.field(facility.replace(".", "_").replace("-", "_"), pa.int64())])
    for request in (
        CreateContainer((), facility, {}, (), None),
        CreateTable((facility,), name, schema, {}, None, {}),
    ):
        assert isinstance(perform(session, request), Done)
    session.close()


def written_by_another(scene: Scene) -> Documents:
    """A run that bluesky's own TiledWriter has already put into a beamline's node."""
    documents: Documents = [(name, doc) for name, doc in runs(1)[0] if name != "event_page"]
    facility, beamline = node_of(scene, FOREIGN)
    writer = TiledWriter(scene.client[facility].create_container(beamline))
    for name, doc in documents:
        writer(name, doc)
    return documents


@pytest.fixture
def publications(postgres_scene: Scene) -> Mapping[str, Publication]:
    """A run for each beamline, not published; the topics are there."""
    scene = postgres_scene
    obstruct(scene)
    documents = {beamline: runs(1)[0] for beamline in BEAMLINES} | {FOREIGN: written_by_another(scene)}
    for beamline in BEAMLINES:
        scene.broker.create_topic(f"{scene.group}.{beamline}.documents")
    return {
        beamline: scene.publication(documents[beamline], f"{scene.group}.{beamline}.documents")
        for beamline in BEAMLINES
    }


def service_of(scene: Scene) -> Service:
    """One for all: topics by pattern, nodes by the pattern's group."""
    pattern = rf"{scene.group}\.(bl[0-9]+)\.documents".replace("ingest.", r"ingest\.")
    routes = [{"topic": pattern, "path": f"facility-{scene.group}/{{1}}"}]
    return scene.service(kafka__topics=[f"^{pattern}$"], tiled__routes=routes)


def test_twenty_beamlines_of_which_two_go_wrong(postgres_scene: Scene, publications: Mapping[str, Publication]) -> None:
    scene, service = postgres_scene, service_of(postgres_scene)
    service.start().wait_for("claimed", count=len(BEAMLINES))
    for share in (0.5, 1.0):
        for publication in publications.values():
            publication.publish_to(share)
    service.wait_until(lambda: not service.status()["open_runs"] and not any(service.status()["lag"].values()),
                       "all is settled", limit_s=120)  # fmt: skip

    facility = scene.client[node_of(scene, "")[0]]
    for beamline in WELL:
        documents = publications[beamline].published
        assert compare_run(facility[beamline], uid_of(documents), documents) == []
    lengths = {code: len(publications[name].published) for code, name in CODES.items()}
    assert Counter(letter.code for letter in scene.letters()) == lengths
    states = Counter(line["state"] for line in service.lines("run_closed"))
    assert (service.running, states) == (True, {"complete": len(WELL)})
    failed = [each for each in check(load(environ=service.environment)) if each.verdict == "failed"]
    assert [each.name for each in failed] == [f"tiled node {'/'.join(node_of(scene, OBSTRUCTED))}"]
