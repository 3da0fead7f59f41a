"""What TiledWriter makes of start and descriptor documents before it writes them; no input is changed.

Where TiledWriter would fail (a bare string as tags, a name taken twice), the data are kept, and a note says
so.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tiled_ingest.core.decoding.events import Event, EventPage
from tiled_ingest.core.rows import names
from tiled_ingest.core.writes import Spec

NAME_CHARS_MAX = 200  # of a plan, in the log
SPECS_MAX = 20  # Tiled refuses a node with more
_INT_MAX = 2**53 - 1  # the largest integer that JSON's readers agree on
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_DTYPES = {"number": "<f8", "array": "<f8", "boolean": "|b1", "string": "<U0", "integer": "<i8"}


class Normalised(NamedTuple):
    """A descriptor as it is written, and what is known of it besides.

    Attributes
    ----------
    notes
        For a person.
    renames
        How the keys of its events are renamed.
    untyped
        Arrays (by their new names) of which the descriptor does not say what they are of: `dtype_numpy` is a guess.
    """

    doc: dict[str, Any]
    notes: tuple[str, ...]
    renames: dict[str, str]
    untyped: frozenset[str] = frozenset()


# ---------------------------------------------------------------- JSON that every reader understands


def clipped(value: Any) -> Any:
    """Return `value` with numbers that JSON cannot hold pulled to the nearest that it can; NaN is `None`.

    Integers, floats without a fraction, and infinities stay within +-(2**53 - 1). In text, what PostgreSQL or UTF-8
    cannot hold (NUL, half a surrogate pair) becomes U+FFFD. (TiledWriter hands NaN on, and its JSON encoder writes
    null. It makes 1.7976e308 of an infinity, which PostgreSQL spells out as an integer: the run cannot be read then.)
    """
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {clipped(key): clipped(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [clipped(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else _clipped_number(value)
    if isinstance(value, int | float) and abs(value) > _INT_MAX:
        return _clipped_number(value)
    return value


def _clipped_number(value: float) -> float:
    # So large a float has no fraction: TiledWriter treats it as the integer that it is.
    return _INT_MAX if value > 0 else -_INT_MAX


# ---------------------------------------------------------------- start


def run_metadata(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the run's node keeps of its start document."""
    hidden = ("tiled_access_tags", "tiled_specs")
    return {key: clipped(value) for key, value in start.items() if key not in hidden}


