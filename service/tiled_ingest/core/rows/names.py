"""Names under which the values of data keys can be stored: as columns in SQL, as nodes, beside each other.

A name that both take stays as it is, which is nearly always so. Tiled refuses the others, or mixes them up, and
TiledWriter then fails; here the key gets a name made of it, and the data key keeps its own as `original_name`.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

RESERVED = ("time", "seq_num")  # columns of every table
ORIGINAL = "original_name"  # what a renamed data key was called
COLUMN_BYTES_MAX = 60  # PostgreSQL's 63, less the `ts_` of the time stamps
_STEM_CHARS_MAX = 48
_FORBIDDEN = re.compile(r"""['"`;\\%()=+/]|--""")  # Tiled's list; and the slash, which ends a node's key
_WORD = re.compile(r"[a-zA-Z]")  # Tiled refuses other letters, and on PostgreSQL a leading underscore
_TABLES = re.compile(r"internal(_[0-9]+)?")
# PostgreSQL and SQLite have columns of these names in every table, and Tiled sorts by DuckDB's `rowid`.
_SYSTEM = frozenset(
    ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid", "rowid", "_rowid_", "_dataset_id", "_partition_id"]
)


def renames(data_keys: Mapping[str, Any]) -> dict[str, str]:
    """Return new names for those keys that cannot be stored under their own; each is a function of the keys alone.

    `time` and `seq_num` become `time_` and `seq_num_`, as TiledWriter has it, and so does an array called like a table.
    Any other name is its own letters and a hash of it; `ts_x` beside `x`, whose time stamps are called so, begins with
    `key_`, since readers take any `ts_` for time stamps.
    """
    stamps = {f"ts_{key}".lower() for key in data_keys}
    names = _Names({*RESERVED, *stamps, *(key.lower() for key in data_keys)})
    found: dict[str, str] = {}
    for key in (*RESERVED, *data_keys):
        if key in data_keys and key not in found and _shares(key, data_keys[key], stamps):
            found[key] = (
                names.longer(key) if key in RESERVED or key.lower() not in stamps else names.made_of(f"key_{key}")
            )
    seen = set(RESERVED)
    for key, spec in data_keys.items():
        external = "external" in spec
        # Of an external key there is only a node, and nodes' names may differ in case alone.
        if key not in found and (_unusable(key, external=external) or (not external and key.lower() in seen)):
            found[key] = names.made_of(key)
        if not external:
            seen.add(key.lower())
    return found


def _shares(key: str, spec: Mapping[str, Any], stamps: set[str]) -> bool:
    return key in RESERVED or key.lower() in stamps or _is_table(key, spec)


def _is_table(key: str, spec: Mapping[str, Any]) -> bool:
    """Whether a node of this key would stand where the stream's table does."""
    return bool(_TABLES.fullmatch(key)) and (spec.get("dtype") == "array" or "external" in spec)


def beside(key: str, spec: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return a name for a key of a later descriptor: its own, unless a known key has its node or its columns."""
    nodes = {name for other in known for name in (other, f"ts_{other}")}
    columns = {name.lower() for other in known if "external" not in known[other] for name in (other, f"ts_{other}")}
    clash = key in nodes or ("external" not in spec and columns & {key.lower(), f"ts_{key}".lower()})
    return _Names({name.lower() for name in nodes}).made_of(key) if clash else key


def _unusable(key: str, *, external: bool) -> bool:
    """Whether storage refuses the name: of an external key it is only a node's, of any other a column's, too."""
    if not key.isprintable() or not key.strip(".") or "/" in key:
        return True
    if external:
        return False
    nbytes = max(len(key.encode()), len(key.lower().encode()))
    forbidden = _FORBIDDEN.search(key) or not _WORD.match(key)
    return bool(forbidden) or nbytes > COLUMN_BYTES_MAX or key.lower() in _SYSTEM


class _Names:
    """Makes names that nobody has."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def longer(self, key: str) -> str:
        return self._first_free(f"{key}{'_' * length}" for length in range(1, len(self._taken) + 2))

    def made_of(self, key: str) -> str:
        digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        stem = re.sub(r"[^a-zA-Z0-9]+", "_", key).strip("_")[:_STEM_CHARS_MAX]
        stem = stem if stem[:1].isalpha() else f"key_{stem}".rstrip("_")
        return self._first_free(f"{stem}_{digest[:length]}" for length in range(8, 33))

    def _first_free(self, names: Iterator[str]) -> str:
        # A name stands for two columns: the values', and the time stamps'.
        free = next(name for name in names if not self._taken & {name.lower(), f"ts_{name}".lower()})
        self._taken |= {free.lower(), f"ts_{free}".lower()}
        return free
