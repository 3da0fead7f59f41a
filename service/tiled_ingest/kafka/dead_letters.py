"""Dead letters: records as they were, with headers that say why, confirmed by the broker one by one.

They come into the topic in the order in which they were sent. What surely fits goes out at once, many under way; what
may be refused for its size (and then goes in parts) waits until all before it is answered, and all after it waits.
"""

import time
import unicodedata
from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import confluent_kafka as ck

from tiled_ingest.core.effects import DeadLetter, DeadLettered, DeadLetterRefused

from .confirmed import ConfirmedProducer, Refusal
from .parcel import Parcel
from .parts import PREFIX, Message, bytes_min
from .properties import MESSAGE_BYTES_MAX

Confirmations = list[DeadLettered | DeadLetterRefused]

_ERROR_CHARS_MAX = 1_000  # a sentence for a person; a header must never outweigh its record
_SURE_BYTES = 16_384  # goes out unasked where we may not see what the topic takes: less would be a strange limit
_GUESS_BYTES = 1_000_000  # of a part, there: a little less than Kafka's default
_BATCH_BYTES = 1_000_000  # librdkafka's default; a topic's limit counts whole batches
_WAITING_BYTES_MAX = 64_000_000
_WAIT_S = 0.1
_CUT_OFF = Refusal("we ended before it was sent")
_E = ck.KafkaError
_HINTS = {
    _E.UNKNOWN_TOPIC_OR_PART: "create the topic, or let the service do so when it starts again",
    _E._UNKNOWN_TOPIC: "create the topic, or let the service do so when it starts again",  # noqa: SLF001
    _E.TOPIC_AUTHORIZATION_FAILED: "allow us to write to the topic",
    _E.CLUSTER_AUTHORIZATION_FAILED: "allow us to write to the topic (an idempotent producer)",
    _E._MSG_TIMED_OUT: "see whether the topic's partitions have leaders and enough replicas in sync",  # noqa: SLF001
}


@dataclass(order=True, slots=True)
class _Outgoing:
    """A letter that is not answered yet."""

    number: int
    letter: DeadLetter = field(compare=False)
    message: Message = field(compare=False)
    nbytes: int = field(compare=False)
    alone: bool = field(compare=False)


