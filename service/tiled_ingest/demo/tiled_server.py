"""A real Tiled server process on this machine: embedded (SQLite catalog, DuckDB tables) or on PostgreSQL."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tiled_ingest.demo.processes import Process, cache_folder, free_port

_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 15.0


class TiledServer:
    """One `tiled serve` process with its own folder, port and API key.

    Parameters
    ----------
    folder
        Where its files are kept; a temporary folder, removed by `stop`, when not given.
    catalog_uri
        The catalog's database, e.g. `postgresql+asyncpg://...`; by default an SQLite file in the folder.
    storage_uri
        The tables' database, e.g. `postgresql://...`; by default a DuckDB file in the folder.
    api_key
        The single user's key; by default a random one.
    readable_folders
        Folders with detectors' files that the server may read.
    config
        More top-level settings of the server's configuration, e.g. an access policy.
    python
        The interpreter whose Tiled is started: by default this one.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        catalog_uri: str | None = None,
        storage_uri: str | None = None,
        api_key: str | None = None,
        readable_folders: Sequence[Path] = (),
        config: Mapping[str, Any] | None = None,
        python: str = sys.executable,
    ) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="tiled-ingest-tiled-")) if folder is None else folder.absolute()
        self._catalog_uri = catalog_uri or f"sqlite:///{self.folder / 'catalog.db'}"
        self._storage_uri = storage_uri or f"duckdb:///{self.folder / 'tables.duckdb'}"
        self.api_key = api_key or secrets.token_hex(16)
        self._readable_folders = [str(path.absolute()) for path in readable_folders]
        self._config = dict(config or {})
        self._python = python
        self.port = free_port()
        self._initialised = False
        self._process: Process | None = None

    @property
    def uri(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def storage(self) -> str:
        """What keeps its tables: `duckdb` or `postgresql`."""
        return self._storage_uri.partition(":")[0]

    @property
    def log_path(self) -> Path:
        """The file with the server's output."""
        return self.folder / "tiled.log"

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it; returns when its API answers. Data of an earlier start are kept.

        Raises
        ------
        ProcessError
            It did not come up; with the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "files").mkdir(exist_ok=True)
        config_path = self._write_config()
        self._process = Process(
            "the Tiled server",
            [self._python, "-m", "tiled", "serve", "config", str(config_path)],
            self.log_path,
            # The key is not among the arguments: those are visible to all users.
            env={"TILED_SINGLE_USER_API_KEY": self.api_key, **_bytecode_cache()},
        )
        self._process.start()
        try:
            self._process.wait_until(self._answers, limit_s=_START_LIMIT_S)
        except BaseException:
            self._process.kill()
            raise
        self._initialised = True

    def stop(self) -> None:
        """End it gracefully (killed after a limit), and remove a temporary folder."""
        if self._process is not None:
            self._process.stop(_STOP_LIMIT_S)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL it, as a crash would; the data stay."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Start it again on the same port with the same data, after ending it gracefully if it runs."""
        if self._process is not None:
            self._process.stop(_STOP_LIMIT_S)
        self.start()

    def __enter__(self) -> TiledServer:
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

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/", timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    def _write_config(self) -> Path:
        path = self.folder / "config.yml"
        config: dict[str, Any] = {
            "uvicorn": {"host": "127.0.0.1", "port": self.port},
            "trees": [
                {
                    "path": "/",
                    "tree": "catalog",
                    "args": {
                        "uri": self._catalog_uri,
                        "writable_storage": [str(self.folder / "files"), self._storage_uri],
                        "readable_storage": self._readable_folders,
                        "init_if_not_exists": not self._initialised,  # a process of its own, seconds long
                    },
                }
            ],
            # Readers' `run.documents()` asks the server for this format.
            "media_types": {
                "BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"}
            },
            **self._config,
        }
        # The databases' addresses may hold passwords.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            yaml.safe_dump(config, file)
        return path


def _bytecode_cache() -> dict[str, str]:
    """Give Tiled a place for bytecode where Python may leave none beside the sources: it saves 8 s, twice."""
    if not sys.dont_write_bytecode or sys.pycache_prefix:
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_folder() / "bytecode")}
