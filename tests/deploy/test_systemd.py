"""The systemd unit: by systemd's own word, and with the service in its sandbox."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
import yaml

from tests.deploy.sandbox import LIBRARY, USER, Unit, confined, filtered
from tests.deploy.served import brings_in
from tests.deploy.tools import ROOT, not_run, program, run
from tests.rig.fixtures import TopicFactory
from tests.system.publishing import Publication, interleaved, runs
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.processes import Process, free_port
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.settings import Limits, load

UNIT = ROOT / "deploy" / "systemd" / "tiled-ingest@.service"
MERGED = ("sh", "-c", 'exec "$@" 2>&1', "sh")  # standard error beside standard output
EXPOSURE_MAX = 2.0  # of 10; systemd calls that OK
KEPT = (Path(sys.base_prefix), ROOT)  # what would lie under /opt


def installed(root: Path, text: str) -> Path:
    """Lay a unit out as it is installed; `verify` wants its program to be there."""
    (program_,) = re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)
    path = root / program_.removeprefix("/")
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    unit = root / UNIT.name.replace("@", "@xyz")
    unit.write_text(text.replace(program_, str(path)))
    return unit


def verified(unit: Path) -> str:
    """What systemd finds wrong about a unit of ours; units of this machine may have their own troubles."""
    command: list[str | Path] = [program("systemd-analyze", "systemd"), "verify", "--man=no", unit]
    said = run([*MERGED, *command])
    return "\n".join(line for line in said.splitlines() if unit.stem in line)


def test_systemd_takes_it(tmp_path: Path) -> None:
    assert verified(installed(tmp_path, UNIT.read_text())) == ""


def test_a_wrong_line_would_be_seen(tmp_path: Path) -> None:
    wrong = UNIT.read_text().replace("RestartSec=15", "RestartSecs=15")
    assert "RestartSecs" in verified(installed(tmp_path, wrong))


def test_it_is_exposed_to_little(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    run([analyze, "security", "--offline=true", threshold, installed(tmp_path, UNIT.read_text())])


def test_systemd_waits_until_writes_are_drained_and_committed() -> None:
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    limits = Limits()
    assert int(stop_s) >= limits.drain_s_max + limits.commit_s_max + 10


def test_the_example_settings_are_settings_and_keep_the_page_to_the_machine() -> None:
    assert load(UNIT.with_name("example.yaml"), {}, {}).http.host == "127.0.0.1"


def test_check_by_hand_has_what_the_unit_gives_to_run(broker: Broker, topic: TopicFactory, tmp_path: Path) -> None:
    """The line of docs/operating.md; key and variables are in files of their own."""
    (line,) = re.findall(r"^\(.* check --config .*\)$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    with TiledServer() as tiled:
        etc = laid_out(tmp_path / "etc", broker, "no.such.topic", tiled, free_port())
        (etc / "credentials" / "tiled-api-key").rename(etc / "xyz.api-key")
        name = topic("by.hand")
        variables = f"TILED_INGEST_KAFKA__TOPICS='^{re.escape(name)}$'\n"  # as it stands, or it names no topic
        (etc / "xyz.env").write_text(variables)
        line = line.replace("/etc/tiled-ingest", str(etc)).replace(
            "/opt/tiled-ingest/bin", str(Path(sys.executable).parent)
        )
        said = run(["sh", "-c", line])
    assert f"topic {name}: " in said
    assert "FAILED" not in said


# ---------------------------------------------------------------- the service in the unit's sandbox


@pytest.fixture
def sandbox() -> None:
    program("systemd-analyze", "systemd")
    if not find_library("seccomp"):
        not_run(f"{LIBRARY} is not installed (Debian's package: libseccomp2)")


@pytest.fixture
def rooted(sandbox: None) -> None:
    if os.geteuid() != 0:
        not_run("only root can go into the unit's sandbox")


@pytest.fixture
def killing(tmp_path: Path) -> Path:
    """The unit, but what it forbids is the service's end."""
    path = tmp_path / "killing.service"
    path.write_text(re.sub(r"^SystemCallErrorNumber=.*\n", "", UNIT.read_text(), flags=re.MULTILINE))
    return path


def ends(tmp_path: Path, command: list[str]) -> int:
    process = Process("a command of the unit", command, tmp_path / "log")
    process.start()
    return process.wait(60)


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("module", ["tiled_ingest.wiring", "bluesky_tiled_plugins.writing.consolidators", "pandas"])
def test_what_the_service_imports_may_be_imported_under_the_units_filter(module: str, tmp_path: Path) -> None:
    status = ends(tmp_path, filtered(UNIT, [sys.executable, "-c", f"import {module}"]))
    assert (status, (tmp_path / "log").read_text()) == (0, "")


