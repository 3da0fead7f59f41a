"""Facts about topics and partitions, asked of the cluster in few requests, each with a limit in time."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

from tiled_ingest.core.record import Home

from . import properties as props
from .errors import KafkaUnavailable, stopping_error
from .waiting import insist

T = TypeVar("T")
# What follows from other errors, which say more.
_VAGUE = frozenset({ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._TRANSPORT})  # noqa: SLF001
_LEADERS_S_MAX = 5.0
_GROUP_S_MAX = 3600.0


class Description(NamedTuple):
    """A topic's own id, and how many partitions it has."""

    id: str
    partitions: int


class Topics:
    """Asks the cluster; may be used from any thread.

    Parameters
    ----------
    limit_s
        After so long without an answer, retries included, `KafkaUnavailable` is raised.
    """

    def __init__(self, bootstrap_servers: str, properties: Mapping[str, str], limit_s: float = 30.0) -> None:
        self._complaint: Any = None
        self._asking: Future[Any] | None = None  # for a group
        self._bootstrap_servers, self._properties = bootstrap_servers, properties
        self.admin = AdminClient(props.admin(bootstrap_servers, properties) | {"error_cb": self._hear})
        self._limit_s = limit_s
        uncommitted = properties.get("isolation.level") == "read_uncommitted"
        level = ck.IsolationLevel
        self._isolation = level.READ_UNCOMMITTED if uncommitted else level.READ_COMMITTED

    def ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return each topic's own id; never cached: a topic may be deleted and created again."""
        return {name: topic.id for name, topic in self.descriptions(topics).items()}

    def descriptions(self, topics: Iterable[str]) -> dict[str, "Description"]:
        """Return what there is to know of each topic; never cached."""
        names = sorted(set(topics))

        def ask(limit_s: float) -> dict[str, Description]:
            answers = {name: each.result(limit_s) for name, each in self.ask_descriptions(names, limit_s).items()}
            return {name: Description(str(each.topic_id), len(each.partitions)) for name, each in answers.items()}

        return self._insist(ask, "ids of topics") if names else {}

    def ask_descriptions(self, topics: Iterable[str], limit_s: float) -> dict[str, "Future[Any]"]:
        """Ask without waiting; the futures' results carry a `topic_id` and the `partitions`."""
        self.admin.poll(0)
        asked: dict[str, Future[Any]] = self.admin.describe_topics(
            ck.TopicCollection(sorted(topics)), request_timeout=limit_s
        )
        return asked

    def exists(self, topic: str) -> bool:
        """Tell whether the topic exists, without creating it by asking."""

        def ask(limit_s: float) -> bool:
            future = self.admin.describe_topics(ck.TopicCollection([topic]), request_timeout=limit_s)[topic]
            try:
                future.result(limit_s)
            except ck.KafkaException as error:
                if error.args[0].code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return False
                raise
            return True

        return self._insist(ask, f"description of topic {topic}")

    def homes(self, topics: Sequence[str]) -> list[Home]:
        """Return all partitions of those topics that exist; an entry with `^` is a regular expression."""
        metadata = self._insist(lambda left: self.admin.list_topics(timeout=left), "list of topics")
        found = {name: topic for name, topic in metadata.topics.items() if is_named(name, topics)}
        return [Home(name, number) for name in sorted(found) for number in sorted(found[name].partitions)]

    def lows(self, homes: Sequence[Home]) -> dict[Home, int]:
        """Return the first offset that each log holds."""
        return self._offsets(homes, OffsetSpec.earliest())

    def highs(self, homes: Sequence[Home]) -> dict[Home, int]:
        """Return one past the last offset that a reader can reach now (open transactions hold it back)."""
        return self._offsets(homes, OffsetSpec.latest())

    def ask_highs(self, homes: Sequence[Home], limit_s: float) -> dict[Home, "Future[Any]"]:
        """Ask without waiting; the futures' results carry an `offset`."""
        return self._ask(homes, OffsetSpec.latest(), limit_s)

    def committed(self, group: str, homes: Sequence[Home]) -> dict[Home, int]:
        """Return a group's committed offsets, 0 without one, as `commits` does."""
        return {home: offset or 0 for home, offset in self.commits(group, homes).items()}

    def commits(self, group: str, homes: Sequence[Home]) -> dict[Home, int | None]:
        """Return a group's committed offsets, `None` without one, without being a member of it.

        A member's own question would wait on its connection, behind its request to join, until a member that died is
        counted out; and the admin's, when the group's coordinator is not there yet or moves, ends the process with
        SIGSEGV (librdkafka issue 5040).
        """
        if not homes:
            return {}
        beside = ck.Consumer(props.lone_consumer(self._bootstrap_servers, group, self._properties))

        def ask(limit_s: float) -> dict[Home, int | None]:
            places = beside.committed([ck.TopicPartition(*home) for home in homes], timeout=limit_s)
            for place in places:
                if place.error:
                    raise ck.KafkaException(place.error)
            return {Home(it.topic, it.partition): it.offset if it.offset >= 0 else None for it in places}

        try:
            return self._insist(ask, "committed offsets")
        finally:
            beside.close()

    def members(self, group: str, limit_s: float) -> set[str] | None:
        """Return the ids of a group's members; `None` if Kafka does not answer in time.

        An answer that came later than that tells of the past: the next call asks anew, once it is there.
        """
        if self._asking is not None and not self._asking.done():
            return None
        self._asking = ask_group(self.admin, group)
        try:
            return {member.member_id for member in self._asking.result(limit_s).members}
        except (ck.KafkaException, TimeoutError):
            return None

    def message_bytes_max(self, topic: str) -> int:
        """Return the largest batch, in bytes, that the topic accepts."""

        def ask(limit_s: float) -> int:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
            future = self.admin.describe_configs([resource], request_timeout=limit_s)[resource]
            return int(future.result(limit_s)["max.message.bytes"].value)

        return self._insist(ask, f"configuration of topic {topic}")

    def _insist(self, ask: Callable[[float], T], what: str) -> T:
        """Ask until the limit; of a failure tell the client's own reason, which no answer carries."""
        try:
            return insist(ask, self._limit_s, what)
        except KafkaUnavailable as error:
            self.admin.poll(0)  # calls `_hear`
            if self._complaint is None:
                raise
            told = self._complaint
            why = f"{told.name()}: {without_times(told.str())}"
            raise stopping_error(told) or KafkaUnavailable(f"{what}: {why}") from error

    def _hear(self, error: Any) -> None:
        if error.code() not in _VAGUE or self._complaint is None:
            self._complaint = error

    def _offsets(self, homes: Sequence[Home], spec: Any) -> dict[Home, int]:
        def ask(limit_s: float) -> dict[Home, int]:
            try:
                asked = self._ask(homes, spec, limit_s)
                return {home: future.result(limit_s).offset for home, future in asked.items()}
            except ck.KafkaException:
                # librdkafka would ask again with the leaders as they were before a broker's restart, and be fenced.
                self.admin.list_topics(timeout=_LEADERS_S_MAX)
                raise

        return self._insist(ask, "offsets of partitions") if homes else {}

    def _ask(self, homes: Sequence[Home], spec: Any, limit_s: float) -> dict[Home, "Future[Any]"]:
        self.admin.poll(0)  # fetches the client's log lines, which would pile up otherwise
        wanted = {ck.TopicPartition(home.topic, home.partition): spec for home in homes}
        asked = self.admin.list_offsets(wanted, isolation_level=self._isolation, request_timeout=limit_s)
        return {Home(place.topic, place.partition): future for place, future in asked.items()}


def ask_group(admin: AdminClient, group: str) -> "Future[Any]":
    """Ask for a group's description; whoever waits for it must have a limit of their own.

    librdkafka 2.16 ends the process (SIGABRT, its issue 4605) when such a request times out while the coordinator is
    looked for, and the answer comes after all, as from a broker that stood still. So it gets the longest time there is.
    """
    future: Future[Any] = admin.describe_consumer_groups([group], request_timeout=_GROUP_S_MAX)[group]
    return future


def is_named(topic: str, entries: Sequence[str]) -> bool:
    """Tell whether the entries of `kafka.topics` name the topic."""
    return any(re.search(entry, topic) if entry.startswith("^") else entry == topic for entry in entries)


def without_times(text: str) -> str:
    """Leave out how long it took, so that the same complaint has the same words."""
    return text.partition(" (after ")[0]
