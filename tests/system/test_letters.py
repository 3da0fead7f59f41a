"""A run that fails is in the dead-letter topic whole, whatever dies while it goes there."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import confluent_kafka as ck
import pytest

from tests.system.publishing import Documents, interleaved, message, renewed, runs, uid_of
from tests.system.scene import Scene
from tests.system.service import Service

pytestmark = pytest.mark.real

EVENTS = 4_000  # so many that the letters take longer to go out than it takes to kill


def long_run() -> Documents:
    """One of the runs, with many events in its first stream."""
    start, *documents = renewed(runs()[2])
    descriptor = next(doc for name, doc in documents if name == "descriptor" and doc["name"] == "primary")
    event = next(doc for name, doc in documents if name == "event" and doc["descriptor"] == descriptor["uid"])
    many = (
        ("event", {**event, "uid": f"{event['uid'][:-6]}{number:06}", "seq_num": number}) for number in range(1, EVENTS)
    )
    return [start, ("descriptor", descriptor), *many, documents[-1]]


def letters_out(consumer: Any, topic: str) -> int:
    """How many letters the topic holds; 0 while there is no topic."""
    try:
        return int(consumer.get_watermark_offsets(ck.TopicPartition(topic, 0), timeout=2)[1])
    except ck.KafkaException:
        return 0


def kill_between_letters(scene: Scene, service: Service, beyond: int) -> int:
    """Kill it as soon as so many letters are out; returns how many were, when it was dead."""
    topic = f"{scene.group}.dead-letters"
    settings = {"bootstrap.servers": scene.broker.bootstrap_servers, "group.id": f"count.{scene.group}", "log_level": 0}
    until_s = time.monotonic() + 60
    with closing(ck.Consumer(settings)) as consumer:
        while letters_out(consumer, topic) <= beyond:
            assert time.monotonic() < until_s, service.tail()
        service.kill()
        out = -1
        while out < (now := letters_out(consumer, topic)):  # what it had sent last may still be on its way
            out = now
            time.sleep(0.5)
        return out


def test_killed_half_way_all_of_it_is_there_in_order(scene: Scene) -> None:
    bad, sound = long_run(), runs(1)[0]
    documents = [*bad[:-1], *interleaved([bad[-1:], sound], seed=1)]
    scene.produce(*(message(name, doc) for name, doc in documents))
    scene.proxy.answer("PATCH", f"/table/partition/{uid_of(bad)}/", 400, times=None)
    service = scene.service().start()
    killed_at: list[int] = []
    for _ in range(2):
        beyond = killed_at[-1] + 200 if killed_at else 200
        killed_at.append(kill_between_letters(scene, service, beyond))
        assert scene.state(uid_of(bad)) == "open", "it is called failed before its letters are out"
        assert scene.committed() <= 2, "only its start and descriptor are in Tiled"
        assert scene.resume_point() == 0, "a successor must read the run from its start"
        service.start()
    scene.settle()

    letters = scene.letters()
    offsets = [int(letter.headers["offset"]) for letter in letters]
    theirs = {id(document) for document in bad}
    wanted = [at for at, document in enumerate(documents) if id(document) in theirs]
    assert len(wanted) == len(bad)
    scene.notes.append(f"{len(bad)} documents, killed with {killed_at} letters out, {len(letters)} in the end")
    assert 200 < killed_at[0] < len(bad), "it was not half-way"
    assert list(dict.fromkeys(offsets)) == wanted, "each is there, the first letters of all in order, from the start"
    assert [offsets[at] for at in (0, *killed_at)] == [0, 0, 0], "each process began at the run's start"
    assert {letter.code for letter in letters} == {"run_failed"}
    for letter in letters:
        assert letter.value == message(*documents[int(letter.headers["offset"])])
    assert scene.state(uid_of(bad)) == "failed"
    scene.compare(sound, "complete")
