"""One service: what an event costs in a run that grows, a restart in its middle, idle runs, and its start."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from tests.bench import arms, readback
from tests.bench.bench import Bench
from tests.bench.figures import Figure, Goal
from tests.bench.meter import Meter
from tests.bench.places import Node
from tests.bench.topics import Topic, opening
from tests.system.service import Service, bytecode
from tiled_ingest.demo.processes import inherited

POLL_S = 0.02


def longest(bench: Bench) -> list[Figure]:
    """One long run: what an event costs at its beginning and at its end, and the memory it takes."""
    topic = bench.place.topics.backlog("floats10", 1, bench.sizes.longest)
    early, late, memory = [], [], []
    curve: list[tuple[float, float]] = []
    with bench.storage("duckdb") as node:
        for _ in range(bench.repeat):
            there = node()
            with arms.running(bench.place, topic, there, log__level="debug") as (made, meter):
                if made.ended(arms.LIMIT_S):
                    raise RuntimeError(f"the service failed\n{made.tail(20)}")
            readback.check(topic, there)
            curve = _curve(made, meter)
            early.append(_slope(curve, 0.0, 0.2))
            late.append(_slope(curve, 0.5, 1.0))
            memory.append(meter.rss_max / 1e6)
    what = f"CPU of an event in the second half of {topic.rows:,}"
    return [
        Figure("longest", what, "us", late, "the first fifth", early, Goal("ratio", "<=", 1.2), samples=tuple(curve)),
        Figure("longest", "memory, the same backlog", "MB", memory, goal=Goal("value", "<=", 400)),
    ]


def _curve(made: Service, meter: Meter) -> list[tuple[float, float]]:
    """CPU seconds by rows written; its last point is the end of the audit."""
    began_s = arms.at_s(made.lines("claimed")[0])
    rows, points = 0, [(0.0, 0.0)]
    for line in made.lines("flush"):
        rows += line["rows"]
        points.append((rows, meter.cpu_s(began_s, arms.at_s(line))))
    points.append((rows, meter.cpu_s(began_s, arms.at_s(made.lines("run_closed")[-1]))))
    return points


def _slope(curve: list[tuple[float, float]], begin: float, end: float) -> float:
    """Microseconds of CPU for an event between two shares of all rows."""
    rows, cpu = zip(*curve, strict=True)
    at = rows[-1] * begin, rows[-1] * end
    last = cpu[-1] if end == 1.0 else float(np.interp(at[1], rows, cpu))  # with the audit
    used = last - float(np.interp(at[0], rows, cpu))
    return float(used / (at[1] - at[0]) * 1e6)


def restart(bench: Bench) -> list[Figure]:
    """Killed in the middle of a long run: when the rows that come next can be read."""
    topic_of = bench.place.topics
    found, bare = [], []
    with bench.storage("duckdb") as node:
        for _ in range(bench.repeat):
            topic = topic_of.empty("floats10", 1, bench.sizes.restart)
            topic_of.publish(
                topic, [(0, opening(topic, 0)), *((0, block) for block in topic.maker.blocks(topic.events))]
            )
            found.append(_restarted(bench, topic, node()))
            bare.append(arms.bare_append(bench.place, topic, node()).seconds)
    beyond = [seconds - append for seconds, append in zip(found, bare, strict=True)]
    what = f"restart in the middle of {bench.sizes.restart:,} events: new rows readable, less the append of all rows"
    return [
        Figure("restart", what, "s", beyond, goal=Goal("value", "<=", 5)),
        Figure("restart", "restart: new rows readable", "s", found, "bare append of all rows", bare),
    ]


def _restarted(bench: Bench, topic: Topic, node: Node) -> float:
    path = f"{node.key}/{topic.names.run(0)}/primary/internal"
    settings = {"kafka__group_id": f"bench-{node.key}", "kafka__instance_id": "bench-0"}
    with arms.running(bench.place, topic, node, until_end=False, **settings) as (made, _):
        made.wait_until(lambda: _rows(node, path) == topic.events, "all rows", limit_s=arms.LIMIT_S, poll_s=0.2)
        made.kill()
    extra = topic.maker.messages(np.zeros(1, np.int64), np.array([topic.events + 1]))
    bench.place.topics.publish(topic, [(0, extra)])
    with arms.running(bench.place, topic, node, until_end=False, **settings) as (made, _):
        made.wait_for("claimed", limit_s=arms.LIMIT_S)
        began_s = time.monotonic()
        made.wait_until(lambda: _rows(node, path) > topic.events, "new rows", limit_s=arms.LIMIT_S, poll_s=0.1)
        seconds = time.monotonic() - began_s
    bench.log(f"    readable again after {seconds:.1f} s")
    return seconds


def _rows(node: Node, path: str) -> int:
    with node.http as http:
        params: dict[str, int | list[str]] = {"partition": 0, "column": ["seq_num"]}
        answer = http.get(f"/table/partition/{path}", params=params, headers={"Accept": readback.ARROW_FILE})
    return readback.rows_of(answer.content) if answer.status_code == 200 else 0


def idle_runs(bench: Bench) -> list[Figure]:
    """Open runs of which nothing comes: they ask nothing of Tiled, also after a restart."""
    runs = bench.sizes.idle_runs
    topics = bench.place.topics
    topic = topics.empty("floats10", runs, 1)
    everyone = np.arange(runs)
    topics.publish(topic, [(0, opening(topic, run)) for run in range(runs)])
    topics.publish(topic, [(0, topic.maker.messages(everyone, np.ones(runs, np.int64)))])
    asked = []
    with bench.storage("duckdb") as node:
        there = node()
        settings = {"kafka__group_id": f"bench-{there.key}", "kafka__instance_id": "bench-0"}
        for _ in range(2):  # the second one takes over from the first, which is killed
            with arms.running(bench.place, topic, there, until_end=False, **settings) as (made, _):
                made.wait_for("claimed", limit_s=arms.LIMIT_S)
                made.wait_until(partial(_settled, made), "everything settled", limit_s=arms.LIMIT_S)
                before = _requests(made)
                time.sleep(3)
                asked.append(_requests(made) - before)
    what = f"requests in 3 s with {runs} open idle runs (before and after a restart)"
    return [Figure("idle-runs", what, "", [sum(asked)], goal=Goal("value", "<=", 0))]


def _settled(made: Service) -> bool:
    """Whether it has looked, and all is settled and committed."""
    lag: dict[str, int] = made.status().get("lag", {}) if made.ready else {}
    return bool(lag) and not any(lag.values())


def _is_ready(made: Service) -> bool:
    return made.ready


def _requests(made: Service) -> float:
    return made.metric("tiled_ingest_tiled_request_duration_seconds_count")


def starts(bench: Bench) -> list[Figure]:
    """`--help`, and the service until it is ready."""
    program = str(Path(sys.executable).with_name("tiled-ingest"))
    helps, ready = [], []
    topic = bench.place.topics.empty("floats10", 1, 0)
    with bench.storage("duckdb") as node:
        there = node()
        for number in range(bench.repeat + 1):
            began_s = time.monotonic()
            subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL, env=inherited() | bytecode())
            helped_s = time.monotonic()
            with arms.running(bench.place, topic, there, until_end=False) as (made, _):
                made.wait_until(partial(_is_ready, made), "ready", limit_s=arms.LIMIT_S, poll_s=POLL_S)
                ready_s = time.monotonic() - helped_s
            if number:  # the first one may have to compile
                helps.append(helped_s - began_s)
                ready.append(ready_s)
    return [
        Figure("starts", "`tiled-ingest --help`", "s", helps, goal=Goal("value", "<=", 0.3)),
        Figure("starts", "the service, until ready", "s", ready, goal=Goal("value", "<=", 3)),
    ]


def verify(bench: Bench) -> list[Figure]:
    """`tiled-ingest verify` over a run that is in Tiled, its start included."""
    topic = bench.place.topics.backlog("floats10", 1, bench.sizes.backlog)
    program = str(Path(sys.executable).with_name("tiled-ingest"))
    rates = []
    with bench.storage("duckdb") as node:
        there = node()
        bench.ours(topic, there)
        environment = inherited() | bytecode() | arms.service(bench.place, topic, there).environment
        for _ in range(bench.repeat):
            began_s = time.monotonic()
            subprocess.run([program, "verify", "--json"], check=True, stdout=subprocess.DEVNULL, env=environment)
            rates.append(topic.rows / (time.monotonic() - began_s))
    what = f"`verify` of a run of {topic.rows:,} events"
    return [Figure("verify", what, "events/s", rates, goal=Goal("value", ">=", 200_000))]
