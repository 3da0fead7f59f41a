"""Two runs of one schema: their rows are in one SQL table, and nothing done to one touches the other."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from tests.system.publishing import Documents, interleaved, renewed, runs, uid_of
from tests.system.scene import Scene
from tests.system.test_crashes import LIVE, PARTITION, inherit, killed_while_held, let_go
from tests.tools.conftest import settings_of
from tiled_ingest.tools.dlq import Choice, planned
from tiled_ingest.tools.progress import Silent

pytestmark = pytest.mark.real

ARROW = "application/vnd.apache.arrow.file"


@dataclass(frozen=True)
class Held:
    """All that Tiled holds of a run's stream: where, how, and each row."""

    parameters: Any
    structure: Any
    rows: Counter[str]
    metadata: Any


def held(scene: Scene, run: Documents) -> Held:
    node = scene.client[uid_of(run)]
    table = node["primary"].base["internal"]
    (source,) = table.data_sources()
    buffer = io.BytesIO()
    table.export(buffer, format=ARROW)
    rows = pa.ipc.open_file(pa.BufferReader(buffer.getvalue())).read_all().to_pylist()
    metadata = dict(node.metadata), dict(node["primary"].metadata)
    return Held(dict(source.parameters), source.structure, Counter(map(repr, rows)), metadata)


def shared_table(*found: Held) -> bool:
    """Whether the first column order, and so the SQL table, is one for all."""
    return len({each.parameters["table_name"] for each in found}) == 1


def through(scene: Scene, *documents: Documents, **more: Any) -> None:
    """Let a service take all of these runs, and end."""
    scene.publication(interleaved(documents)).publish()
    service = scene.service(f"service{len(scene.services)}", **more).start()
    scene.settle()
    assert service.stop() == 0


def twins(count: int) -> list[Documents]:
    """Runs of one plan, under different uids."""
    (recorded,) = runs(1)
    return [renewed(recorded) for _ in range(count)]


def test_a_switch_of_one_leaves_the_other_as_it_is(scene: Scene) -> None:
    """One is complete, one is switched, and one is open and silent: its table is a dead claim's, too."""
    done, switched, waiting = twins(3)
    through(scene, done)
    service = scene.service("later")
    scene.publication(waiting[: len(waiting) // 2]).publish()
    publication = scene.publication(switched)
    inherit(scene, service, publication)
    before = held(scene, done), held(scene, waiting)
    assert shared_table(*before, held(scene, switched)), "else nothing is shown"

    fault, run, stream = killed_while_held(
        scene, service, publication, "PATCH", rf"{PARTITION}/{uid_of(switched)}/primary{LIVE}", 0.6
    )
    assert (run, stream) == (uid_of(switched), "primary")
    publication.pause()
    service.start()
    publication.publish()
    service.wait_for("switched", run=uid_of(switched), stream="primary")
    let_go(fault)  # an append to the table that both share, of a dead owner
    scene.settle()
    assert (held(scene, done), held(scene, waiting)) == before
    scene.compare(switched, "complete")
    scene.compare(done, "complete")
    assert service.stop() == 0


def test_a_redrive_of_one_leaves_the_other_as_it_is(scene: Scene) -> None:
    done, failed = twins(2)
    scene.proxy.answer("PATCH", f"table/partition/{uid_of(failed)}/primary", 422, nth=2, times=None)
    through(scene, done, failed, batch__rows_max=20)
    scene.proxy.clear()
    assert scene.state(uid_of(failed)) == "failed"
    before = held(scene, done)
    assert shared_table(before, held(scene, failed))
    with planned(settings_of(scene), Choice(runs=frozenset({uid_of(failed)}))) as found:
        redriven = found.write(Silent(), 20.0)
    assert redriven.passed, redriven.built
    assert held(scene, done) == before
    scene.compare(failed, "complete")
    scene.compare(done, "complete")
