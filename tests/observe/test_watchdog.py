"""A loop that stands still ends its process, in whichever way it stands: processes of their own, as they are ended."""

import json
import signal
import subprocess
import sys
import time

LIMIT_S = 2.0
PROLOGUE = f"""
import ctypes, time
from tiled_ingest.observe import watchdog
from tiled_ingest.observe.logs import configure
configure("json", "info", "test")
watchdog._HELD_S = 1.0
began_s = time.monotonic()
moved = [began_s]
dog = watchdog.Watchdog(lambda: time.monotonic() - moved[0], {LIMIT_S})
"""


def ended(program: str) -> tuple[int, float, str]:
    """Run it; return its status, for how many seconds it ran, and what it said."""
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program], check=False, capture_output=True, text=True, timeout=30
    )
    return done.returncode, time.monotonic() - began_s, done.stderr


def test_a_call_that_does_not_return_ends_the_process_and_is_named() -> None:
    program = """
def stands_for_ever():
    time.sleep(1000)
dog.start()
stands_for_ever()
"""
    status, _, said = ended(program)
    line = json.loads(said)
    assert (status, line["event"], line["level"], line["reason"]) == (1, "stopped", "error", "Stalled")
    assert "the loop stands still since 2 s (limit 2 s), in" in line["error"]
    assert "stands_for_ever" in line["error"]


def test_a_call_that_keeps_the_interpreter_to_itself_ends_the_process_too() -> None:
    """As the client's calls do that wait for librdkafka's own thread: no other thread of Python runs meanwhile."""
    status, _, said = ended("dog.start(); ctypes.PyDLL(None).sleep(1000)")
    assert status == -signal.SIGALRM
    assert "Timeout (0:00:03)!" in said
    assert 'File "<string>"' in said


def test_a_loop_that_moves_goes_on() -> None:
    program = f"""
dog.start()
while time.monotonic() - began_s < 3 * {LIMIT_S}:
    moved[0] = time.monotonic()
    time.sleep(0.05)
dog.close()
"""
    status, took_s, said = ended(program)
    assert (status, said) == (0, "")
    assert took_s >= 3 * LIMIT_S


def test_a_process_that_hangs_while_it_ends_is_ended_by_the_kernel() -> None:
    """Its loop is over, and nobody watches that any more: objects of the client wait for their threads, say."""
    status, _, said = ended("dog.start(); dog.close(); time.sleep(1000)")
    assert (status, said) == (-signal.SIGALRM, "")


def test_a_watch_that_never_began_can_be_ended() -> None:
    assert ended("dog.close()")[::2] == (0, "")
