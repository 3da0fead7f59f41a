"""What the tests of this room share: a producer, and a member of a group that notes what happens to it."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import confluent_kafka as ck
import pytest

from tests.kafka import trouble
from tests.kafka.member import Member
from tiled_ingest.demo.broker import Broker

MemberFactory = Callable[..., Member]


@pytest.fixture
def member(broker: Broker) -> Iterator[MemberFactory]:
    """`member(topics, group="g", **source_arguments)` makes a member; all of them leave at the end."""
    made: list[Member] = []
    mark = uuid.uuid4().hex[:8]

    def make(topics: str | list[str], group: str = "group", **arguments: Any) -> Member:
        wanted = [topics] if isinstance(topics, str) else topics
        made.append(Member(broker.bootstrap_servers, f"{group}.{mark}", wanted, **arguments))
        return made[-1]

    yield make
    for each in made:
        each.source.close()


@pytest.fixture
def produce(broker: Broker) -> Callable[..., None]:
    """`produce(topic, [b"a", b"b"], partition=0, key=b"k")` returns after the broker has them."""
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 1})

    def send(topic: str, values: list[bytes], partition: int = 0, key: bytes | None = b"key") -> None:
        for value in values:
            producer.produce(topic, value, key, partition)
            producer.poll(0)
        assert producer.flush(10) == 0

    return send


@pytest.fixture
def transact(broker: Broker) -> Callable[..., None]:
    """`transact(topic, values, abort=True)`: one transaction in partition 0."""
    return partial(trouble.transact, broker.bootstrap_servers)
