"""The breaker in front of the dead letters: when nearly everything is refused, the mistake is more likely ours."""

from collections import deque

from .errors import BreakerOpen, InvalidDocument
from .policy import Policy

NOT_COUNTED = frozenset({"not_supported_yet", "foreign_run", "run_failed", "late"})  # decisions, not surprises


class Breaker:
    """Counts refusals among the last documents."""

    def __init__(self, policy: Policy) -> None:
        self._share_max = policy.breaker_share_max
        self._last: deque[bool] = deque(maxlen=policy.breaker_window)
        self._refused = 0

    def passed(self) -> None:
        """Note a document that was taken."""
        self._note(refused=False)

    def refused(self, error: InvalidDocument) -> None:
        """Note a document that goes to the dead letters.

        Raises
        ------
        BreakerOpen
            Too many of the last documents went there.
        """
        if error.code in NOT_COUNTED:
            return
        self._note(refused=True)
        full = len(self._last) == self._last.maxlen
        if full and self._refused > self._share_max * len(self._last):
            raise BreakerOpen(
                f"{self._refused} of the last {len(self._last)} documents were refused, the last as {error}"
            )

    def _note(self, *, refused: bool) -> None:
        if len(self._last) == self._last.maxlen:
            self._refused -= self._last[0]
        self._last.append(refused)
        self._refused += refused
