"""The development setup of `compose.yaml` without containers: `python -m deploy.native [--keep]`.

Reads the compose file, and starts the same processes with the same settings on this machine: broker, PostgreSQL, Tiled,
the service, and the simulated beamline. Only addresses and folders are other ones. Ends with 0 once the beamline's runs
are in Tiled and committed; with `--keep` it leaves all running until Ctrl-C. From a clean clone, after `make install`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.rig.postgres import Postgres

from tiled_ingest.demo.broker import KafkaBroker
from tiled_ingest.demo.processes import Process, free_port
from tiled_ingest.settings import load
from tiled_ingest.tools.check import Finding, check

HERE = Path(__file__).parent
COMPOSE = HERE / "compose.yaml"
READY_S_MAX = 240.0  # the first start creates the catalog's tables
SETTLED_S_MAX = 120.0
BEAMLINE_S_MAX = 180.0
PROGRAMS = Path(sys.executable).parent
# Where the broker's parts live is this machine's affair; `KafkaBroker` says it.
PLACES = ("node.id", "process.roles", "controller.", "listener", "advertised.", "log.dirs")
# What the file leaves to servers that have bluesky-tiled-plugins, as this environment has.
EXPORTER = yaml.safe_dump(
    {"media_types": {"BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"}}}
)

Service = dict[str, Any]


class Composed:
    """The compose file, with its variables filled in and its addresses replaced.

    Parameters
    ----------
    environ
        What `${NAME:?...}` means.
    addresses
        `service:port` of the file, and what it is here.
    """

    def __init__(self, environ: Mapping[str, str], addresses: Mapping[str, str]) -> None:
        self._environ, self._addresses = environ, addresses
        self.services: dict[str, Service] = yaml.safe_load(COMPOSE.read_text())["services"]

    def text(self, value: str) -> str:
        """Return a text of the file as it is meant here."""
        return self.here(re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda found: self._environ[found[1]], value))

    def here(self, value: str) -> str:
        """Return a text with the addresses that its services have here."""
        for there, here in self._addresses.items():
            value = re.sub(rf"(?<![\w.]){re.escape(there)}\b", here, value)
        return value

    def environment(self, service: str) -> dict[str, str]:
        """Return a service's variables."""
        return {name: self.text(value) for name, value in self.services[service]["environment"].items()}

    def command(self, service: str) -> list[str]:
        """Return a service's arguments."""
        return [self.text(part) for part in self.services[service]["command"]]