@pytest.mark.usefixtures("sandbox")
def test_a_filter_that_kills_the_service_would_be_seen(killing: Path, tmp_path: Path) -> None:
    """As the first one did: numpy's OpenBLAS calls mbind when it is imported."""
    assert ends(tmp_path, filtered(killing, [sys.executable, "-c", "import numpy"])) == -signal.SIGSYS


@pytest.mark.usefixtures("rooted")
def test_the_sandbox_forbids_what_the_unit_forbids(tmp_path: Path) -> None:
    """Else the next test would show nothing."""
    tried = """if True:
        import os, socket, sys
        def refused(what, *arguments):
            try:
                what(*arguments)
            except OSError as error:
                return error.errno
        assert refused(open, "/etc/here", "w") and refused(open, sys.prefix + "/here", "w")
        open("/tmp/here", "w").close()
        assert os.listdir("/tmp") == ["here"] and not os.path.exists("/proc/%s" % os.getppid())
        assert refused(os.setuid, 0) == 1 and refused(os.sched_setaffinity, 0, [0]) == 1
        assert refused(socket.socket, socket.AF_NETLINK) == 97 and not refused(socket.socket, socket.AF_INET)
        assert "CapBnd:\\t0000000000000000" in open("/proc/self/status").read()
    """
    status = ends(tmp_path, confined(UNIT, [sys.executable, "-c", tried], KEPT, {"PATH": "/usr/bin:/bin"}))
    assert (status, (tmp_path / "log").read_text()) == (0, "")


@pytest.mark.usefixtures("rooted")
def test_the_process_tells_of_itself_in_the_sandbox(tmp_path: Path) -> None:
    """Else no alert would tell of one that starts again and again, and panels were empty."""
    told = """if True:
        from prometheus_client import CollectorRegistry, generate_latest
        from tiled_ingest.observe.metrics import Metrics
        registry = CollectorRegistry()
        Metrics(registry, "xyz", "1")
        text = generate_latest(registry).decode()
        assert "process_start_time_seconds" in text and "process_resident_memory_bytes" in text, text
    """
    assert "ProcSubset=" not in UNIT.read_text().replace("No ProcSubset=", "")
    status = ends(tmp_path, confined(UNIT, [sys.executable, "-c", told], KEPT, {"PATH": "/usr/bin:/bin"}))
    assert (status, (tmp_path / "log").read_text()) == (0, "")


@pytest.mark.usefixtures("rooted")
def test_the_service_brings_documents_into_tiled_in_the_units_sandbox(
    broker: Broker, topic: TopicFactory, tmp_path: Path
) -> None:
    name, port, log = topic("systemd"), free_port(), tmp_path / "service.log"
    publication = Publication(broker.bootstrap_servers, name, interleaved(runs()))
    publication.publish()
    with TiledServer() as tiled:
        etc = laid_out(tmp_path / "etc", broker, name, tiled, port)
        service = Process("the service", started(etc), log)
        brings_in(service, log, port, publication, tiled, limit_s=60)
    closed = [line for text in log.read_text().splitlines() if (line := json.loads(text))["event"] == "run_closed"]
    plans = {doc["uid"]: doc["plan_name"] for kind, doc in publication.published if kind == "start"}
    assert {line["run"]: line["plan"] for line in closed} == plans
    assert all({"state", "rows", "seconds", "scan_id"} <= line.keys() for line in closed)


def laid_out(folder: Path, broker: Broker, topic: str, tiled: TiledServer, port: int) -> Path:
    """Lay settings and key out as under /etc/tiled-ingest; the key as systemd's credential has it."""
    settings = {
        "beamline": "xyz",
        "kafka": {"bootstrap_servers": broker.bootstrap_servers, "group_id": topic, "topics": [topic]},
        "tiled": {"uri": tiled.uri},
        "http": {"host": "127.0.0.1", "port": port},
    }
    folder.mkdir()
    (folder / "xyz.yaml").write_text(yaml.safe_dump(settings))
    credentials = folder / "credentials"
    credentials.mkdir()
    key = credentials / "tiled-api-key"
    key.write_text(tiled.api_key)
    os.chown(key, USER, USER)
    key.chmod(0o400)
    return folder


def started(etc: Path) -> list[str]:
    """Return what the unit starts, of this environment and with these files, in the unit's sandbox."""
    unit = Unit(UNIT.read_text())
    program_, *arguments = unit.only("ExecStart").replace("/etc/tiled-ingest", "/mnt").replace("%i", "xyz").split()
    assert Path(program_).name == "tiled-ingest"
    name, _, value = unit.only("Environment").partition("=")
    # HOME as systemd gives it to a dynamic user.
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/", name: value.replace("%d", "/mnt/credentials")}
    command = [str(Path(sys.executable).with_name("tiled-ingest")), *arguments]
    return confined(UNIT, command, KEPT, env, files=etc)
