"""An image, run without a container engine: its own file system, read-only, its own user, a /tmp of its own.

Debian's buildah builds; the kernel's mount namespace, `chroot` and `setpriv` do to the process what Kubernetes does to
the pod: no root, no capability, no way to more rights.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.deploy.tools import ROOT, run
from tiled_ingest.demo.processes import Process

STORAGE = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
BUILD_S_MAX = 900  # the base is bootstrapped, too, the first time

_CONFINED = """
set -e
root=$1 && shift
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ -n "$FILES" ]; then mount --bind "$FILES" "$root/mnt" && mount -o remount,bind,ro "$root/mnt"; fi
exec env -u FILES chroot "$root" "$@"
"""


class Image:
    """A built image, with its file system at hand.

    Parameters
    ----------
    name
        As it was tagged.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        described: dict[str, Any] = json.loads(_buildah("inspect", "--type", "image", name))
        self.config: dict[str, Any] = described["OCIv1"]["config"]
        self._container = _buildah("from", "--pull-never", name).strip()
        self.root = Path(_buildah("mount", self._container).strip())

    def close(self) -> None:
        """Remove it; the stand-in for its base stays for the next time."""
        _buildah("rm", self._container)
        _buildah("rmi", self.name)

    @property
    def size_mb(self) -> float:
        """Its size, as `buildah images` has it."""
        (listed,) = json.loads(_buildah("images", "--json", self.name))
        number, unit = listed["size"].split()
        return float(number) * {"MB": 1, "GB": 1000}[unit]

    def process(
        self, log: Path, *arguments: str, env: Mapping[str, str] | None = None, files: Path | None = None
    ) -> Process:
        """Make the image's process (not started): its entry point with these arguments, or its own.

        Parameters
        ----------
        log
            Where its output goes.
        files
            A folder that it finds, read-only, under /mnt.
        """
        command = [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]
        return self._process(log, command, env or {}, files)

    def does(self, log: Path, *command: str) -> int:
        """Run a program of the image as the image's user; return its exit status."""
        process = self._process(log, command, {}, None)
        process.start()
        return process.wait(60)

    def _process(self, log: Path, command: Sequence[str], env: Mapping[str, str], files: Path | None) -> Process:
        user, _, group = self.config["User"].partition(":")
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in env.items())]
        confined = [
            "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
            "--bounding-set=-all", "--inh-caps=-all", "env", "-i", *variables, *command,
        ]  # fmt: skip
        return Process(
            shlex.join(command),
            ["unshare", "--mount", "sh", "-c", _CONFINED, "sh", str(self.root), *confined],
            log,
            env={"FILES": str(files or "")},
        )


class Build:
    """`deploy/image.sh` in the background, on a stand-in for its base: it takes as long as the other tests together.

    Parameters
    ----------
    log
        Where its output goes.
    """

    def __init__(self, name: str, log: Path) -> None:
        self._name = name
        command = [str(ROOT / "deploy" / "image.sh"), name, "stand-in"]
        self._process = Process("the image's build", command, log, env=STORAGE)
        self._process.start()

    def result(self) -> Image:
        """Wait for its end; return the image."""
        status = self._process.wait(BUILD_S_MAX)
        assert status == 0, f"the build ended with {status}\n{self._process.log_tail(60)}"
        return Image(self._name)

    def close(self) -> None:
        """End it, if nobody waited for it."""
        self._process.stop()


def missing() -> str:
    """Return what this machine lacks to build and run an image; empty if nothing."""
    absent = [name for name in ("buildah", "debootstrap", "setpriv", "unshare") if not shutil.which(name)]
    if absent:
        return f"{', '.join(absent)} not installed"
    return "" if os.geteuid() == 0 else "only root can make a base image with debootstrap"


def _buildah(*arguments: str) -> str:
    return run(["buildah", *arguments], 300, **{**os.environ, **STORAGE})
