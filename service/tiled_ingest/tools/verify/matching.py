"""Two sets of rows, compared: which are missing, doubled, changed, foreign, out of place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .codes import Codes, mixed

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
KEYS = ("seq_num", "time")


@dataclass(frozen=True, slots=True)
class Matched:
    """The result, as indices of rows.

    Attributes
    ----------
    missing
        Of expected rows.
    changed
        Pairs (expected row, found row) that belong together, and differ.
    duplicated, foreign
        Of found rows.
    misplaced
        Of expected rows that stand elsewhere, where the order counts.
    spared
        How many found rows are rows that need not be there.
    """

    missing: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    changed: list[tuple[int, int]] = field(default_factory=list)
    duplicated: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    foreign: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    misplaced: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    spared: int = 0


def match(expected: Mapping[str, Codes], found: Mapping[str, Codes], optional: Bools, *, ordered: bool) -> Matched:
    """Compare rows, given as codes of the same columns.

    Parameters
    ----------
    optional
        Which of the expected rows need not be there, shape (rows expected,).
    ordered
        Whether the order counts.
    """
    if not optional.any() and _are_equal(expected, found):
        return Matched()
    digests, there = _digests(expected), _digests(found)
    lost, surplus = _difference(digests[~optional], there)
    missing = np.flatnonzero(~optional)[lost]
    surplus, spared = _spare(digests[optional], there, surplus)
    doubled = np.isin(there[surplus], digests)
    changed, missing, foreign = _paired(expected, found, missing, surplus[~doubled])
    misplaced = np.empty(0, np.int64)
    if ordered and not (len(missing) or len(surplus) or changed or spared):
        misplaced = np.flatnonzero(digests[~optional] != there)
    return Matched(missing, changed, surplus[doubled], foreign, misplaced, spared)


def _are_equal(expected: Mapping[str, Codes], found: Mapping[str, Codes]) -> bool:
    return all(np.array_equal(codes, found[name]) for name, codes in expected.items())


def _digests(columns: Mapping[str, Codes]) -> Codes:
    """Return one number for each row, from all its columns."""
    made = np.zeros(len(next(iter(columns.values()))), np.uint64)
    for name in sorted(columns):
        made = mixed(made * np.uint64(31) + columns[name])
    return made


def _difference(wanted: Codes, there: Codes) -> tuple[Numbers, Numbers]:
    """Return which rows of `wanted` are not in `there`, and which of `there` are too many; both are multisets."""
    return _beyond(wanted, there), _beyond(there, wanted)


def _beyond(rows: Codes, others: Codes) -> Numbers:
    """Return the indices of rows that occur more often than among the others: the last of each kind."""
    order = np.argsort(rows, kind="stable")
    arranged = rows[order]
    nth = np.arange(len(rows)) - np.searchsorted(arranged, arranged, side="left")
    others = np.sort(others)
    allowed = np.searchsorted(others, arranged, side="right") - np.searchsorted(others, arranged, side="left")
    return np.sort(order[nth >= allowed])


def _spare(optional: Codes, there: Codes, surplus: Numbers) -> tuple[Numbers, int]:
    """Take those rows off the surplus that may be there."""
    if not len(optional) or not len(surplus):
        return surplus, 0
    left = surplus[_beyond(there[surplus], optional)]
    return left, len(surplus) - len(left)


def _paired(
    expected: Mapping[str, Codes], found: Mapping[str, Codes], missing: Numbers, surplus: Numbers
) -> tuple[list[tuple[int, int]], Numbers, Numbers]:
    """Pair missing with surplus rows: those of the same event (`seq_num` and `time`), then of the same number."""
    changed: list[tuple[int, int]] = []
    for names in (KEYS, KEYS[:1], KEYS[1:]):
        if not (len(missing) and len(surplus) and set(names) <= expected.keys()):
            continue
        waiting: dict[bytes, list[int]] = {}
        for row in surplus[::-1]:
            waiting.setdefault(_key(found, names, row), []).append(int(row))
        pairs = [(int(row), queue.pop()) for row in missing if (queue := waiting.get(_key(expected, names, row)))]
        changed += pairs
        missing = np.setdiff1d(missing, [pair[0] for pair in pairs])
        surplus = np.setdiff1d(surplus, [pair[1] for pair in pairs])
    return changed, missing, surplus


def _key(columns: Mapping[str, Codes], names: tuple[str, ...], row: Any) -> bytes:
    return b"".join(columns[name][row].tobytes() for name in names)
