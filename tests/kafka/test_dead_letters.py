"""Dead letters, against a real broker."""

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

pytestmark = pytest.mark.real

Make = Callable[..., DeadLetters]


@pytest.fixture
def letters(broker: Broker) -> Iterator[Make]:
    made: list[DeadLetters] = []

    def make(topic: str, **properties: str) -> DeadLetters:
        given = {name.replace("_", "."): value for name, value in properties.items()}
        made.append(DeadLetters(broker.bootstrap_servers, topic, given, "1.2.3", full_s_max=1.0))
        return made[-1]

    yield make
    for each in made:
        each.close(1.0)


def letter(ticket: int = 1, value: bytes | None = b"value", error: str = "orphan: no start") -> DeadLetter:
    record = Record("source.topic", 3, 42, 1_700_000_000_123, b"\x00key", value)
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


def test_a_letter_that_the_topic_refuses(letters: Make, topic: TopicFactory) -> None:
    one = letters(topic("dead", config={"max.message.bytes": "2000"}), compression_type="none")
    one.send(letter(5, b"x" * 10_000))
    (refused,) = answers(one)
    assert isinstance(refused, DeadLetterRefused)
    assert refused.ticket == 5
    assert "MSG_SIZE_TOO_LARGE" in refused.detail


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
