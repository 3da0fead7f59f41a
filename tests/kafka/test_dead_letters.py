"""Dead letters, against a real broker."""

import os
import time
import uuid
from collections.abc import Callable, Iterator

import confluent_kafka as ck
import pytest

from tests.rig.fixtures import TopicFactory
from tiled_ingest.core.effects import DeadLetter, DeadLettered, DeadLetterRefused
from tiled_ingest.core.errors import Forbidden
from tiled_ingest.core.record import Record
from tiled_ingest.demo.broker import Broker
from tiled_ingest.kafka.dead_letter_topic import ensure_topic
from tiled_ingest.kafka.dead_letters import Confirmations, DeadLetters, harmless
from tiled_ingest.kafka.topics import Topics
from tiled_ingest.tools.joining import Joiner
from tiled_ingest.tools.letter import Letter, letter_of

pytestmark = pytest.mark.real

Make = Callable[..., DeadLetters]


@pytest.fixture
def letters(broker: Broker) -> Iterator[Make]:
    made: list[DeadLetters] = []

    def make(topic: str, bytes_max: int | None = None, **properties: str) -> DeadLetters:
        given = {name.replace("_", "."): value for name, value in properties.items()}
        made.append(DeadLetters(broker.bootstrap_servers, topic, given, "1.2.3", bytes_max, full_s_max=1.0))
        return made[-1]

    yield make
    for each in made:
        each.close(1.0)


def letter(
    ticket: int = 1, value: bytes | None = b"value", error: str = "orphan: no start", offset: int = 42
) -> DeadLetter:
    record = Record("source.topic", 3, offset, 1_700_000_000_123, b"\x00key", value)
    return DeadLetter(ticket, record, "InvalidDocument", "orphan", error, "run-uid")


def answers(letters: DeadLetters, count: int = 1, limit_s: float = 20.0) -> Confirmations:
    found: Confirmations = []
    until_s = time.monotonic() + limit_s
    while len(found) < count and time.monotonic() < until_s:
        found += letters.poll()
        time.sleep(0.01)
    return found


def held(broker: Broker, topic: str, count: int) -> list[ck.Message]:
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": uuid.uuid4().hex}
    consumer = ck.Consumer(settings | {"enable.auto.commit": False})
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    found: list[ck.Message] = consumer.consume(count, 20)
    consumer.close()
    return found


def read(broker: Broker, topic: str, partitions: int = 1) -> tuple[list[Letter], Joiner]:
    """What a reader makes of the topic."""
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": uuid.uuid4().hex}
    consumer, joiner, found = ck.Consumer(settings | {"enable.partition.eof": True}), Joiner(), list[Letter]()
    consumer.assign([ck.TopicPartition(topic, number, 0) for number in range(partitions)])
    ends = 0
    while ends < partitions:
        message = consumer.poll(20)
        assert message is not None, "the topic does not end"
        if message.error():
            ends += 1
        else:
            found += joiner.take([letter_of(message)])
    consumer.close()
    return found, joiner


def test_a_letter_is_the_record_with_the_reason(letters: Make, topic: TopicFactory, broker: Broker) -> None:
    name = topic("dead")
    one = letters(name)
    one.send(letter(7))
    assert answers(one) == [DeadLettered(7)]
    (message,) = held(broker, name, 1)
    assert (message.key(), message.value()) == (b"\x00key", b"value")
    assert message.headers() == [
        ("tiled_ingest.reason", b"InvalidDocument"),
        ("tiled_ingest.code", b"orphan"),
        ("tiled_ingest.error", b"orphan: no start"),
        ("tiled_ingest.topic", b"source.topic"),
        ("tiled_ingest.partition", b"3"),
        ("tiled_ingest.offset", b"42"),
        ("tiled_ingest.timestamp_ms", b"1700000000123"),
        ("tiled_ingest.run", b"run-uid"),
        ("tiled_ingest.version", b"1.2.3"),
    ]


def test_absent_keys_and_values_stay_absent(letters: Make, topic: TopicFactory, broker: Broker) -> None:
    name = topic("dead")
    one = letters(name)
    one.send(DeadLetter(1, Record("t", 0, 0, -1, None, None), "InvalidDocument", "tombstone", "", ""))
    assert answers(one) == [DeadLettered(1)]
    (message,) = held(broker, name, 1)
    assert (message.key(), message.value()) == (None, None)


