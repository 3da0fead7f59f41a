"""Settings of Kafka: where records come from."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema, field_validator, model_validator

from .fields import Group, compiles
from .kafka_properties import checked, revealed

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
# librdkafka reads topics' expressions, by POSIX's rules: these would silently match nothing, or something else.
_NOT_POSIX = re.compile(r"\\[A-Za-z0-9]|\(\?|[*+?}]\?")


class Kafka(Group):
    """Where records come from."""

    bootstrap_servers: Annotated[str, Field(min_length=1)]
    """As in Kafka: `host:port`, several with commas between."""
    group_id: Annotated[str, Field(min_length=1)]
    """The consumer group. Renaming it means reading every topic anew."""
    topics: tuple[str, ...]
    """Topic names; an entry that begins with `^` is a regular expression, as POSIX has them (`[0-9]`, not `\\d`)."""
    start_offset: Literal["earliest", "latest"] = "earliest"
    """Where to begin in a partition without a commit; nowhere else. One that is added later begins at its beginning."""
    dead_letter_topic: str = Field(default_factory=lambda data: f"{data.get('group_id', '')}.dead-letters")
    """Default: `<group_id>.dead-letters`."""
    completed_topic: str | None = None
    """Gets a record for each run that is over (uid, node path, state, rows): analysis starts on it. Must exist."""
    instance_id: Annotated[str, Field(min_length=1)] | None = None
    """Static membership (`group.instance.id`): one stable name for each replica."""
    properties: Annotated[
        dict[str, str | SecretStr],
        BeforeValidator(checked),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
    ] = {}  # noqa: RUF012 - pydantic copies it
    """Any other librdkafka property (SASL, TLS, ...), passed as it is."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _no_login(cls, servers: str) -> str:
        if "@" in servers:
            raise ValueError("no login in an address: it belongs into kafka.properties (sasl.username, sasl.password)")
        return servers

    @field_validator("topics", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("topics")
    @classmethod
    def _usable_topics(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        if not topics:
            raise ValueError("at least one topic is needed")
        for topic in topics:
            if topic.startswith("^"):
                compiles(topic)
                if found := _NOT_POSIX.search(topic):
                    raise ValueError(f"{topic!r}: {found[0]} is none of POSIX's; write [0-9], [a-z], (...)")
            elif not _TOPIC_NAME.fullmatch(topic):
                raise ValueError(f"{topic!r} is no topic name (letters, digits, . _ -); give several as a list")
        return topics

    @field_validator("dead_letter_topic", "completed_topic")
    @classmethod
    def _usable_name(cls, topic: str | None) -> str | None:
        if topic is not None and not _TOPIC_NAME.fullmatch(topic):
            raise ValueError(f"{topic!r} is no topic name (letters, digits, . _ -)")
        return topic

    @model_validator(mode="after")
    def _no_loop(self) -> "Kafka":
        for topic in self.topics:
            if self.reads(topic, self.dead_letter_topic):
                raise ValueError(f"topics: {topic!r} also reads the dead letters ({self.dead_letter_topic})")
            if self.completed_topic and self.reads(topic, self.completed_topic):
                raise ValueError(f"topics: {topic!r} also reads the completed runs ({self.completed_topic})")
        if self.completed_topic == self.dead_letter_topic:
            raise ValueError("completed_topic: must be another one than dead_letter_topic")
        return self

    @property
    def poll_interval_s_max(self) -> float:
        """How long the group waits for a poll before it takes our partitions (by default 300 s)."""
        return float(revealed(self.properties).get("max.poll.interval.ms", "300000")) / 1000

    @property
    def protocol(self) -> str:
        """How we speak to Kafka, e.g. `sasl_ssl`."""
        return revealed(self.properties).get("security.protocol", "plaintext").lower()

    @staticmethod
    def reads(entry: str, topic: str) -> bool:
        """Tell whether an entry of `topics`, a name or a regular expression, covers a topic."""
        return bool(re.search(entry, topic)) if entry.startswith("^") else entry == topic

    def client_properties(self) -> dict[str, str]:
        """Return what every Kafka client needs: the servers and the free properties, secrets in clear."""
        return {"bootstrap.servers": self.bootstrap_servers, **revealed(self.properties)}
