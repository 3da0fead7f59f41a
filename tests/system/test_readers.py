"""What a plain Tiled client sees that reads all the time while tables are switched under it, and what it may break.

It knows nothing of us: it asks for a run's rows as any reader does, and each answer is held against what was published
and what Kafka said to be settled before it asked.

That is shown on PostgreSQL. DuckDB in Tiled has one connection for all clients: a read that ends rolls back what a
write has not committed yet, and two at once end the process, or hang it in the middle of a catalog's transaction (then
an SQLite catalog is locked until somebody restarts Tiled). There only the end of the story is the same.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from tiled.client import from_uri

from tests.system.publishing import Documents, runs, uid_of
from tests.system.scene import Scene
from tests.system.service import Service
from tests.system.test_crashes import SWITCH, finish, inherit, strike

pytestmark = pytest.mark.real

Key = tuple[int, float]  # seq_num, time
PACE_S = 0.01
STUCK_S = 15.0  # nothing is written for so long: then its supervisor kills Tiled, as a probe of its health would
STORY_LIMIT_S = 180.0


class Reader:
    """Reads the rows of a run's table in a loop, straight from Tiled."""

    def __init__(self, scene: Scene, documents: Documents) -> None:
        self._scene = scene
        self._documents = documents
        self._client = from_uri(scene.tiled.uri, api_key=scene.tiled.api_key)
        self._table = self._client[uid_of(documents)]["primary"].base["internal"]
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
        while not self._end.wait(PACE_S):
            try:
                settled = Counter(_rows(self._documents[: max(0, self._scene.committed())]))
                table = self._table.read()
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


def test_a_reader_sees_every_settled_row_once_while_tables_are_switched(postgres_scene: Scene) -> None:
    """The service dies within two of the switches, and a third goes through; its steps are made to take a while."""
    scene = postgres_scene
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


def test_on_duckdb_a_reader_may_break_everything_but_the_run(duckdb_scene: Scene) -> None:
    """Whatever its reads do to Tiled and to our requests: where Tiled is started again, each row is there once."""
    scene = duckdb_scene
    documents = only_primary(runs()[0])
    service, publication = scene.service(), scene.publication(documents)
    inherit(scene, service, publication)
    with Reader(scene, documents) as reader:
        for share in (0.4, 0.6, 0.8, 1.0):
            service.start()
            publication.publish_to(share)
            until_settled(scene, service)
            service.kill()
    reads = f"{len(reader.answers)} answers, {Counter(error[:60] for error in reader.errors)}"
    scene.notes.append(reads)
    assert reader.answers, reads
    scene.compare(documents, "complete")
    assert [letter.headers for letter in scene.letters()] == []


def until_settled(scene: Scene, service: Service) -> None:
    """Wait until all that is published is committed, and start Tiled again whenever it has ended or is stuck."""
    watched = Stuck(scene.committed)
    until_s = time.monotonic() + STORY_LIMIT_S
    while scene.committed() < scene.end():
        assert service.running, service.tail()
        assert time.monotonic() < until_s, f"{scene.committed()} of {scene.end()} committed\n{service.tail(15)}"
        if not scene.tiled.running or watched.for_s > STUCK_S:
            scene.notes.append("Tiled was stuck" if scene.tiled.running else "Tiled had ended")
            scene.tiled.kill()
            scene.tiled.restart()
            watched = Stuck(scene.committed)
        time.sleep(0.1)


class Stuck:
    """How long a number has been the same."""

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._last, self._since_s = number(), time.monotonic()

    @property
    def for_s(self) -> float:
        """Seconds since it was another, as far as it was asked."""
        if (number := self._number()) != self._last:
            self._last, self._since_s = number, time.monotonic()
        return time.monotonic() - self._since_s
