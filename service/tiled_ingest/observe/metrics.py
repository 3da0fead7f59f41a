"""What Prometheus sees. Names and labels are promises to dashboards and alerts; never a run's uid in a label.

What the engine tells (`Tell`), and what it counts:

=================  ==============================================  =======================================
event              fields                                          metrics
=================  ==============================================  =======================================
`documents`        `name`, `result`, `count`                       `documents_total{name,result}`
`events`           `count`                                         `events_total`
`bytes`            `count`                                         `consumed_bytes_total`
`flush`            `reason`, `rows`                                `flushes_total{reason}`, `flush_rows`
`latency`          `seconds` (list), or `timestamp_ms` and `count` `end_to_end_latency_seconds`
`dead_letter`      `reason`                                        `dead_letters_total{reason}`
`run_closed`       `state`                                         `runs_total{state}`
`ambiguous`        `outcome`                                       `ambiguous_writes_total{outcome}`
`gap`              `topic`, `count`                                `offset_gap_messages_total{topic}`
`commit_failed`                                                    `commit_failures_total`
`rebalance`        `count`                                         `rebalances_total`
=================  ==============================================  =======================================

Any other event (`run_opened`, `switched`, `retrying`, ...) is for the log alone. The process's own CPU and memory are
there under the names that Prometheus' clients share (`process_...`).
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from tiled_ingest.core.effects import Tell
from tiled_ingest.core.record import Home

from .snapshot import Snapshot

NAMESPACE = "tiled_ingest"
NAMES = ("start", "descriptor", "event", "event_page", "resource", "datum", "datum_page", "stream_resource",
         "stream_datum", "stop", "bulk_events", "bulk_datum")  # fmt: skip
RESULTS = ("written", "duplicate", "dead_letter")
DEAD_LETTER_REASONS = ("InvalidDocument", "TiledRejected")
RUN_STATES = ("complete", "incomplete", "failed", "abandoned")
AMBIGUOUS_OUTCOMES = ("present", "absent", "switched")
FLUSH_REASONS = ("rows", "bytes", "age", "stop", "revoke", "shutdown")

# The service level is "in Tiled within 30 s": 30 must be a bound.
LATENCY_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
REQUEST_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000)


class WeightedHistogram(Collector):
    """A histogram that takes equal observations at once: a batch has one time, and up to 50 000 events.

    Parameters
    ----------
    name, documentation
        As in Prometheus.
    labels
        Fixed labels of the one series.
    buckets
        Upper bounds, ascending, without infinity.
    """

    def __init__(self, name: str, documentation: str, labels: dict[str, str], buckets: Sequence[float]) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = [*buckets, float("inf")]
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._lock = Lock()

    def observe(self, value: float, count: int = 1) -> None:
        """Count `value` `count` times."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += count
            self._sum += value * count

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family, as the registry asks."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        family = HistogramMetricFamily(self._name, self._documentation, labels=list(self._labels))
        bounds = ["+Inf" if bound == float("inf") else str(float(bound)) for bound in self._bounds]
        family.add_metric(list(self._labels.values()), list(zip(bounds, counts, strict=True)), total)
        yield family


