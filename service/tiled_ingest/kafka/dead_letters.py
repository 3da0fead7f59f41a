"""Dead letters: records as they were, with headers that say why, confirmed by the broker one by one."""

import unicodedata
from collections.abc import Mapping
from functools import partial

from tiled_ingest.core.effects import DeadLetter, DeadLettered, DeadLetterRefused

from .confirmed import ConfirmedProducer

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
        self._confirmations: Confirmations = []
        self._producer = ConfirmedProducer(bootstrap_servers, properties, full_s_max)

    def send(self, letter: DeadLetter) -> None:
        """Hand over a letter; its confirmation or refusal comes out of `poll`, exactly once."""
        record, heard = letter.record, partial(self._heard, letter.ticket)
        self._producer.produce(self.topic, record.key, record.value, heard, headers(letter, self._version))

    def poll(self) -> Confirmations:
        """Return what was confirmed or refused since the last call; does not wait."""
        self._producer.poll()
        confirmations, self._confirmations = self._confirmations, []
        return confirmations

    def flush(self, limit_s: float) -> int:
        """Wait at most `limit_s`; returns how many letters are still unanswered. `poll` has the answers."""
        return self._producer.flush(limit_s)

    def close(self, limit_s: float = 5.0) -> None:
        """Flush, then drop what is unanswered: no offset moved past it, so it is sent again."""
        self._producer.close(limit_s)

    def _heard(self, ticket: int, refusal: str) -> None:
        self._confirmations.append(DeadLetterRefused(ticket, refusal) if refusal else DeadLettered(ticket))


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
