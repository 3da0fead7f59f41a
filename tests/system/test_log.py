"""Logs and commits as they may become: gaps where records were, and a commit that has lost what we wrote beside it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

import confluent_kafka as ck
import pytest

from tests.kafka.trouble import transact
from tests.system.publishing import Documents, interleaved, message, runs, wait_until
from tests.system.scene import Scene

pytestmark = pytest.mark.real

CLEANED_LIMIT_S = 90.0  # the broker's cleaner looks every 15 s
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "200",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "300",
    "delete.retention.ms": "0",
}


def produce_with_gaps(scene: Scene, documents: Documents) -> None:
    """Put documents in, each under a key of its own, with records between them of which compaction leaves the last."""
    producer = ck.Producer({"bootstrap.servers": scene.broker.bootstrap_servers, "enable.idempotence": True})
    for number, (name, doc) in enumerate(documents):
        producer.produce(scene.topic, message(name, doc), uuid.uuid4().bytes, 0)
        if number % 5 < 3:
            producer.produce(scene.topic, b"of no use", b"the same key", 0)
    producer.produce(scene.topic, None, b"the same key", 0)
    assert producer.flush(30) == 0


def produce_in_transactions(scene: Scene, documents: Documents, portion: int = 20) -> None:
    """Put documents in by transactions, each of which was aborted once before."""
    for begin in range(0, len(documents), portion):
        values = [message(name, doc) for name, doc in documents[begin : begin + portion]]
        for abort in (True, False):
            transact(scene.broker.bootstrap_servers, scene.topic, values, abort=abort)


def held(scene: Scene) -> list[int]:
    """The offsets of the records that the log holds now."""
    settings = {"bootstrap.servers": scene.broker.bootstrap_servers, "group.id": "held", "enable.partition.eof": True}
    found: list[int] = []
    consumer = ck.Consumer(settings)
    consumer.assign([ck.TopicPartition(scene.topic, 0, 0)])
    try:
        while True:
            read: ck.Message | None = consumer.poll(20)
            assert read is not None, "the log does not end"
            if read.error():
                return found
            found.append(read.offset())
    finally:
        consumer.close()


def compacted(scene: Scene, documents: int) -> bool:
    """Whether little but the documents is left; a segment that grows is not compacted, so one more record closes it."""
    scene.produce(None)
    time.sleep(0.5)
    return len(held(scene)) < documents * 1.2


def lose_resume_point(scene: Scene) -> None:
    """Commit the same offset once more, as a tool that sets offsets does: without anything beside it."""
    wait_until(lambda: _committed_bare(scene), "the group is empty")


def _committed_bare(scene: Scene) -> bool:
    try:
        scene.commit_bare(scene.committed())
    except ck.KafkaException as error:
        if error.args[0].code() != ck.KafkaError.UNKNOWN_MEMBER_ID:
            raise
        return False  # the one that was killed is a member until its session is over
    return True


def kill_half_way(scene: Scene, upto: int) -> None:
    """Let a service write what stands before an offset, and kill it."""
    (service,) = scene.services
    service.start()
    service.wait_until(lambda: scene.committed() >= upto, "half of it committed", poll_s=0.02, limit_s=60)
    service.kill()


def finish(scene: Scene, all_runs: Sequence[Documents]) -> None:
    (service,) = scene.services
    service.start()
    scene.settle()
    for documents in all_runs:
        scene.compare(documents, "complete")


def test_a_log_with_gaps_of_compaction_is_read_and_read_again(duckdb_scene: Scene) -> None:
    scene, all_runs = duckdb_scene, runs()
    scene.topic = scene.new_topic("compacted.docs", 1, COMPACTED)
    documents = interleaved(all_runs)
    produce_with_gaps(scene, documents)
    end = scene.end()
    wait_until(lambda: compacted(scene, len(documents)), "compaction", limit_s=CLEANED_LIMIT_S)
    left = held(scene)
    assert len(documents) <= len(left) < end
    assert left != list(range(left[0], left[-1] + 1)), "there is no gap"
    scene.service(batch__rows_max=20)
    kill_half_way(scene, left[len(documents) // 2])
    finish(scene, all_runs)
    assert {letter.code for letter in scene.letters()} == {"tombstone"}


def test_a_log_with_aborted_transactions_is_read_and_read_again(duckdb_scene: Scene) -> None:
    scene, all_runs = duckdb_scene, runs()
    documents = interleaved(all_runs)
    produce_in_transactions(scene, documents)
    assert scene.end() > 2 * len(documents)
    scene.service(batch__rows_max=20)
    kill_half_way(scene, scene.end() // 2)
    finish(scene, all_runs)
    assert scene.letters() == []


def test_a_lost_resume_point_costs_a_replay_only(scene: Scene) -> None:
    all_runs = runs()
    documents = interleaved(all_runs)
    publication = scene.publication(documents)
    publication.publish_to(0.6)
    session = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 1_000}
    scene.service(batch__rows_max=20, kafka__properties=session)
    kill_half_way(scene, scene.end())
    assert scene.resume_point() < scene.committed()
    lose_resume_point(scene)
    assert not scene.commit_notes()
    publication.publish()
    finish(scene, all_runs)
    scene.verify()
