"""The faults: each is injected whole (what was killed is started again), and tells when it struck.

A fault that should have caused something visible (a request held, an error answered) and did not is void.
"""

from __future__ import annotations

import re
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

from tests.chaos.plan import Kind
from tests.chaos.progress import Strike
from tests.chaos.stage import PARTITIONS, SERVICES_MAX, SESSION_S, Stage
from tests.rig.link import Link
from tests.rig.proxy import Fault
from tests.system.service import Service

APPEND = r"/api/v1/table/partition/"
OTHER_WRITE = r"/api/v1/(metadata|data_source)/"
HIT_LIMIT_S = 15.0
LATE_LIMIT_S = 30.0
STOP_LIMIT_S = 40.0
SYNC_LIMIT_S = 60.0
LOCKED_S = 6.5  # longer than SQLite waits for a lock (5 s)


def inject(stage: Stage, kind: Kind) -> Strike:
    """Let one fault happen; returns when it is over, recovered from or not."""
    try:
        return _FAULTS[kind](stage, kind)
    finally:
        stage.scene.proxy.clear()


# ---------------------------------------------------------------- the service


def _killed(stage: Stage, kind: Kind) -> Strike:
    victim = stage.any_member()
    strike = stage.strike(kind)
    victim.kill()
    stage.pause(0, 0.5)
    victim.start()
    return strike


def _killed_twice(stage: Stage, kind: Kind) -> Strike:
    before = stage.said("claimed")
    strike = _killed(stage, kind)
    if not _wait(lambda: stage.said("claimed") > before, 20.0):
        strike.void = "nobody took over"
    stage.pause(0, 1)
    _killed(stage, kind)
    stage.progress.strikes.pop()  # one fault
    return strike


def _terminated(stage: Stage, kind: Kind) -> Strike:
    victim = stage.any_member()
    strike = stage.strike(kind)
    victim.stop(STOP_LIMIT_S)
    victim.start()
    return strike


def _zombie(stage: Stage, kind: Kind) -> Strike:
    """It is stopped until others have its partitions, and wakes between any two of its steps."""
    zombie = stage.any_member()
    before = stage.said("claimed")
    strike = stage.strike(kind)
    zombie.process.send(signal.SIGSTOP)
    successor = stage.new_service()
    try:
        successor.start()
        if stage.act.parts.membership != "static":
            stage.pause(SESSION_S, SESSION_S + 1)
        if not _wait(lambda: stage.said("claimed") > before, 20.0):
            strike.void = "nobody took over"
        stage.pause(0, 1.5)
    finally:
        zombie.process.send(signal.SIGCONT)
    stage.members.append(successor)
    _retire_one(stage, zombie, successor)
    return strike


def _retire_one(stage: Stage, zombie: Service, successor: Service) -> None:
    """Of two that share a name, the group tells one to end: often the zombie, but who joined last stays."""
    if stage.act.parts.membership == "static":
        _wait(lambda: not (zombie.running and successor.running), STOP_LIMIT_S)
        _retire(stage, zombie if successor.running else successor)
    else:
        _retire(stage, stage.chance.choice([zombie, successor]))


def _retire(stage: Stage, service: Service) -> None:
    """Take a member away: a static one ends by itself when it hears that it was replaced."""
    stage.members.remove(service)
    if stage.act.parts.membership == "static":
        if not _wait(lambda: not service.running, STOP_LIMIT_S):
            service.kill()
            stage.ends["a zombie that nobody told"] += 1
        else:
            stage.note_end(service)
        return
    stage.pause(0, 2)
    if service.running:
        service.stop(STOP_LIMIT_S)


def _joins(stage: Stage, kind: Kind) -> Strike:
    if len(stage.members) >= SERVICES_MAX:
        _retire(stage, stage.any_member())
    strike = stage.strike(kind)
    newcomer = stage.join()
    if not _wait(lambda: bool(newcomer.lines("claimed")), 15.0):  # with more members than partitions it gets none
        strike.void = "it was given no partition"
    return strike


def _leaves(stage: Stage, kind: Kind) -> Strike:
    if len(stage.members) < 2:
        stage.join()
        stage.pause(2, 3)
    leaver = stage.any_member()
    strike = stage.strike(kind)
    stage.members.remove(leaver)
    leaver.stop(STOP_LIMIT_S)
    return strike


