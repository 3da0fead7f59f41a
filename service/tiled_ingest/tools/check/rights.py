"""What Kafka's access lists let us do with the topics: asked of the broker, not tried."""

from collections.abc import Iterable

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from .findings import ANSWER_S_MAX, Finding, Findings


def look(admin: AdminClient, sources: Iterable[str], written: Iterable[str]) -> Findings:
    """Look whether we may read the one and write the others; all of them exist.

    A broker without access lists lets everybody do everything, and one that does not tell is believed.
    """
    needed = dict.fromkeys(sources, AclOperation.READ) | dict.fromkeys(written, AclOperation.WRITE)
    if not needed:
        return
    lacking = list(_lacking(admin, needed))
    yield from lacking
    if not lacking:
        yield Finding("kafka rights", "ok", "we may read what we read and write what we write, as far as it exists")


def _lacking(admin: AdminClient, needed: dict[str, AclOperation]) -> Findings:
    asked = admin.describe_topics(
        TopicCollection(list(needed)), include_authorized_operations=True, request_timeout=ANSWER_S_MAX
    )
    for name, future in asked.items():
        try:
            allowed = future.result().authorized_operations
        except KafkaException:
            continue  # it was deleted meanwhile, or may not even be described: said of the topic itself
        operation = needed[name]
        if allowed is not None and operation not in allowed:
            right = operation.name.capitalize()
            hint = f"allow our user {right} on the topic (kafka-acls.sh --add)"
            yield Finding(f"kafka rights on {name}", "failed", f"we may not {right.lower()} it", hint)
