"""What a plain Tiled client sees that reads all the time while tables are switched under it.

It knows nothing of us: it asks for a run's rows as any reader does, and each answer is held against what was published
and what Kafka said to be settled before it asked.
"""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from tiled.client import from_uri

from tests.system.publishing import Documents, runs, uid_of
from tests.system.scene import Scene
from tests.system.test_crashes import SWITCH, finish, inherit, strike

pytestmark = pytest.mark.real

Key = tuple[int, float]  # seq_num, time


class Reader:
    """Looks a run's table up and reads its rows, in a loop, straight from Tiled."""

    def __init__(self, scene: Scene, documents: Documents) -> None:
        self._scene = scene
        self._documents = documents
        self._client = from_uri(scene.tiled.uri, api_key=scene.tiled.api_key)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")
        self.published = Counter(_rows(documents))
        self.errors: list[str] = []
        self.answers: list[int] = []  # rows of each

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        while not self._end.wait(0.05):
            try:
                settled = Counter(_rows(self._documents[: max(0, self._scene.committed())]))
                table = self._client[uid_of(self._documents)]["primary"].base["internal"].read()
            except Exception as error:  # noqa: BLE001 - whatever a reader sees counts
                self.errors.append(repr(error))
                continue
            self._judge(Counter(zip(table["seq_num"].tolist(), table["time"].tolist(), strict=True)), settled)

    def _judge(self, seen: Counter[Key], settled: Counter[Key]) -> None:
        self.answers.append(seen.total())
        for what, rows in (("not there", settled - seen), ("too many", seen - self.published)):
            if rows:
                self.errors.append(f"answer {len(self.answers)}: {rows.total()} of {seen.total()} rows {what}")


def _rows(documents: Documents) -> list[Key]:
    descriptors = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    events = (doc for name, doc in documents if name == "event")
    return [(doc["seq_num"], doc["time"]) for doc in events if descriptors[doc["descriptor"]] == "primary"]


def only_primary(documents: Documents) -> Documents:
    """The run without its other streams, so that the points of a switch are those of this table."""
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    return [
        (name, doc) for name, doc in documents
        if streams.get(doc["uid"] if name == "descriptor" else doc.get("descriptor"), "primary") == "primary"
    ]  # fmt: skip


def test_a_reader_sees_every_settled_row_once_while_tables_are_switched(scene: Scene) -> None:
    """The service dies within two of the switches, and a third goes through; its steps are made to take a while."""
    documents = only_primary(runs()[0])
    service, publication = scene.service(), scene.publication(documents)
    inherit(scene, service, publication)
    with Reader(scene, documents) as reader:
        for name, share in (("switch: child filled", 0.5), ("switch: live points to it", 0.7)):
            publication.steadily(share)
            strike(scene, SWITCH[name], service.kill, service.start)
        for method in ("POST", "PUT"):
            scene.proxy.delay(method, "/internal", 0.4, times=None)
        before = len(reader.answers)
        publication.steadily(0.95)
        service.start().wait_for("switched", stream="primary")
        after = len(reader.answers)
        scene.proxy.clear()
        finish(scene)
    assert reader.errors == []
    scene.notes.append(f"{len(reader.answers)} answers of {min(reader.answers)} to {max(reader.answers)} rows")
    assert after > before + 3, "nobody read meanwhile"
