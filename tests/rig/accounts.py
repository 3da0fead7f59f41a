"""Tiled with accounts, as a facility runs it: who administers it makes keys that may do certain things only."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

import httpx

from tiled_ingest.demo.tiled_server import TiledServer

_ADMIN, _USER = "admin", "scientist"
_PROVIDER = "site"


class Accounts:
    """A server with two people, not started: an administrator, and a user without special rights."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._password = secrets.token_hex(8)
        provider = {
            "provider": _PROVIDER,
            "authenticator": "tiled.authenticators:DictionaryAuthenticator",
            "args": {"users_to_passwords": dict.fromkeys((_ADMIN, _USER), self._password)},
        }
        authentication = {
            "providers": [provider],
            "tiled_admins": [{"provider": _PROVIDER, "id": _ADMIN}],
            "secret_keys": [secrets.token_hex(32)],
        }
        database = {"uri": f"sqlite:///{folder / 'accounts.db'}", "init_if_not_exists": True}
        self.tiled = TiledServer(folder / "tiled", config={"authentication": authentication, "database": database})

    def start(self) -> None:
        """Start it; its own key is then the administrator's, with all that he may do."""
        self.tiled.start()
        self.tiled.api_key = self.key(["inherit"])

    def key(self, scopes: Iterable[str], user: str = _ADMIN, expires_in: int | None = None) -> str:
        """Return a new key of a user with these scopes; Tiled refuses those that the user has not.

        It expires in so many seconds, if at all.
        """
        answer = httpx.post(
            f"{self.tiled.uri}/auth/apikey",
            headers={"Authorization": f"Bearer {self._token(user)}"},
            json={"scopes": sorted(scopes), "expires_in": expires_in, "note": "test"},
        )
        return str(answer.raise_for_status().json()["secret"])

    def user_scopes(self) -> set[str]:
        """Return what a user without special rights may do."""
        headers = {"Authorization": f"Bearer {self._token(_USER)}"}
        who = httpx.get(f"{self.tiled.uri}/auth/whoami", headers=headers).raise_for_status().json()
        return {scope for role in who["roles"] for scope in role["scopes"]}

    def _token(self, user: str) -> str:
        login = {"username": user, "password": self._password}
        answer = httpx.post(f"{self.tiled.uri}/auth/provider/{_PROVIDER}/token", data=login)
        return str(answer.raise_for_status().json()["access_token"])
