"""Which runs of a partition Tiled holds as open: asked when Kafka's commit cannot say it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tiled_ingest.core.writes import Done, FindOpenRuns, Json, Missing, OpenRun, Outcome, Path, Unknown
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.session import Params, Session

_PAGE = 100  # Tiled gives at most 300 entries at once


class _FailedError(Exception):
    """A page could not be read: the whole search has that outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


def find_open_runs(session: Session, request: FindOpenRuns) -> Outcome:
    """Find the open runs of a partition, and the largest epoch that each of them bears; read only."""
    try:
        route = "search-deep" if request.levels else "search"
        found = list(_pages(session, route, request.parent, _conditions(request)))
        return Done(tuple(_open_run(session, _parent_of(entry, request), entry) for entry in found))
    except _FailedError as failed:
        return Done(()) if isinstance(failed.outcome, Missing) else failed.outcome
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return Unknown(f"the answer cannot be understood ({type(error).__name__})", 200)


def _conditions(request: FindOpenRuns) -> dict[str, Sequence[str]]:
    wanted = {"state": "open", "source.topic_id": request.topic_id, "source.partition": request.partition}
    return {
        "filter[eq][condition][key]": [f"tiled_ingest.{key}" for key in wanted],
        "filter[eq][condition][value]": [json.dumps(value) for value in wanted.values()],
        "fields": ["metadata"],
    }


def _parent_of(entry: Json, request: FindOpenRuns) -> Path:
    # Ancestors are told from the server's root, but we count from the session's node: the last ones are the same.
    between = entry["attributes"]["ancestors"][-request.levels :] if request.levels else ()
    return (*request.parent, *between)


def _open_run(session: Session, parent: Path, entry: Json) -> OpenRun:
    path = (*parent, entry["id"])
    metadata = entry["attributes"]["metadata"]
    epoch = max(_epoch(metadata), _epoch_of_tables(session, path))
    return OpenRun(path, metadata, epoch, tuple(_descriptors(session, path)))


def _descriptors(session: Session, run: Path) -> Iterator[str]:
    params = {"filter[structure_family][condition][value]": ["container"], "fields": ["metadata"]}
    for stream in _pages(session, "search", run, params):
        said = stream["attributes"]["metadata"]
        named = (said, *(said.get("_config_updates") or ()))
        yield from (descriptor["uid"] for descriptor in named if isinstance(descriptor.get("uid"), str))


def _epoch_of_tables(session: Session, run: Path) -> int:
    # Every table below the run, those that wait to be switched to as well: an epoch must only be larger.
    params = {
        "filter[structure_family][condition][value]": ["table"],
        "fields": ["data_sources"],
        "include_data_sources": "true",
    }
    tables = _pages(session, "search-deep", run, params)
    sources = (source for table in tables for source in table["attributes"].get("data_sources") or [])
    return max((_epoch(source.get("properties")) for source in sources), default=0)


def _epoch(said: Any) -> int:
    """Return the epoch under `tiled_ingest`; 0 where there is none that makes sense."""
    ours = said.get("tiled_ingest") if isinstance(said, dict) else None
    epoch = ours.get("epoch") if isinstance(ours, dict) else None
    return epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else 0


def _pages(session: Session, route: str, path: Path, params: Params) -> Iterator[Json]:
    """Give all entries, page by page."""
    position: dict[str, str] = {}
    while True:
        page = {**params, "page[limit]": _PAGE, "omit_links": "true", **position}
        answer = session.request("GET", route, path, params=page, headers=wire.JSON)
        if not isinstance(answer, httpx.Response):
            raise _FailedError(answer)
        said = wire.load(answer.content)
        yield from said["data"]
        following = _following(said)
        if following is None or following == position:
            return
        position = following


def _following(said: Json) -> dict[str, str] | None:
    """Return where the next page begins. Its address itself may name a host that only the server knows."""
    link = (said.get("links") or {}).get("next")
    if not link:
        return None
    params = httpx.URL(link).params
    return {key: params[key] for key in ("page[cursor]", "page[offset]") if key in params} or None
