"""The Grafana dashboard: which questions it answers, row by row, and the query behind each panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Panel = dict[str, Any]
Target = tuple[str, str]  # query, legend

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'namespace=~"$namespace", beamline=~"$beamline"'
TOPIC = f'{HERE}, topic=~"$topic"'
WIDTH = 24
HEIGHT = 8


def metric(name: str, labels: str = HERE) -> str:
    """Return a selector of one of our metrics, narrowed to what the variables choose."""
    return f"tiled_ingest_{name}{{{labels}}}"


def rate(name: str, labels: str = HERE) -> str:
    """Return its increase per second."""
    return f"rate({metric(name, labels)}[$__rate_interval])"


def quantile(share: float, name: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    labels = ", ".join(["le", *by.split()])
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(name + '_bucket')}))"


def within(seconds: str, window: str) -> str:
    """Return the share of the documents that were in Tiled within a bound of the histogram."""
    bucket = f'{HERE}, le="{seconds}"'
    good = f"sum(increase({metric('end_to_end_latency_seconds_bucket', bucket)}[{window}]))"
    return f"{good} / sum(increase({metric('end_to_end_latency_seconds_count')}[{window}]))"


def of_process(name: str) -> str:
    """Return a metric of the process: it has no beamline label, so it gets that of the service beside it."""
    return f"{name} * on (namespace, job, instance) group_left (beamline) {metric('build_info')}"


# What is published: what is settled, and what lag grows by meanwhile. Known also while intake is paused.
INCOMING = (
    f"clamp_min(sum({rate('offsets_committed_total', TOPIC)})"
    f" + sum(deriv({metric('consumer_lag_messages', TOPIC)}[$__rate_interval])), 0)"
)
LAG = f"max by (namespace, beamline, topic, partition) ({metric('consumer_lag_messages', TOPIC)})"


def _panel(
    title: str, about: str, targets: Sequence[Target], *, kind: str, unit: str, width: int, **more: Any
) -> Panel:
    defaults = {"unit": unit, "min": 0, **more.pop("defaults", {})}
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": more.pop("height", HEIGHT)},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for number, (query, legend) in enumerate(targets)
        ],
        **more,
    }


def graph(title: str, about: str, *targets: Target, unit: str = "short", width: int = 8, stack: bool = False) -> Panel:
    """Return a panel with curves over time."""
    custom: Panel = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    if stack:
        custom["stacking"] = {"mode": "normal"}
    options = {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list", "placement": "bottom"}}
    return _panel(
        title, about, targets, kind="timeseries", unit=unit, width=width, options=options, defaults={"custom": custom}
    )


def number(
    title: str, about: str, query: str, *, unit: str = "short", steps: Sequence[tuple[float | None, str]]
) -> Panel:
    """Return a panel with one number, coloured by steps (from this value on, this colour)."""
    thresholds = {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "area"}
    return _panel(
        title, about, [(query, "")],
        kind="stat", unit=unit, width=4, height=4, options=options, defaults={"thresholds": thresholds},
    )  # fmt: skip


def glance() -> Iterator[Panel]:
    """Panels that say at a glance whether data flow, and in time."""
    good = [(None, "red"), (0.99, "green")]
    yield number(
        "Within 30 s (30 days)", "Service level: 99 % of documents in Tiled within 30 s.",
        within("30.0", "30d"), unit="percentunit", steps=good,
    )  # fmt: skip
    yield number(
        "Within 30 s (1 hour)", "The same for the last hour.",
        within("30.0", "1h"), unit="percentunit", steps=good,
    )  # fmt: skip
    yield number(
        "Lag", "Records beyond the committed offsets.",
        f"sum({LAG})", steps=[(None, "green"), (10_000, "yellow"), (100_000, "red")],
    )  # fmt: skip
    yield number(
        "Oldest unsettled", "Age of the oldest record that is not yet in Tiled (or in the dead letters).",
        f"max({metric('oldest_unsettled_age_seconds')})",
        unit="s", steps=[(None, "green"), (30, "yellow"), (300, "red")],
    )  # fmt: skip
    yield number(
        "Waiting for Tiled", "Since when a request is being retried.",
        f"max({metric('retry_in_progress_seconds')})", unit="s", steps=[(None, "green"), (1, "yellow"), (120, "red")],
    )  # fmt: skip
    yield number(
        "Dead letters (1 hour)", "Records that went to the dead-letter topic.",
        f"sum(increase({metric('dead_letters_total')}[1h]))", steps=[(None, "green"), (1, "red")],
    )  # fmt: skip


def lag() -> Iterator[Panel]:
    """Panels that say how far behind we are."""
    yield graph("Lag by topic", "", (f"sum by (beamline, topic) ({LAG})", "{{beamline}} {{topic}}"))
    yield graph(
        "Lag by partition",
        "A run lives in one partition: one busy run is one curve.",
        (LAG, "{{topic}}[{{partition}}]"),
    )
    yield graph(
        "Oldest unsettled record", "",
        (f"max by (beamline) ({metric('oldest_unsettled_age_seconds')})", "{{beamline}}"), unit="s",
    )  # fmt: skip


def flow() -> Iterator[Panel]:
    """Panels of what goes in and what comes out."""
    yield graph(
        "Documents in and out", "Records that come into Kafka (in), beside those that are settled, and what became of "
        "the documents (out), per second. More in than settled: the backlog grows.",
        (INCOMING, "in"),
        (f"sum({rate('offsets_committed_total', TOPIC)})", "settled"),
        (f"sum by (result) ({rate('documents_total')})", "{{result}}"),
    )  # fmt: skip
    yield graph("Events written", "", (f"sum by (beamline) ({rate('events_total')})", "{{beamline}}"), unit="wps")
    yield graph(
        "Bytes received", "", (f"sum by (beamline) ({rate('consumed_bytes_total')})", "{{beamline}}"), unit="Bps"
    )
    yield graph(
        "Results by kind", "", (f"sum by (name, result) ({rate('documents_total')})", "{{name}} {{result}}"), stack=True
    )
    yield graph(
        "Batches by what ended them", "", (f"sum by (reason) ({rate('flushes_total')})", "{{reason}}"), stack=True
    )
    yield graph(
        "Rows of a batch", "Large in a backlog, small while it is live.",
        (quantile(0.5, "flush_rows"), "p50"), (quantile(0.99, "flush_rows"), "p99"),
    )  # fmt: skip


def time() -> Iterator[Panel]:
    """Panels that say how long it takes, and who takes it."""
    yield graph(
        "From the broker to Tiled", "Of every document: the broker's timestamp to Tiled's confirmation.",
        (quantile(0.5, "end_to_end_latency_seconds"), "p50"), (quantile(0.99, "end_to_end_latency_seconds"), "p99"),
        unit="s",
    )  # fmt: skip
    yield graph(
        "Requests to Tiled", "", (quantile(0.99, "tiled_request_duration_seconds", "operation"), "p99 {{operation}}"),
        unit="s",
    )  # fmt: skip
    yield graph(
        "Answers of Tiled", "HTTP status, or what came in its place.",
        (f"sum by (status) ({rate('tiled_request_duration_seconds_count')})", "{{status}}"), unit="reqps", stack=True,
    )  # fmt: skip


def trouble() -> Iterator[Panel]:
    """Panels of what goes wrong."""
    yield graph("Dead letters", "", (f"sum by (reason) (increase({metric('dead_letters_total')}[5m]))", "{{reason}}"))
    yield graph(
        "Writes of unknown outcome", "A reply was lost; how it was resolved.",
        (f"sum by (outcome) (increase({metric('ambiguous_writes_total')}[5m]))", "{{outcome}}"),
    )  # fmt: skip
    yield graph(
        "Waiting for Tiled",
        "",
        (f"max by (beamline) ({metric('retry_in_progress_seconds')})", "{{beamline}}"),
        unit="s",
    )
    yield graph(
        "Rebalances and failed commits", "In five minutes.",
        (f"sum(increase({metric('rebalances_total')}[5m]))", "rebalances"),
        (f"sum(increase({metric('commit_failures_total')}[5m]))", "failed commits"),
        (f"sum(increase({metric('offset_gap_messages_total', TOPIC)}[5m]))", "records lost before we read them"),
    )  # fmt: skip
    yield graph(
        "Partitions", "Assigned, and paused while Tiled is away or memory is full.",
        (f"sum({metric('assigned_partitions')})", "assigned"), (f"sum({metric('paused_partitions')})", "paused"),
    )  # fmt: skip
    yield graph(
        "Since the last poll", "A loop that does not poll is thrown out of the group.",
        (f"time() - max by (beamline) ({metric('last_poll_timestamp_seconds')})", "{{beamline}}"), unit="s",
    )  # fmt: skip


def runs() -> Iterator[Panel]:
    """Panels of what is open."""
    yield graph("Open runs", "", (f"sum by (beamline) ({metric('open_runs')})", "{{beamline}}"))
    yield graph(
        "Oldest open run",
        "",
        (f"max by (beamline) ({metric('oldest_open_run_age_seconds')})", "{{beamline}}"),
        unit="s",
    )
    yield graph("Runs closed in an hour", "", (f"sum by (state) (increase({metric('runs_total')}[1h]))", "{{state}}"))


def process() -> Iterator[Panel]:
    """Panels that say what it costs."""
    yield graph(
        "CPU", "Cores.", (of_process("rate(process_cpu_seconds_total[$__rate_interval])"), "{{beamline}} {{instance}}")
    )
    yield graph("Memory", "", (of_process("process_resident_memory_bytes"), "{{beamline}} {{instance}}"), unit="bytes")
    yield graph(
        "Buffered", "Received and not yet settled; above `memory.bytes_max` intake pauses.",
        (f"sum by (beamline) ({metric('buffered_bytes')})", "{{beamline}}"), unit="bytes",
    )  # fmt: skip


ALL_ROWS = (
    ("At a glance", glance),
    ("Lag", lag),
    ("Flow", flow),
    ("Time", time),
    ("Trouble", trouble),
    ("Runs", runs),
    ("Process", process),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana imports it."""
    return {
        "uid": "tiled-ingest",
        "title": "tiled-ingest",
        "description": "From a beamline's Kafka to Tiled, exactly once.",
        "tags": ["bluesky", "tiled", "kafka"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "annotations": {"list": []},
        "links": [],
        "panels": _laid_out(),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    below = ""
    for name, source in (
        ("namespace", "build_info"),
        ("beamline", "build_info"),
        ("topic", "consumer_lag_messages"),
    ):
        query = f"label_values(tiled_ingest_{source}{{{below}}}, {name})"
        yield {
            "name": name, "type": "query", "label": name.capitalize(), "datasource": DATASOURCE, "query": query,
            "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }  # fmt: skip
        below = ", ".join(filter(None, [below, f'{name}=~"${name}"']))


def _laid_out() -> list[Panel]:
    panels: list[Panel] = []
    top = 0
    for title, make in ALL_ROWS:
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _at(0, top, WIDTH, 1)}
        )
        top, left = top + 1, 0
        row_height = 0
        for panel in make():
            size = panel["gridPos"]
            if left + size["w"] > WIDTH:
                top, left = top + row_height, 0
            panels.append({**panel, "gridPos": _at(left, top, size["w"], size["h"])})
            left, row_height = left + size["w"], size["h"]
        top += row_height
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def _at(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}
