"""Makes sure that the dead-letter topic is there before anything depends on it."""

from collections.abc import Sequence

import confluent_kafka as ck
from confluent_kafka.admin import NewTopic

from tiled_ingest.core.errors import DeadLetterFailed, Forbidden, IngestError

from .errors import kafka_error, stopping_error
from .topics import Topics, is_named

_HEADERS_BYTES = 65_536  # a letter is larger than its record by its headers
_MESSAGE_BYTES_MAX = 1_048_588  # Kafka's own default, where the source's topic may not be asked


def ensure_topic(topics: Topics, dead_letter_topic: str, sources: Sequence[str], limit_s: float = 30.0) -> bool:
    """Create the dead-letter topic if it is missing; return whether it was created.

    An existing topic is left as it is.

    Parameters
    ----------
    sources
        `kafka.topics` as in the settings: what they can hold, the new topic can hold, too.

    Raises
    ------
    Forbidden
        It is missing and we may not create it, or we would read our own dead letters.
    DeadLetterFailed
        The broker refuses to create it.
    KafkaUnavailable
        Kafka does not answer.
    """
    if is_named(dead_letter_topic, sources):
        raise Forbidden(f"kafka.topics also names the dead-letter topic {dead_letter_topic}: it would feed itself")
    if topics.exists(dead_letter_topic):
        return False
    config = {
        "max.message.bytes": str(_bytes_max(topics, sources) + _HEADERS_BYTES),
        "cleanup.policy": "delete",  # keys repeat: compaction would drop letters
        "retention.ms": "-1",  # the promise is "in Tiled or in the dead letters", not "for a week"
    }
    wanted = NewTopic(dead_letter_topic, num_partitions=1, replication_factor=-1, config=config)
    return _create(topics, wanted, limit_s)


def bytes_max(topics: Topics, dead_letter_topic: str) -> int | None:
    """Return the largest batch, in bytes, that the topic takes; `None` if we may not ask.

    Raises
    ------
    KafkaUnavailable
        Kafka does not answer.
    """
    try:
        return topics.message_bytes_max(dead_letter_topic)
    except Forbidden:  # to describe a topic's configuration is a right of its own
        return None


def _create(topics: Topics, wanted: NewTopic, limit_s: float) -> bool:
    future = topics.admin.create_topics([wanted], operation_timeout=limit_s, request_timeout=limit_s)[wanted.topic]
    try:
        future.result(limit_s)
    except TimeoutError as error:
        raise DeadLetterFailed(f"topic {wanted.topic}: no answer to its creation in {limit_s} s") from error
    except ck.KafkaException as error:
        reply = kafka_error(error)
        if reply.code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
            raise _refusal(wanted.topic, reply) from error
        return False
    return True


def _refusal(topic: str, reply: object) -> IngestError:
    kind = Forbidden if isinstance(stopping_error(reply), Forbidden) else DeadLetterFailed
    return kind(f"the dead-letter topic {topic} is missing and cannot be created; create it by hand: {reply}")


def _bytes_max(topics: Topics, sources: Sequence[str]) -> int:
    found = [bytes_max(topics, home.topic) for home in topics.homes(sources) if home.partition == 0]
    return max([_MESSAGE_BYTES_MAX, *filter(None, found)])