class Metrics:
    """All metrics of one service, in the registry that is passed in.

    Parameters
    ----------
    registry
        Where the metrics live; nothing is put into Prometheus' global one.
    beamline
        A label of every metric.
    version
        The service's, for `build_info`.
    clock
        Wall-clock time in seconds, to compare with the broker's timestamps.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        beamline: str,
        version: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry, self._beamline, self._clock = registry, beamline, clock
        self._make_flow()
        self._make_times()
        self._make_state()
        self._gauge("build_info", "1; the version is in the label", "version").labels(beamline, version).set(1)
        ProcessCollector(registry=registry)  # CPU and memory, by their usual names, without labels of ours
        self._lagging: set[Home] = set()
        self._tellers: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
            "documents": lambda f: self._documents.labels(beamline, f["name"], f["result"]).inc(f["count"]),
            "events": lambda f: self._events.inc(f["count"]),
            "bytes": lambda f: self._bytes.inc(f["count"]),
            "flush": self._flushed,
            "latency": self._confirmed,
            "dead_letter": lambda f: self._dead_letters.labels(beamline, f["reason"]).inc(),
            "run_closed": lambda f: self._runs.labels(beamline, f["state"]).inc(),
            "ambiguous": lambda f: self._ambiguous.labels(beamline, f["outcome"]).inc(),
            "gap": lambda f: self._gaps.labels(beamline, f["topic"]).inc(f["count"]),
            "commit_failed": lambda _: self._commit_failures.inc(),
            "rebalance": lambda f: self._rebalances.inc(f["count"]),
        }

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ("beamline", *labels), namespace=NAMESPACE, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, ("beamline", *labels), namespace=NAMESPACE, registry=self._registry)

    def _plain(self, name: str, text: str) -> Counter:
        return self._counter(name, text).labels(self._beamline)

    def _level(self, name: str, text: str) -> Gauge:
        return self._gauge(name, text).labels(self._beamline)

    def _from_zero(self, counter: Counter, values: tuple[str, ...]) -> Counter:
        # A counter that appears with its first increase hides that increase from `increase()`.
        for value in values:
            counter.labels(self._beamline, value)
        return counter

    def _make_flow(self) -> None:
        self._documents = self._counter("documents", "Documents by kind and what became of them", "name", "result")
        for name in NAMES:
            for result in RESULTS:
                self._documents.labels(self._beamline, name, result)
        self._events = self._plain("events", "Events written, also those in pages")
        self._bytes = self._plain("consumed_bytes", "Bytes of the records received")
        self._committed = self._counter("offsets_committed", "Offsets by which commits moved on", "topic")
        self._commit_failures = self._plain("commit_failures", "Commits that the broker did not confirm")
        self._gaps = self._counter("offset_gap_messages", "Records lost before we read them", "topic")
        self._dead_letters = self._from_zero(
            self._counter("dead_letters", "Records put into the dead-letter topic", "reason"),
            DEAD_LETTER_REASONS,
        )

    def _make_times(self) -> None:
        self._latency = WeightedHistogram(
            f"{NAMESPACE}_end_to_end_latency_seconds",
            "From the broker's timestamp of a document (of a batch: the oldest) to its confirmation by Tiled",
            {"beamline": self._beamline},
            LATENCY_S,
        )
        self._registry.register(self._latency)
        self._requests = Histogram(
            "tiled_request_duration_seconds",
            "Requests to Tiled, by what was asked and what came of it (status): Done, Exists, Missing, Unprocessed, "
            "Unknown, Rejected or Denied",
            ("beamline", "operation", "status"),
            namespace=NAMESPACE, registry=self._registry, buckets=REQUEST_S,
        )  # fmt: skip
        self._flush_rows = Histogram(
            "flush_rows", "Rows of a batch", ("beamline",),
            namespace=NAMESPACE, registry=self._registry, buckets=ROWS,
        ).labels(self._beamline)  # fmt: skip
        self._flushes = self._from_zero(self._counter("flushes", "Batches by what ended them", "reason"), FLUSH_REASONS)

    def _make_state(self) -> None:
        self._rebalances = self._plain("rebalances", "Rebalances of the group that this member took part in")
        self._runs = self._from_zero(self._counter("runs", "Closed runs", "state"), RUN_STATES)
        self._ambiguous = self._from_zero(
            self._counter("ambiguous_writes", "Writes of unknown outcome, by how they were resolved", "outcome"),
            AMBIGUOUS_OUTCOMES,
        )
        self._lag = self._gauge("consumer_lag_messages", "Records beyond the committed offset", "topic", "partition")
        self._last_poll = self._level("last_poll_timestamp_seconds", "When Kafka was last polled")
        self._levels = {
            "assigned_partitions": self._level("assigned_partitions", "Partitions that are ours"),
            "paused_partitions": self._level("paused_partitions", "Partitions whose intake is paused"),
            "open_runs": self._level("open_runs", "Runs without a stop"),
            "oldest_open_run_age_s": self._level("oldest_open_run_age_seconds", "Age of the oldest open run"),
            "buffered_bytes": self._level("buffered_bytes", "Bytes received and not yet settled"),
            "oldest_unsettled_age_s": self._level("oldest_unsettled_age_seconds", "Age of the oldest record"),
            "retry_s": self._level("retry_in_progress_seconds", "Since when a request is being retried"),
        }

    def told(self, tell: Tell) -> None:
        """Count what the engine tells; events that count nothing are ignored."""
        if teller := self._tellers.get(tell.event):
            teller(tell.fields)

    def requested(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a request to Tiled by its and its outcome's names in `core.writes` (labels `operation`, `status`)."""
        self._requests.labels(self._beamline, operation, outcome).observe(seconds)

    def committed(self, home: Home, n: int) -> None:
        """Count that the committed offset of a partition moved on by `n`."""
        self._committed.labels(self._beamline, home.topic).inc(n)

    def polled(self, now: float) -> None:
        """Note that Kafka was polled at `now` (seconds since 1970)."""
        self._last_poll.set(now)

    def status(self, snapshot: Snapshot) -> None:
        """Set the gauges."""
        for name, gauge in self._levels.items():
            gauge.set(getattr(snapshot, name))

    def lag(self, lags: Mapping[Home, int]) -> None:
        """Set the lag of every partition that is ours; those that are not in `lags` any more disappear."""
        for home in self._lagging - lags.keys():
            self._lag.remove(self._beamline, home.topic, str(home.partition))
        for home, messages in lags.items():
            self._lag.labels(self._beamline, home.topic, str(home.partition)).set(messages)
            self._committed.labels(self._beamline, home.topic)
            self._gaps.labels(self._beamline, home.topic)
        self._lagging = set(lags)

    def _flushed(self, fields: Mapping[str, Any]) -> None:
        self._flushes.labels(self._beamline, fields["reason"]).inc()
        self._flush_rows.observe(fields["rows"])

    def _confirmed(self, fields: Mapping[str, Any]) -> None:
        for seconds in fields.get("seconds", ()):
            self._latency.observe(max(0.0, seconds))
        if fields.get("timestamp_ms", -1) >= 0:  # a broker without timestamps says -1
            age_s = self._clock() - fields["timestamp_ms"] / 1000
            self._latency.observe(max(0.0, age_s), fields.get("count", 1))
