"""Many runs: short ones one after the other, open ones at once, and several instances on one topic."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.bench import arms, readback
from tests.bench.bench import Bench
from tests.bench.figures import Figure, Goal
from tests.bench.places import Node
from tests.bench.topics import Topic

EVENTS_SHORT = 10
PARTITIONS = 12


def short_runs(bench: Bench) -> list[Figure]:
    """Complete runs of 10 events, on PostgreSQL."""
    runs = bench.sizes.short_runs
    topic = bench.place.topics.backlog("floats10", runs, EVENTS_SHORT)
    ours, theirs = [], []
    with bench.storage("postgresql") as node:
        for _ in range(bench.repeat):
            ours.append(bench.ours(topic, node()).rate / EVENTS_SHORT)
            their = bench.tiled_writer(topic, node(), 10_000, topic.rows, stops=runs)
            theirs.append(their.rate / EVENTS_SHORT)
    what = f"backlog of runs of {EVENTS_SHORT} events, PostgreSQL"
    return [Figure("short-runs", what, "runs/s", ours, "TiledWriter", theirs, Goal("ratio", ">=", 2))]


def open_runs(bench: Bench) -> list[Figure]:
    """As many events of runs that are all open at once, as of one run."""
    sizes = bench.sizes
    many = bench.place.topics.backlog("floats10", sizes.open_runs, sizes.open_events, order="interleaved")
    one = bench.place.topics.backlog("floats10", 1, many.rows)
    interleaved, alone = [], []
    with bench.storage("postgresql") as node:
        for _ in range(bench.repeat):
            alone.append(bench.ours(one, node()).cpu_us)
            interleaved.append(bench.ours(many, node()).cpu_us)
    what = f"CPU of an event, {sizes.open_runs:,} open runs interleaved"
    return [Figure("open-runs", what, "us", interleaved, "one run", alone, Goal("ratio", "<=", 1.5))]


def instances(bench: Bench) -> list[Figure]:
    """Several instances in one group, on PostgreSQL."""
    sizes = bench.sizes
    topics = bench.place.topics
    topic = topics.backlog("floats10", sizes.instance_runs, sizes.instance_events, partitions=PARTITIONS)
    rates: dict[int, list[float]] = {count: [] for count in sizes.instances}
    with bench.storage("postgresql") as node:
        for _ in range(bench.repeat):
            for count, found in rates.items():
                found.append(_together(bench, topic, node(), count))
    alone = rates.get(1, [])
    return [
        Figure("instances", f"{count} instance(s), {PARTITIONS} partitions", "events/s", found, "1 instance", alone)
        for count, found in rates.items()
    ]


def _together(bench: Bench, topic: Topic, node: Node, count: int) -> float:
    """Run so many instances until all runs are closed; return events a second since the first claim."""
    group = f"bench-{node.key}"
    with ExitStack() as stack:
        made = [
            stack.enter_context(
                arms.running(
                    bench.place,
                    topic,
                    node,
                    until_end=False,
                    kafka__group_id=group,
                    kafka__instance_id=f"bench-{number}",
                )
            )[0]
            for number in range(count)
        ]
        until_s = time.monotonic() + arms.LIMIT_S
        while sum(len(each.lines("run_closed")) for each in made) < topic.runs:
            dead = [each for each in made if not each.running]
            if dead or time.monotonic() > until_s:
                raise RuntimeError(f"not all runs were closed\n{(dead or made)[0].tail(20)}")
            time.sleep(0.05)
        began_s = min(arms.at_s(line) for each in made for line in each.lines("claimed"))
        ended_s = max(arms.at_s(line) for each in made for line in each.lines("run_closed"))
    readback.check(topic, node, runs_max=3)
    rate = topic.rows / (ended_s - began_s)
    bench.log(f"    {count} instance(s): {rate:,.0f} events/s")
    return rate
