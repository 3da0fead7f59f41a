"""The systemd unit, by systemd's own word."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.tools import ROOT, program, run
from tiled_ingest.settings import Limits

UNIT = ROOT / "deploy" / "systemd" / "tiled-ingest@.service"
MERGED = ("sh", "-c", 'exec "$@" 2>&1', "sh")  # standard error beside standard output
EXPOSURE_MAX = 2.0  # of 10; systemd calls that OK


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
