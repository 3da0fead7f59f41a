"""A real Prometheus beside the test: it scrapes, evaluates rules, and answers queries."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import program
from tiled_ingest.demo.processes import Process, free_port, port_answers

Series = dict[str, Any]


class Prometheus:
    """One server with a configuration file of ours, in which files and targets are those of this machine.

    Parameters
    ----------
    config
        The configuration file.
    rules
        The text of the rules file that stands in for those that the configuration names.
    targets
        Addresses as the configuration has them, and what they are here.
    """

    def __init__(self, config: Path, rules: str, targets: Mapping[str, str]) -> None:
        self._program = program("prometheus")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tiled-ingest-prometheus-"))
        (self.folder / "rules.yml").write_text(rules)
        text = config.read_text()
        for here, there in targets.items():
            assert here in text, f"{config} has no target {here}"
            text = text.replace(here, there)
        made = yaml.safe_load(text)
        made["rule_files"] = [str(self.folder / "rules.yml")]
        made["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(made))
        self._process = Process(
            "Prometheus",
            [
                self._program,
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            self.folder / "prometheus.log",
        )

    def __enter__(self) -> Prometheus:
        self._process.start()
        self._process.wait_until(lambda: port_answers(self.port), limit_s=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def query(self, expression: str) -> list[Series]:
        """Return the series that an expression has now."""
        found: list[Series] = self._get("query", query=expression)["result"]
        return found

    def alerts(self, state: str = "firing") -> dict[str, Series]:
        """Return the labels of the alerts in this state, by name."""
        alerts = self._get("alerts")["alerts"]
        return {each["labels"]["alertname"]: each["labels"] for each in alerts if each["state"] == state}

    def wait_until(self, true: Callable[[], Any], what: str, limit_s: float = 60.0) -> None:
        until_s = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < until_s, f"{what}: not within {limit_s:g} s; alerts: {self._get('alerts')}"
            time.sleep(0.25)

    def _get(self, what: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
