"""A process in virtual time: its code runs as it stands, and waits by letting the clock go on."""

from collections.abc import Callable

from greenlet import GreenletExit, getcurrent, greenlet

from .clock import Clock


class Process:
    """Runs `main` from now on. Only `sleep` lets time pass in it; whatever else it does takes none.

    Parameters
    ----------
    main
        Called in a stack of its own, so that it may wait in the midst of a callback.
    """

    def __init__(self, clock: Clock, main: Callable[[], None]) -> None:
        self._clock = clock
        self._stack = greenlet(main)
        self._world = getcurrent()
        self._naps = 0  # how often it has slept: whoever wakes it must mean the present one
        self._light = False
        self._frozen = False
        self._due: list[Callable[[], None]] = []  # what would have happened to it while it was frozen
        clock.after(0.0, self._go_on(0))

    @property
    def frozen(self) -> bool:
        """Whether it was stopped (SIGSTOP)."""
        return self._frozen

    # ------------------------------------------------------------ what it does itself

    def sleep(self, delay_s: float, *, light: bool = False) -> None:
        """Wait; if the sleep is `light`, `nudge` ends it early."""
        self._naps += 1
        self._light = light
        self._clock.after(delay_s, self._go_on(self._naps))
        self._world.switch()

    # ------------------------------------------------------------ what others do to it

    def nudge(self) -> None:
        """Wake it from a light sleep."""
        if self._light:
            self._clock.after(0.0, self._go_on(self._naps))

    def happens(self, action: Callable[[], None]) -> None:
        """Let something happen in it; once it is thawed, if it is frozen."""
        if self._frozen:
            self._due.append(action)
        elif not self._stack.dead:
            action()

    def freeze(self) -> None:
        """Stop it where it stands."""
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on, with what came in meanwhile."""
        self._frozen = False
        due, self._due = self._due, []
        for action in due:
            self.happens(action)

    def end(self) -> None:
        """End it where it stands, by itself or from outside."""
        if getcurrent() is self._stack:
            raise GreenletExit
        self._stack.throw()

    def _go_on(self, nap: int) -> Callable[[], None]:
        def wake() -> None:
            if nap == self._naps:
                self._naps, self._light = self._naps + 1, False
                self._stack.switch()

        return lambda: self.happens(wake)
