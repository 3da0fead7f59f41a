"""A systemd unit's sandbox without systemd: what its lines forbid is forbidden to a process of this machine.

System calls by libseccomp, which systemd itself uses, from systemd's own sets (`systemd-analyze syscall-filter`); the
view of files by a mount namespace; user and capabilities by `setpriv`. Not done: PrivateUsers=, RestrictSUIDSGID=,
the limits of memory, and what only keeps this process from others (ProtectClock=, ProtectKernelLogs=...), which here
falls to the missing capabilities.

As a program: `python sandbox.py UNIT COMMAND...` filters system calls, and then is the command.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

LIBRARY = "libseccomp.so.2"
USER = 61184  # the first that systemd takes for DynamicUser=
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EQUAL, MASKED_EQUAL = 4, 7
FAMILIES_MAX = 46  # Linux' AF_MAX
# CLONE_NEWNS, ...CGROUP, ...UTS, ...IPC, ...USER, ...PID, ...NET
NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
ALWAYS = {"execve", "exit", "exit_group", "getrlimit", "rt_sigreturn"}  # systemd never takes these away

# ProtectSystem=strict, ProtectHome, PrivateTmp, PrivateDevices, ProtectProc. $KEPT is what would lie
# under /opt: the environment and its interpreter, wherever they lie here.
_MOUNTS = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/kept /mnt/dev /mnt/files
[ -z "$FILES" ] || mount --bind "$FILES" /mnt/files
number=0
for place in $KEPT; do
  number=$((number + 1)); mkdir "/mnt/kept/$number"; mount --bind "$place" "/mnt/kept/$number"
done
findmnt --raw --noheadings --output TARGET | grep -vE '^/(dev|proc|sys|mnt)(/|$)' | while read -r mounted; do
  mount -o remount,bind,ro "$mounted"
done
for hidden in /home /root /run/user; do [ ! -d $hidden ] || mount -t tmpfs -o mode=755 tmpfs $hidden; done
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /tmp
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /var/tmp
number=0
for place in $KEPT; do
  number=$((number + 1)); mkdir -p "$place"
  mount --bind "/mnt/kept/$number" "$place"; mount -o remount,bind,ro "$place"
done
mount -t tmpfs -o mode=755,nosuid tmpfs /mnt/dev
for node in null zero full random urandom tty; do
  touch /mnt/dev/$node; mount --bind /dev/$node /mnt/dev/$node
done
mkdir -m 1777 /mnt/dev/shm; mount -t tmpfs -o mode=1777 tmpfs /mnt/dev/shm
mount --rbind /mnt/dev /dev
mount -t proc -o hidepid=invisible proc /proc
if [ -n "$FILES" ]; then mount --bind /mnt/files /mnt; mount -o remount,bind,ro /mnt; fi
exec env -u KEPT -u FILES "$@"
"""


class Unit:
    """What a unit says of a service's process.

    Parameters
    ----------
    text
        The unit's file.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def all(self, name: str) -> list[str]:
        """Return the values of a setting, in their order."""
        return re.findall(rf"^{name}=(.*)$", self._text, re.MULTILINE)

    def only(self, name: str) -> str:
        """Return the value of a setting that stands once; empty if it does not stand there."""
        values = self.all(name)
        assert len(values) < 2, f"{name}: {values}"
        return values[0] if values else ""

    @property
    def calls(self) -> set[str]:
        """The system calls that it allows: sets are added and, behind a `~`, taken away, in the order of the lines."""
        allowed: set[str] = set(ALWAYS)
        for line in self.all("SystemCallFilter"):
            taken_away = line.startswith("~")
            named = _calls(line.removeprefix("~").split())
            allowed = allowed - named if taken_away else allowed | named | _calls(["@default"])
        return allowed | ALWAYS

    @property
    def refusal(self) -> int:
        """What libseccomp does to another call: an error number, or without one an end by SIGSYS."""
        name = self.only("SystemCallErrorNumber")
        return ERRNO | getattr(errno, name) if name else KILL


def confined(
    unit: Path,
    command: Sequence[str | Path],
    kept: Iterable[Path],
    env: Mapping[str, str],
    files: Path | None = None,
) -> list[str]:
    """Return the command that runs another one in a unit's sandbox; it takes root to go in.

    Parameters
    ----------
    kept
        Folders that the service finds, read-only, though they lie where it may not look.
    env
        Its whole environment.
    files
        A folder that it finds, read-only, under /mnt.
    """
    folders = " ".join(shlex.quote(str(path)) for path in kept)
    variables = [f"{name}={value}" for name, value in env.items()]
    return [
        "env", f"KEPT={folders}", f"FILES={files or ''}", "unshare", "--mount", "--ipc", "--uts",
        "sh", "-c", _MOUNTS, "sh",
        "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
        "--inh-caps=-all", "env", "-i", *variables, *filtered(unit, command),
    ]  # fmt: skip


def filtered(unit: Path, command: Sequence[str | Path]) -> list[str]:
    """Return the command that runs another one under a unit's filter of system calls; anybody may."""
    return [sys.executable, __file__, str(unit), *map(str, command)]


def _calls(names: Iterable[str]) -> set[str]:
    """Return system calls, with systemd's sets spelled out."""
    found: set[str] = set()
    for name in names:
        found |= _calls(_members(name)) if name.startswith("@") else {name}
    return found


def _members(name: str) -> Iterator[str]:
    told = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    for line in told.stdout.splitlines()[1:]:
        if (member := line.strip()) and not member.startswith("#"):
            yield member


# ---------------------------------------------------------------- the filter


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Filter:
    """One filter of system calls, for this process and all that it becomes.

    Parameters
    ----------
    action
        What becomes of a call that no rule names.
    """

    def __init__(self, action: int) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(action)))

    def rule(self, action: int, call: str, *arguments: tuple[int, int, int, int]) -> None:
        """Add a rule, for calls with such arguments; a call that this machine does not have is passed over."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        compared = (_Comparison * len(arguments))(*(_Comparison(*each) for each in arguments))
        failed = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(arguments), compared
        )
        assert failed == 0, (call, failed)

    def load(self) -> None:
        """Let it rule from now on."""
        assert self._library.seccomp_load(self._context) == 0


def confine(unit: Unit) -> None:
    """Filter this process's system calls as the unit says."""
    named = Filter(unit.refusal)
    for call in sorted(unit.calls):
        named.rule(ALLOW, call)
    others = Filter(ALLOW)
    _restrict_families(others, {getattr(socket, name) for name in unit.only("RestrictAddressFamilies").split()})
    if unit.only("RestrictNamespaces") == "yes":
        _restrict_namespaces(others)
    others.load()
    named.load()


def _restrict_families(rules: Filter, allowed: set[int]) -> None:
    for family in set(range(FAMILIES_MAX)) - allowed if allowed else ():
        rules.rule(ERRNO | errno.EAFNOSUPPORT, "socket", (0, EQUAL, family, 0))


def _restrict_namespaces(rules: Filter) -> None:
    rules.rule(ERRNO | errno.ENOSYS, "clone3")  # its flags cannot be looked at
    for flag in NAMESPACES:
        rules.rule(ERRNO | errno.EPERM, "clone", (0, MASKED_EQUAL, flag, flag))
        rules.rule(ERRNO | errno.EPERM, "unshare", (0, MASKED_EQUAL, flag, flag))
    rules.rule(ERRNO | errno.EPERM, "setns")


if __name__ == "__main__":
    confine(Unit(Path(sys.argv[1]).read_text()))
    os.execvp(sys.argv[2], sys.argv[2:])
