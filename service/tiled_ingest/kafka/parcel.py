"""A letter that may be too large, on its way alone: whole, and if it is refused for its size, in parts, ever smaller.

What a topic takes is not always known: its configuration may be hidden from us, or changed; the limit counts
compressed bytes; and our own client has one, too. So the broker's refusals decide.
"""

import uuid
from collections.abc import Callable

from .confirmed import Refusal
from .parts import Cut, Message, bytes_min

_UNDER_WAY_BYTES_MAX = 8_000_000  # of parts: enough to keep a connection busy, and no second copy of a large letter


class Parcel:
    """One letter. Whatever `hand` is given must be answered by one call of `heard`.

    Parameters
    ----------
    bytes_max
        The largest message that the topic is believed to take.
    batch_bytes
        How large batches may become that our client makes of several messages: the topic's limit counts batches.
    hand
        Gives a message to the producer; must not call `heard` itself.

    Attributes
    ----------
    done
        Whether all is answered that will be sent.
    refusal
        Then: why it was refused in the end; `None` if it was confirmed, all of it.
    """

    def __init__(self, letter: Message, bytes_max: int, batch_bytes: int, hand: Callable[[Message], None]) -> None:
        self._letter = letter
        self._batch_bytes = batch_bytes
        self._hand = hand
        # What the topic should take, and does not, is halved.
        self.bytes_max = bytes_max if letter.nbytes > bytes_max else letter.nbytes // 2
        self._cut: Cut | None = None
        self._handed = self._answered = 0
        self.refusal: Refusal | None = None
        self.done = False

    @property
    def was_cut(self) -> bool:
        """Whether it had to go in parts."""
        return self._cut is not None

    def begin(self) -> None:
        """Send it whole."""
        self._give(self._letter)

    def heard(self, refusal: Refusal | None) -> None:
        """Note what became of a message, and send what follows."""
        self._answered += 1
        if refusal and not (self.refusal and self.refusal.too_large < refusal.too_large):
            self.refusal = refusal
        if self.refusal is None:
            self._go_on()
        elif self._answered == self._handed:
            self._begin_anew()

    def _go_on(self) -> None:
        parts = self._cut.parts if self._cut else 1
        if self._answered == parts:
            self.done = True
        while self._cut and self._handed < parts and (self._handed - self._answered) < self._ahead:
            self._give(self._cut.part(self._handed))

    @property
    def _ahead(self) -> int:
        """How many parts may be under way: one until the first was taken, so that few are sent for nothing, and one
        where the client would make batches of them that are larger than a part.
        """
        if not self._answered or self.bytes_max < self._batch_bytes:
            return 1
        return max(1, _UNDER_WAY_BYTES_MAX // self.bytes_max)

    def _begin_anew(self) -> None:
        """Send it in parts, or in smaller ones than were refused; each attempt has a name of its own."""
        least = bytes_min(self._letter)
        if not (self.refusal and self.refusal.too_large) or (self._cut and self.bytes_max <= least):
            self.done = True
            return
        self.bytes_max = max(self.bytes_max // 2 if self._cut else self.bytes_max, least)
        self._cut = Cut(self._letter, self.bytes_max, uuid.uuid4().hex)
        self._handed = self._answered = 0
        self.refusal = None
        self._give(self._cut.part(0))

    def _give(self, message: Message) -> None:
        self._handed += 1
        self._hand(message)
