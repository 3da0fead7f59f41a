"""Is Tiled there, is it one that we know, may we write? Asked by readiness and `check`; writes nothing."""

import re
from dataclasses import dataclass
from typing import Any

import httpx

from tiled_ingest.core.writes import Denied, Done, GetNode, Missing, Node, Outcome, Rejected, Unknown
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session

VERSION_MIN = (0, 2, 20)
# What `run` needs: nodes, rows, metadata; `register` for switching a table and for detectors' files.
SCOPES_NEEDED = frozenset({"read:metadata", "read:data", "write:metadata", "write:data", "create:node", "register"})


@dataclass(frozen=True, slots=True)
class Found:
    """What a successful probe saw.

    Attributes
    ----------
    version
        Tiled's own.
    node
        The node in which runs are created.
    scopes
        What the key allows; `None` where the server does not tell (a single-user server has no such page).
    """

    version: str
    node: Node
    scopes: frozenset[str] | None

    @property
    def scopes_missing(self) -> frozenset[str]:
        """Scopes that we need and surely lack."""
        return frozenset() if self.scopes is None else SCOPES_NEEDED - self.scopes


def probe(session: Session) -> Outcome:
    """Ask for version, node and scopes. Answers: `Done(Found)`, `Missing` without the node, or a failure."""
    version = server_version(session)
    if not isinstance(version, Done):
        return version
    if refusal := too_old(version.value):
        return Denied(refusal, 426)
    node = perform(session, GetNode(()))
    if not isinstance(node, Done):
        return node
    scopes = key_scopes(session)
    return Done(Found(version.value, node.value, scopes.value)) if isinstance(scopes, Done) else scopes


def too_old(version: str) -> str:
    """Return why we do not write to this version of Tiled; empty if we do."""
    if _release(version) >= VERSION_MIN:
        return ""
    return f"Tiled {version} is too old: {'.'.join(map(str, VERSION_MIN))} or newer is needed"


def server_version(session: Session) -> Outcome:
    """Ask for Tiled's version. Answers: `Done(str)`, or a failure."""
    answer = session.server_info()
    if not isinstance(answer, httpx.Response):
        return answer
    try:
        return Done(str(wire.load(answer.content)["library_version"]))
    except (ValueError, TypeError, LookupError):
        return Unknown("what answers at tiled.uri is not Tiled", answer.status_code)


def key_scopes(session: Session) -> Outcome:
    """Ask what the key allows. Answers: `Done(frozenset)`, `Done(None)` if Tiled keeps it to itself."""
    key = _asked(session, "auth/apikey")
    if not isinstance(key, Done):
        return key
    scopes = frozenset(_scopes(key.value))
    if "inherit" not in scopes:
        return Done(scopes or None)
    owner = _asked(session, "auth/whoami")
    if not isinstance(owner, Done):
        return owner
    return Done(scopes.union(*map(_scopes, _list(owner.value, "roles"))))


def _asked(session: Session, route: str) -> Outcome:
    answer = session.request("GET", route, None, headers=wire.JSON)
    if not isinstance(answer, httpx.Response):
        # A single-user server has no such page; a key of another making has no entry there.
        return answer if not _untold(answer) else Done(None)
    try:
        return Done(wire.load(answer.content))
    except ValueError:
        return Done(None)


def _untold(outcome: Outcome) -> bool:
    return isinstance(outcome, Missing | Denied | Rejected) or (isinstance(outcome, Unknown) and outcome.status == 404)


def _scopes(said: Any) -> list[str]:
    return [str(scope) for scope in _list(said, "scopes")]


def _list(said: Any, name: str) -> list[Any]:
    found = said.get(name) if isinstance(said, dict) else None
    return found if isinstance(found, list) else []


def _release(version: str) -> tuple[int, ...]:
    """Return the release's numbers: a development version counts as the release that it becomes."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()
