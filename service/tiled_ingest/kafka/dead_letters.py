"""Dead letters: records as they were, with headers that say why, confirmed by the broker one by one."""

import time
import unicodedata
from collections.abc import Mapping
from functools import partial
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.effects import DeadLetter, DeadLettered, DeadLetterRefused

from . import properties as props
from .errors import kafka_error

Confirmations = list[DeadLettered | DeadLetterRefused]

_ERROR_CHARS_MAX = 1_000  # a sentence for a person; a header must never outweigh its record


class DeadLetters:
    """The dead-letter topic's producer; used by one thread, which calls `poll` often.

    Parameters
    ----------
    version
        Ours, for the header.
    full_s_max
        How long `send` waits for room in the local queue before it refuses.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        properties: Mapping[str, str],
        version: str,
        full_s_max: float = 10.0,
    ) -> None:
        self.topic = topic
        self._version = version
        self._full_s_max = full_s_max
        self._confirmations: Confirmations = []
        self._producer = ck.Producer(props.producer(bootstrap_servers, properties))

    def send(self, letter: DeadLetter) -> None:
        """Hand over a letter; its confirmation or refusal comes out of `poll`, exactly once."""
        try:
            self._produce(letter)
        except BufferError:
            self._refuse(letter, f"the local queue stayed full for {self._full_s_max} s")
        except ck.KafkaException as error:
            self._refuse(letter, _sentence(kafka_error(error)))

    def poll(self) -> Confirmations:
        """Return what was confirmed or refused since the last call; does not wait."""
        self._producer.poll(0)
        confirmations, self._confirmations = self._confirmations, []
        return confirmations

    def flush(self, limit_s: float) -> int:
        """Wait at most `limit_s`; returns how many letters are still unanswered. `poll` has the answers."""
        return int(self._producer.flush(limit_s))

    def close(self, limit_s: float = 5.0) -> None:
        """Flush, then drop what is unanswered: no offset moved past it, so it is sent again."""
        if self.flush(limit_s):
            self._producer.purge()
            self._producer.flush(limit_s)

    def _produce(self, letter: DeadLetter) -> None:
        until_s = time.monotonic() + self._full_s_max
        while True:
            try:
                self._producer.produce(
                    self.topic,
                    key=letter.record.key,
                    value=letter.record.value,
                    headers=headers(letter, self._version),
                    on_delivery=partial(self._on_delivery, letter.ticket),
                )
            except BufferError:
                if time.monotonic() >= until_s:
                    raise
                self._producer.poll(0.1)
            else:
                return

    def _on_delivery(self, ticket: int, error: Any, _: Any) -> None:
        refused = DeadLetterRefused(ticket, _sentence(error)) if error else None
        self._confirmations.append(refused or DeadLettered(ticket))

    def _refuse(self, letter: DeadLetter, detail: str) -> None:
        self._confirmations.append(DeadLetterRefused(letter.ticket, detail))


def headers(letter: DeadLetter, version: str) -> list[tuple[str, bytes]]:
    """Return the headers that other people's scripts read."""
    record = letter.record
    texts = {
        "reason": letter.reason,
        "code": letter.code,
        "error": letter.error,
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp_ms": str(record.timestamp_ms),
        "run": letter.run,
        "version": version,
    }
    return [(f"tiled_ingest.{name}", harmless(text).encode()) for name, text in texts.items()]


def harmless(text: str) -> str:
    """Cut a text, and put a space for everything that is no character of a line of text."""
    cut = text if len(text) <= _ERROR_CHARS_MAX else text[: _ERROR_CHARS_MAX - 1] + "…"
    return "".join(" " if _steers(character) else character for character in cut)


def _steers(character: str) -> bool:
    # Control, format (also the bidirectional ones), surrogate, line and paragraph separators.
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _sentence(error: Any) -> str:
    return f"{error.name()}: {error.str()}"
