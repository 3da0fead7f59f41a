"""The live scene: documents flow through the real service, and a real Prometheus watches it with shortened alerts."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.prometheus import Prometheus
from tests.deploy.tools import CHART, ROOT
from tests.system.publishing import Publication, interleaved, key_for, runs
from tests.system.service import Service
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer

ALERTS = CHART / "files" / "alerts.yaml"
CONFIG = ROOT / "deploy" / "monitoring" / "prometheus.yml"
PARTITIONS = 3
API_KEY = "sentinel5f0be11"  # Tiled takes letters and digits

# What is shorter here than at a beamline, and how. Windows and thresholds shrink; the expressions stay.
SHORTER = (
    (r"for: \d+[mh]", "for: 2s"),
    (r"\[10m\]", "[8s]"),  # Stalled
    (r"> 120$", "> 3"),  # Retrying
    (r"> 300$", "> 3"),  # BacklogOld
    (r"> 302400$", "> 4"),  # RetentionRisk
    (r"> 86400$", "> 5"),  # RunStuckOpen
    (r"(process_start_time_seconds|\(tiled_ingest_build_info.*)\[15m\]", r"\1[60s]"),  # Restarting
    (r"(rebalances_total.*)\[15m\]", r"\1[3m]"),
    (r'le="30.0"', 'le="5.0"'),  # BudgetBurn
    (r"\[1h\]", "[20s]"),
    (r"\[5m\]", "[10s]"),
)


def rules() -> list[dict[str, Any]]:
    """The alerts, as they are shipped."""
    found: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return found


@dataclass
class Live:
    """A broker, Tiled, the service, and a Prometheus that watches it."""

    broker: Broker
    tiled: TiledServer
    topic: str
    service: Service
    prometheus: Prometheus

    def publish(self, count: int = 3, partition: int = 0) -> Publication:
        """Publish some runs, wholly, into one partition."""
        publication = Publication(
            self.broker.bootstrap_servers, self.topic, interleaved(runs(count)), key_for(partition, PARTITIONS)
        )
        publication.publish()
        return publication

    def written(self) -> Counter[str]:
        """Documents by kind that the service counts as written."""
        families = text_string_to_metric_families(self.service.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        documents = [each for each in samples if each.name == "tiled_ingest_documents_total" and each.value]
        return Counter(
            {each.labels["name"]: int(each.value) for each in documents if each.labels["result"] == "written"}
        )

    def lag(self) -> dict[str, float]:
        """Lag by partition, as Prometheus has it."""
        found = self.prometheus.query("tiled_ingest_consumer_lag_messages")
        return {each["metric"]["partition"]: float(each["value"][1]) for each in found}


@contextmanager
def running(broker: Broker, folder: Path) -> Iterator[Live]:
    """Run all of it in this block."""
    topic = f"live.{folder.name}.{time.time_ns()}"
    broker.create_topic(topic, PARTITIONS)
    (folder / "key").write_text(API_KEY + "\n")
    with ExitStack() as stack:
        tiled = stack.enter_context(TiledServer(api_key=API_KEY))
        service = Service(
            folder,
            {
                "beamline": "live",
                "kafka.bootstrap_servers": broker.bootstrap_servers,
                "kafka.group_id": topic,
                "kafka.topics": [topic],
                "kafka.instance_id": "live-0",
                "tiled.uri": tiled.uri,
                "tiled.api_key_file": str(folder / "key"),
                "tiled.timeout_s": 3,
            },
        )
        stack.callback(service.kill)
        service.start_claimed()
        text = ALERTS.read_text()
        for pattern, short in SHORTER:
            text, times = re.subn(pattern, short, text, flags=re.MULTILINE)
            assert times, f"nothing to make shorter: {pattern}"
        targets = {"ingest:8080": f"127.0.0.1:{service.port}"}
        prometheus = stack.enter_context(Prometheus(CONFIG, text, targets))
        yield Live(broker, tiled, topic, service, prometheus)
