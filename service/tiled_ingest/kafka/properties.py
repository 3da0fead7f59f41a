"""Properties of librdkafka: our defaults, which a site may override."""

import logging
from collections.abc import Mapping
from typing import Any

import confluent_kafka as ck

from tiled_ingest.settings import OWNED

from .complaints import Complaints

# Meaningless, or refused by librdkafka, for a client that is in no group.
_OF_GROUPS = (
    "group.protocol",
    "group.remote.assignor",
    "partition.assignment.strategy",
    "session.timeout.ms",
)

_ANY_CLIENT = {
    "client.id": "tiled-ingest",
    # Drains outlive their deadlines when a request may hang for the 60 s that librdkafka allows by default.
    "socket.timeout.ms": 10_000,
    "reconnect.backoff.ms": 500,  # 100 by default: a consumer tries twenty times a second while no broker answers
    "reconnect.backoff.max.ms": 5_000,
}

_ANY_CONSUMER = {
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
    "topic.metadata.refresh.interval.ms": 30_000,  # 5 min by default: so long may nobody know of new partitions
    "fetch.wait.max.ms": 100,  # a resumed partition waits for the fetch under way to end: 500 by default
    "fetch.queue.backoff.ms": 5,  # 1000 by default: fetching would rest a second whenever the queue is full
    # Of all partitions: some polls. It fills while they are paused, and little messages take twice their size in it.
    "queued.max.messages.kbytes": 8_192,
}

MESSAGE_BYTES_MAX = 268_435_456  # the client must accept what any source topic could hold

_PRODUCER = {
    "acks": "all",
    "compression.type": "zstd",  # a topic's limit counts compressed batches, and the source's may have been
    "linger.ms": 5,
    "message.max.bytes": MESSAGE_BYTES_MAX,
    "queue.buffering.max.kbytes": MESSAGE_BYTES_MAX // 1024 * 2,
}


def refuse_owned(properties: Mapping[str, str]) -> None:
    """Raise `ValueError`, naming it, if a property is one that we own."""
    for name in properties:
        if name in OWNED:
            raise ValueError(f"kafka.properties: {name} is set by tiled-ingest itself and cannot be given")


def check(properties: Mapping[str, str]) -> None:
    """Raise `ValueError`, naming it, for a property that librdkafka does not know or cannot take. Asks nobody."""
    refuse_owned(properties)
    try:
        ck.Consumer(group_consumer("localhost:1", "check", properties, None) | {"log_level": 0}).close()
    except ck.KafkaException as error:
        raise ValueError(f"kafka.properties: {error.args[0].str()}") from error


def group_consumer(
    bootstrap_servers: str, group_id: str, properties: Mapping[str, str], instance_id: str | None
) -> dict[str, Any]:
    """Properties of the consumer that is a member of the group."""
    made = _consumer(bootstrap_servers, group_id, properties)
    if properties.get("group.protocol", "classic") != "consumer":
        made.setdefault("partition.assignment.strategy", "cooperative-sticky")
    if instance_id:
        made["group.instance.id"] = instance_id
    return made


def lone_consumer(bootstrap_servers: str, group_id: str, properties: Mapping[str, str]) -> dict[str, Any]:
    """Properties of a consumer that only reads, beside the group."""
    kept = {name: value for name, value in properties.items() if name not in _OF_GROUPS}
    # Its lines wait in memory while nobody polls it, which may be for days; the group's consumer says the same.
    return {"log_level": 2} | _consumer(bootstrap_servers, group_id, kept)


def producer(bootstrap_servers: str, properties: Mapping[str, str]) -> dict[str, Any]:
    """Properties of the dead letters' producer."""
    refuse_owned(properties)
    given = {**_ANY_CLIENT, **_PRODUCER, **properties}
    return given | _fixed(bootstrap_servers) | {"enable.idempotence": True}


def admin(bootstrap_servers: str, properties: Mapping[str, str]) -> dict[str, Any]:
    """Properties of a client that asks about topics."""
    refuse_owned(properties)
    # What it complains of, dozens of times a second after a wrong password, is told once, by who asks.
    return {"log_level": 2} | {**_ANY_CLIENT, **properties} | _fixed(bootstrap_servers)


def is_incremental(made: Mapping[str, Any]) -> bool:
    """Tell whether rebalances are incremental (cooperative) with these properties of a consumer."""
    by_broker = made.get("group.protocol", "classic") == "consumer"
    return by_broker or "cooperative" in str(made.get("partition.assignment.strategy", ""))


def _consumer(bootstrap_servers: str, group_id: str, properties: Mapping[str, str]) -> dict[str, Any]:
    refuse_owned(properties)
    owned = {
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
    }
    return {**_ANY_CLIENT, **_ANY_CONSUMER, **properties} | _fixed(bootstrap_servers) | owned


def _fixed(bootstrap_servers: str) -> dict[str, Any]:
    # librdkafka's own lines go the way of all our lines, not to standard error.
    return {"bootstrap.servers": bootstrap_servers, "logger": Complaints(logging.getLogger("tiled_ingest.kafka"))}
