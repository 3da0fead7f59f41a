"""The command line from outside: exit statuses, one clear line, quick help."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiled_ingest import __version__
from tiled_ingest.demo.processes import Process, inherited

SECRET = "correct-horse-battery"
GOOD = ["--set", "beamline=sim", "--set", "kafka.bootstrap_servers=127.0.0.1:1", "--set", "kafka.group_id=g",
        "--set", "kafka.topics=t", "--set", "tiled.uri=http://127.0.0.1:1"]  # fmt: skip
HELP_S_MAX = 0.3


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tiled_ingest.cli", *arguments]
    env = {**inherited(), **environ}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_version() -> None:
    assert call("--version").stdout.strip() == __version__


def test_help_is_quick() -> None:
    def took_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert call("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # Processor time, not the wall's: a busy machine must not fail it.
    assert min(took_s() for _ in range(5)) < HELP_S_MAX


def test_help_imports_nothing_heavy() -> None:
    heavy = {"pydantic", "pydantic_settings", "tiled_ingest.settings", "pyarrow", "confluent_kafka", "rich"}
    code = f"import sys, tiled_ingest.cli; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "tiled-ingest: beamline: is missing; set it"),
        (["check"], "tiled-ingest: beamline: is missing; set it"),
        (["settings"], "tiled-ingest: beamline: is missing; set it"),
        (
            ["run", *GOOD, "--set", "kafka.topics=[]"],
            "tiled-ingest: kafka.topics: at least one topic is needed",
        ),
        (["run", "--set", "nonsense"], "tiled-ingest: --set nonsense: NAME=VALUE is needed"),
        (["run", "--config", "nowhere.yaml"], "tiled-ingest: --config: cannot read nowhere.yaml"),
    ],
)
def test_wrong_settings_are_one_line_and_status_2(arguments: list[str], line: str) -> None:
    result = call(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["nope"], ["run", "--nope"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert call(*arguments).returncode == 2


def test_settings_says_where_from_and_masks() -> None:
    result = call("settings", "--json", *GOOD, TILED_INGEST_TILED__API_KEY=SECRET)
    shown = {entry["name"]: entry for entry in json.loads(result.stdout)}
    assert shown["tiled.api_key"]["value"] == "********"
    assert shown["tiled.api_key"]["from"] == "environment TILED_INGEST_TILED__API_KEY"
    plain = call("settings", *GOOD, TILED_INGEST_TILED__API_KEY=SECRET)
    assert 'beamline = "sim"  (command line)' in plain.stdout.splitlines()
    assert SECRET not in result.stdout + plain.stdout


def test_schema_is_json() -> None:
    assert json.loads(call("settings", "--schema").stdout)["additionalProperties"] is False


def test_check_fails_with_status_1_when_nothing_is_there() -> None:
    result = call("check", "--json", *GOOD, TILED_INGEST_TILED__API_KEY=SECRET)
    assert result.returncode == 1
    verdicts = {finding["name"]: finding["verdict"] for finding in json.loads(result.stdout)}
    assert verdicts == {"settings": "ok", "kafka": "failed", "tiled": "failed"}
    assert SECRET not in result.stdout + result.stderr


def test_demo_without_its_extra_says_how_to_install_it(tmp_path: Path) -> None:
    code = """
import importlib.util as u, sys
found = u.find_spec
u.find_spec = lambda name, *a: None if name == "jgo" else found(name, *a)
sys.argv = ["tiled-ingest", "demo"]
from tiled_ingest.cli import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "tiled-ingest: demo: jgo is not installed: pip install 'tiled-ingest[demo]'\n"


def takes_sigterm(pid: int) -> bool:
    (mask,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def imports(pid: int) -> bool:
    return "libarrow" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
@pytest.mark.parametrize("moment", [takes_sigterm, imports])
def test_a_start_may_be_called_off_at_any_moment(
    tmp_path: Path, moment: Callable[[int], bool], asked: signal.Signals
) -> None:
    """A node is drained, or an upgrade comes, while the pod is starting: that is no failure."""
    process = Process("the service", [sys.executable, "-m", "tiled_ingest.cli", "run", *GOOD], tmp_path / "log")
    process.start()
    process.wait_until(lambda: process.pid is not None and moment(process.pid), limit_s=30)
    process.send(asked)
    assert process.wait(30) == 0
    (line,) = (tmp_path / "log").read_text().splitlines()
    said = json.loads(line)
    assert (said["event"], said["why"]) == ("ended", "asked to end before it had begun")
