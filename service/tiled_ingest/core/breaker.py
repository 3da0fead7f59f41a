"""The breaker in front of the dead letters: when nearly everything is refused, the mistake is more likely ours."""

from collections import OrderedDict, deque
from itertools import repeat

from .errors import BreakerOpen, InvalidDocument
from .policy import Policy

NOT_COUNTED = frozenset({"foreign_run", "run_failed", "late"})  # decisions about runs, which count as such; or none
FOREIGN_RUN = "foreign_run"
WHO_ELSE = "is a TiledWriter still running beside this service?"
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

    @property
    def counted(self) -> str:
        """How many of them were bad, in words."""
        return f"{self.bad} of the last {len(self.last)}"


class Breaker:
    """Counts refusals among the last documents, and failures among the last runs.

    A failed run counts once, however many documents it has: a poison run must not stop the others. So does one that is
    not ours.

    It raises nothing: it opens in the midst of things that must come to their end, and is asked between them.

    Attributes
    ----------
    opened
        Why nothing more may be taken, from the first time that too much was refused.
    """

    def __init__(self, policy: Policy) -> None:
        self.opened: BreakerOpen | None = None
        self._share_max = policy.breaker_share_max
        self._foreign_expected = policy.foreign_skip  # the user said so
        self._documents = _Window(policy.breaker_window)
        self._missed: OrderedDict[str, None] = OrderedDict()  # what orphans refer to
        self._runs = _Window(min(policy.breaker_window, RUNS_WINDOW_MAX))
        self._foreign = _Window(min(policy.breaker_window, RUNS_WINDOW_MAX))  # of the same runs

    def passed(self, number: int = 1) -> None:
        """Note documents that were taken."""
        self._documents.note_good(number)

    def refused(self, error: InvalidDocument) -> None:
        """Note a document that goes to the dead letters."""
        if error.code in NOT_COUNTED or (error.code == "orphan" and not self._is_first_orphan(error.about)):
            return
        self._documents.note(bad=True)
        if self._documents.exceeds(self._share_max):
            self._open(f"{self._documents.counted} documents were refused, the last as {error}")

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
        self._note_run()

    def run_failed(self, why: str) -> None:
        """Note a run that Tiled refused."""
        self._note_run(bad=why)

    def run_not_ours(self, code: str, detail: str) -> None:
        """Note a run that is not written because Tiled has another in its place, someone else's or of the same uid."""
        if code == FOREIGN_RUN and self._foreign_expected:
            return
        self._note_run(bad=f"{code}: {detail}", foreign=code == FOREIGN_RUN)

    def _note_run(self, *, bad: str = "", foreign: bool = False) -> None:
        self._runs.note(bad=bool(bad))
        self._foreign.note(bad=foreign)
        if not bad:
            return
        if self._foreign.exceeds(self._share_max):
            self._open(f"{self._foreign.counted} runs were written by someone else; {WHO_ELSE}")
        elif self._runs.exceeds(self._share_max):
            self._open(f"{self._runs.counted} runs were refused, the last: {bad}")

    def _open(self, why: str) -> None:
        self.opened = self.opened or BreakerOpen(why)
