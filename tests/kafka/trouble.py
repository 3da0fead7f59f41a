"""What can be done to a broker and its logs."""

import os
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import confluent_kafka as ck
from confluent_kafka.admin import AclOperation, AclPermissionType, AdminClient, ResourceType

from tests.rig.acls import impose, rule
from tiled_ingest.core.record import Home
from tiled_ingest.demo.broker import KafkaBroker


def delete_records(servers: str, home: Home, before: int) -> None:
    """Cut the beginning of a log, as retention does."""
    place = ck.TopicPartition(home.topic, home.partition, before)
    admin = AdminClient({"bootstrap.servers": servers})  # a client without a name dies before it answers
    admin.delete_records([place])[place].result(20)


def transact(servers: str, topic: str, values: Sequence[bytes], *, abort: bool = False) -> None:
    """Put values into partition 0 in one transaction, which is committed or aborted."""
    producer = ck.Producer({"bootstrap.servers": servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(30) == 0
    (producer.abort_transaction if abort else producer.commit_transaction)(30)


def deny_reading(servers: str, topic: str) -> None:
    """Take the right to read a topic from everybody."""
    impose(servers, [rule(ResourceType.TOPIC, topic, AclOperation.READ, AclPermissionType.DENY)])


@contextmanager
def frozen(broker: KafkaBroker) -> Iterator[None]:
    """A broker that accepts connections and says nothing."""
    process = broker._process
    assert process is not None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
