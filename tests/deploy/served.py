"""What every way to run the service must do, whatever the sandbox: bring documents into Tiled, and end in order."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path

from tests.rig.reader import compare_run
from tests.system.publishing import Publication, by_run
from tests.system.scene import client_of
from tiled_ingest.demo.processes import Process
from tiled_ingest.demo.tiled_server import TiledServer


def brings_in(
    service: Process, log: Path, port: int, publication: Publication, tiled: TiledServer, limit_s: float
) -> None:
    """Start a service that has three published runs before it; every row of them must be in Tiled when it has ended."""
    service.start()
    try:
        service.wait_until(lambda: log.read_text().count('"run_closed"') == 3, limit_s=limit_s)
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
        service.send(signal.SIGTERM)
        assert service.wait(30) == 0
    finally:
        service.kill()
    client = client_of(tiled)
    found = {uid: compare_run(client, uid, run) for uid, run in by_run(publication.published).items()}
    assert (len(found), [text for texts in found.values() for text in texts]) == (3, [])
