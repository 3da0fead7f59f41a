"""The demo, run as a person runs it: what it finds out, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tiled_ingest.demo.compare import compare_rows, sort_runs

COMMAND = [str(Path(sys.executable).with_name("tiled-ingest")), "demo"]
LIMIT_S = 120
GONE_S = 5


class Demo:
    """One `tiled-ingest demo` whose processes and temporary files can be told from all others."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._mark = uuid.uuid4().hex
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._stderr = folder / "stderr"
        env = {**os.environ, "DEMO_TEST_MARK": self._mark, "TMPDIR": str(self._temporary)}
        # Settings of a service that this machine may run: none of the demo's business.
        env |= {"TILED_INGEST_KAFKA__GROUP_ID": "production", "TILED_INGEST_NO_SUCH_SETTING": "1"}
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen([*COMMAND, *options], env=env, stdout=subprocess.PIPE, stderr=stderr)

    def wait(self) -> str:
        """Return what it printed."""
        return self.process.communicate(timeout=LIMIT_S)[0].decode()

    def wait_for_progress(self, text: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while text not in self.progress:
            assert self.process.poll() is None, self.progress
            assert time.monotonic() < deadline, self.progress
            time.sleep(0.05)

    @property
    def progress(self) -> str:
        return self._stderr.read_text()

    def processes(self) -> list[Path]:
        return [process for process in Path("/proc").glob("[0-9]*") if self._mark in _environment(process).values()]

    def left_behind(self) -> list[str]:
        """Return processes and files that are still there after a moment; what the kernel kills needs that moment."""
        deadline = time.monotonic() + GONE_S
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _left(self) -> list[str]:
        return [str(process) for process in self.processes()] + [str(path) for path in self._temporary.rglob("*")]


def _environment(process: Path) -> dict[str, str]:
    """Return a process's environment; of a zombie, and of other people's processes, none is seen."""
    with suppress(OSError):
        entries = (process / "environ").read_text(errors="replace").split("\0")
        return {name: value for name, _, value in (entry.partition("=") for entry in entries)}
    return {}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*options: str) -> Demo:
        started.append(Demo(tmp_path, *options))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()  # its children die with it
        each.process.wait()


@pytest.mark.real
def test_everything_is_in_tiled_although_the_service_was_killed(demo: Callable[..., Demo]) -> None:
    running = demo("--json")
    facts = json.loads(running.wait())
    assert running.process.returncode == 0, running.progress
    assert facts["ok"]
    _check_runs(facts["runs"])
    _check_kill(facts["kill"], facts["runs"][-1])
    assert facts["elapsed_s"] > 0
    assert running.left_behind() == []


def _check_runs(runs: list[dict[str, Any]]) -> None:
    assert [run["exit_status"] for run in runs] == ["success", "success", "success", "abort", "success"]
    assert {run["state"] for run in runs} == {"complete"}
    assert {run["verdict"] for run in runs} == {"the same"}
    assert len({run["uid"] for run in runs}) == len(runs)
    assert {stream["name"] for stream in runs[2]["streams"]} == {"primary", "baseline"}
    for stream in (stream for run in runs for stream in run["streams"]):
        assert stream["rows_in_tiled"] == stream["rows_published"] > 0
        assert stream["missing"] == stream["duplicated"] == stream["different"] == stream["surplus"] == 0


def _check_kill(kill: dict[str, Any], run: dict[str, Any]) -> None:
    assert kill["run"] == run["uid"]
    assert kill["in_the_middle"]
    assert 0 < kill["rows_in_tiled_at_kill"] < kill["rows_published"] == run["rows_in_tiled"]
    assert kill["rows_published_while_away"] > 0
    assert kill["away_s"] < 45, "the group kept the partition for the dead member"


@pytest.mark.real
@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "Starting Kafka and Tiled"),
        (signal.SIGTERM, "Starting the service"),
        (signal.SIGINT, "Tiled has confirmed"),
    ],
)
def test_a_signal_ends_all_of_it(demo: Callable[..., Demo], number: signal.Signals, moment: str) -> None:
    running = demo("--json")
    running.wait_for_progress(moment)
    time.sleep(0.5)
    assert _keys_in_arguments(running.processes()) == []
    running.process.send_signal(number)
    assert running.wait() == ""
    assert running.process.returncode == 128 + number
    assert f"ended by {number.name}" in running.progress
    assert running.left_behind() == []


@pytest.mark.real
def test_kept_parts_stay_until_ctrl_c(demo: Callable[..., Demo]) -> None:
    running = demo("--json", "--keep")
    stdout = running.process.stdout
    assert stdout is not None
    facts = json.loads("".join(iter(lambda: stdout.readline().decode(), "}\n")) + "}")
    assert _rows_seen_by_a_reader(facts) == facts["kill"]["rows_published"]
    running.process.send_signal(signal.SIGINT)
    running.wait()
    assert running.process.returncode == 0
    assert running.left_behind() == []


def _rows_seen_by_a_reader(facts: dict[str, Any]) -> int:
    from tiled.client import from_uri  # noqa: PLC0415

    client = from_uri(facts["tiled"], api_key=facts["api_key"])
    rows = len(client[facts["kill"]["run"]]["primary"].read()["time"])
    client.context.http_client.close()
    return rows


def _keys_in_arguments(processes: list[Path]) -> list[str]:
    keys = {_environment(process).get("TILED_SINGLE_USER_API_KEY", "") for process in processes} - {""}
    arguments = [(process / "cmdline").read_text() for process in processes if process.exists()]
    return [line for line in arguments if any(key in line for key in keys)]


# ---------------------------------------------------------------- its comparison finds what is wrong

ROWS = [(1, {"x": 0.5}), (2, {"x": 1.5}), (3, {"x": 2.5})]


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (ROWS[:2], "missing"),
        ([*ROWS, ROWS[1]], "duplicated"),
        ([*ROWS[:2], (3, {"x": 2.4})], "different"),
        ([*ROWS[:2], (3, {"x": 2.5, "y": 1})], "different"),
        ([*ROWS, (4, {"x": 3.5})], "surplus"),
    ],
)
def test_a_wrong_row_is_found(found: list[tuple[int, dict[str, float]]], kind: str) -> None:
    stream = compare_rows("primary", ROWS, found)
    assert not stream.same
    kinds = ("missing", "duplicated", "different", "surplus")
    assert [getattr(stream, each) for each in kinds] == [int(each == kind) for each in kinds]


def test_the_order_of_rows_does_not_matter() -> None:
    assert compare_rows("primary", ROWS, ROWS[::-1]).same


def test_interleaved_runs_are_sorted() -> None:
    documents: list[tuple[str, dict[str, Any]]] = []
    for run in "ab":
        documents += [
            ("start", {"uid": run}),
            ("descriptor", {"uid": f"d{run}", "run_start": run, "name": "primary"}),
        ]
    documents += [("event", {"descriptor": f"d{run}", "seq_num": 1, "mine": run}) for run in "ba"]
    documents += [("stop", {"run_start": run}) for run in "ba"]
    runs = sort_runs(documents)
    assert [run.start["uid"] for run in runs] == ["a", "b"]
    assert [[event["mine"] for event in run.streams["primary"]] for run in runs] == [["a"], ["b"]]
    assert [run.stop["run_start"] for run in runs] == ["a", "b"]
