"""Whether topics are still those that were claimed: one that was deleted and created again has another id.

librdkafka reads on in the new log where it stood in the old one. An id that is asked for after records were received
tells of all of them: none can come out of a topic that is not there yet.
"""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.effects import Assigned
from tiled_ingest.core.errors import OffsetOutOfRange
from tiled_ingest.core.record import Home

from .errors import kafka_error
from .topics import Topics

_LOOK_S = 15.0
_LOOK_S_MAX = 5.0
_REST_S = 1.0  # after nobody answered: the other commits of the round need not wait as long

Answers = dict[str, "Future[Any]"]  # topic -> its description


class Identities:
    """The ids of the topics of one consumer; used by the consumer's thread."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._claimed: dict[Home, str] = {}
        self._asked: Answers = {}  # since records were received last: one question for a round of commits
        self._rest_until_s = float("-inf")
        self._looked: Answers = {}
        self._looked_s = float("-inf")

    def claim(self, claims: Iterable[Assigned]) -> None:
        """Note which topics partitions of ours belong to."""
        self._claimed |= {claim.home: claim.topic_id for claim in claims}
        self._forget_answers()

    def forget(self, homes: Iterable[Home]) -> None:
        """Drop partitions that are no longer ours."""
        for home in homes:
            self._claimed.pop(home, None)
        self._forget_answers()

    def received(self) -> None:
        """Note that records may have come: what was answered before says nothing of them."""
        self._asked = {}

    def confirm(self, home: Home, limit_s: float) -> None:
        """Make sure that everything received of a partition of ours came out of the topic that was claimed.

        Raises
        ------
        OffsetOutOfRange
            The topic is another one.
        KafkaException, TimeoutError
            Not known now.
        """
        if time.monotonic() < self._rest_until_s:
            raise TimeoutError
        if home.topic not in self._asked:
            self._asked = self._ask(limit_s)
        try:
            self._compare(home.topic, self._asked[home.topic].result(limit_s))
        except (ck.KafkaException, TimeoutError) as error:
            self._asked = {}
            if isinstance(error, TimeoutError) or kafka_error(error).code() < 0:  # librdkafka's own, no broker's
                self._rest_until_s = time.monotonic() + _REST_S
            raise

    def look(self) -> None:
        """Notice it where nothing is committed, too: ask at intervals, and never wait.

        Raises
        ------
        OffsetOutOfRange
            A topic is another one.
        """
        for topic in [topic for topic, answer in self._looked.items() if answer.done()]:
            answer = self._looked.pop(topic)
            if answer.exception() is None:
                self._compare(topic, answer.result())
        if self._claimed and not self._looked and time.monotonic() - self._looked_s >= _LOOK_S:
            self._looked_s = time.monotonic()
            self._looked = self._ask(_LOOK_S_MAX)

    def _ask(self, limit_s: float) -> Answers:
        return self._topics.ask_descriptions({home.topic for home in self._claimed}, limit_s)

    def _forget_answers(self) -> None:
        self._asked, self._looked = {}, {}

    def _compare(self, topic: str, description: Any) -> None:
        for home, claimed in self._claimed.items():
            if home.topic == topic and claimed != str(description.topic_id):
                raise OffsetOutOfRange(
                    f"{home}: the topic was deleted and created again under its name while it was read; what the new "
                    "one holds was not received from its beginning. Reset the group's offset to read the new one."
                )
