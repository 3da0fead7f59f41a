"""A real PostgreSQL 18 process: binaries from Maven Central, no Docker; as root it runs as `nobody`."""

from __future__ import annotations

import io
import os
import platform
import pwd
import secrets
import shutil
import signal
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import TracebackType

from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]
from jgo.maven import MavenContext

from tiled_ingest.demo.processes import Process, ProcessError, cache_folder, free_port, port_answers

VERSION = "18.1.0"
_GROUP = "io.zonky.test.postgres"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64v8"}
_INITDB_LIMIT_S = 60.0
_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 15.0


class Postgres:
    """One PostgreSQL server with a temporary data folder on a free port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self._home = _binaries()
        # Not below pytest's folders: nobody but root may enter those.
        self.folder = Path(tempfile.mkdtemp(prefix="tiled-ingest-postgres-"))
        self._user, self._group = _unprivileged()
        if self._user is not None:
            os.chown(self.folder, self._user, self._group or -1)
        self._process: Process | None = None

    def uri(self, database: str = "postgres", driver: str = "postgresql") -> str:
        """Return a database's address for a driver: `postgresql`, or `postgresql+asyncpg`."""
        return f"{driver}://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its name."""
        with dbapi.connect(self.uri(), autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}"')
        return name

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start it; returns when it accepts connections. Data of an earlier start are kept."""
        data = self.folder / "data"
        if not (data / "PG_VERSION").exists():
            self._initdb(data)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "64MB",
            # A killed process loses nothing by these; only a machine that loses its power would.
            "fsync": "off",
            "full_page_writes": "off",
        }
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        # SIGINT: disconnect the clients and end. SIGTERM would wait for them.
        self._process = self._new_process("postgres", ["-D", str(data), *arguments], signal.SIGINT)
        self._process.start()
        try:
            self._process.wait_until(lambda: port_answers(self.port), limit_s=_START_LIMIT_S)
            self._process.wait_until(self._accepts, limit_s=_START_LIMIT_S)
        except BaseException:
            self._process.kill()
            raise

    def stop(self) -> None:
        """End it, its clients with it, and remove its data."""
        if self._process is not None:
            self._process.stop(_STOP_LIMIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL all of it, as a crash would; the data stay."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Start it again on the same port with the same data, after ending it if it runs."""
        if self._process is not None:
            self._process.stop(_STOP_LIMIT_S)
        self.start()

    def __enter__(self) -> Postgres:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _accepts(self) -> bool:
        """Tell whether a login works: right after a crash the server listens while it still recovers."""
        try:
            dbapi.connect(self.uri()).close()
        except Error:
            return False
        return True

    def _initdb(self, data: Path) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if self._user is not None:
            os.chown(password_file, self._user, self._group or -1)
        password_file.chmod(0o600)
        arguments = [
            "-D",
            str(data),
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--auth=scram-sha-256",
        ]
        tool = self._new_process("initdb", [*arguments, f"--pwfile={password_file}"], signal.SIGTERM)
        tool.start()
        try:
            if tool.wait(_INITDB_LIMIT_S):
                raise ProcessError(f"initdb failed\n{tool.log_tail()}")
        finally:
            tool.kill()
            password_file.unlink()

    def _new_process(self, program: str, arguments: list[str], stop_signal: signal.Signals) -> Process:
        return Process(
            f"PostgreSQL's {program}",
            [str(self._home / "bin" / program), *arguments],
            self.folder / "postgres.log",
            env={"LD_LIBRARY_PATH": str(self._home / "lib"), "TZ": "UTC"},
            stop_signal=stop_signal,
            user=self._user,
            group=self._group,
        )


def _unprivileged() -> tuple[int | None, int | None]:
    """PostgreSQL refuses to run as root: then it is another user's."""
    if os.geteuid() != 0:
        return None, None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _binaries() -> Path:
    """Return the folder with `bin` and `lib`; downloads (15 MB) and unpacks them the first time."""
    # As root, `nobody` must be able to enter it, which a home folder does not allow.
    base = Path("/var/cache/tiled-ingest") if os.geteuid() == 0 else cache_folder()
    home = base / f"postgresql-{VERSION}"
    if not home.exists():
        base.mkdir(parents=True, exist_ok=True)
        unpacked = Path(tempfile.mkdtemp(dir=base))
        try:
            _unpack(_jar(), unpacked)
            unpacked.chmod(0o755)
            if not home.exists():  # somebody else's may be as good
                unpacked.rename(home)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
    return home


def _jar() -> Path:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise ProcessError(f"no PostgreSQL for {platform.machine()} on Maven Central")
    project = MavenContext().project(_GROUP, f"embedded-postgres-binaries-linux-{machine}")
    try:
        return Path(project.at_version(VERSION).artifact().resolve())
    except Exception as error:
        raise ProcessError(f"PostgreSQL could not be fetched from Maven Central: {error}") from error


def _unpack(jar: Path, folder: Path) -> None:
    with zipfile.ZipFile(jar) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".txz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name)), mode="r:xz") as inner:
            inner.extractall(folder, filter="data")
