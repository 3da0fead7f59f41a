"""Topics full of documents, filled once and shared by all arms that read the same."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import confluent_kafka as ck
import numpy as np

from tests.bench.messages import Events, Names
from tests.bench.shapes import SHAPES, Shape
from tiled_ingest.demo.broker import Broker


@dataclass
class Topic:
    """A topic, and what is in it: `events` of each of `runs` runs, all of one shape."""

    name: str
    names: Names
    shape: Shape
    runs: int
    events: int
    partitions: int = 1
    messages: int = 0
    nbytes: int = 0
    maker: Events = field(init=False)

    def __post_init__(self) -> None:
        self.maker = Events(self.names, self.shape)

    @property
    def rows(self) -> int:
        return self.runs * self.events


class Topics:
    """Makes topics at one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._made: dict[tuple[object, ...], Topic] = {}
        self._producer = ck.Producer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 1_000_000,
                "linger.ms": 20,
                "batch.size": 1_000_000,
                "log_level": 2,
            }
        )
        self._failures: list[object] = []

    def backlog(self, shape: str, runs: int, events: int, *, order: str = "sequential", partitions: int = 1) -> Topic:
        """A topic with complete runs: one after the other, or `interleaved` (each one's first event, the second...)."""
        key = (shape, runs, events, order, partitions)
        if key not in self._made:
            topic = self._made[key] = self.empty(shape, runs, events, partitions)
            self.publish(topic, _interleaved(topic) if order == "interleaved" else _sequential(topic))
        return self._made[key]

    def empty(self, shape: str, runs: int, events: int, partitions: int = 1) -> Topic:
        """A topic of its own with nothing in it yet."""
        mark = uuid.uuid4().hex[:8]
        name = f"bench.{shape}.{mark}"
        self._broker.create_topic(name, partitions, {"retention.ms": "-1", "segment.bytes": str(2**28)})
        return Topic(name, Names(mark), SHAPES[shape], runs, events, partitions)

    def publish(self, topic: Topic, blocks: Iterable[tuple[int, list[bytes]]]) -> None:
        """Publish blocks of (partition, messages); returns when the broker has all."""
        for partition, block in blocks:
            self._send(topic, partition, block)
            topic.messages += len(block)
            topic.nbytes += sum(map(len, block))
        if self._producer.flush(300) or self._failures:
            raise RuntimeError(f"Kafka did not take everything: {self._failures[:1]}")

    def _send(self, topic: Topic, partition: int, block: list[bytes]) -> None:
        todo = [{"value": message} for message in block]
        while todo:
            self._producer.produce_batch(topic.name, todo, partition=partition, on_delivery=self._delivered)
            todo = [message for message in todo if message.pop("_error", None)]  # the queue was full
            self._producer.poll(0.05 if todo else 0)

    def _delivered(self, error: object, _: object) -> None:
        if error:
            self._failures.append(error)


def _sequential(topic: Topic) -> Iterator[tuple[int, list[bytes]]]:
    for run in range(topic.runs):
        partition = run % topic.partitions
        yield partition, [topic.names.start(run), topic.names.descriptor_of(run, topic.shape)]
        for begin in range(1, topic.events + 1, 20_000):
            numbers = np.arange(begin, min(begin + 20_000, topic.events + 1))
            yield partition, topic.maker.messages(np.full(len(numbers), run), numbers)
        yield partition, [topic.names.stop(run, topic.events)]


def _interleaved(topic: Topic) -> Iterator[tuple[int, list[bytes]]]:
    runs = range(topic.runs)
    yield 0, [message for run in runs for message in opening(topic, run)]
    every = np.arange(topic.runs)
    for number in range(1, topic.events + 1):
        yield 0, topic.maker.messages(every, np.full(topic.runs, number))
    yield 0, [topic.names.stop(run, topic.events) for run in runs]


def opening(topic: Topic, run: int) -> list[bytes]:
    """The documents with which a run begins."""
    return [topic.names.start(run), topic.names.descriptor_of(run, topic.shape)]
