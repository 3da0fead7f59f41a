"""A producer that tells of every record, exactly once, whether the broker has confirmed it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import confluent_kafka as ck

from . import properties as props
from .errors import kafka_error

# The client's own limit and the topic's have one code; the other says that a segment of the log is smaller.
_TOO_LARGE = frozenset({ck.KafkaError.MSG_SIZE_TOO_LARGE, ck.KafkaError.RECORD_LIST_TOO_LARGE})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record was not confirmed.

    Attributes
    ----------
    code
        Kafka's; 0 if it did not leave us.
    """

    sentence: str
    code: int = 0

    @property
    def too_large(self) -> bool:
        """Whether a smaller record may be taken."""
        return self.code in _TOO_LARGE

    def __str__(self) -> str:
        return self.sentence


Heard = Callable[[Refusal | None], None]
"""Told of a record's fate: `None` when it was confirmed."""


class ConfirmedProducer:
    """Used by one thread, which calls `poll` often: what is told of is told in there, or in `produce` itself.

    Parameters
    ----------
    full_s_max
        How long `produce` waits for room in the local queue before it refuses.
    """

    def __init__(self, bootstrap_servers: str, properties: Mapping[str, str], full_s_max: float) -> None:
        self._full_s_max = full_s_max
        self._producer = ck.Producer(props.producer(bootstrap_servers, properties))

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        heard: Heard,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Hand over a record."""
        try:
            self._insist(topic, key=key, value=value, headers=list(headers), on_delivery=partial(_answered, heard))
        except BufferError:
            heard(Refusal(f"the local queue stayed full for {self._full_s_max} s"))
        except ck.KafkaException as error:
            heard(_refusal(kafka_error(error)))

    def poll(self, wait_s: float = 0.0) -> None:
        """Tell of what was answered since the last call; waits for an answer at most so long."""
        self._producer.poll(wait_s)

    def flush(self, limit_s: float) -> int:
        """Wait at most `limit_s`; returns how many records are still unanswered."""
        return int(self._producer.flush(limit_s))

    def close(self, limit_s: float = 5.0) -> None:
        """Flush, then drop what is unanswered, and tell so."""
        if self.flush(limit_s):
            self._producer.purge()
            self._producer.flush(limit_s)

    def _insist(self, topic: str, **parts: Any) -> None:
        until_s = time.monotonic() + self._full_s_max
        while True:
            try:
                self._producer.produce(topic, **parts)
            except BufferError:
                if time.monotonic() >= until_s:
                    raise
                self._producer.poll(0.1)
            else:
                return


def _answered(heard: Heard, error: Any, _message: Any) -> None:
    heard(_refusal(error) if error else None)


def _refusal(error: Any) -> Refusal:
    return Refusal(f"{error.name()}: {error.str()}", error.code())
