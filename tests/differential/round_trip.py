"""A reader of our own: is everything that was published in Tiled? It knows neither writer.

Values, timestamps, start and stop are compared by the rig's reader; here follow configurations and files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.rig.reader import compare_run

from .recorder import Documents


def not_as_published(place: Any, documents: Documents) -> list[str]:
    """Return what of one run's documents is not in Tiled, or otherwise."""
    single = list(_unpacked(documents))
    uid = str(documents[0][1]["uid"])
    found = compare_run(place, uid, single)
    run = place[uid]
    names = {doc["uid"]: doc["name"] for name, doc in single if name == "descriptor"}
    found += _configurations(run, [doc for name, doc in single if name == "descriptor"])
    found += _assets(run, single, names)
    return found


def _unpacked(documents: Documents) -> Iterator[tuple[str, Any]]:
    """Replace the deprecated bulk of events by the events."""
    for name, doc in documents:
        if name == "bulk_events":
            yield from (("event", event) for events in doc.values() for event in events)
        else:
            yield name, doc


def _configurations(run: Any, descriptors: list[Any]) -> Iterator[str]:
    """Each descriptor's values and timestamps: the first one's in the stream, later ones' in its updates."""
    first: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for doc in descriptors:
        name = doc["name"]
        metadata = run[name].metadata
        if name not in first:
            first[name] = doc
            held = metadata
        else:
            updates = metadata.get("_config_updates", [])
            number = counts[name] = counts.get(name, 0) + 1
            held = updates[number - 1] if number <= len(updates) else {}
        if held.get("uid") != doc["uid"] or held.get("time") != doc["time"]:
            yield f"stream {name!r}: descriptor {doc['uid']} is missing"
        for device, published in (doc.get("configuration") or {}).items():
            there = held.get("configuration", {}).get(device, {})
            for part in ("data", "timestamps"):
                if _listed(there.get(part, {})) != _listed(published.get(part, {})):
                    yield f"stream {name!r}: {part} of the configuration of {device!r} differ"


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _assets(run: Any, documents: list[Any], names: Mapping[str, str]) -> Iterator[str]:
    """The files that the documents name for a key belong to its node: those and no others, in their order."""
    resources = {doc["uid"]: doc for name, doc in documents if name in ("resource", "stream_resource")}
    wanted: dict[tuple[str, str], list[str]] = {}
    for stream, key, resource in dict.fromkeys(_references(documents, names)):
        wanted.setdefault((stream, key), []).append(_path_of(resources[resource]))
    for (stream, key), paths in wanted.items():
        if key not in run[stream].base:
            yield f"stream {stream!r}: no node {key!r}"
            continue
        assets = sorted(run[stream].base[key].data_sources()[0].assets, key=lambda asset: asset.num or 0)
        found = [_named(urlsplit(asset.data_uri).path, paths) for asset in assets]
        if list(dict.fromkeys(found)) != list(dict.fromkeys(paths)):
            yield f"stream {stream!r}, {key!r}: files {found} instead of {paths}"
        if len({asset.data_uri for asset in assets}) != len(assets):
            yield f"stream {stream!r}, {key!r}: a file is there twice"
        if [asset.num for asset in assets] not in ([None], [*range(len(assets))]):
            yield f"stream {stream!r}, {key!r}: files are numbered {[asset.num for asset in assets]}"


def _named(path: str, resources: list[str]) -> str:
    """Return which of the resources a file belongs to: it is the file, or the folder or beginning of a sequence's."""
    fitting = [resource for resource in resources if path.startswith(resource)]
    return max(fitting, key=len, default=path)


def _references(documents: list[Any], names: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Stream, data key and resource of each datum that the documents name."""
    keys = {doc["uid"]: doc["data_key"] for name, doc in documents if name == "stream_resource"}
    datums = {doc["datum_id"]: doc["resource"] for name, doc in documents if name == "datum"}
    for name, doc in documents:
        if name == "datum_page":
            datums |= dict.fromkeys(doc["datum_id"], doc["resource"])
    for name, doc in documents:
        if name == "stream_datum":
            yield names[doc["descriptor"]], keys[doc["stream_resource"]], doc["stream_resource"]
        elif name == "event":
            for key, value in doc["data"].items():
                if isinstance(value, str) and value in datums:
                    yield names[doc["descriptor"]], key, datums[value]


def _path_of(resource: Mapping[str, Any]) -> str:
    """The path of the file, or of the folder with a sequence's files."""
    if "uri" in resource:
        return str(urlsplit(resource["uri"]).path).rstrip("/")
    return f"{str(resource['root']).rstrip('/')}/{str(resource['resource_path']).lstrip('/')}"
