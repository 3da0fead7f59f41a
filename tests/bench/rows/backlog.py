"""A backlog of one run: beside TiledWriter, beside Tiled's bare append, and on a storage that is full already."""

from __future__ import annotations

from tests.bench import arms
from tests.bench.bench import Bench
from tests.bench.figures import Figure, Goal
from tests.bench.shapes import SHAPES


def backlog(bench: Bench) -> list[Figure]:
    """10 float keys, exactly-once on; the CPU that an event costs."""
    sizes = bench.sizes
    topic = bench.place.topics.backlog("floats10", 1, sizes.backlog)
    ours, bare, theirs, single, drained = [], [], [], [], []
    with bench.storage("duckdb") as node:
        for _ in range(bench.repeat):
            ours.append(bench.ours(topic, node()))
            bare.append(bench.bare_append(topic, node()))
            theirs.append(bench.tiled_writer(topic, node(), 10_000, sizes.tiled_writer))
            if not bench.quick:  # it tells nothing about results that batch 10 000 does not
                single.append(bench.tiled_writer(topic, node(), 1, sizes.one_by_one))
            drained.append(arms.drain(bench.place, topic, node()))
    rates = [one.rate for one in ours]
    cpu, their_cpu = [one.cpu_us for one in ours], [one.cpu_us for one in theirs]
    memory = [one.rss_max / 1e6 for one in ours]
    what, unit = "backlog of one run, 10 floats", "events/s"
    return [
        Figure("backlog", what, unit, rates, "TiledWriter, batch 10 000", _rates(theirs), Goal("ratio", ">=", 25)),
        Figure("backlog", what, unit, rates, "TiledWriter, batch 1", _rates(single)),
        Figure("backlog", what, unit, rates, "bare append beside a drain", _rates(bare), Goal("ratio", ">=", 0.75)),
        Figure("backlog", what, unit, rates, "bare drain", _rates(drained)),
        Figure("backlog", "CPU of an event, all in", "us", cpu, "TiledWriter", their_cpu, Goal("value", "<=", 5)),
        Figure("backlog", "memory, no external assets", "MB", memory, goal=Goal("value", "<=", 250)),
    ]


def full_storage(bench: Bench) -> list[Figure]:
    """The same where the storage holds many rows of that schema already, of many runs."""
    sizes = bench.sizes
    topic = bench.place.topics.backlog("floats10", 1, sizes.backlog)
    empty, full = [], []
    with bench.storage("duckdb") as node:
        empty += [bench.ours(topic, node()) for _ in range(bench.repeat)]
        tables = max(1, (sizes.full - bench.repeat * topic.rows) // topic.rows)
        bench.log(f"    filling the storage: {tables} tables of {topic.rows:,} rows")
        arms.bare_append(bench.place, topic, node(), tables=tables)
        full += [bench.ours(topic, node()) for _ in range(bench.repeat)]
    what = f"the same on a storage of {sizes.full:,} rows"
    goal = Goal("ratio", ">=", 0.8)
    return [Figure("full-storage", what, "events/s", _rates(full), "the empty storage", _rates(empty), goal)]


def kinds(bench: Bench) -> list[Figure]:
    """Values of other kinds: no cliff where the usual path does not fit."""
    return [_kind(bench, shape) for shape in SHAPES if shape != "floats10"]


def _kind(bench: Bench, shape: str) -> Figure:
    sizes = bench.sizes
    topic = bench.place.topics.backlog(shape, 1, sizes.wide if shape == "floats100" else sizes.kinds)
    ours, theirs = [], []
    with bench.storage("duckdb") as node:
        for _ in range(bench.repeat):
            ours.append(bench.ours(topic, node()))
            events = min(sizes.tiled_writer, topic.events)
            theirs.append(bench.tiled_writer(topic, node(), 10_000, events))
    what = f"backlog of one run, {topic.shape.name}"
    return Figure("kinds", what, "events/s", _rates(ours), "TiledWriter", _rates(theirs), Goal("ratio", ">=", 15))


def _rates(measured: list[arms.Measured]) -> list[float]:
    return [one.rate for one in measured]
