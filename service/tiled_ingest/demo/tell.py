"""What the demo says: its story on standard output, its progress on standard error."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tiled_ingest.demo.compare import Run

_WIDTH_MAX = 100
_TELL_S_MIN = 2.0  # between two lines about the same thing, where nothing can be written over


@dataclass(frozen=True)
class Kill:
    """What happened around the SIGKILL. `away_s`: from the kill until the service was ready again."""

    run: str
    rows_in_tiled_at_kill: int
    rows_published_at_kill: int
    rows_published_while_away: int
    rows_published: int
    away_s: float
    still_measuring: bool

    @property
    def in_the_middle(self) -> bool:
        """Whether Tiled held some rows and not all, while the RunEngine was still publishing."""
        return self.still_measuring and 0 < self.rows_in_tiled_at_kill < self.rows_published


@dataclass(frozen=True)
class Shown:
    """All that the demo found out."""

    runs: tuple[Run, ...]
    kill: Kill
    kafka: str
    tiled: str
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether everything is in Tiled exactly as it was published, and the kill proved something."""
        return self.kill.in_the_middle and all(run.same for run in self.runs)

    def as_json(self, *, api_key: str | None = None) -> str:
        """Return one JSON object; with the key, if Tiled stays for somebody to look at."""
        facts: dict[str, Any] = {
            "ok": self.ok,
            "elapsed_s": round(self.elapsed_s, 1),
            "kafka": self.kafka,
            "tiled": self.tiled,
            "runs": [_run_facts(run) for run in self.runs],
            "kill": {"signal": "SIGKILL", **asdict(self.kill), "in_the_middle": self.kill.in_the_middle},
        }
        if api_key is not None:
            facts["api_key"] = api_key
        return json.dumps(facts, indent=2)


class Working:
    """What is being done now: a line that moves on a terminal, lines now and then elsewhere."""

    def __init__(self, progress: Progress | None, text: str) -> None:
        self._progress, self._text = progress, text
        self._task = progress.add_task("", total=None) if progress else None
        self._told_s = float("-inf")
        self.note("")

    def note(self, more: str) -> None:
        """Say how far it is."""
        line = f"{self._text}: {more}" if more else f"{self._text} ..."
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=line)
        elif time.monotonic() - self._told_s >= _TELL_S_MIN:
            self._told_s = time.monotonic()
            print(line, file=sys.stderr, flush=True)


class Teller:
    """Says it.

    Parameters
    ----------
    silent
        Keep the story back, because standard output belongs to JSON.
    """

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._out = _console()
        self._err = Console(stderr=True, highlight=False)
        self._steps = 0

    def say(self, text: str = "") -> None:
        """Say a paragraph."""
        self._print(textwrap.fill(text, self._out.width, break_long_words=False, break_on_hyphens=False))

    def step(self, text: str) -> None:
        """Say what was done, with the step's number."""
        self._steps += 1
        first, others = f"{self._steps}. ", "   "
        self._print(
            textwrap.fill(
                text,
                self._out.width,
                initial_indent=first,
                subsequent_indent=others,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )

    def code(self, lines: str) -> None:
        """Say lines as they are."""
        self._print(textwrap.indent(lines, "     "))

    def table(self, runs: tuple[Run, ...]) -> None:
        """Show the runs."""
        if not self._silent:
            self._out.print(_table(runs))
            sys.stdout.flush()

    def complain(self, text: str) -> None:
        """Say on standard error what went wrong."""
        self._err.print(f"tiled-ingest demo: {text}", markup=False, soft_wrap=True)

    @contextmanager
    def working(self, text: str) -> Iterator[Working]:
        """Show that something is being done, for this block; the story must wait until it is done."""
        if not self._err.is_terminal:
            yield Working(None, text)
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self._err, transient=True) as progress:
            yield Working(progress, text)

    def _print(self, text: str) -> None:
        if not self._silent:
            self._out.print(text, markup=False, soft_wrap=True)
            sys.stdout.flush()


def _console() -> Console:
    """Return standard output's console; what no terminal limits gets a width that reads well."""
    console = Console(highlight=False)
    console.width = min(console.width, _WIDTH_MAX) if console.is_terminal else _WIDTH_MAX
    return console


def _table(runs: tuple[Run, ...]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("run", "plan", "exit status", "rows published, by stream"):
        table.add_column(heading)
    table.add_column("in Tiled", justify="right")
    table.add_column("row by row")
    for run in runs:
        streams = ", ".join(f"{stream.name} {stream.rows_published}" for stream in run.streams)
        said = f"[{'green' if run.same else 'bold red'}]{verdict(run)}[/]"
        table.add_row(run.uid[:8], run.plan, run.exit_status, streams, str(run.rows_in_tiled), said)
    return table


def verdict(run: Run) -> str:
    """Say in a few words how a run compares."""
    if run.same:
        return "the same"
    said = list(run.problems)
    for stream in run.streams:
        kinds = ("missing", "duplicated", "different", "surplus")
        said += [f"{stream.name}: {getattr(stream, kind)} {kind}" for kind in kinds if getattr(stream, kind)]
    return ", ".join(said)


def _run_facts(run: Run) -> dict[str, Any]:
    totals = {"rows_published": run.rows_published, "rows_in_tiled": run.rows_in_tiled, "same": run.same}
    return {**asdict(run), **totals, "verdict": verdict(run)}