def kafka_properties(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the broker's properties from the image's variables (`KAFKA_LOG_RETENTION_HOURS`), less its places."""
    named = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in environment.items()}
    return {name: value for name, value in named.items() if not name.startswith(PLACES)}


class Native:
    """All of it, running; entered by `started`."""

    def __init__(self, folder: Path, environ: Mapping[str, str], stack: ExitStack) -> None:
        self._folder, self._environ, self._stack = folder, dict(environ), stack
        for name in ("POSTGRES_PASSWORD", "TILED_API_KEY"):
            self._environ.setdefault(name, secrets.token_hex(16))
        self.api_key = self._environ["TILED_API_KEY"]
        self._tiled_port, self._http_port = free_port(), free_port()
        self.tiled_uri = f"http://127.0.0.1:{self._tiled_port}/api/v1"
        self.status_uri = f"http://127.0.0.1:{self._http_port}"
        broker = KafkaBroker(properties=kafka_properties(Composed(self._environ, {}).environment("kafka")))
        postgres = Postgres()
        postgres.password = self._environ["POSTGRES_PASSWORD"]
        self._postgres, self._broker = stack.enter_context(postgres), stack.enter_context(broker)
        self.composed = Composed(
            self._environ,
            {
                "kafka:9092": broker.bootstrap_servers,
                "postgres:5432": f"127.0.0.1:{postgres.port}",
                "tiled:8000": f"127.0.0.1:{self._tiled_port}",
            },
        )

    def start(self) -> None:
        """Start what the file names, in the order of its `depends_on`; returns when the service is ready."""
        self._databases()
        self._topics()
        tiled = self._tiled()
        tiled.wait_until(lambda: _answers(f"{self.tiled_uri}/"), limit_s=READY_S_MAX)
        ingest = self._ingest()
        ingest.wait_until(lambda: _answers(f"{self.status_uri}/readyz"), limit_s=READY_S_MAX)

    def run_beamline(self) -> list[str]:
        """Run the plans of the profile `beamline`; return the runs' uids once the broker has them."""
        module = self.composed.services["beamline"]["entrypoint"][1:]
        process = self._process("beamline", [sys.executable, *module, *self.composed.command("beamline")], {})
        if process.wait(BEAMLINE_S_MAX):
            raise RuntimeError(process.log_tail())
        return [line for line in process.log_path.read_text().splitlines() if re.fullmatch(r"[0-9a-f-]{36}", line)]

    def check(self) -> list[Finding]:
        """Return what `tiled-ingest check` says with the service's settings."""
        return check(load(environ=self.composed.environment("ingest")))

    def addresses(self) -> str:
        """Return where everything is, a line each."""
        return (
            f"Tiled: {self.tiled_uri}?api_key={self.api_key}\n"
            f"Kafka: {self._broker.bootstrap_servers}\n"
            f"service: {self.status_uri}\n"
        )

    def settled(self) -> bool:
        """Tell whether everything that was published is committed."""
        with urllib.request.urlopen(f"{self.status_uri}/status", timeout=5) as answer:
            status = json.load(answer)
        return bool(status["lag"]) and not any(status["lag"].values()) and not status["open_runs"]

    def wait_until_settled(self) -> None:
        """Wait for that, and for two looks of the service at itself, a second apart."""
        until = time.monotonic() + SETTLED_S_MAX
        times = 0
        while times < 3:
            times = times + 1 if self.settled() else 0
            if time.monotonic() > until:
                raise RuntimeError(f"not all is in Tiled: see {self.status_uri}/status and {self._folder}")
            time.sleep(1)

    def _databases(self) -> None:
        self._postgres.create_database(self.composed.services["postgres"]["environment"]["POSTGRES_DB"])
        for name in re.findall(r"CREATE DATABASE (\w+)", (HERE / "dev" / "databases.sql").read_text()):
            self._postgres.create_database(name)

    def _topics(self) -> None:
        parser = argparse.ArgumentParser()
        for option in ("--topic", "--bootstrap-server"):
            parser.add_argument(option, required=True)
        parser.add_argument("--partitions", type=int, default=1)
        parser.add_argument("--config", action="append", default=[])
        for flag in ("--create", "--if-not-exists"):
            parser.add_argument(flag, action="store_true")
        options = parser.parse_args(self.composed.command("topics")[1:])
        config = dict(each.split("=", 1) for each in options.config)
        self._broker.create_topic(options.topic, options.partitions, config)

    def _tiled(self) -> Process:
        config = self._folder / "tiled.yml"
        (self._folder / "storage").mkdir()
        text = self.composed.here((HERE / "dev" / "tiled.yml").read_text())  # Tiled itself fills in the variables
        config.write_text(text.replace("- /storage\n", f"- {self._folder}/storage\n") + EXPORTER)
        moved = {"/deploy/config/tiled.yml": str(config), "0.0.0.0": "127.0.0.1", "8000": str(self._tiled_port)}
        program, *arguments = self.composed.command("tiled")
        command = [sys.executable, "-m", program, *(moved.get(each, each) for each in arguments)]
        return self._process("tiled", command, self.composed.environment("tiled"))

    def _ingest(self) -> Process:
        environment = self.composed.environment("ingest")
        environment |= {"TILED_INGEST_HTTP__PORT": str(self._http_port), "TILED_INGEST_HTTP__HOST": "127.0.0.1"}
        return self._process("ingest", [str(PROGRAMS / "tiled-ingest"), "run"], environment)

    def _process(self, name: str, command: list[str], environment: Mapping[str, str]) -> Process:
        process = Process(name, command, self._folder / f"{name}.log", env=environment)
        process.start()
        self._stack.callback(process.stop)
        return process


@contextmanager
def started(environ: Mapping[str, str] = os.environ) -> Iterator[Native]:
    """Run everything but the beamline in this block."""
    folder = Path(tempfile.mkdtemp(prefix="tiled-ingest-native-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        native = Native(folder, environ, stack)
        native.start()
        yield native


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(uri, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    """Start it, run the beamline, and say where everything is; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.native", description="compose.yaml without containers")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    options = parser.parse_args(arguments)
    with started() as native:
        runs = native.run_beamline()
        native.wait_until_settled()
        sys.stdout.write(f"{len(runs)} runs are in Tiled: {', '.join(runs)}\n")
        if options.keep:
            sys.stdout.write(native.addresses())
            _wait_for_ctrl_c()
    return 0


def _wait_for_ctrl_c() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        sys.stdout.write("ending\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