# ---------------------------------------------------------------- Kafka


def _broker_killed(stage: Stage, kind: Kind) -> Strike:
    broker = stage.cluster.brokers[0]
    strike = stage.strike(kind)
    broker.kill()
    stage.pause(0, 1)
    broker.restart()
    return strike


def _leader_changed(stage: Stage, kind: Kind) -> Strike:
    """Its broker dies, or is restarted in order; then it comes back, and leads again a few seconds later."""
    _wait(lambda: stage.cluster.in_sync, SYNC_LIMIT_S)
    broker = stage.cluster.leader(stage.scene.topic, stage.chance.randrange(PARTITIONS))
    strike = stage.strike(kind)
    if stage.chance.random() < 0.5:
        broker.kill()
        stage.pause(0, 3)
    broker.restart()
    _wait(lambda: stage.cluster.in_sync, SYNC_LIMIT_S)
    return strike


def _sent_twice(stage: Stage, kind: Kind) -> Strike:
    traffic = stage.chance.choice(stage.traffic)
    strike = stage.strike(kind)
    if not traffic.send_twice(stage.chance.randint(3, 30)):
        strike.void = "nothing was sent twice"
    return strike


def _kafka_cut(stage: Stage, kind: Kind) -> Strike:
    strike = stage.strike(kind)
    strike.void = _cut(stage, stage.cluster.links)
    return strike


def _tiled_cut(stage: Stage, kind: Kind) -> Strike:
    strike = stage.strike(kind)
    strike.void = _cut(stage, [stage.tiled_link])
    return strike


def _cut(stage: Stage, links: list[Link]) -> str:
    """Cut them for a while; returns why it does not count, if nothing met it."""
    before = sum(link.met for link in links)
    how = stage.chance.choice([Link.cut, Link.stall])
    for link in links:
        how(link)
    stage.pause(0.5, stage.act.parts.timeout_s + 2 if how is Link.stall else 3)
    for link in links:
        link.heal()
    return "" if sum(link.met for link in links) > before else "nothing met it"


# ---------------------------------------------------------------- Tiled


def _tiled_killed(stage: Stage, kind: Kind) -> Strike:
    strike = stage.strike(kind)
    stage.tiled.kill()
    stage.pause(0, 1.5)
    stage.tiled.restart()
    return strike


def _postgres_restarted(stage: Stage, kind: Kind) -> Strike:
    assert stage.postgres is not None
    strike = stage.strike(kind)
    stage.postgres.kill()
    stage.pause(0, 1.5)
    stage.postgres.restart()
    return strike


def _locked(stage: Stage, kind: Kind) -> Strike:
    seen = len(stage.scene.proxy.exchanges)
    with closing(sqlite3.connect(stage.tiled.folder / "catalog.db", timeout=10, isolation_level=None)) as catalog:
        catalog.execute("BEGIN IMMEDIATE")
        strike = stage.strike(kind)
        time.sleep(LOCKED_S)
        catalog.execute("ROLLBACK")
    _void_without_errors(stage, strike, seen)
    return strike


def _disk_full(stage: Stage, kind: Kind) -> Strike:
    """No file of Tiled's may grow: the process limit stands for a full disk, and needs no root."""
    pid, seen = stage.tiled.pid, len(stage.scene.proxy.exchanges)
    assert pid is not None
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    strike = stage.strike(kind)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
    _wait(lambda: _errors(stage, seen) or not stage.tiled.running, HIT_LIMIT_S)
    stage.pause(0, 2)
    _void_without_errors(stage, strike, seen)
    stage.tiled.restart()  # the operator made room; the new process has no limit
    return strike


def _errors(stage: Stage, seen: int) -> bool:
    return any((each.status or 0) >= 500 for each in stage.scene.proxy.exchanges[seen:])


def _void_without_errors(stage: Stage, strike: Strike, seen: int) -> None:
    if not _errors(stage, seen) and stage.tiled.running:
        strike.void = "Tiled answered no error"


# ---------------------------------------------------------------- requests


def _at(stage: Stage, kind: Kind, fault: Fault) -> Strike:
    """Wait until a request meets the fault."""
    hit = fault.hit.wait(HIT_LIMIT_S)
    strike = stage.strike(kind)
    if not hit:
        strike.void = "no such request came"
    return strike


