"""The topics: whether they are there, and whether their limits fit ours. Nothing is created."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from tiled_ingest.kafka.topics import is_named
from tiled_ingest.settings import Settings

from .findings import ANSWER_S_MAX, Finding, Findings, counted

BYTES_MIN = 10_000  # for dead letters: key and headers take a kilobyte, and up to ten


@dataclass(frozen=True, slots=True)
class Limits:
    """What a topic's configuration says that matters to us."""

    bytes_max: int  # of a message, compressed
    retention_ms: int  # negative: for ever
    compacted: bool

    @property
    def kept(self) -> str:
        """How long records stay."""
        return "kept for ever" if self.retention_ms < 0 else f"kept {self.retention_ms / 3_600_000:g} h"


Known = Mapping[str, Limits | KafkaException]


def look(settings: Settings, admin: AdminClient, partitions: Mapping[str, int], *, dead_letters: bool) -> Findings:
    """Look at the source topics and at the dead letters' own.

    Parameters
    ----------
    partitions
        The source topics that exist, and how many partitions each has.
    dead_letters
        Whether the dead letters' topic exists.
    """
    for wanted in settings.kafka.topics:
        if not any(is_named(name, [wanted]) for name in partitions):
            yield _absent(wanted)
    dead = settings.kafka.dead_letter_topic
    limits = _limits(admin, [*partitions, *([dead] if dead_letters else [])])
    for name, number in partitions.items():
        yield _source(name, counted(number, "partition"), limits[name], settings.limits.message_bytes_max)
    yield _dead_letters(dead, limits) if dead_letters else _creatable(admin, dead)


def completed(name: str, *, exists: bool) -> Finding:
    """Look at the topic of completed runs."""
    if exists:
        return Finding(f"topic {name}", "ok", "is there: a record for each run that is over")
    hint = "create it, and allow us to write it: until then no run's end is settled"
    return Finding(f"topic {name}", "failed", "does not exist, or we may not see it", hint)


def said(error: KafkaException) -> str:
    """Return what librdkafka or the broker said, in a few words."""
    reason = error.args[0]
    if not isinstance(reason, KafkaError):
        return str(reason)
    return f"{reason.name()} {reason.str()}".strip()


def _absent(wanted: str) -> Finding:
    if wanted.startswith("^"):
        return Finding(f"topic {wanted}", "warning", "matches no topic yet", "check kafka.topics")
    hint = "create it, let us describe it, or correct kafka.topics"
    return Finding(f"topic {wanted}", "failed", "does not exist, or we may not see it", hint)


def _limits(admin: AdminClient, names: Sequence[str]) -> dict[str, Limits | KafkaException]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    asked = admin.describe_configs(resources, request_timeout=ANSWER_S_MAX) if resources else {}
    found: dict[str, Limits | KafkaException] = {}
    for resource, future in asked.items():
        try:
            config = {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            found[resource.name] = error
            continue
        bytes_max, retention_ms = int(config["max.message.bytes"]), int(config["retention.ms"])
        found[resource.name] = Limits(bytes_max, retention_ms, "compact" in config["cleanup.policy"])
    return found


def _source(name: str, partitions: str, limits: Limits | KafkaException, bytes_max: int) -> Finding:
    title = f"topic {name}"
    if isinstance(limits, KafkaException):
        hint = "the service runs without: give it DescribeConfigs to see retention and size here"
        return Finding(title, "warning", f"{partitions}; its configuration: {said(limits)}", hint)
    detail = f"{partitions}, {limits.kept}, messages up to {limits.bytes_max} bytes"
    if limits.compacted:
        hint = "set cleanup.policy=delete: all documents of a run have one key, and compaction keeps the last"
        return Finding(title, "warning", f"{detail}, compacted", hint)
    if limits.bytes_max > bytes_max:
        hint = "larger messages would become dead letters: raise limits.message_bytes_max"
        return Finding(title, "warning", detail, hint)
    return Finding(title, "ok", detail)


def _dead_letters(name: str, known: Known) -> Finding:
    limits = known[name]
    if isinstance(limits, KafkaException):
        hint = "the service runs without, and finds out what the topic takes: DescribeConfigs shows it here"
        return Finding("dead letters", "warning", f"{name}; its configuration: {said(limits)}", hint)
    detail = f"{name}, {limits.kept}, messages up to {limits.bytes_max} bytes"
    if limits.compacted:
        hint = "set cleanup.policy=delete: keys repeat, and compaction would drop letters"
        return Finding("dead letters", "warning", f"{detail}, compacted", hint)
    if limits.bytes_max < BYTES_MIN:
        hint = "a letter that does not fit in there, nor a part of it, stops the service: raise its max.message.bytes"
        return Finding("dead letters", "warning", f"{detail}, hardly room for a letter's headers", hint)
    larger = [
        topic for topic, other in known.items() if isinstance(other, Limits) and other.bytes_max > limits.bytes_max
    ]
    if larger:
        detail += f"; larger ones of {', '.join(larger)} go there in parts"
    return Finding("dead letters", "ok", detail)


def _creatable(admin: AdminClient, name: str) -> Finding:
    """Ask the broker whether it would let us create the topic, as `run` does."""
    wanted = NewTopic(name, num_partitions=1, replication_factor=-1)
    try:
        admin.create_topics([wanted], validate_only=True, request_timeout=ANSWER_S_MAX)[name].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return Finding("dead letters", "failed", f"we may not see {name}", "let us describe and write it")
        hint = "create it; with a max.message.bytes below that of the topics, large letters go there in parts"
        return Finding("dead letters", "failed", f"{name} is missing, and we may not create it: {said(error)}", hint)
    return Finding("dead letters", "ok", f"{name} is not there yet: `run` will create it")
