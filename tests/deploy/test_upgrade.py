"""`helm upgrade` while documents flow: nothing is lost and nothing doubled, with one replica and with several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import Object, one, rendered
from tests.deploy.rollout import Rollout
from tests.rig.fixtures import TopicFactory
from tests.system.publishing import Publication, interleaved, key_for, runs
from tests.system.scene import Scene
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

PARTITIONS = 3
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def scene(broker: Broker, tiled_postgres: TiledServer, topic: TopicFactory, tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(broker, tiled_postgres, topic, tmp_path)) as made:
        made.divide(PARTITIONS)
        yield made


def chart(scene: Scene, replicas: int, rows_max: int) -> list[Object]:
    """What the chart makes of values for this scene; a change of `rows_max` is the upgrade."""
    values = {
        "beamline": "xyz",
        "replicaCount": replicas,
        "settings": {
            "kafka": {
                "bootstrap_servers": scene.broker.bootstrap_servers,
                "group_id": scene.group,
                "topics": [scene.topic],
            },
            "tiled": {"uri": scene.proxy.uri},
            "batch": {"rows_max": rows_max},
        },
        "secrets": {"tiledApiKey": {"name": "xyz-tiled", "key": "api-key"}},
    }
    path = scene.folder / f"values-{replicas}-{rows_max}.yaml"
    path.write_text(yaml.safe_dump(values))
    return rendered(path)


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_upgrade_loses_and_doubles_nothing(scene: Scene, replicas: int) -> None:
    flows = [scene.publication(interleaved(runs(2), home), key=key_for(home, PARTITIONS)) for home in range(PARTITIONS)]
    before, after = (chart(scene, replicas, rows_max) for rows_max in (1000, 500))
    template, changed = (one(objects, "Deployment")["spec"]["template"] for objects in (before, after))
    assert template["metadata"]["annotations"] != changed["metadata"]["annotations"], "no pod would be replaced"

    with closing(Rollout(scene.folder, scene.tiled.api_key)) as release:
        for publication in flows:
            publication.publish_to(0.2)
        release.install(before)
        begun = [publication.position for publication in flows]
        release.meanwhile = lambda: flow(flows)
        release.upgrade(after)
        assert all(publication.position > there for publication, there in zip(flows, begun, strict=True))
        assert len(release.old) == len(release.pods) == replicas
        for publication in flows:
            publication.publish()
        scene.services += [*release.pods, *release.old]
        scene.settle(*range(PARTITIONS))
        scene.verify()


def flow(publications: list[Publication]) -> None:
    """One more document of each, but never the last: every run is open all the time."""
    for publication in publications:
        publication.publish(min(1, len(publication.documents) - publication.position - 1))
