"""The demo: the service's main job on real parts, with the service killed in the middle, told as a short story."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tiled_ingest.demo.beamline import read_documents
from tiled_ingest.demo.compare import Catalog, Published, Run, sort_runs
from tiled_ingest.demo.processes import ProcessError
from tiled_ingest.demo.stage import Interrupted, Shift, Signals, Stage, stage
from tiled_ingest.demo.tell import Kill, Shown, Teller

# What the beamline does: its name for it, and ours.
_SHORT_RUNS = {
    "scan:12": "scan",
    "count:20": "count",
    "with_baseline:10": "scan with baseline",
    "aborted:7": "scan, aborted",
}
_LONG_POINTS = 80
_LONG_DELAY_S = 0.12  # about ten seconds in all: time for a kill, and for a return before the run ends
_KILL_AT_ROWS = 20
_SETTLE_S = 0.5
_RUNS_LIMIT_S = 60.0
_ROWS_LIMIT_S = 60.0
_CLOSED_LIMIT_S = 90.0


@dataclass(frozen=True)
class _Blow:
    """The kill while the run goes on: what is known at that moment."""

    run: str
    rows_in_tiled: int
    killed_at: float
    back_at: float


def main(*, keep: bool, as_json: bool) -> int:
    """Perform the demo; returns 0 when Tiled holds exactly what was published.

    Parameters
    ----------
    keep
        Leave broker, Tiled and service running until Ctrl-C.
    as_json
        One JSON object instead of the story.
    """
    teller = Teller(silent=as_json)
    with Signals() as signals:
        begun = time.monotonic()
        try:
            with stage(signals) as there:
                shown = _perform(there, teller, begun)
                if as_json:
                    print(shown.as_json(), flush=True)
                _say_how_to_look(there, teller, keep=keep)
                if keep:
                    _leave_running(there)
        except Interrupted as interrupt:
            teller.complain(f"ended by {interrupt}; no process and no file of it is left")
            return 128 + interrupt.number
        except ProcessError as error:
            teller.complain(str(error))
            return 1
    teller.say(f"All processes were ended and their files removed ({time.monotonic() - begun:.0f} s in all).")
    return 0 if shown.ok else 1


def _perform(there: Stage, teller: Teller, begun: float) -> Shown:
    teller.say("From a beamline's Kafka to Tiled. Every part is real, and all of them run on this machine.")
    teller.say()
    _start_servers(there, teller)
    short, catalog = _short_runs(there, teller)
    long, blow = _long_run(there, teller, catalog)
    published = [*_published(short), *_published(long)]
    _wait_until_closed(there, teller, catalog, published)
    runs = _read_back(teller, catalog, published)
    kill = _look_back(blow, published[-1])
    shown = Shown(runs, kill, there.broker.bootstrap_servers, there.tiled.uri, time.monotonic() - begun)
    _conclude(teller, shown)
    return shown


def _start_servers(there: Stage, teller: Teller) -> None:
    with teller.working("starting Kafka and Tiled (the first time, Kafka is downloaded: 55 MB)"):
        there.open()
    teller.step(
        f"A Kafka broker ({there.broker.bootstrap_servers}) and a Tiled server ({there.tiled.uri}; its catalog in "
        "SQLite, its tables in DuckDB) are running."
    )


def _short_runs(there: Stage, teller: Teller) -> tuple[Shift, Catalog]:
    with teller.working("starting the service and a beamline"):
        there.start_service()
        shift = there.measure(*_SHORT_RUNS)
        catalog = Catalog(there.tiled.uri, there.tiled.api_key)
        there.wait_for_service()
    teller.step("The service (`tiled-ingest run`) was started as a process of its own. It reads Kafka and writes Tiled.")
    with teller.working("the beamline takes four short runs"):
        there.wait_for(lambda: there.ended(shift), "the short runs", _RUNS_LIMIT_S)
    teller.step(
        "A beamline - Bluesky's RunEngine with simulated devices, in its own process - took four short runs and "
        "published their documents to Kafka."
    )
    return shift, catalog


def _long_run(there: Stage, teller: Teller, catalog: Catalog) -> tuple[Shift, _Blow]:
    known = {run.start["uid"] for run in _published(there.shifts[0])}
    ...
