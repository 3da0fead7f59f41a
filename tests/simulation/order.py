"""Order: of rows where the storage keeps it, of arrays, of frames, and of dead letters."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .kafka_model import Letter

KEEPS_ORDER = frozenset({"duckdb"})  # PostgreSQL returns rows as it likes
# What comes after its run was given up is refused at once; what waited then, and so is older, when the run is closed.
UNORDERED = frozenset({"late"})


def misplaced(held: Sequence[Any], wanted: Sequence[Any]) -> str:
    """Say where two lists of the same things part ways; empty if they do not."""
    places = enumerate(zip(held, wanted, strict=False))
    return next((f"at {at} is {found}, not {due}" for at, (found, due) in places if found != due), "")


def is_part(held: Iterable[Any], wanted: Iterable[Any]) -> bool:
    """Whether `held` is `wanted` with some left out, in its order."""
    rest = iter(wanted)
    return all(any(found == due for due in rest) for found in held)


def letters_out_of_order(letters: Iterable[Letter], run_of: dict[Any, str]) -> Iterator[str]:
    """Name the letters that came after one of a later document of their run with the same code.

    Only the first of each position counts: what a crash had sent again says nothing, whatever its code is then.
    Documents without a run are ordered among those that were refused for the same run, or for none.

    Parameters
    ----------
    letters
        All, as they came.
    run_of
        By (home, offset).
    """
    met: set[Any] = set()
    latest: dict[Any, int] = {}
    for letter in letters:
        home, offset = letter.record.home, letter.record.offset
        known, group = (home, offset), (home, run_of[home, offset] or letter.run, letter.code)
        again = known in met
        met.add(known)
        if again or letter.code in UNORDERED:
            continue
        if offset < latest.get(group, -1):
            yield f"the dead letter of {home}@{offset} came after that of {latest[group]}: {letter.code} {letter.run}"
        latest[group] = max(offset, latest.get(group, -1))