def _reply_swallowed(stage: Stage, kind: Kind) -> Strike:
    return _over(_at(stage, kind, stage.scene.proxy.swallow_reply("PATCH", APPEND)), stage)


def _other_reply_swallowed(stage: Stage, kind: Kind) -> Strike:
    return _over(_at(stage, kind, stage.scene.proxy.swallow_reply("POST|PATCH|PUT", OTHER_WRITE)), stage)


def _reset(stage: Stage, kind: Kind) -> Strike:
    cut = stage.scene.proxy.cut_request("POST|PATCH|PUT", r"/api/v1/", stage.chance.randint(100, 1500))
    return _over(_at(stage, kind, cut), stage)


def _answered(status: int, times_max: int, retry_after_s: int | None = None) -> Callable[[Stage, Kind], Strike]:
    def fault(stage: Stage, kind: Kind) -> Strike:
        how = {"times": stage.chance.randint(1, times_max), "retry_after_s": retry_after_s}
        return _over(_at(stage, kind, stage.scene.proxy.answer("POST|PATCH|PUT", r"/api/v1/", status, **how)), stage)

    return fault


def _over(strike: Strike, stage: Stage) -> Strike:
    stage.pause(0.2, 1)  # while it may be met more than once
    return strike


def _late_after_timeout(stage: Stage, kind: Kind) -> Strike:
    held = stage.scene.proxy.hold("PATCH", APPEND)
    strike = _at(stage, kind, held)
    if not strike.void:
        stage.pause(stage.act.parts.timeout_s + 0.1, stage.act.parts.timeout_s + 4)
        _let_go(held, strike)
    return strike


def _late_after_read_back(stage: Stage, kind: Kind) -> Strike:
    """The sender is killed while its append is held; who follows looks at the table, and only then it is applied."""
    held = stage.scene.proxy.hold("PATCH", APPEND)
    strike = _at(stage, kind, held)
    if strike.void:
        return strike
    for member in stage.members:
        member.kill()
    for member in stage.members:
        member.start()
    exchange = held.exchanges[0]
    table = re.escape(exchange.path.split("?")[0].removeprefix(APPEND))

    def is_read() -> bool:
        later = stage.scene.proxy.exchanges[exchange.number + 1 :]
        return any(each.method == "GET" and re.search(table, each.path) for each in later)

    if not _wait(is_read, LATE_LIMIT_S):
        strike.void = "nobody read back"
    stage.pause(0, 1)
    _let_go(held, strike)
    return strike


def _let_go(held: Fault, strike: Strike) -> None:
    held.release()
    if not held.finished.wait(HIT_LIMIT_S) or held.exchanges[0].status is None:
        strike.void = strike.void or "Tiled did not answer what was held"


def _wait(true: Callable[[], bool], limit_s: float) -> bool:
    until_s = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.05)
    return True


_FAULTS: dict[Kind, Callable[[Stage, Kind], Strike]] = {
    Kind.SERVICE_SIGKILL: _killed,
    Kind.SERVICE_SIGTERM: _terminated,
    Kind.SERVICE_ZOMBIE: _zombie,
    Kind.TWO_TAKEOVERS: _killed_twice,
    Kind.BROKER_SIGKILL: _broker_killed,
    Kind.LEADER_CHANGE: _leader_changed,
    Kind.KAFKA_CUT: _kafka_cut,
    Kind.JOIN: _joins,
    Kind.LEAVE: _leaves,
    Kind.DUPLICATES: _sent_twice,
    Kind.TILED_SIGKILL: _tiled_killed,
    Kind.POSTGRES_RESTART: _postgres_restarted,
    Kind.TILED_CUT: _tiled_cut,
    Kind.REPLY_SWALLOWED: _reply_swallowed,
    Kind.OTHER_REPLY_SWALLOWED: _other_reply_swallowed,
    Kind.LATE_AFTER_TIMEOUT: _late_after_timeout,
    Kind.LATE_AFTER_READ_BACK: _late_after_read_back,
    Kind.RESET: _reset,
    Kind.STATUS_500: _answered(500, 2),
    Kind.STATUS_502: _answered(502, 4),
    Kind.STATUS_503: _answered(503, 4, retry_after_s=1),
    Kind.STATUS_429: _answered(429, 4, retry_after_s=1),
    Kind.SQLITE_LOCKED: _locked,
    Kind.DISK_FULL: _disk_full,
}
