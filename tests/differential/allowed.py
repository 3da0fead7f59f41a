"""Every difference from TiledWriter that is allowed, with its reason. `docs/differences.md` says the same to users.

What is not on this list fails the differential test; what is on it and never met is no longer true, and fails, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .compare import ABSENT, Difference
from .tree import REBUILT

NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|float|double|(large_)?list<item: (?P<of>bool|u?int\d+|float|double)>")
NUMERIC = ("bool", "int64", "double")  # 8 bytes in a row
ROW_BYTES_MAX = 8_000  # docs/values.md


@dataclass(frozen=True)
class Allowed:
    """One kind of difference.

    Attributes
    ----------
    name
        Its heading in the docs.
    met_by_sources
        Whether the sources of the differential test show it (else only generated documents do).
    not_on
        A storage on which there is no tree of TiledWriter's to show it.
    """

    name: str
    fits: Callable[[Difference], bool]
    met_by_sources: bool = True
    not_on: str = ""


def _own_metadata(found: Difference) -> bool:
    return found.node == () and found.field == ("metadata", "tiled_ingest") and found.theirs is ABSENT


def _own_properties(found: Difference) -> bool:
    return found.field[:1] == ("sources",) and found.field[-2:] == ("properties", "tiled_ingest")


def _kind_from_descriptor(found: Difference) -> bool:
    """A column's type: theirs is that of the first batch's values; so a boolean under `integer` is 1 here."""
    if isinstance(found.theirs, bool) and not isinstance(found.ours, bool):
        return "data" in found.field and found.ours == found.theirs
    if found.field[:2] != ("structure", "columns"):
        return False
    theirs, ours = NUMBERS.fullmatch(str(found.theirs)), NUMBERS.fullmatch(str(found.ours))
    return theirs is not None and ours is not None and bool(theirs["of"]) == bool(ours["of"])


def _rebuilt(found: Difference) -> bool:
    """The order of the columns of a table that had to be built anew; which columns there are is compared beside."""
    return found.field == ("structure", "order") and found.ours == REBUILT and found.theirs is not ABSENT


def _own_notes(found: Difference) -> bool:
    """Notes of both, in whatever order; ours may say more."""
    if found.node != () or found.field[:2] != ("metadata", "notes"):
        return False
    theirs = found.theirs if isinstance(found.theirs, list) else []
    return isinstance(found.ours, list) and set(theirs) <= set(found.ours)


def _own_stores(found: Difference) -> bool:
    """A zarr array's rows are in a child of its node, which the node names first; TiledWriter's are below the node."""
    if found.field[:1] != ("sources",) or found.field[-1] != "assets":
        return False
    added = [asset for asset in found.ours if asset not in found.theirs]
    return bool(added) and all("/rebuild-" in asset["data_uri"] for asset in added)


def _wide_rows(found: Difference) -> bool:
    """A table is in parts only if a row of it could be too large for PostgreSQL, and each part is small enough."""
    if found.field != ("parts",):
        return False
    return _row_bytes(found.theirs) > ROW_BYTES_MAX and all(_row_bytes(part) <= ROW_BYTES_MAX for part in found.ours)


def _row_bytes(columns: Mapping[str, str]) -> int:
    return sum(8 if kind in NUMERIC else 24 for kind in columns.values())


def _infinity(found: Difference) -> bool:
    return found.theirs in (1.7976e308, -1.7976e308) and found.ours in (2**53 - 1, 1 - 2**53)


ALLOWED: Sequence[Allowed] = (
    Allowed("Our own facts about a run", _own_metadata),
    Allowed("Our own facts about a table", _own_properties),
    Allowed("The type of a column comes from the descriptor", _kind_from_descriptor),
    Allowed("The columns of a table that was built anew", _rebuilt, met_by_sources=False),
    Allowed("The rows of an array are in a store of ours", _own_stores),
    Allowed("A table of wide rows", _wide_rows, not_on="postgresql"),
    Allowed("An infinity in metadata", _infinity, not_on="postgresql"),
    Allowed("Notes", _own_notes, met_by_sources=False),
)


def sorted_out(found: Sequence[Difference]) -> tuple[set[str], list[Difference]]:
    """Return the names of the allowed differences that were met, and those that are not allowed."""
    met: set[str] = set()
    unlisted = []
    for difference in found:
        names = {allowed.name for allowed in ALLOWED if allowed.fits(difference)}
        met |= names
        if not names:
            unlisted.append(difference)
    return met, unlisted
