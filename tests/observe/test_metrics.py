"""Metrics by name, label and value: other people's dashboards and alerts depend on them."""

import re
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tiled_ingest.core.effects import Tell
from tiled_ingest.core.record import Home
from tiled_ingest.core.writes import Outcome
from tiled_ingest.observe.metrics import Metrics
from tiled_ingest.observe.snapshot import Snapshot

PROMISED = [
    "consumer_lag_messages",
    "oldest_unsettled_age_seconds",
    "offset_gap_messages_total",
    "documents_total",
    "events_total",
    "consumed_bytes_total",
    "offsets_committed_total",
    "commit_failures_total",
    "dead_letters_total",
    "end_to_end_latency_seconds_bucket",
    "tiled_request_duration_seconds_bucket",
    "flush_rows_bucket",
    "flushes_total",
    "assigned_partitions",
    "rebalances_total",
    "paused_partitions",
    "last_poll_timestamp_seconds",
    "retry_in_progress_seconds",
    "open_runs",
    "oldest_open_run_age_seconds",
    "buffered_bytes",
    "runs_total",
    "ambiguous_writes_total",
    "build_info",
]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, "sim", "1.2", clock=lambda: 1_000.0)


def value(registry: CollectorRegistry, name: str, /, **labels: str) -> float | None:
    return registry.get_sample_value(f"tiled_ingest_{name}", {"beamline": "sim", **labels})


def test_all_promised_names_are_there(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.requested("AppendRows", "Done", 0.02)
    metrics.lag({Home("t", 0): 0})
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    assert {f"tiled_ingest_{name}" for name in PROMISED} <= {sample.name for sample in samples}
    assert all(sample.labels["beamline"] == "sim" for sample in samples if sample.name.startswith("tiled_ingest_"))
    assert "process_resident_memory_bytes" in {sample.name for sample in samples}


def test_what_may_come_of_a_request_is_told_where_it_is_counted(registry: CollectorRegistry, metrics: Metrics) -> None:
    (told,) = [line for line in generate_latest(registry).decode().splitlines()
               if line.startswith("# HELP tiled_ingest_tiled_request_duration_seconds ")]  # fmt: skip
    assert {outcome.__name__ for outcome in get_args(Outcome)} <= set(re.findall(r"\w+", told))


def test_rare_labels_start_at_zero(registry: CollectorRegistry, metrics: Metrics) -> None:
    assert value(registry, "dead_letters_total", reason="InvalidDocument") == 0
    assert value(registry, "documents_total", name="event_page", result="duplicate") == 0
    assert value(registry, "runs_total", state="abandoned") == 0
    assert value(registry, "flushes_total", reason="revoke") == 0
    assert value(registry, "build_info", version="1.2") == 1


@pytest.mark.parametrize(
    ("tell", "name", "labels", "expected"),
    [
        (Tell("documents", {"name": "event", "result": "written", "count": 3}), "documents_total",
         {"name": "event", "result": "written"}, 3),
        (Tell("events", {"count": 5}), "events_total", {}, 5),
        (Tell("bytes", {"count": 7}), "consumed_bytes_total", {}, 7),
        (Tell("flush", {"reason": "age", "rows": 9}), "flushes_total", {"reason": "age"}, 1),
        (Tell("flush", {"reason": "age", "rows": 9}), "flush_rows_sum", {}, 9),
        (Tell("dead_letter", {"reason": "InvalidDocument", "code": "orphan"}), "dead_letters_total",
         {"reason": "InvalidDocument"}, 1),
        (Tell("run_closed", {"uid": "u", "state": "failed", "rows": 1, "seconds": 2.0}), "runs_total",
         {"state": "failed"}, 1),
        (Tell("ambiguous", {"outcome": "switched"}), "ambiguous_writes_total", {"outcome": "switched"}, 1),
        (Tell("gap", {"topic": "t", "count": 4}), "offset_gap_messages_total", {"topic": "t"}, 4),
        (Tell("commit_failed"), "commit_failures_total", {}, 1),
        (Tell("rebalance", {"count": 2}), "rebalances_total", {}, 2),
    ],
)  # fmt: skip
def test_what_is_told_is_counted(
    registry: CollectorRegistry,
    metrics: Metrics,
    tell: Tell,
    name: str,
    labels: dict[str, str],
    expected: float,
) -> None:
    metrics.told(tell)
    assert value(registry, name, **labels) == expected


def test_latency_is_weighed(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.told(Tell("latency", {"timestamp_ms": 998_000, "count": 50_000}))
    metrics.told(Tell("latency", {"seconds": [0.01, 31.0, -5.0]}))
    metrics.told(Tell("latency", {"timestamp_ms": -1, "count": 9}))
    name = "end_to_end_latency_seconds"
    assert value(registry, f"{name}_bucket", le="30.0") == 50_002
    assert value(registry, f"{name}_bucket", le="1.0") == 2
    assert value(registry, f"{name}_count") == 50_003
    assert value(registry, f"{name}_sum") == pytest.approx(100_031.01)


def test_a_bound_belongs_to_its_bucket(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.told(Tell("latency", {"seconds": [30.0]}))
    assert value(registry, "end_to_end_latency_seconds_bucket", le="30.0") == 1


def test_unknown_events_count_nothing(registry: CollectorRegistry, metrics: Metrics) -> None:
    before = ours(registry)
    for event in ("run_opened", "switched", "retrying", "something_new"):
        metrics.told(Tell(event, {"uid": "u"}))
    assert ours(registry) == before


def ours(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if line.startswith("tiled_ingest_")]


def test_lag_of_partitions_that_are_gone_disappears(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.lag({Home("t", 0): 5, Home("t", 1): 6})
    metrics.lag({Home("t", 1): 7})
    assert value(registry, "consumer_lag_messages", topic="t", partition="0") is None
    assert value(registry, "consumer_lag_messages", topic="t", partition="1") == 7
    assert value(registry, "offsets_committed_total", topic="t") == 0
    metrics.committed(Home("t", 1), 7)
    assert value(registry, "offsets_committed_total", topic="t") == 7


def test_gauges(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.status(Snapshot(assigned_partitions=2, buffered_bytes=10, retry_s=1.5))
    metrics.polled(1_000.5)
    assert value(registry, "assigned_partitions") == 2
    assert value(registry, "buffered_bytes") == 10
    assert value(registry, "retry_in_progress_seconds") == 1.5
    assert value(registry, "last_poll_timestamp_seconds") == 1_000.5
