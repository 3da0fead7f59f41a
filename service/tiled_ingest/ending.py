"""Being asked to end: SIGTERM and SIGINT, from the first moment on, whoever is there to be told.

It imports nothing heavy: what takes a second to import is imported after the signals are ours.
"""

import signal
from collections.abc import Callable
from types import FrameType


class Ending:
    """Takes SIGTERM and SIGINT for the whole process, and remembers that one came.

    Attributes
    ----------
    asked
        Whether we are asked to end.
    """

    def __init__(self) -> None:
        self.asked = False
        self._tell: Callable[[], None] = _nobody
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def tell(self, end: Callable[[], None]) -> None:
        """Call `end`, inside the signal's handler, once we are asked; at once if we were."""
        self._tell = end
        if self.asked:
            end()

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._tell()


def _nobody() -> None:
    """Nobody is there yet: `asked` is looked at between the steps of the start."""
