"""Live data: how long after its publication an event can be read by a Tiled client."""

from __future__ import annotations

import threading
import time

import numpy as np

from tests.bench import arms
from tests.bench.arms import Program
from tests.bench.bench import Bench
from tests.bench.figures import Figure, Goal
from tests.bench.places import Node
from tests.bench.topics import Topic, opening

WATCHED_MAX = 3  # runs that the reader looks at: it must not be what keeps Tiled busy
TICK_S = 0.02


def live(bench: Bench) -> list[Figure]:
    """A constant rate of events, spread over runs that are open together; on PostgreSQL, where readers may read."""
    figures = []
    with bench.storage("postgresql") as node:
        for runs in bench.sizes.live_runs:
            halves, nearly_all = [], []
            for _ in range(bench.repeat):
                half, most = _latencies(bench, node(), runs)
                halves.append(half)
                nearly_all.append(most)
            what = f"live, {bench.sizes.live_rate:,} events/s over {runs} runs"
            bounded = runs <= 10
            figures += [
                Figure("live", f"{what}: p50", "s", halves, goal=Goal("value", "<=", 0.5) if bounded else None),
                Figure("live", f"{what}: p99", "s", nearly_all, goal=Goal("value", "<=", 1.0) if bounded else None),
            ]
    return figures


def _latencies(bench: Bench, node: Node, runs: int) -> tuple[float, float]:
    """Publish for a while; return median and 99th percentile of the seconds from publication to reading."""
    sizes = bench.sizes
    events = int(sizes.live_rate * sizes.live_s / runs)
    topic = bench.place.topics.empty("floats10", runs, events)
    bench.place.topics.publish(topic, [(0, [part for run in range(runs) for part in opening(topic, run)])])
    watched = [topic.names.run(run) for run in range(min(runs, WATCHED_MAX))]
    paths = [f"{node.key}/{uid}/primary/internal" for uid in watched]
    reader = Program(
        bench.place, "reader", node, base_url=node.server.uri, paths=paths, rows=events, limit_s=arms.LIMIT_S
    )
    with arms.running(bench.place, topic, node, until_end=False) as (made, _):
        made.wait_for("claimed", limit_s=arms.LIMIT_S)
        with reader:
            publisher = threading.Thread(target=_publish, args=(bench, topic, sizes.live_rate))
            publisher.start()
            publisher.join()
            result = reader.result()
    bench.log(f"    {runs} runs: p50 {result['p50']:.3f} s, p99 {result['p99']:.3f} s ({result['rows']:.0f} rows)")
    return result["p50"], result["p99"]


def _publish(bench: Bench, topic: Topic, rate: int) -> None:
    """Publish at the rate, with each event's time its publication's."""
    began_s, sent = time.monotonic(), 0
    while sent < topic.rows:
        due = min(topic.rows, int((time.monotonic() - began_s) * rate))
        if due > sent:
            places = np.arange(sent, due)
            now = np.full(len(places), time.time())
            messages = topic.maker.messages(places % topic.runs, places // topic.runs + 1, now)
            bench.place.topics.publish(topic, [(0, messages)])
            sent = due
        time.sleep(TICK_S)
