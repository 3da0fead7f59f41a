"""Child processes of the demo and the tests: started, watched, and never left behind.

A child dies with this process in every case: `stop` on the normal way out (its own session keeps a Ctrl-C of
the terminal away from it until we say so), and the kernel's parent-death signal when this process is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: a forked child must not take a lock
_PR_SET_PDEATHSIG = 1
_PORTS = range(15_000, 32_000)  # below Linux' ephemeral ports, so that no outgoing connection takes one meanwhile
_given: set[int] = set()  # what is free now may have been given to a process that has not begun to listen yet
_KILL_LIMIT_S = 10.0
_POLL_S = 0.05


class ProcessError(RuntimeError):
    """A child process did not start, did not become ready in time, or ended too early."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nobody listens at this moment; each time another one.

    It is this process' own until that ends: no other one that asks here is given it, not even while what listens there
    is restarted.
    """
    left = sorted(set(_PORTS) - _given)
    for port in random.sample(left, k=min(200, len(left))):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            # A record lock on one byte: the kernel lets it go with this process, and a child does not inherit it.
            fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _given.add(port)
            return port
    raise ProcessError("found no free TCP port on 127.0.0.1")


@functools.cache
def _port_locks() -> IO[bytes]:
    """Open the file whose bytes stand for ports, once: to close it anywhere would let all its locks go."""
    path = cache_folder() / "ports.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def cache_folder() -> Path:
    """Return this user's folder for things that are made once and used again."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tiled-ingest"


def port_answers(port: int) -> bool:
    """Tell whether something accepts TCP connections on this port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def inherited() -> dict[str, str]:
    """Return this process's environment, less the settings of a real service in an operator's shell."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TILED_INGEST_")}


class Process:
    """One child process in its own session, with its output in a log file.

    Parameters
    ----------
    name
        What error messages call it.
    command
        Program and arguments.
    log_path
        Its standard output and error are appended here.
    env
        Additions to what it inherits (see `inherited`). Secrets belong here: arguments are visible to every user.
    stop_signal
        The signal that asks it to end.
    user, group
        Run as another user (needs root).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: int | None = None,
        group: int | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = list(command)
        self._env = {**inherited(), **(env or {})}
        self._stop_signal = stop_signal
        self._user = user
        self._group = group
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and not self._ended.is_set()

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return self._child.pid if self._child else None

    @property
    def returncode(self) -> int | None:
        """Its exit status, once it ended (-N: by signal N)."""
        return self._child.returncode if self._child and self._ended.is_set() else None

    def start(self) -> None:
        """Start it; returns when the program is loaded, which is before it is ready for work."""
        if self.running:
            raise ProcessError(f"{self.name} is already running")
        self._ended.clear()
        failures: list[Exception] = []
        spawned = threading.Event()
        # The parent-death signal follows the *thread* that forked: this one lives as long as its child.
        threading.Thread(
            target=self._spawn_and_watch, args=(spawned, failures), name=f"watch {self.name}", daemon=True
        ).start()
        spawned.wait()
        if failures:
            raise ProcessError(f"{self.name} could not be started: {failures[0]}") from failures[0]

    def _spawn_and_watch(self, spawned: threading.Event, failures: list[Exception]) -> None:
        try:
            with self.log_path.open("ab") as log:
                self._child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    cwd=self.log_path.parent,
                    start_new_session=True,
                    user=self._user,
                    group=self._group,
                    extra_groups=None if self._user is None else [],
                    preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  two system calls, no lock
                )
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(error)
            return
        finally:
            spawned.set()
        self._child.wait()
        self._ended.set()

    def wait_until(self, ready: Callable[[], bool], *, limit_s: float) -> None:
        """Return once `ready()` is true.

        Raises
        ------
        ProcessError
            It ended first, or the limit passed; with the end of its log.
        """
        deadline = time.monotonic() + limit_s
        while not ready():
            if not self.running:
                raise ProcessError(f"{self.name} ended with status {self.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready after {limit_s:g} s\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def wait(self, limit_s: float) -> int:
        """Wait for its own end and return its exit status.

        Raises
        ------
        ProcessError
            It still runs after the limit.
        """
        if not self._ended.wait(limit_s):
            raise ProcessError(f"{self.name} still runs after {limit_s:g} s\n{self.log_tail()}")
        assert self._child is not None
        return int(self._child.returncode)

    def send(self, what: signal.Signals) -> None:
        """Send a signal to it and its own children; nothing happens when it has ended."""
        if self.running and self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, what)

    def stop(self, limit_s: float = 20.0) -> None:
        """Ask it to end, and kill it when it does not within the limit. Harmless to repeat."""
        if not self.running or self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child.pid, self._stop_signal)
        if not self._ended.wait(limit_s):
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL and return when it is gone. Harmless to repeat."""
        if self.running:
            self.send(signal.SIGKILL)
            self._ended.wait(_KILL_LIMIT_S)

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of its log, headed by the log's path."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 20_000))
                text = log.read().decode(errors="replace")
        except OSError:
            text = ""
        return "\n".join([f"the end of {self.log_path}:", *text.splitlines()[-lines:]])


def _die_with(parent: int) -> Callable[[], None]:
    """Make what the child does between fork and exec: ask for SIGKILL when the parent dies."""

    def ask() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it died between the fork and the request
            os._exit(1)

    return ask
