"""A call of the client that never returns: what nobody can interrupt ends with the process."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kafka.member import Member
from tiled_ingest.demo.broker import KafkaBroker

pytestmark = pytest.mark.real
LIMIT_S = 3.0

# The member of another process: the broker falls silent after it was asked whether it is there, in a revoke's commit.
PROGRAM = """
import os, signal, sys, time
from tests.kafka.member import Member
from tiled_ingest.core.record import Home
from tiled_ingest.observe.logs import configure
from tiled_ingest.observe.watchdog import Watchdog

servers, broker, limit_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
configure("json", "info", "test")
moved = [time.monotonic()]

def commit(homes):
    one.source._identities.confirm(homes[0], 4.0)
    one.source._heard_s = float("inf")  # as if it had spoken a moment ago
    os.kill(broker, signal.SIGSTOP)
    print("commits", flush=True)
    one.source.commit(homes[0], 0, "")

one = Member(servers, "g", ["t"], properties={"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"})
one.at_revoke = commit
one.poll_until(lambda it: len(it.claims) == 2)
Watchdog(lambda: time.monotonic() - moved[0], limit_s).start()
print("owns", flush=True)
while True:
    one.poll()
    moved[0] = time.monotonic()
"""


@pytest.fixture
def broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as own:
        own.create_topic("t", 2)
        try:
            yield own
        finally:
            os.kill(pid_of(own), signal.SIGCONT)


def pid_of(broker: KafkaBroker) -> int:
    assert broker._process is not None
    assert broker._process.pid is not None
    return broker._process.pid


@contextmanager
def owner(broker: KafkaBroker, limit_s: float) -> Iterator[subprocess.Popen[str]]:
    """A process that owns both partitions, and stands in the commit of the one that it gives away."""
    command = [sys.executable, "-c", PROGRAM, broker.bootstrap_servers, str(pid_of(broker)), str(limit_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "owns\n"
        other = Member(broker.bootstrap_servers, "g", ["t"], call_s_max=1.0)
        try:
            assert process.stdout.readline() == "commits\n"
            yield process
        finally:
            process.kill()
            os.kill(pid_of(broker), signal.SIGCONT)
            other.source.close()


def test_a_commit_that_is_never_answered_in_a_revoke_ends_the_process(broker: KafkaBroker) -> None:
    with owner(broker, LIMIT_S) as process:
        assert process.wait(4 * LIMIT_S) == 1
        assert process.stderr is not None
        last = json.loads(process.stderr.readlines()[-1])
        assert (last["event"], last["reason"]) == ("stopped", "Stalled")
        assert re.search(
            r"in source.py:\d+ _commit_in_time < source.py:\d+ commit < <string>:\d+ commit", last["error"]
        )


def test_without_a_watchdog_it_would_stand_there(broker: KafkaBroker) -> None:
    """No limit of ours or of the client's own holds: should one some day, the watchdog is not needed for it."""
    with owner(broker, 1000.0) as process, pytest.raises(subprocess.TimeoutExpired):
        process.wait(4 * LIMIT_S)
