"""A progress bar on standard error, if that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Silent:
    """Shows nothing."""

    def expect(self, documents: int) -> None:
        """So many offsets will be read in all."""

    def advance(self, offsets: int, doing: str) -> None:
        """So many more were read."""


@contextmanager
def progress() -> Iterator[Silent]:
    """Yield something that shows how far it is."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console  # noqa: PLC0415 - only where it is shown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("reading", total=None)

        class Bar(Silent):
            def expect(self, documents: int) -> None:
                shown.update(task, total=documents)

            def advance(self, offsets: int, doing: str) -> None:
                shown.update(task, advance=offsets, description=doing)

        yield Bar()
