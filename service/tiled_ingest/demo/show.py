"""The demo: the service's main job on real parts, with the service killed in the middle, told as a short story."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tiled_ingest.demo.compare import Catalog, Published, Run, sort_runs
from tiled_ingest.demo.processes import ProcessError
from tiled_ingest.demo.record import read_documents
from tiled_ingest.demo.stage import Interrupted, Shift, Signals, Stage, stage
from tiled_ingest.demo.tell import Kill, Shown, Teller

# What the beamline does: its name for it, and ours.
_SHORT_RUNS = {
    "scan:12": "scan",
    "count:20": "count",
    "with_baseline:10": "scan with baseline",
    "aborted:7": "scan, aborted",
}
_LONG_NAME = "long scan"
_LONG_POINTS = 80
_LONG_DELAY_S = 0.12  # about ten seconds in all: time for a kill, and for a return before the run ends
_KILL_AT_ROWS = 20
_SETTLE_S = 0.5
_RUNS_LIMIT_S = 60.0
_ROWS_LIMIT_S = 60.0
_CLOSED_LIMIT_S = 90.0


@dataclass(frozen=True)
class _Blow:
    """The kill, as it was seen when it happened; wall clock, as in the documents."""

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
    begun = time.monotonic()
    with Signals() as signals:
        try:
            with stage(signals) as there:
                shown = _perform(there, teller)
                if as_json:
                    print(shown.as_json(api_key=there.tiled.api_key if keep else None), flush=True)
                if keep:
                    _leave_running(there, teller, shown)
        except Interrupted as interrupt:
            teller.complain(f"ended by {interrupt}; its processes and files are gone")
            return 128 + interrupt.number
        except ProcessError as error:
            teller.complain(str(error))
            if as_json:
                print(json.dumps({"ok": False, "error": str(error)}, indent=2))
            return 1
    _close_the_story(teller, time.monotonic() - begun, kept=keep)
    return 0 if shown.ok else 1


def _perform(there: Stage, teller: Teller) -> Shown:
    begun = time.monotonic()
    teller.say("From a beamline's Kafka to Tiled, with real parts: nothing but the beamline's devices is simulated.")
    teller.say()
    _start_servers(there, teller)
    short, catalog = _short_runs(there, teller)
    published = _published(short)
    long, blow = _long_run(there, teller, catalog, published)
    _wait_until_closed(there, teller, catalog, long)
    published += _published(long)
    runs = _read_back(teller, catalog, published)
    shown = Shown(
        runs, _kill(blow, published[-1]), there.broker.bootstrap_servers, there.tiled.uri, time.monotonic() - begun
    )
    _conclude(teller, shown)
    return shown


def _start_servers(there: Stage, teller: Teller) -> None:
    download = " (the very first time, Kafka is downloaded: 55 MB)" if there.own_broker else ""
    with teller.working(f"Starting Kafka and Tiled{download}"):
        there.open()
    address = there.broker.bootstrap_servers
    tiled = f"a Tiled server ({there.tiled.uri}; catalog in SQLite, tables in DuckDB)"
    if there.own_broker:
        teller.step(f"A Kafka broker ({address}) and {tiled} were started on this machine.")
    else:
        teller.step(
            f"The Kafka broker that KAFKA_BOOTSTRAP_SERVERS names ({address}) answers, and {tiled} was started."
        )


def _short_runs(there: Stage, teller: Teller) -> tuple[Shift, Catalog]:
    with teller.working("Starting the service and the beamline"):
        there.start_service()
        shift = there.measure(*_SHORT_RUNS)
        catalog = Catalog(there.tiled.uri, there.tiled.api_key)
        there.wait_for_service()
    teller.step("The service was started as a process of its own: `tiled-ingest run`. It reads Kafka and writes Tiled.")
    with teller.working("The beamline takes four short runs"):
        there.wait_for(lambda: there.ended(shift), "the short runs", _RUNS_LIMIT_S)
    teller.step(
        "A small beamline (Bluesky's RunEngine with simulated devices, in its own process) took four short runs and "
        "published their documents to Kafka."
    )
    return shift, catalog


def _long_run(there: Stage, teller: Teller, catalog: Catalog, known: Sequence[Published]) -> tuple[Shift, _Blow]:
    shift = there.measure(f"scan:{_LONG_POINTS}", delay_s=_LONG_DELAY_S)
    before = sum(len(events) for run in known for events in run.streams.values())
    with teller.working(f"The beamline scans {_LONG_POINTS} points") as progress:

        def hit() -> bool:
            there.ended(shift)  # raises when it failed
            rows = max(0, there.rows_confirmed() - before)
            progress.note(f"Tiled has confirmed {rows}")
            return rows >= _KILL_AT_ROWS

        there.wait_for(hit, "rows of the long scan in Tiled", _ROWS_LIMIT_S)
        there.service.kill()
    killed_at = time.time()
    there.pause(_SETTLE_S)  # a request that was under way may still arrive
    (uid,) = catalog.uids() - {run.start["uid"] for run in known}
    rows = catalog.rows(uid)
    teller.step(
        f"The beamline then began a scan of {_LONG_POINTS} points. While it went on, the service was killed (SIGKILL: "
        f"it can neither finish nor save anything). Tiled held {rows} rows of that scan."
    )
    with teller.working("The service comes back"):
        there.start_service()
        there.wait_for_service()
    back_at = time.time()
    teller.step(f"The service was started again, and was ready {back_at - killed_at:.1f} s after the kill.")
    return shift, _Blow(uid, rows, killed_at, back_at)


def _wait_until_closed(there: Stage, teller: Teller, catalog: Catalog, shift: Shift) -> None:
    with teller.working("The scan goes on") as progress:
        there.wait_for(lambda: there.ended(shift), "the end of the long run", _RUNS_LIMIT_S)
        uids = {run.start["uid"] for shift in there.shifts for run in _published(shift)}
        progress.note("all is published; the service finishes")
        there.wait_for(lambda: all(catalog.closed(uid) for uid in uids), "all runs finished in Tiled", _CLOSED_LIMIT_S)


def _read_back(teller: Teller, catalog: Catalog, published: Sequence[Published]) -> tuple[Run, ...]:
    names = [*_SHORT_RUNS.values(), _LONG_NAME]
    with teller.working("Reading everything back"):
        runs = tuple(catalog.compare(name, run) for name, run in zip(names, published, strict=True))
    teller.step(
        "When all runs were finished in Tiled, each was read back with Tiled's client and compared with what the "
        "RunEngine had published: every row, its number, values and time stamps, and the start and stop documents."
    )
    return runs


def _kill(blow: _Blow, published: Published) -> Kill:
    times = [event["time"] for event in published.streams["primary"]]
    return Kill(
        run=blow.run,
        rows_in_tiled_at_kill=blow.rows_in_tiled,
        rows_published_at_kill=sum(taken <= blow.killed_at for taken in times),
        rows_published_while_away=sum(blow.killed_at < taken <= blow.back_at for taken in times),
        rows_published=len(times),
        away_s=round(blow.back_at - blow.killed_at, 2),
        still_measuring=published.stop["time"] > blow.killed_at,
    )


def _conclude(teller: Teller, shown: Shown) -> None:
    teller.table(shown.runs)
    kill, hit = shown.kill, shown.runs[-1]
    teller.say(
        f"The kill: run {kill.run[:8]} had {kill.rows_in_tiled_at_kill} of {kill.rows_published} rows in Tiled; "
        f"{kill.rows_published_while_away} more were published before the service was back. "
        f"Now Tiled holds {hit.rows_in_tiled}."
    )
    teller.say()
    teller.say(_lesson(shown))


def _lesson(shown: Shown) -> str:
    """Say what was shown: no more than was checked."""
    if not shown.kill.in_the_middle:
        return "NOT SHOWN: the kill did not strike in the middle of the scan. Is this machine very busy? Try again."
    if not shown.ok:
        return "NOT AS IT SHOULD BE: Tiled does not hold exactly what was published; see the table."
    rows = sum(run.rows_in_tiled for run in shown.runs)
    return (
        f"Nothing was lost and nothing is there twice: all {rows} rows of {len(shown.runs)} runs are in Tiled exactly "
        "once, as they were published, although the service was killed in the middle of the long scan."
    )


def _leave_running(there: Stage, teller: Teller, shown: Shown) -> None:
    teller.say()
    teller.say("Everything that was started keeps running until Ctrl-C. To look at the data, in Python:")
    teller.code(_python_lines(there.tiled.uri, there.tiled.api_key, shown.kill.run))
    teller.say(f"The service's status page: {there.service_uri}/. To publish another run:")
    teller.code(
        f"{sys.executable} -m tiled_ingest.demo.beamline --plan scan:20 \\\n"
        f"    --bootstrap-servers {there.broker.bootstrap_servers} --topic {there.topic}"
    )
    there.watch()


def _python_lines(uri: str, api_key: str, uid: str) -> str:
    return (
        "from tiled.client import from_uri\n"
        f'client = from_uri("{uri}", api_key="{api_key}")\n'
        f'client["{uid}"]["primary"].read()'
    )


def _close_the_story(teller: Teller, elapsed_s: float, *, kept: bool) -> None:
    teller.say()
    if not kept:
        teller.say(f"To look around yourself: `{sys.argv[0]} demo --keep` leaves all of it running and says how.")
    teller.say(f"Everything that was started has ended, and its files are removed ({elapsed_s:.0f} s in all).")


def _published(shift: Shift) -> list[Published]:
    return sort_runs(read_documents(shift.record))
