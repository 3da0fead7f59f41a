"""The nodes of external data over HTTP: looked at, made, brought up to date; nothing of the files is ever opened."""

from dataclasses import dataclass
from typing import Any

from tiled_ingest.core.writes import (
    Denied,
    Done,
    Exists,
    Json,
    Missing,
    Outcome,
    Registered,
    RegisterExternal,
    Rejected,
)
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.answers import clean
from tiled_ingest.tiled.formats import Built, Formats, NotInstalledError, UnusableError
from tiled_ingest.tiled.session import Params, Session, understood

_TOLD = ("structure_family", "structure", "mimetype", "parameters", "properties")


@dataclass(frozen=True, slots=True)
class _Held:
    """A data source as Tiled holds it."""

    source: Json
    uris: frozenset[str]

    @property
    def size(self) -> int:
        shape = (self.source.get("structure") or {}).get("shape")
        return int(shape[0]) if shape else len(self.uris)


def register(session: Session, request: RegisterExternal, formats: Formats) -> Outcome:
    """Perform the request: at most a look, and a write if something is missing."""
    try:
        built = formats.build(request)
    except UnusableError as error:
        return Rejected(clean(str(error)), 422)
    except NotInstalledError as error:
        return Denied(str(error), 0)
    if request.known is not None:
        return _grown(session, request, built, request.known)
    found = _look(session, request)
    if isinstance(found, Missing):
        found = _create(session, request, built)
        if isinstance(found, Exists):  # our own, whose answer was lost, or an earlier claim's
            found = _look(session, request)
    if not isinstance(found, Done):
        return found
    return found if isinstance(found.value, Registered) else _agreed(session, request, built, found.value)


def _look(session: Session, request: RegisterExternal) -> Outcome:
    params: Params = {"include_data_sources": "true", "omit_links": "true"}
    answer = session.request("GET", "metadata", request.path, params=params, headers=wire.JSON)
    found = understood(answer, _held)
    if found == Done(None):
        return Rejected(f"{request.path[-1]!r} is taken by a node of another kind", 409)
    return found


def _held(content: bytes) -> _Held | None:
    attributes = wire.load(content)["data"]["attributes"]
    sources = attributes.get("data_sources") or []
    if len(sources) != 1 or sources[0].get("management") != "external":
        return None
    return _Held(sources[0], frozenset(asset["data_uri"] for asset in sources[0].get("assets") or ()))


def _create(session: Session, request: RegisterExternal, built: Built) -> Outcome:
    body = wire.external(request, built.source)
    if not request.path[-1] or "/" in request.path[-1]:
        return Rejected("a node's key may not be empty, nor hold a slash", 422)
    answer = session.request("POST", "register", request.path[:-1], headers=wire.JSON, content=wire.dump(body))
    return understood(answer, lambda content: _registered(built, wire.load(content)["data_sources"][0]["id"]))


def _registered(built: Built, number: int, size: int | None = None) -> Registered:
    return Registered(number, built.size if size is None else size, len(built.assets), built.metadata, built.notes)


def _grown(session: Session, request: RegisterExternal, built: Built, known: Registered) -> Outcome:
    """Write what is new since Tiled's last answer to us; nothing if it knew more than we do."""
    news = built.assets[known.assets :]
    if built.size <= known.size and not news:
        return Done(_registered(built, known.id, known.size))
    return _put(session, request, built, known.id, news, known.size)


def _agreed(session: Session, request: RegisterExternal, built: Built, held: _Held) -> Outcome:
    """Write what differs from what Tiled holds; a smaller shape over a larger one only if it is exact."""
    number = int(held.source["id"])
    news = [asset for asset in built.assets if asset["data_uri"] not in held.uris]
    if held.size > built.size and not request.exact:
        return Done(_registered(built, number, held.size))
    if not news and all(held.source.get(name) == built.source[name] for name in _TOLD):
        return Done(_registered(built, number))
    return _put(session, request, built, number, news, held.size)


def _put(
    session: Session, request: RegisterExternal, built: Built, number: int, news: list[Json], size: int
) -> Outcome:
    # Tiled adds the assets that are named to those that it has: only new ones are sent, each costs it two queries.
    content = wire.dump({"data_source": {**built.source, "id": number, "assets": news}})
    params = _patch(built, size)
    answer = session.request("PUT", "data_source", request.path, params=params, headers=wire.JSON, content=content)
    return understood(answer, lambda _: _registered(built, number))


def _patch(built: Built, size: int) -> Params | None:
    """Say which rows are new, for those who watch the array grow."""
    shape: list[int] = (built.source.get("structure") or {}).get("shape") or []
    if not shape or shape[0] <= size:
        return None
    told: dict[str, Any] = {"patch_shape": [shape[0] - size, *shape[1:]], "patch_offset": [size, *[0] * len(shape[1:])]}
    return {name: ",".join(map(str, numbers)) for name, numbers in told.items()}
