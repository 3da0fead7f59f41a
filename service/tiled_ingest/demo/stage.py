"""The demo's parts: started, watched while they run, and gone at the end, whatever happens.

Signals are noted and looked at in every wait. An exception out of a handler could strike between the start of
a process and the note that it must be ended; a note cannot.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tiled_ingest.demo.broker import ExistingBroker, KafkaBroker
from tiled_ingest.demo.processes import Process, ProcessError, cache_folder, free_port
from tiled_ingest.demo.tiled_server import TiledServer

POLL_S = 0.1
_HTTP_S = 2.0
_START_LIMIT_S = 600.0  # the first time, Kafka's 55 MB come over the network
_READY_LIMIT_S = 60.0
_END_LIMIT_S = 10.0
_REMOVE_LIMIT_S = 5.0
_ADMIN_LIMIT_S = 10.0


class Interrupted(Exception):
    """Somebody asked the demo to end.

    Parameters
    ----------
    number
        The signal that asked.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """SIGINT, SIGTERM and SIGHUP, noted in this block instead of obeyed at once; `check` obeys."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise `Interrupted` once a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup asked for that
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or number


class Job(threading.Thread):
    """Work beside the main thread; what it raises comes out of `over`."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._error: Exception | None = None

    def run(self) -> None:
        """Do the work, and keep what it raises."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001  raised again where somebody waits for it
            self._error = error

    def over(self) -> bool:
        """Tell whether it ended well; raises what it raised."""
        if self.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True


@dataclass(frozen=True)
class Shift:
    """A beamline process, and the file in which it notes what it published (run by run)."""

    process: Process
    record: Path


class Stage:
    """Broker, Tiled, service and beamline of one performance; nothing runs before `open`.

    Parameters
    ----------
    folder
        Holds all that they write.
    signals
        Looked at in every wait.
    """

    def __init__(self, folder: Path, signals: Signals) -> None:
        mark = uuid.uuid4().hex[:8]
        self.topic = f"tiled-ingest-demo.{mark}.documents"
        self.group = f"tiled-ingest-demo.{mark}"
        self.broker = _broker(folder / "kafka")
        self.tiled = TiledServer(folder / "tiled")
        self.service_uri = f"http://127.0.0.1:{free_port()}"
        self.service = Process(
            "the service", _python("tiled_ingest.cli", "run"), folder / "s.log", env=self._settings()
        )
        self._folder, self._signals = folder, signals
        self._jobs: list[Job] = []
        self.shifts: list[Shift] = []
        self._topic_made = False

    @property
    def own_broker(self) -> bool:
        """Whether the broker is ours, and not one that somebody else runs."""
        return isinstance(self.broker, KafkaBroker)

    def open(self) -> None:
        """Start broker and Tiled at once; returns when both answer and the topic exists."""
        self._jobs = [Job(self._start_broker), Job(self.tiled.start)]
        for job in self._jobs:
            job.start()
        self.wait_for(
            lambda: sum(job.over() for job in self._jobs) == len(self._jobs), "Kafka and Tiled started", _START_LIMIT_S
        )

    def start_service(self) -> None:
        """Start the service, or start it again; returns before it is ready."""
        self.service.start()

    def wait_for_service(self) -> None:
        """Return when the service owns its partition and reaches Tiled."""
        self.wait_for(self._service_ready, "the service ready", _READY_LIMIT_S)

    def rows_confirmed(self) -> int:
        """Ask the service (its metrics) how many events Tiled has confirmed since the service was started."""
        with _reached("the service"), urllib.request.urlopen(f"{self.service_uri}/metrics", timeout=_HTTP_S) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
        return int(sum(sample.value for sample in samples if sample.name == "tiled_ingest_events_total"))

    def measure(self, *plans: str, delay_s: float = 0.0) -> Shift:
        """Let a RunEngine in a process of its own run these plans (`NAME:POINTS`); returns when it was started."""
        number = len(self.shifts) + 1
        record = self._folder / f"published-{number}.jsonl"
        arguments = ["--bootstrap-servers", self.broker.bootstrap_servers, "--topic", self.topic]
        arguments += ["--record", str(record), "--delay", str(delay_s), "--plan", *plans]
        command = _python("tiled_ingest.demo.beamline", *arguments)
        shift = Shift(Process("the beamline", command, self._folder / f"beamline-{number}.log"), record)
        self.shifts.append(shift)
        shift.process.start()
        return shift

    def wait_for(self, ready: Callable[[], bool], what: str, limit_s: float) -> None:
        """Return once `ready()` is true.

        Raises
        ------
        Interrupted
            A signal came.
        ProcessError
            The limit passed, or a part ended that should run; with the end of its log.
        """
        deadline = time.monotonic() + limit_s
        while not ready():
            self._look_after()
            if time.monotonic() > deadline:
                raise ProcessError(f"waited {limit_s:g} s in vain: {what}\n{self.service.log_tail()}")
            self.pause(POLL_S)
        self._signals.check()

    def pause(self, duration_s: float) -> None:
        """Wait so long, but not beyond a signal."""
        deadline = time.monotonic() + duration_s
        self._signals.check()
        while (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, POLL_S))
            self._signals.check()

    def watch(self) -> None:
        """Wait for a signal, and return then.

        Raises
        ------
        ProcessError
            A part ended by itself.
        """
        while self._signals.received is None:
            self._look_after()
            time.sleep(POLL_S)

    def ended(self, shift: Shift) -> bool:
        """Tell whether a beamline ended; raises `ProcessError` when it did not end well."""
        if shift.process.running:
            return False
        if shift.process.returncode:
            raise ProcessError(f"the beamline ended with status {shift.process.returncode}\n{shift.process.log_tail()}")
        return True

    def close(self, *, gently: bool = False) -> None:
        """End every process; returns when they are gone. `gently`: the service may finish what it does."""
        if gently:
            self.service.stop(_END_LIMIT_S)
        deadline = time.monotonic() + _END_LIMIT_S
        starting = True
        while starting and time.monotonic() < deadline:
            starting = any(job.is_alive() for job in self._jobs)  # asked first: it may just have started something
            self._forget_topics()
            for part in self._parts():
                part.kill()
            time.sleep(POLL_S if starting else 0)
        if any(part.running for part in self._parts()):
            raise ProcessError("a process survived SIGKILL")

    def _parts(self) -> list[Process | TiledServer | KafkaBroker]:
        """Return what runs or may run, what depends on others first."""
        brokers = [self.broker] if isinstance(self.broker, KafkaBroker) else []
        return [*(shift.process for shift in self.shifts), self.service, self.tiled, *brokers]

    def _start_broker(self) -> None:
        if isinstance(self.broker, KafkaBroker):
            self.broker.start()
        self.broker.create_topic(self.topic)
        self._topic_made = True

    def _look_after(self) -> None:
        """Notice at once when a part that should run does not."""
        if any(job.is_alive() for job in self._jobs):
            return
        if self.service.returncode is not None:
            raise ProcessError(f"the service ended with status {self.service.returncode}\n{self.service.log_tail()}")
        if not self.tiled.running:
            raise ProcessError(f"the Tiled server ended\n{_tail(self.tiled.log_path)}")
        if isinstance(self.broker, KafkaBroker) and not self.broker.running:
            raise ProcessError(f"the Kafka broker ended\n{_tail(self.broker.log_path)}")

    def _service_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.service_uri}/readyz", timeout=_HTTP_S) as answer:
                return bool(answer.status == 200)
        except OSError:  # not there yet, or there and not ready (HTTPError is one, too)
            return False

    def _settings(self) -> dict[str, str]:
        settings = {
            "beamline": "demo",
            "kafka__bootstrap_servers": self.broker.bootstrap_servers,
            "kafka__group_id": self.group,
            "kafka__topics": self.topic,
            # A killed process cannot say good-bye: Kafka would keep its partition for it until the session
            # runs out, 45 s by default. A member that comes back under the same name gets it at once.
            "kafka__instance_id": f"{self.group}.0",
            "tiled__uri": self.tiled.uri,
            "tiled__api_key": self.tiled.api_key,  # in the environment: arguments are visible to every user
            "http__host": "127.0.0.1",
            "http__port": self.service_uri.rpartition(":")[2],
        }
        return {f"TILED_INGEST_{name.upper()}": value for name, value in settings.items()}

    def _forget_topics(self) -> None:
        """Remove our topics from a broker that stays."""
        if not self._topic_made or self.own_broker:
            return
        self._topic_made = False
        self.service.kill()  # else it would make its topic anew
        from confluent_kafka import KafkaException  # noqa: PLC0415
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415

        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 3})
        topics = [self.topic, f"{self.group}.dead-letters"]
        for future in admin.delete_topics(topics, request_timeout=_ADMIN_LIMIT_S).values():
            # The dead letters' topic may not be there yet, or the site may not let us: the names say whose they are.
            with contextlib.suppress(KafkaException, TimeoutError):
                future.result(timeout=_ADMIN_LIMIT_S)


@contextmanager
def stage(signals: Signals) -> Iterator[Stage]:
    """Yield a stage in a temporary folder; afterwards its processes and the folder are gone.

    Raises
    ------
    ProcessError
        The folder could not be removed.
    """
    folder = Path(tempfile.mkdtemp(prefix="tiled-ingest-demo-"))
    try:
        prepare(os.environ, folder)
        there = Stage(folder, signals)
        try:
            yield there
        except BaseException:
            there.close()
            raise
        there.close(gently=True)
    finally:
        _remove(folder)


def prepare(environ: MutableMapping[str, str], folder: Path) -> None:
    """Keep what is set on this machine away from the demo's parts, and their temporary files in its folder."""
    temporary = folder / "tmp"
    temporary.mkdir()
    environ["TMPDIR"] = str(temporary)
    environ["JDK_JAVA_OPTIONS"] = "-XX:-UsePerfData"  # a killed JVM would leave its file in the common folder
    for name in ("no_proxy", "NO_PROXY"):  # all our parts are on this machine
        environ[name] = ",".join(filter(None, [environ.get(name), "127.0.0.1"]))
    if environ.get("PYTHONDONTWRITEBYTECODE") and not environ.get("PYTHONPYCACHEPREFIX"):
        # Each start would compile thousands of modules, for seconds: leave the result where it disturbs nobody.
        sys.pycache_prefix, sys.dont_write_bytecode = str(cache_folder() / "bytecode"), False
        environ.update(PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=sys.pycache_prefix)


def _broker(folder: Path) -> KafkaBroker | ExistingBroker:
    existing = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    return ExistingBroker(existing) if existing else KafkaBroker(folder)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def _reached(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProcessError(f"{name} did not answer: {error}") from error


def _tail(log_path: Path, lines: int = 15) -> str:
    return "\n".join(log_path.read_text(errors="replace").splitlines()[-lines:])


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _REMOVE_LIMIT_S
    while folder.exists():  # a killed grandchild may be in its last write
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            raise ProcessError(f"{folder} could not be removed")
        time.sleep(POLL_S if folder.exists() else 0)
