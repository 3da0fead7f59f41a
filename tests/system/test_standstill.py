"""A service that does nothing any more, and keeps its partitions: it ends by itself, so that another can go on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.publishing import interleaved, runs
from tests.system.scene import Scene
from tests.system.service import START_LIMIT_S, Service

pytestmark = pytest.mark.real

STALLED_S = 4.0
HELD_S = 20.0  # more, where even the thread that watches cannot speak
PIPE_BYTES = 4096


@contextmanager
def heard(service: Service) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The service, and the end of a narrow pipe that its log goes into."""
    ours, its = os.pipe()
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    command = [str(Path(sys.executable).with_name("tiled-ingest")), "run"]
    with subprocess.Popen(command, env=os.environ | service.environment, stderr=its) as process:
        os.close(its)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(pipe: int, event: str) -> None:
    text, until_s = "", time.monotonic() + START_LIMIT_S
    while f'"event": "{event}"' not in text:
        assert time.monotonic() < until_s, text
        text += os.read(pipe, PIPE_BYTES).decode()


def test_a_service_whose_loop_stands_still_ends_by_itself(duckdb_scene: Scene) -> None:
    """Its log is full, and nobody reads it: the loop waits in a write, and so would whoever wants to say so."""
    scene = duckdb_scene
    service = scene.service(limits__stalled_s_max=STALLED_S)
    publication = scene.publication(interleaved(runs(2)))
    with heard(service) as (process, pipe):
        read_until(pipe, "claimed")
        with pytest.raises(subprocess.TimeoutExpired):  # idle is not still
            process.wait(2 * STALLED_S)
        publication.publish()
        assert process.wait(2 * (STALLED_S + HELD_S)) == -signal.SIGALRM
    service.start()
    scene.settle()
    scene.verify()
