"""A part of the suite with a version that is not the pinned one: `python -m tests.versions REQUIREMENT [PYTEST...]`.

`tiled==0.2.19` starts that Tiled's server, from an environment of its own; everything else is the pinned version's.
`bluesky-tiled-plugins==2.0.8` puts that version in the pinned one's place: readers, TiledWriter, consolidators, and
the server's exporter. Which tests are run is listed here; any of pytest's arguments may be given instead. The exit
status is pytest's. What came out stands in docs/versions.md.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

UV = Path(sys.executable).with_name("uv")
# What needs a server of its own: whether it is taken, then values, external data, what readers see, verification.
SERVER = ["tests/tiled/test_versions.py", "tests/values", "tests/tiled/test_layout.py", "tests/tools/test_verify.py"]
# What uses bluesky-tiled-plugins beside a server or in one.
PLUGINS = ["tests/inprocess/test_reading.py", "tests/system/test_examples.py", "tests/tiled/test_external.py"]


def main(arguments: Sequence[str]) -> int:
    """Run tests with another version of one package; return the exit status."""
    requirement, *chosen = arguments or [""]
    package, _, version = requirement.partition("==")
    with tempfile.TemporaryDirectory(prefix="tiled-ingest-versions-") as folder:
        if package == "tiled" and version:
            return _pytest(chosen or SERVER, {"TEST_TILED_PYTHON": _server(Path(folder), version)})
        if package == "bluesky-tiled-plugins" and version:
            return _pytest(chosen or PLUGINS, {"PYTHONPATH": _overlay(Path(folder), version)})
    sys.stderr.write("usage: python -m tests.versions tiled==VERSION|bluesky-tiled-plugins==VERSION [PYTEST...]\n")
    return 2


def _server(folder: Path, version: str) -> str:
    """Install a server beside the newest exporter that it can have; return its interpreter."""
    python = folder / "bin" / "python"
    _uv("venv", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--python", str(python), f"tiled[server]=={version}", "bluesky-tiled-plugins")
    return str(python)


def _overlay(folder: Path, version: str) -> str:
    """Install the package alone; return the folder that hides the pinned one."""
    _uv("pip", "install", "--no-deps", "--target", str(folder), f"bluesky-tiled-plugins=={version}")
    return str(folder)


def _uv(*arguments: str) -> None:
    subprocess.run([str(UV), *arguments, "--quiet"], check=True)


def _pytest(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
