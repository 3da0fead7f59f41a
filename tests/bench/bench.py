"""What every row of the table is given: the place, how large it shall be, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import arms, readback
from tests.bench.arms import Measured
from tests.bench.figures import Figure
from tests.bench.places import Node, Place, Storage, new_node
from tests.bench.topics import Topic
from tiled_ingest.demo.tiled_server import TiledServer


@dataclass(frozen=True)
class Sizes:
    """Events, runs and seconds of the rows."""

    backlog: int = 1_000_000
    kinds: int = 200_000
    wide: int = 50_000  # of the kind with 100 keys
    tiled_writer: int = 30_000
    one_by_one: int = 200  # of TiledWriter at batch 1
    full: int = 20_000_000  # rows that a storage holds already
    live_s: float = 20.0
    live_rate: int = 1_000
    live_runs: tuple[int, ...] = (1, 10, 100)
    short_runs: int = 300
    frames: int = 2_000  # of each of 10 detectors
    frames_one_by_one: int = 20  # with TiledWriter at batch 1
    frames_live: int = 1_000
    open_runs: int = 1_000
    open_events: int = 200  # of each
    longest: int = 10_000_000
    restart: int = 1_000_000
    idle_runs: int = 200
    instances: tuple[int, ...] = (1, 2, 4)
    instance_runs: int = 24
    instance_events: int = 20_000

    def scaled(self, share: float) -> Sizes:
        """The same with more or fewer events; numbers of runs and seconds stay."""
        counts = ("backlog", "kinds", "wide", "tiled_writer", "full", "longest", "restart", "instance_events")
        return replace(self, **{name: max(1, round(getattr(self, name) * share)) for name in counts})


QUICK = Sizes(
    backlog=6_000,
    kinds=1_200,
    wide=400,
    tiled_writer=600,
    one_by_one=10,
    full=20_000,
    live_s=1.5,
    live_rate=200,
    live_runs=(2,),
    short_runs=5,
    frames=30,
    frames_one_by_one=3,
    frames_live=30,
    open_runs=20,
    open_events=5,
    longest=6_000,
    restart=2_000,
    idle_runs=5,
    instances=(2,),
    instance_runs=4,
    instance_events=50,
)


@dataclass
class Bench:
    """One go."""

    place: Place
    sizes: Sizes
    repeat: int
    quick: bool = False
    log: Callable[[str], None] = lambda _: None

    @contextmanager
    def storage(self, storage: Storage, readable: Path | None = None) -> Iterator[Callable[[], Node]]:
        """A server with nothing in it, which may serve files of a folder; what is yielded makes empty nodes there."""
        with self.place.tiled(storage, readable) as server:
            yield lambda: self._node(server, storage)

    @staticmethod
    def _node(server: TiledServer, storage: Storage) -> Node:
        return new_node(server, storage)

    def ours(self, topic: Topic, node: Node, **more: object) -> Measured:
        """Run the service over a topic; what it brought into Tiled is compared with what was published."""
        measured = arms.ours(self.place, topic, node, **more)
        readback.check(topic, node)
        self.log(f"    ours: {measured.rate:,.0f} events/s, {measured.cpu_us:.1f} us CPU each")
        return measured

    def tiled_writer(self, topic: Topic, node: Node, batch: int, events: int, stops: int = 1) -> Measured:
        """Run TiledWriter over the topic's first events (or runs)."""
        measured = arms.tiled_writer(self.place, topic, node, batch=batch, events=events, stops=stops)
        self.log(f"    TiledWriter, batch {batch}: {measured.rate:,.0f} events/s, {measured.cpu_us:.0f} us CPU each")
        return measured

    def bare_append(self, topic: Topic, node: Node) -> Measured:
        """Append the topic's rows as prebuilt tables, while another process drains the topic."""
        measured = arms.bare_append(self.place, topic, node)
        self.log(f"    bare append: {measured.rate:,.0f} rows/s")
        return measured


Row = Callable[[Bench], list[Figure]]
