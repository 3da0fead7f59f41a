"""The service as an operator runs it: a process that can be killed at any moment and started again."""

from __future__ import annotations

import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tiled_ingest.demo.processes import Process, ProcessError, cache_folder, free_port

START_LIMIT_S = 30.0
_POLL_S = 0.02

Line = dict[str, Any]


class Service:
    """`tiled-ingest run`, with settings from the environment and its log lines in a file.

    Parameters
    ----------
    folder
        Where its log is kept.
    settings
        By dotted name; what is no text is spelled as JSON.
    name
        Tells several of them apart.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], name: str = "service") -> None:
        self.port = free_port()
        self.name = name
        self.variables: dict[str, str] = {}  # of its environment, beside the settings
        self.settings = {"http.host": "127.0.0.1", "http.port": self.port, "log.level": "debug", **settings}
        self.folder = folder
        self._log_path = folder / f"{name}.log"
        self._log_path.touch()
        self._lines: list[Line] = []  # all that were read so far
        self._read_to = 0
        self._began_at = 0  # which of the lines is the present process's first
        self._process: Process | None = None

    # ------------------------------------------------------------ life

    def start(self, *arguments: str) -> Service:
        """Start it, with further arguments of `run`; returns before it has done anything."""
        program = Path(sys.executable).with_name("tiled-ingest")
        self._began_at = len(self._all_lines())
        command = [str(program), "run", *arguments]
        self._process = Process(self.name, command, self._log_path, env=self.environment | self.variables | bytecode())
        self._process.start()
        return self

    def start_claimed(self) -> Service:
        """Start it; returns when it owns a partition and has rebuilt what open runs need."""
        self.start().wait_for("claimed")
        return self

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None:
            self._process.kill()

    def stop(self, limit_s: float = 20.0) -> int:
        """SIGTERM; returns its exit status."""
        self.process.send(signal.SIGTERM)
        return self.ended(limit_s)

    def ended(self, limit_s: float = 20.0) -> int:
        """Wait until it ends by itself; returns its exit status."""
        return self.process.wait(limit_s)

    @property
    def environment(self) -> dict[str, str]:
        """Its settings, as variables: for other commands beside it, too."""
        return {_variable(name): _spelled(value) for name, value in self.settings.items()}

    @property
    def process(self) -> Process:
        """The present process, or the last one."""
        assert self._process is not None, "never started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    # ------------------------------------------------------------ what it says

    def lines(self, event: str | None = None, *, of_all: bool = False) -> list[Line]:
        """Return the log's lines of the present process (or `of_all` of them), perhaps of one event only."""
        lines = self._all_lines()[0 if of_all else self._began_at :]
        return [line for line in lines if event in {None, line["event"]}]

    def _all_lines(self) -> list[Line]:
        """Read what was added to the log since the last call; a line half written waits for its end."""
        with self._log_path.open("rb") as log:
            log.seek(self._read_to)
            complete, end, _ = log.read().rpartition(b"\n")
        self._read_to += len(complete) + len(end)
        self._lines += [line for text in complete.splitlines() if (line := _parsed(text))]
        return self._lines

    def text(self) -> str:
        """All that any process of it has said."""
        return self._log_path.read_text(errors="replace")

    def tail(self, lines: int = 80) -> str:
        return "\n".join(self.text().splitlines()[-lines:])

    def wait_for(self, event: str, *, count: int = 1, limit_s: float = START_LIMIT_S, **fields: Any) -> Line:
        """Wait until the present process has logged an event, with these fields, so many times; return the last."""

        def matching() -> list[Line]:
            return [line for line in self.lines(event) if fields.items() <= line.items()]

        self.wait_until(lambda: len(matching()) >= count, f"log line {event!r} {fields}", limit_s=limit_s)
        return matching()[-1]

    def wait_until(
        self, true: Callable[[], Any], what: str, *, limit_s: float = START_LIMIT_S, poll_s: float = _POLL_S
    ) -> None:
        """Wait until something is true; it must not end meanwhile."""
        until_s = time.monotonic() + limit_s
        while not true():
            if not self.running:
                raise ProcessError(f"{self.name} ended with {self.process.returncode} before: {what}\n{self.tail(15)}")
            if time.monotonic() > until_s:
                raise ProcessError(f"{self.name}: {what}: not within {limit_s:g} s\n{self.tail(15)}")
            time.sleep(poll_s)

    # ------------------------------------------------------------ its HTTP port

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of one of its pages; (0, "") while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    @property
    def live(self) -> bool:
        return self.get("/livez")[0] == 200

    def status(self) -> dict[str, Any]:
        """What the status page's data say."""
        found: dict[str, Any] = json.loads(self.get("/status")[1])
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the metric's samples with these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        samples = [line for line in self.get("/metrics")[1].splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples if all(text in line for text in wanted))


def bytecode() -> dict[str, str]:
    """Give it a place for bytecode where Python may leave none beside the sources: else a start takes twice as long."""
    if not sys.dont_write_bytecode or sys.pycache_prefix:
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_folder() / "bytecode")}


def _variable(dotted: str) -> str:
    return "TILED_INGEST_" + dotted.upper().replace(".", "__")


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parsed(line: bytes) -> Line:
    """One log line; nothing for what is none (a traceback, or a line that SIGKILL cut)."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) and "event" in parsed else {}
