"""The breaker in front of the dead letters: when nearly everything is refused, the mistake is more likely ours."""

from collections import OrderedDict, deque
from itertools import repeat

from .errors import BreakerOpen, InvalidDocument
from .policy import Policy

NOT_COUNTED = frozenset({"foreign_run", "run_failed", "late"})  # decisions, not surprises
RUNS_WINDOW_MAX = 20
MISSED_MAX = 10_000


class _Window:
    """The last so many outcomes."""

    def __init__(self, size: int) -> None:
        self.last: deque[bool] = deque(maxlen=size)
        self.bad = 0

    def note(self, *, bad: bool) -> None:
        if len(self.last) == self.last.maxlen:
            self.bad -= self.last[0]
        self.last.append(bad)
        self.bad += bad

    def note_good(self, number: int) -> None:
        if self.bad:
            for _ in range(number):
                self.note(bad=False)
        else:
            self.last.extend(repeat(False, number))

    def exceeds(self, share_max: float) -> bool:
        return len(self.last) == self.last.maxlen and self.bad > share_max * len(self.last)


class Breaker:
    """Counts refusals among the last documents, and failures among the last runs.

    A failed run counts once, however many documents it has: a poison run must not stop the others.
    """

    def __init__(self, policy: Policy) -> None:
        self._share_max = policy.breaker_share_max
        self._documents = _Window(policy.breaker_window)
        self._missed: OrderedDict[str, None] = OrderedDict()  # what orphans refer to
        self._runs = _Window(min(policy.breaker_window, RUNS_WINDOW_MAX))

    def passed(self, number: int = 1) -> None:
        """Note documents that were taken."""
        self._documents.note_good(number)

    def refused(self, error: InvalidDocument) -> None:
        """Note a document that goes to the dead letters.

        Raises
        ------
        BreakerOpen
            Too many of the last documents went there.
        """
        if error.code in NOT_COUNTED or (error.code == "orphan" and not self._is_first_orphan(error.about)):
            return
        self._documents.note(bad=True)
        if self._documents.exceeds(self._share_max):
            counted = f"{self._documents.bad} of the last {len(self._documents.last)} documents"
            raise BreakerOpen(f"{counted} were refused, the last as {error}")

    def _is_first_orphan(self, missed: str) -> bool:
        """One lost descriptor makes orphans of thousands of events: it counts once."""
        is_first = missed not in self._missed
        self._missed[missed] = None
        self._missed.move_to_end(missed)
        if len(self._missed) > MISSED_MAX:
            self._missed.popitem(last=False)
        return is_first

    def run_ended(self) -> None:
        """Note a run that came to its end."""
        self._runs.note(bad=False)

    def run_failed(self, why: str) -> None:
        """Note a run that Tiled refused.

        Raises
        ------
        BreakerOpen
            Too many of the last runs were refused.
        """
        self._runs.note(bad=True)
        if self._runs.exceeds(self._share_max):
            raise BreakerOpen(f"{self._runs.bad} of the last {len(self._runs.last)} runs were refused, the last: {why}")