class DeadLetters:
    """The dead-letter topic's producer; used by one thread, which calls `poll` often.

    Parameters
    ----------
    version
        Ours, for the header.
    bytes_max
        The largest batch that the topic takes; `None` if we may not know.
    full_s_max
        How long `send` waits for room in the local queue before it refuses.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        properties: Mapping[str, str],
        version: str,
        bytes_max: int | None = None,
        full_s_max: float = 10.0,
    ) -> None:
        self.topic = topic
        self._version = version
        self._full_s_max = full_s_max
        ours = int(properties.get("message.max.bytes", MESSAGE_BYTES_MAX))
        self._sure_bytes = min(bytes_max or _SURE_BYTES, ours)
        self._bytes_max = min(bytes_max or _GUESS_BYTES, ours)
        self._batch_bytes = min(int(properties.get("batch.size", _BATCH_BYTES)), self._sure_bytes)
        given = {**properties, "batch.size": str(self._batch_bytes)}
        self._producer = ConfirmedProducer(bootstrap_servers, given, full_s_max)
        self._confirmations: Confirmations = []
        self._answers: deque[tuple[_Outgoing, Refusal | None]] = deque()
        self._numbers = 0
        self._waiting: deque[_Outgoing] = deque()
        self._waiting_bytes = 0
        self._together = 0  # letters under way, each in one message
        self._alone: tuple[_Outgoing, Parcel] | None = None

    def send(self, letter: DeadLetter) -> None:
        """Hand over a letter; its confirmation or refusal comes out of `poll`, exactly once."""
        record = letter.record
        message = Message(record.key, record.value, headers(letter, self._version))
        self._numbers += 1
        nbytes = message.nbytes
        outgoing = _Outgoing(self._numbers, letter, message, nbytes, alone=nbytes > self._sure_bytes)
        if not self._has_room():
            self._answer(outgoing, Refusal(f"those before it were not taken for {self._full_s_max} s"))
            return
        self._wait(outgoing)
        self._go_on()

    def poll(self) -> Confirmations:
        """Return what was confirmed or refused since the last call; does not wait."""
        self._producer.poll()
        self._go_on()
        confirmations, self._confirmations = self._confirmations, []
        return confirmations

    def flush(self, limit_s: float) -> int:
        """Wait at most `limit_s`; returns how many letters are still unanswered. `poll` has the answers."""
        until_s = time.monotonic() + limit_s
        self._go_on()
        while self._unanswered and (left_s := until_s - time.monotonic()) > 0:
            self._producer.poll(min(left_s, _WAIT_S))
            self._go_on()
        return self._unanswered

    def close(self, limit_s: float = 5.0) -> None:
        """Flush, then drop what is unanswered: no offset moved past it, so it is sent again."""
        self.flush(limit_s)
        waiting, self._waiting = self._waiting, deque()
        self._producer.close(limit_s if self._unanswered else 0.0)
        self._take_answers()
        if self._alone:
            self._answer(self._alone[0], _CUT_OFF)
            self._alone = None
        for outgoing in waiting:
            self._answer(outgoing, _CUT_OFF)

    @property
    def _unanswered(self) -> int:
        return len(self._waiting) + self._together + (self._alone is not None)

    def _has_room(self) -> bool:
        """Wait for room; only as long as nothing moves at all."""
        until_s = time.monotonic() + self._full_s_max
        while self._waiting_bytes > _WAITING_BYTES_MAX:
            self._producer.poll(_WAIT_S)
            if self._answers:
                until_s = time.monotonic() + self._full_s_max
            elif time.monotonic() > until_s:
                return False
            self._go_on()
        return True

    # ------------------------------------------------------------ one after the other

    def _go_on(self) -> None:
        """Take the answers, and send what may be sent now; a refusal of our own client's is an answer at once."""
        self._take_answers()
        while self._waiting and self._may_send(self._waiting[0]):
            outgoing = self._waiting.popleft()
            self._waiting_bytes -= outgoing.nbytes
            if outgoing.alone:
                hand = partial(self._hand, outgoing)
                self._alone = outgoing, Parcel(outgoing.message, self._bytes_max, self._batch_bytes, hand)
                self._alone[1].begin()
            else:
                self._together += 1
                self._hand(outgoing, outgoing.message)
            self._take_answers()

    def _wait(self, outgoing: _Outgoing) -> None:
        insort(self._waiting, outgoing)
        self._waiting_bytes += outgoing.nbytes

    def _may_send(self, outgoing: _Outgoing) -> bool:
        return self._alone is None and not (outgoing.alone and self._together)

    def _hand(self, outgoing: _Outgoing, message: Message) -> None:
        heard = partial(self._heard, outgoing)
        self._producer.produce(self.topic, message.key, message.value, heard, message.headers)

    def _heard(self, outgoing: _Outgoing, refusal: Refusal | None) -> None:
        self._answers.append((outgoing, refusal))  # may come in the middle of anything: taken up by `_go_on`

    # ------------------------------------------------------------ answers

    def _take_answers(self) -> None:
        while self._answers:
            outgoing, refusal = self._answers.popleft()
            if self._alone and outgoing is self._alone[0]:
                self._hear_alone(*self._alone, refusal)
            else:
                self._hear_together(outgoing, refusal)

    def _hear_together(self, outgoing: _Outgoing, refusal: Refusal | None) -> None:
        self._together -= 1
        if refusal and refusal.too_large:  # perhaps for its neighbours in the batch
            outgoing.alone = True
            self._wait(outgoing)
        else:
            self._answer(outgoing, refusal)

    def _hear_alone(self, outgoing: _Outgoing, parcel: Parcel, refusal: Refusal | None) -> None:
        parcel.heard(refusal)
        if not parcel.done:
            return
        self._alone = None
        if parcel.was_cut:
            self._bytes_max = min(self._bytes_max, parcel.bytes_max)
        self._answer(outgoing, parcel.refusal)

    def _answer(self, outgoing: _Outgoing, refusal: Refusal | None) -> None:
        ticket = outgoing.letter.ticket
        detail = self._told(outgoing, refusal) if refusal else ""
        self._confirmations.append(DeadLetterRefused(ticket, detail) if detail else DeadLettered(ticket))

    def _told(self, outgoing: _Outgoing, refusal: Refusal) -> str:
        """Return a sentence: which letter, how large, which topic, why not, what to do."""
        record, hint, attempt = outgoing.letter.record, _HINTS.get(refusal.code, ""), ""
        if refusal.too_large:
            attempt = f", nor messages of {bytes_min(outgoing.message)} bytes for parts of it"
            hint = "raise its max.message.bytes"
        letter = f"the letter for {record.home} at {record.offset} ({record.nbytes} bytes)"
        told = f"topic {self.topic} did not take {letter}{attempt}: {refusal}"
        return f"{told}; {hint}, then start again" if hint else told


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
    return [(PREFIX + name, harmless(text).encode()) for name, text in texts.items()]


def harmless(text: str) -> str:
    """Cut a text, and put a space for everything that is no character of a line of text."""
    cut = text if len(text) <= _ERROR_CHARS_MAX else text[: _ERROR_CHARS_MAX - 1] + "…"
    return "".join(" " if _steers(character) else character for character in cut)


def _steers(character: str) -> bool:
    # Control, format (also the bidirectional ones), surrogate, line and paragraph separators.
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
