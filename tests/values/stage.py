"""The engine on a real Tiled: documents in, what readers see out. Kafka is a list; crashes are new engines."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.core.test_engine import World
from tests.core.test_steps import HOME
from tiled_ingest.core import effects as fx
from tiled_ingest.core import writes as w
from tiled_ingest.core.policy import Policy
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session

POLICY = Policy(age_s_max=0.2, late_write_s_max=1.0, server_errors_max=3, backoff_s_max=1.0)
TICKS_MAX = 300
Documents = list[tuple[str, dict[str, Any]]]
Fault = Callable[[w.Request, Callable[[], w.Outcome]], "w.Outcome | None"]


class Died(Exception):
    """The process ended before it heard an answer."""


@dataclass
class Stage:
    """One partition, and the engines that own it one after the other."""

    session: Session
    policy: Policy = POLICY
    fault: Fault = lambda _request, _perform: None
    log: list[Any] = field(default_factory=list)
    lives: int = 0

    def __post_init__(self) -> None:
        self.world = self._world()

    def _world(self) -> World:
        self.lives += 1
        world = World(self.policy, tiled=self._perform)  # type: ignore[arg-type]  # a Tiled, though no small one
        world._words = 1_000 * self.lives  # nonces are random words: no two lives have the same
        return world

    def _perform(self, request: w.Request) -> w.Outcome:
        answer = self.fault(request, lambda: perform(self.session, request))
        return perform(self.session, request) if answer is None else answer

    def begin(self) -> None:
        """Take the partition, where the life before left it."""
        before, self.world = self.world, self._world()
        self.world.logs = before.logs
        committed, point = (before.commits[-1][1], before.commits[-1][2]) if before.commits else (None, None)
        self.world.assign(committed=committed, point=point)

    def publish(self, documents: Documents) -> None:
        """Let the engine take documents, and come to rest."""
        self.world.publish(*documents)
        self._rest()

    def _rest(self) -> None:
        """Let time pass until all of the log is committed: a slow server may cost many looks and retries."""
        end = self.world.logs[HOME][-1].offset + 1
        for _ in range(TICKS_MAX):
            self.world.tick()
            if self.world.commits and self.world.committed == end:
                return

    def publish_one_by_one(self, documents: Documents) -> None:
        """Each document by itself: every batch has one row."""
        for document in documents:
            self.publish([document])

    def died(self, documents: Documents) -> bool:
        """Publish; whether the fault killed the engine. Then begin anew, without faults."""
        try:
            self.publish(documents)
        except Died:
            self.fault = lambda _request, _perform: None
            self.begin()
            self._rest()
            return True
        return False

    @property
    def codes(self) -> list[str]:
        """Why documents went to the dead letters."""
        return [letter.code for letter in self.world.letters]


def asked(world: World, kind: type) -> list[Any]:
    """All requests of a kind, in order."""
    return [
        effect.request for effect in world.effects if isinstance(effect, fx.Ask) and isinstance(effect.request, kind)
    ]


def run_of_streams(uid: str, streams: dict[str, tuple[dict[str, Any], list[Any]]]) -> Documents:
    """Return the documents of a run with one stream for each data key `a` and its values."""
    documents: Documents = [("start", {"uid": uid, "time": 1.0})]
    for name, (spec, values) in streams.items():
        whole = run_of(f"{uid}-{name}", {"a": spec, "x": {"dtype": "number"}}, [{"a": v, "x": 1.0} for v in values])
        documents += [
            (kind, {**doc, "name": name, "run_start": uid} if kind == "descriptor" else doc)
            for kind, doc in whole[1:-1]
        ]
    counts = {name: len(values) for name, (_, values) in streams.items()}
    ending = {"uid": f"{uid}-s", "time": 9.0, "run_start": uid, "exit_status": "success", "num_events": counts}
    return [*documents, ("stop", ending)]


def run_of(
    uid: str, data_keys: dict[str, Any], rows: list[dict[str, Any]], *, stop: bool = True, **start: Any
) -> Documents:
    """Return the documents of a run with one stream, whose events hold `rows`."""
    described = {key: {"source": "s", "shape": [], **spec} for key, spec in data_keys.items()}
    documents: Documents = [
        ("start", {"uid": uid, "time": 1.0, **start}),
        ("descriptor", {"uid": f"{uid}-d", "time": 1.0, "run_start": uid, "name": "primary", "data_keys": described}),
        *(("event", event_of(uid, number, row)) for number, row in enumerate(rows, 1)),
    ]
    ending = {"uid": f"{uid}-s", "time": 9.0, "run_start": uid, "exit_status": "success"}
    return [*documents, ("stop", {**ending, "num_events": {"primary": len(rows)}})] if stop else documents


def event_of(uid: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return an event; every value has the time stamp of its event."""
    time = 100.0 + number
    doc = {"uid": f"{uid}-{number}", "descriptor": f"{uid}-d", "seq_num": number, "time": time, "filled": {}}
    return {**doc, "data": row, "timestamps": dict.fromkeys(row, time)}
