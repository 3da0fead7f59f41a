"""Start, stop and descriptor documents as Tiled keeps them: what must be equal, and what may be added.

JSON has its limits, and TiledWriter's layout adds what a descriptor leaves out: numbers are compared within
+-(2**53 - 1), NaN is null, tuples are lists; `dtype_numpy` and `object_name` may have been added to a data key.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tiled_ingest.tools.decoding import Document

_INT_MAX = 2**53 - 1
_HIDDEN_IN_START = frozenset({"tiled_access_tags", "tiled_specs"})
_HIDDEN_IN_DESCRIPTOR = frozenset({"name", "object_keys", "run_start"})
_ORIGINAL = "original_name"  # what a renamed data key was called
_ADDED = frozenset({"dtype_numpy", "object_name", _ORIGINAL})
_REPLACED = frozenset({"dtype_descr", "dtype_str"})
_RENAMED = re.compile(r"Renamed data_key '(?P<old>.*)' to '(?P<new>.*)' in stream (?P<stream>.*?)\.?")
_MISSING = object()
_SHOWN_CHARS = 60


def plain(value: Any) -> Any:
    """Return a value as JSON carries it in Tiled."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")  # PostgreSQL can hold no NUL
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, int | None) else str(value)
    return _number(value)


def _number(value: float) -> float | None:
    if math.isnan(value):
        return None
    # So large a float has no fraction, and is clipped like an integer; infinities become a float that is as large.
    return min(max(value, -_INT_MAX), _INT_MAX)


def shown(value: Any) -> str:
    """Return a value for a sentence: short, printable."""
    text = "nothing" if value is _MISSING else ascii(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def start_differences(found: Any, start: Document) -> list[str]:
    """Return how a run's `start` differs from the start document."""
    wanted = {key: value for key, value in start.items() if key not in _HIDDEN_IN_START}
    return [f"start, {text}" for text in _unequal(found, wanted)]


def stop_differences(found: Any, stop: Document) -> list[str]:
    """Return how a run's `stop` differs from the stop document."""
    return [f"stop, {text}" for text in _unequal(found, stop)]


def stream_differences(
    found: Mapping[str, Any], descriptors: Sequence[Document], renames: Mapping[str, str]
) -> list[str]:
    """Return how a stream's metadata differ from its descriptors."""
    if not descriptors:
        return []
    first = {key: value for key, value in descriptors[0].items() if key not in _HIDDEN_IN_DESCRIPTOR}
    special = {"data_keys", "configuration"}
    differences = _unequal(found, {key: value for key, value in first.items() if key not in special}, whole=False)
    differences += _keys_differ("data_keys", found.get("data_keys"), first["data_keys"], renames)
    differences += _configuration_differs(found.get("configuration"), first.get("configuration"))
    updates = found.get("_config_updates") or []
    differences += _updates_differ(updates, descriptors[1:])
    return differences


def _updates_differ(found: Any, later: Sequence[Document]) -> list[str]:
    uids = [update.get("uid") for update in found] if isinstance(found, list) else []
    if uids != [plain(descriptor["uid"]) for descriptor in later]:
        return [f"_config_updates: {len(uids)} updates instead of {len(later)}, or others"]
    return [
        f"_config_updates, {text}"
        for update, descriptor in zip(found, later, strict=True)
        for text in _configuration_differs(update.get("configuration"), descriptor.get("configuration"))
    ]


def _configuration_differs(found: Any, wanted: Any) -> list[str]:
    if not wanted:
        return []
    differences = []
    for name, conf in wanted.items():
        there = (found or {}).get(name, {})
        rest = {key: value for key, value in conf.items() if key != "data_keys"}
        differences += [f"configuration of {name}, {text}" for text in _unequal(there, rest, whole=False)]
        differences += _keys_differ(f"configuration of {name}", there.get("data_keys"), conf.get("data_keys") or {}, {})
    return differences


def _keys_differ(what: str, found: Any, wanted: Mapping[str, Any], renames: Mapping[str, str]) -> list[str]:
    found = found if isinstance(found, Mapping) else {}
    named = {renames.get(key, key): spec for key, spec in wanted.items()}
    differences = [f"{what}: {shown(key)} is missing" for key in named.keys() - found.keys()]
    differences += [f"{what}: {shown(key)} was not published" for key in found.keys() - named.keys()]
    for key in named.keys() & found.keys():
        kept = {field: value for field, value in named[key].items() if field not in _REPLACED | _ADDED}
        there = {field: value for field, value in found[key].items() if field not in _REPLACED | _ADDED}
        differences += [f"{what}, {shown(key)}, {text}" for text in _unequal(there, _filled_in(kept))]
    return sorted(differences)


def _filled_in(spec: Mapping[str, Any]) -> dict[str, Any]:
    new = dict(spec)
    if "shape" in new and new["shape"] is None:
        new["shape"] = []
    if "external" in new and new["external"] is None:
        new["external"] = ""
    return new


def _unequal(found: Any, wanted: Mapping[str, Any], *, whole: bool = True) -> list[str]:
    """Return the keys whose values differ; `whole`: and those that were not published."""
    found = found if isinstance(found, Mapping) else {}
    keys = sorted({*wanted, *(found if whole else ())})
    pairs = [(key, found.get(key, _MISSING), wanted.get(key, _MISSING)) for key in keys]
    return [
        f"{shown(key)}: {shown(there)} instead of {shown(should)}"
        for key, there, should in pairs
        if there is _MISSING or should is _MISSING or plain(there) != plain(should)
    ]


def renames_of(notes: Iterable[Any], stream: str, data_keys: Any) -> dict[str, str]:
    """Return under which names a stream's data keys are, as the run's notes and the data keys themselves tell it."""
    described = data_keys if isinstance(data_keys, Mapping) else {}
    told = {spec[_ORIGINAL]: key for key, spec in described.items() if isinstance(spec, Mapping) and _ORIGINAL in spec}
    matches = (_RENAMED.fullmatch(note) for note in notes if isinstance(note, str))
    noted = (match for match in matches if match and match["stream"] in {stream, f"'{stream}'"})
    return {match["old"]: match["new"] for match in noted} | told
