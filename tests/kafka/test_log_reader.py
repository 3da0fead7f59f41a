"""Reading beside the group, against a real broker."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kafka.trouble import delete_records
from tests.rig.fixtures import TopicFactory
from tiled_ingest.core.record import Home
from tiled_ingest.demo.broker import Broker
from tiled_ingest.kafka.errors import LogUnavailable
from tiled_ingest.kafka.log_reader import LogReader

pytestmark = pytest.mark.real

LIMIT_S = 8.0  # what must come on a busy machine too; two tests wait as long for what never comes

Produce = Callable[..., None]


@pytest.fixture
def reader(broker: Broker) -> Iterator[LogReader]:
    made = LogReader(broker.bootstrap_servers, "group", {"session.timeout.ms": "7000"}, read_s_max=LIMIT_S)
    yield made
    made.close()


def test_a_range(reader: LogReader, topic: TopicFactory, produce: Produce) -> None:
    home = Home(topic(), 0)
    produce(home.topic, [b"%d" % number for number in range(10)])
    records, next_offset, low = reader.read(home, 3, 7, 1_000_000)
    assert [(record.offset, record.value, record.key) for record in records] == [
        (offset, b"%d" % offset, b"key") for offset in range(3, 7)
    ]
    assert (next_offset, low) == (7, 0)
    assert [record.offset for record in reader.read(home, 0, 2, 1)[0]] == [0]  # one at least, however small


def test_chunks_go_on_from_each_other_quickly(reader: LogReader, topic: TopicFactory, produce: Produce) -> None:
    home = Home(topic(), 0)
    produce(home.topic, [b"x" * 1_000] * 3_000)
    offsets, start, chunks, began_s = [], 0, 0, time.monotonic()
    while start < 3_000:
        records, start, _ = reader.read(home, start, 3_000, 10_000)
        assert len(records) == 10
        offsets += [record.offset for record in records]
        chunks += 1
    assert offsets == list(range(3_000))
    assert chunks == 300
    assert time.monotonic() - began_s < 5


def test_two_partitions_in_turn(reader: LogReader, topic: TopicFactory, produce: Produce) -> None:
    name = topic(partitions=2)
    for partition in (0, 1):
        produce(name, [b"%d/%d" % (partition, number) for number in range(4)], partition=partition)
    for start in (0, 2):
        for partition in (0, 1):
            records, _, _ = reader.read(Home(name, partition), start, start + 2, 1_000)
            assert [it.value for it in records] == [b"%d/%d" % (partition, start + it) for it in (0, 1)]


def test_markers_and_aborted_records_are_passed(reader: LogReader, topic: TopicFactory, transact: Produce) -> None:
    home = Home(topic(), 0)
    transact(home.topic, [b"a", b"b"])  # 0, 1, marker 2
    transact(home.topic, [b"bad"] * 3, abort=True)  # 3, 4, 5, marker 6
    transact(home.topic, [b"c"])  # 7, marker 8
    records, next_offset, _ = reader.read(home, 0, 5, 1_000)
    assert [record.offset for record in records] == [0, 1]
    assert next_offset >= 5
    records, next_offset, _ = reader.read(home, 0, 9, 1_000)
    assert [record.offset for record in records] == [0, 1, 7]
    assert next_offset == 9


def test_a_log_that_begins_later(reader: LogReader, topic: TopicFactory, produce: Produce, broker: Broker) -> None:
    home = Home(topic(), 0)
    produce(home.topic, [b"%d" % number for number in range(10)])
    delete_records(broker.bootstrap_servers, home, 6)
    assert reader.read(home, 2, 9, 1_000) == ([], 6, 6)
    records, next_offset, low = reader.read(home, 6, 9, 1_000)
    assert ([record.offset for record in records], next_offset, low) == ([6, 7, 8], 9, 6)


def test_a_refusal_of_an_earlier_read_that_comes_late_is_not_this_one_s(
    reader: LogReader, topic: TopicFactory, produce: Produce, broker: Broker
) -> None:
    """It comes late nearly always; in one of a hundred librdkafka then fetched nothing more."""
    for _ in range(12):
        home = Home(topic(), 0)
        produce(home.topic, [b"x"] * 10)
        delete_records(broker.bootstrap_servers, home, 6)
        assert reader.read(home, 2, 9, 1_000) == ([], 6, 6)
        assert [record.offset for record in reader.read(home, 6, 9, 1_000)[0]] == [6, 7, 8]


def test_a_log_that_is_cut_between_two_reads(
    reader: LogReader, topic: TopicFactory, produce: Produce, broker: Broker
) -> None:
    home = Home(topic(), 0)
    produce(home.topic, [b"x"] * 10)
    assert reader.read(home, 0, 10, 1)[1] == 1
    delete_records(broker.bootstrap_servers, home, 6)
    # What was fetched ahead may still be handed out; either way nothing is skipped in silence.
    records, next_offset, low = reader.read(home, 1, 10, 1_000)
    assert (records == [] and next_offset == low == 6) or [it.offset for it in records] == list(range(1, 10))


def test_a_range_that_the_log_does_not_reach(reader: LogReader, topic: TopicFactory, produce: Produce) -> None:
    home = Home(topic(), 0)
    produce(home.topic, [b"x"] * 3)
    records, next_offset, _ = reader.read(home, 1, 10, 1_000)
    assert ([it.offset for it in records], next_offset) == ([1, 2], 3)
    with pytest.raises(LogUnavailable, match="nothing from 3 up to 10"):
        reader.read(home, 3, 10, 1_000)
    with pytest.raises(LogUnavailable, match="does not hold offset 7"):
        reader.read(home, 7, 10, 1_000)
    assert len(reader.read(home, 0, 3, 1_000)[0]) == 3  # and it goes on working


def test_an_empty_range_and_an_unknown_topic(reader: LogReader, topic: TopicFactory) -> None:
    assert reader.read(Home(topic(), 0), 0, 0, 1_000) == ([], 0, 0)
    with pytest.raises(LogUnavailable, match=r"no\.such\.topic"):
        reader.read(Home("no.such.topic", 0), 0, 5, 1_000)


def test_a_broker_that_is_away() -> None:
    reader = LogReader("127.0.0.1:1", "group", {}, read_s_max=1.0)
    began_s = time.monotonic()
    with pytest.raises(LogUnavailable):
        reader.read(Home("topic", 0), 0, 5, 1_000)
    assert time.monotonic() - began_s < 5
    reader.close()


def test_a_read_under_way_holds_up_no_close(reader: LogReader, topic: TopicFactory) -> None:
    """Nobody waits for it any more: it ends by its own limit, or with the process."""
    with ThreadPoolExecutor() as lanes:
        reading = lanes.submit(reader.read, Home(topic(), 0), 0, 1, 1_000_000)  # what never comes
        time.sleep(0.5)
        began_s = time.monotonic()
        reader.close(0.5)
        assert time.monotonic() - began_s < LIMIT_S / 2
        assert not reading.done()
        with pytest.raises(LogUnavailable):
            reading.result(2 * LIMIT_S)