def test_many_are_confirmed_once_each(letters: Make, topic: TopicFactory) -> None:
    one = letters(topic("dead"), queue_buffering_max_messages="100")
    for ticket in range(2_000):
        one.send(letter(ticket))
    assert one.flush(20) == 0
    assert sorted(it.ticket for it in answers(one, 2_000)) == list(range(2_000))


def test_a_topic_that_takes_nothing_is_named_with_what_to_do(letters: Make, topic: TopicFactory) -> None:
    name = topic("dead", config={"max.message.bytes": "600"})
    one = letters(name)
    one.send(letter(5, os.urandom(10_000)))
    (refused,) = answers(one)
    assert isinstance(refused, DeadLetterRefused)
    assert refused.ticket == 5
    begin = f"topic {name} did not take the letter for source.topic[3] at 42 (10000 bytes), nor messages of "
    assert refused.detail.startswith(begin)
    assert "MSG_SIZE_TOO_LARGE" in refused.detail
    assert refused.detail.endswith("; raise its max.message.bytes, then start again")


KNOWN = pytest.mark.parametrize("known", [True, False], ids=["limit known", "limit hidden"])


@KNOWN
@pytest.mark.parametrize("takes", [1_000_000, 100_000, 6_000])
def test_letters_of_any_size_arrive_in_their_order(
    letters: Make, topic: TopicFactory, broker: Broker, takes: int, known: bool
) -> None:
    name = topic("dead", config={"max.message.bytes": str(takes)})
    one = letters(name, takes if known else None)
    sizes = [10, 3_000, takes - 100, 20, takes * 4, 5_000, 5_000, 5_000, takes // 2, 0, takes + 1, 30, takes * 12]
    values = [os.urandom(size) for size in sizes]
    for ticket, value in enumerate(values):
        one.send(letter(ticket, value, offset=ticket))
    heard = answers(one, len(values))
    assert [it for it in heard if isinstance(it, DeadLetterRefused)] == []
    assert sorted(it.ticket for it in heard) == [*range(len(sizes))]
    found, joiner = read(broker, name)
    assert [(each.key, each.value) for each in found] == [(b"\x00key", value) for value in values]
    assert [each.offset for each in found] == [*range(len(values))]
    assert joiner.torn() == []
    fits = [takes > size + 700 for size in sizes]
    assert [each.parts == 1 for each in found if each.offset not in {2}] == fits[:2] + fits[3:]


def test_a_batch_of_letters_that_fit_is_not_refused(letters: Make, topic: TopicFactory, broker: Broker) -> None:
    """The limit counts batches: without a word to the client, it would pack many into one that does not fit."""
    name = topic("dead", config={"max.message.bytes": "5000"})
    one = letters(name, 5_000, compression_type="none", linger_ms="200")
    for ticket in range(300):
        one.send(letter(ticket, os.urandom(1_000), offset=ticket))
    assert {type(it) for it in answers(one, 300)} == {DeadLettered}
    assert [each.offset for each in read(broker, name)[0]] == [*range(300)]


def test_what_compression_makes_fit_is_sent_whole(letters: Make, topic: TopicFactory, broker: Broker) -> None:
    name = topic("dead", config={"max.message.bytes": "100000"})
    one = letters(name, 100_000)
    one.send(letter(1, bytes(3_000_000)))
    assert answers(one) == [DeadLettered(1)]
    (found,) = read(broker, name)[0]
    assert (found.parts, found.value) == (1, bytes(3_000_000))


def test_the_clients_own_limit_and_a_key_that_is_too_large(letters: Make, topic: TopicFactory, broker: Broker) -> None:
    name = topic("dead", 3)
    one = letters(name, 1_000_000, message_max_bytes="20000")
    key, value = os.urandom(50_000), os.urandom(90_000)
    one.send(DeadLetter(1, Record("t", 0, 0, -1, key, value), "InvalidDocument", "undecodable", "", ""))
    one.send(DeadLetter(2, Record("t", 0, 1, -1, key, None), "InvalidDocument", "tombstone", "", ""))
    one.send(DeadLetter(3, Record("t", 0, 2, -1, None, value), "InvalidDocument", "undecodable", "", ""))
    assert answers(one, 3) == [DeadLettered(1), DeadLettered(2), DeadLettered(3)]
    found, joiner = read(broker, name, 3)
    said = {each.offset: (each.key, each.value) for each in found}
    assert (said, joiner.torn()) == ({0: (key, value), 1: (key, None), 2: (None, value)}, [])


def test_a_limit_that_is_lowered_meanwhile_is_found_out(letters: Make, topic: TopicFactory, broker: Broker) -> None:
    name = topic("dead", config={"max.message.bytes": "100000"})
    one = letters(name, 1_000_000)  # as it was when it was asked
    for ticket in range(50):
        one.send(letter(ticket, os.urandom(300_000 if ticket == 20 else 30_000), offset=ticket))
    heard = answers(one, 50)
    assert [it for it in heard if isinstance(it, DeadLetterRefused)] == []
    found, joiner = read(broker, name)
    assert ({each.offset for each in found}, joiner.torn()) == (set(range(50)), [])


def test_what_was_not_sent_at_the_end_is_refused_and_so_comes_again() -> None:
    one = DeadLetters("127.0.0.1:1", "dead", {}, "1", 10_000)
    for ticket, size in enumerate((10, 50_000, 10)):
        one.send(letter(ticket, bytes(size)))
    one.close(0.1)
    assert sorted(it.ticket for it in one.poll() if isinstance(it, DeadLetterRefused)) == [0, 1, 2]
    assert one.poll() == []


def test_letters_that_nobody_takes_do_not_pile_up() -> None:
    one = DeadLetters("127.0.0.1:1", "dead", {}, "1", 10_000, full_s_max=0.2)
    for ticket in range(9):
        one.send(letter(ticket, bytes(10_000_000)))
    (refused,) = one.poll()
    assert isinstance(refused, DeadLetterRefused)
    assert (refused.ticket, one.flush(0.0)) == (8, 8)
    one.close(0.1)


def test_a_large_letter_is_accepted_by_the_client(letters: Make, topic: TopicFactory) -> None:
    one = letters(topic("dead", config={"max.message.bytes": "30000000"}), compression_type="none")
    one.send(letter(5, b"x" * 20_000_000))
    assert answers(one) == [DeadLettered(5)]


def test_a_missing_topic_refuses(letters: Make) -> None:
    one = letters("no.such.topic", message_timeout_ms="3000")
    one.send(letter(9))
    (refused,) = answers(one)
    assert isinstance(refused, DeadLetterRefused)
    assert refused.ticket == 9


def test_a_full_queue_refuses_after_its_limit() -> None:
    properties = {"queue.buffering.max.messages": "2"}
    one = DeadLetters("127.0.0.1:1", "dead", properties, "1", full_s_max=0.3)
    for ticket in range(3):
        one.send(letter(ticket))
    (refused,) = one.poll()
    assert (refused.ticket, isinstance(refused, DeadLetterRefused)) == (2, True)
    assert one.flush(0.1) == 2
    one.close(0.1)
    assert {type(it) for it in one.poll()} == {DeadLetterRefused}


def test_owned_properties_are_refused() -> None:
    with pytest.raises(ValueError, match=r"enable\.idempotence"):
        DeadLetters("127.0.0.1:1", "dead", {"enable.idempotence": "false"}, "1")


def test_errors_cannot_steer_a_terminal() -> None:
    assert harmless("a\x1b[31m\r\nb\u202ec\ud800") == "a [31m  b c "
    assert harmless("ünïcode 测") == "ünïcode 测"
    assert len(harmless("x" * 5_000)) == 1_000


# ---------------------------------------------------------------- the topic


def test_the_topic_is_made_once_and_holds_what_its_sources_hold(broker: Broker, topic: TopicFactory) -> None:
    topics = Topics(broker.bootstrap_servers, {})
    source = topic("src", config={"max.message.bytes": "5000000"})
    name = f"dead.{uuid.uuid4().hex[:8]}"
    assert ensure_topic(topics, name, [f"^{source}$"])
    assert topics.message_bytes_max(name) > 5_000_000
    assert not ensure_topic(topics, name, [source])


def test_a_topic_that_would_feed_itself_is_refused(broker: Broker) -> None:
    with pytest.raises(Forbidden, match="feed itself"):
        ensure_topic(Topics(broker.bootstrap_servers, {}), "dead.letters", ["^.*"])
