"""Kafka itself: who answers, the login, the group; and then on to the topics."""

import time
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tiled_ingest.core.policy import Policy
from tiled_ingest.kafka.topics import ask_group, is_named, without_times
from tiled_ingest.settings import Settings

from . import reach, records, rights, topics
from .findings import ANSWER_S_MAX, Finding, Findings, Seen, counted
from .topics import said

ASK_AGAIN_S = 0.25
COORDINATOR_MOVES = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)
LOGIN_REFUSED = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}  # noqa: SLF001
)
VAGUE = frozenset({KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001
OTHER_PROTOCOL = "does this port want TLS or a login (security.protocol)?"
CAUSES_MAX = 3  # one for each broker that was tried


def look(settings: Settings, policy: Policy, seen: Seen) -> Findings:
    """Look at Kafka; `seen` learns the topics (those that exist, or, without Kafka, those that are named) and more."""
    seen.topics = [topic for topic in settings.kafka.topics if not topic.startswith("^")]
    errors: list[KafkaError] = []
    try:
        # librdkafka's own lines would stand between ours: what matters comes through `error_cb`.
        admin = AdminClient({**settings.kafka.client_properties(), "error_cb": errors.append, "log_level": 0})
    except KafkaException as error:
        yield Finding("kafka", "failed", said(error), "correct kafka.properties")
        return
    try:
        existing = admin.list_topics(timeout=ANSWER_S_MAX).topics
    except KafkaException as error:
        admin.poll(0)
        yield _no_kafka(settings.kafka.bootstrap_servers, errors, error)
        return
    seen.topics = sorted(name for name in existing if is_named(name, settings.kafka.topics))
    partitions = {name: len(existing[name].partitions) for name in seen.topics}
    yield from _asked(settings, admin, existing, partitions)
    yield from records.look(settings, policy, partitions, seen)
    yield from reach.look(settings, partitions)
    yield _group(settings, admin)


def _asked(settings: Settings, admin: AdminClient, existing: dict[str, Any], partitions: dict[str, int]) -> Findings:
    yield Finding("kafka", "ok", f"{settings.kafka.bootstrap_servers} answers")
    yield Finding("kafka login", "ok", settings.kafka.protocol)
    dead = settings.kafka.dead_letter_topic
    yield from topics.look(settings, admin, partitions, dead_letters=dead in existing)
    if completed := settings.kafka.completed_topic:
        yield topics.completed(completed, exists=completed in existing)
    written = [name for name in (dead, completed) if name]
    yield from rights.look(admin, partitions, [name for name in written if name in existing])


def _no_kafka(where: str, errors: list[KafkaError], error: KafkaException) -> Finding:
    for reported in errors:
        if reported.code() in LOGIN_REFUSED:
            hint = "check security.protocol, sasl.* and ssl.* in kafka.properties"
            return Finding("kafka login", "failed", reported.str(), hint)
    hint = "check kafka.bootstrap_servers, the network, security.protocol (a TLS port hangs up on plain text)"
    # The call itself only says that time is over; why no connection came about is told beside it.
    causes = dict.fromkeys(without_times(each.str()) for each in errors if each.code() not in VAGUE)
    # It tells who refuses or cannot be found; that a broker hangs up on what it does not understand it tells nobody.
    why = "; ".join(list(causes)[:CAUSES_MAX]) or f"{said(error)}; connected, and hung up or silent: {OTHER_PROTOCOL}"
    return Finding("kafka", "failed", f"{where} does not answer: {why}", hint)


def _group(settings: Settings, admin: AdminClient) -> Finding:
    name = settings.kafka.group_id
    try:
        found = _described(admin, name)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return Finding("group", "ok", f"{name}: new")
        return Finding("group", "failed", f"{name}: {said(error)}", "let us read and describe the group")
    except TimeoutError:
        told = f"{name}: the group's coordinator does not answer within {ANSWER_S_MAX:g} s"
        return Finding("group", "failed", told, "see whether all brokers run, and __consumer_offsets has its leaders")
    if found.state == ConsumerGroupState.DEAD:
        return Finding("group", "ok", f"{name}: new")
    return Finding("group", "ok", f"{name}: {found.state.name.lower()}, {counted(len(found.members), 'member')}")


def _described(admin: AdminClient, group: str) -> Any:
    """Ask for a group; again while its coordinator is only just being chosen, as on a fresh broker."""
    until = time.monotonic() + ANSWER_S_MAX
    while True:
        try:
            return ask_group(admin, group).result(ANSWER_S_MAX)
        except KafkaException as error:
            if error.args[0].code() not in COORDINATOR_MOVES or time.monotonic() > until:
                raise
        time.sleep(ASK_AGAIN_S)