def named(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people call a run by, for its line in the log: `plan` and `scan_id`, as far as its start has them."""
    plan, scan = start.get("plan_name"), start.get("scan_id")
    found: dict[str, Any] = {"plan": plan[:NAME_CHARS_MAX]} if isinstance(plan, str) else {}
    return found | ({"scan_id": scan} if isinstance(scan, int) else {})


def access_tags(start: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the tags for the run and every node below it; `None` if the start has none.

    A bare string is one tag (Tiled would answer 422 to it).
    """
    tags = start.get("tiled_access_tags")
    if tags is None:
        return None
    return tuple(clipped(str(tag)) for tag in (tags if isinstance(tags, list | tuple) else (tags,)))


def specs(start: Mapping[str, Any]) -> tuple[Spec, ...]:
    """Return the run's specs: the start's own first, each name once, then `BlueskyRun` 3.0."""
    asked = start.get("tiled_specs") or ()
    asked = clipped(asked if isinstance(asked, list | tuple) else (asked,))
    own = dict(spec for item in asked if (spec := _spec(item)) and spec[0] != "BlueskyRun")
    return (*list(own.items())[: SPECS_MAX - 1], ("BlueskyRun", "3.0"))


def _spec(item: Any) -> Spec | None:
    """Return a spec given as a name or as a mapping; `None` for what is neither: it must not cost the run."""
    if isinstance(item, Mapping):
        name, version = item.get("name"), item.get("version")
        return (str(name), None if version is None else str(version)) if name else None
    return (item, None) if isinstance(item, str) and item else None


def content_hash(doc: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits, the same for documents of the same content, whatever the order of keys."""
    canonical = json.dumps(doc, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


# ---------------------------------------------------------------- descriptor


def normalise_descriptor(doc: Mapping[str, Any]) -> Normalised:
    """Return the descriptor as TiledWriter's RunNormalizer makes it.

    `dtype_numpy` is filled in from what there is, `object_name` from `object_keys`; missing shapes and places
    of external data get their empty values; keys that would collide with other columns are renamed.
    """
    stream = doc.get("name") or "primary"  # what readers call a stream that has no name
    renames = names.renames(doc["data_keys"])
    notes = tuple(f"Renamed data_key '{old}' to '{new}' in stream {stream}" for old, new in renames.items())
    new = {**doc, "name": stream, "data_keys": _data_keys(doc["data_keys"], renames)}
    if isinstance(doc.get("object_keys"), Mapping):
        new["object_keys"] = _object_keys(doc["object_keys"], renames)
        _name_objects(new["data_keys"], new["object_keys"])
    if isinstance(doc.get("configuration"), Mapping):
        new["configuration"] = {name: _configuration(conf) for name, conf in doc["configuration"].items()}
    untyped = frozenset(renames.get(key, key) for key, spec in doc["data_keys"].items() if _is_untyped(spec))
    return Normalised(new, notes, renames, untyped)


def _is_untyped(spec: Mapping[str, Any]) -> bool:
    return spec.get("dtype") == "array" and not any(map(spec.get, ("dtype_descr", "dtype_numpy", "dtype_str")))


def _data_keys(data_keys: Mapping[str, Any], renames: Mapping[str, str]) -> dict[str, Any]:
    """Return the described keys; renamed ones stand last, as in TiledWriter's documents."""
    kept = [key for key in data_keys if key not in renames]
    described = {renames.get(key, key): _described(data_keys[key]) for key in (*kept, *renames)}
    for key in renames.keys() - names.RESERVED:  # TiledWriter renames those, too, and says so in a note only
        described[renames[key]][names.ORIGINAL] = key
    for spec in described.values():
        if "external" in spec and spec["external"] is None:
            spec["external"] = ""
    return described


def _described(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data key with `dtype_numpy`, from the most precise of four conventions that is there."""
    new = {key: value for key, value in spec.items() if key not in {"dtype_descr", "dtype_str"}}
    structured = [list(field) for field in spec.get("dtype_descr") or ()]
    dtype = structured or new.get("dtype_numpy", spec.get("dtype_str")) or _DTYPES.get(str(spec.get("dtype")))
    if dtype:
        new["dtype_numpy"] = dtype
    if "shape" in new and new["shape"] is None:
        new["shape"] = ()
    return new


def _object_keys(objects: Mapping[str, Any], renames: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: [
            *(key for key in keys if key not in renames),
            *(renames[key] for key in renames if key in keys),
        ]
        for name, keys in objects.items()
    }


def _name_objects(data_keys: dict[str, Any], objects: Mapping[str, Any]) -> None:
    for name, keys in objects.items():
        for key in keys:
            if key in data_keys:
                data_keys[key]["object_name"] = name


def _configuration(conf: Mapping[str, Any]) -> dict[str, Any]:
    if "data_keys" not in conf:
        return dict(conf)
    return {**conf, "data_keys": {key: _described(spec) for key, spec in conf["data_keys"].items()}}


def stream_metadata(descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the stream's node keeps of its first (normalised) descriptor."""
    hidden = ("name", "object_keys", "run_start")
    return {key: clipped(value) for key, value in descriptor.items() if key not in hidden}


def config_update(descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a later (normalised) descriptor of a stream adds to the node's `_config_updates`."""
    kept = {"uid": descriptor["uid"], "time": descriptor["time"]}
    if descriptor.get("configuration"):
        kept["configuration"] = descriptor["configuration"]
    update: dict[str, Any] = clipped(kept)
    return update


# ---------------------------------------------------------------- events


def rename_reserved(event: Event, renames: Mapping[str, str]) -> Event:
    """Return the event under its stream's names; the same object where nothing is renamed (nearly always)."""
    if not renames:
        return event
    data, timestamps, filled = (_renamed(by_key, renames) for by_key in (event.data, event.timestamps, event.filled))
    return Event(event.descriptor, event.uid, event.time, event.seq_num, data, timestamps, filled)


def rename_reserved_page(page: EventPage, renames: Mapping[str, str]) -> EventPage:
    """Return the page under its stream's names, like `rename_reserved`."""
    if not renames:
        return page
    data, timestamps, filled = (_renamed(by_key, renames) for by_key in (page.data, page.timestamps, page.filled))
    return EventPage(page.descriptor, page.uid, page.time, page.seq_num, data, timestamps, filled)


def _renamed(by_key: Mapping[str, Any], renames: Mapping[str, str]) -> dict[str, Any]:
    kept = {key: value for key, value in by_key.items() if key not in renames}
    return kept | {new: by_key[old] for old, new in renames.items() if old in by_key}
