"""A number is the same in another type, or it is said that it is not: against Python's own arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiled_ingest.core.rows.blocks import ArrayPlan, block
from tiled_ingest.core.rows.exact import kept_in, rounded_from
from tiled_ingest.core.rows.ragged import RaggedPlan, chunk

INTEGERS = ("|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
WIDTHS: dict[int, Any] = {2: 16, 4: 32, 8: 64}
TYPES = ("|b1", *INTEGERS, "<f2", "<f4", "<f8")
EDGES = [sign * 2**power + off for power in (7, 8, 11, 15, 16, 24, 31, 32, 53, 63, 64) for sign in (1, -1) for off in
         (-1, 0, 1)]  # fmt: skip


def exactly(number: Any) -> Fraction | str:
    return Fraction(number) if np.isfinite(number) else str(float(number))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    dtype: np.dtype[Any] = np.dtype(draw(st.sampled_from(TYPES)))
    numbers: st.SearchStrategy[Any]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        edges = [edge for edge in EDGES if limits.min <= edge <= limits.max]
        numbers = st.sampled_from(edges) | st.integers(int(limits.min), int(limits.max))
    elif dtype.kind == "f":
        numbers = st.floats(width=WIDTHS[dtype.itemsize]) | st.sampled_from([0.0, -1.0, 2.0**15, -(2.0**15)])
    else:
        numbers = st.booleans()
    return np.array(draw(st.lists(numbers, min_size=1, max_size=4)), dtype)


@settings(max_examples=1_000, deadline=None)
@given(arrays(), st.sampled_from(TYPES))
def test_what_is_kept_is_the_same_number(numbers: np.ndarray[Any, Any], dtype: str) -> None:
    with np.errstate(all="ignore"):
        there = numbers.astype(dtype)
    same = [exactly(one) == exactly(other) for one, other in zip(numbers.tolist(), there.tolist(), strict=True)]
    if kept_in(numbers, np.dtype(dtype)):
        assert all(same)
    elif all(same):  # it may be too careful only where the conversion is undefined, and came out right by luck
        assert np.dtype(dtype).kind in "iu"
        assert numbers.dtype.kind == "f"


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(TYPES), st.lists(arrays(), min_size=1, max_size=4))
def test_a_block_holds_the_numbers_that_were_sent_or_says_that_it_does_not(declared: str, rows: list[Any]) -> None:
    rows = [np.resize(row, 3) for row in rows]
    plan = ArrayPlan.begin({"dtype_numpy": declared}, rows[0])
    while (held := block(rows, plan)).plan != plan:
        plan = held.plan
    assert held.misfits == ()
    sent = [exactly(number) for row in rows for number in row.tolist()]
    assert held.rounded or [exactly(number) for number in held.laid(0, len(held)).ravel().tolist()] == sent


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([*INTEGERS, "<f4", "<f8"]), st.lists(arrays(), min_size=1, max_size=4))
def test_a_ragged_chunk_holds_the_numbers_that_were_sent_or_says_that_it_does_not(
    declared: str, rows: list[Any]
) -> None:
    plan = RaggedPlan.begin({"shape": [None], "dtype_numpy": declared})
    while (held := chunk(rows, plan)).plan != plan:
        plan = held.plan
    assert held.misfits == ()
    sent = [exactly(number) for row in rows for number in row.tolist()]
    assert held.rounded or [exactly(number) for number in held.columns["node1-data"].tolist()] == sent


@pytest.mark.parametrize(
    ("declared", "value", "dtype"),
    [
        ("<i8", [2**63] * 20, "<f8"),
        ("<u8", [-1] * 20, "<f8"),
        ("<u2", np.full(20, -1, np.int16), "<i4"),
        ("<i2", np.full(20, 40_000, np.uint16), "<i4"),
        ("|i1", np.full(20, 200, np.uint8), "<i2"),
        ("|u1", np.full(20, -1, np.int8), "<i2"),
    ],
)
def test_no_integer_wraps_around(declared: str, value: Any, dtype: str) -> None:
    plan = ArrayPlan.begin({"dtype_numpy": declared}, value)
    held = block([value], block([value], plan).plan)
    assert held.plan.dtype == np.dtype(dtype)
    assert held.laid(0, len(held)).tolist() == [list(value)]
    assert not held.rounded


@pytest.mark.parametrize(("declared", "value"), [("<i8", [2**63] * 3), ("<u4", [-1]), ("|i1", np.array([200], "u1"))])
def test_no_ragged_integer_wraps_around(declared: str, value: Any) -> None:
    plan = RaggedPlan.begin({"shape": [None], "dtype_numpy": declared})
    held = chunk([value], chunk([value], plan).plan)
    assert held.columns["node1-data"].tolist() == list(value)
    assert not held.rounded


@pytest.mark.parametrize("value", [[-1, 2**63 + 1], [2**53 + 1, None], [2**53 + 1, 0.5], [2**70 + 1]])
def test_digits_that_numpy_drops_are_noticed(value: list[Any]) -> None:
    for declared in ("<u8", "<i8", "<f8"):
        plan = ArrayPlan.begin({"dtype_numpy": declared}, value)
        while (held := block([value], plan)).plan != plan:
            plan = held.plan
        assert held.rounded, declared
    assert not rounded_from([2**53, 2**60, 0.5], np.array([2**53, 2**60, 0.5]))


def test_a_ragged_array_that_is_not_said_to_be_of_floats_keeps_integers() -> None:
    spec = {"shape": [None], "dtype_numpy": "<f8"}
    value = [2**53 + 1]
    plan = RaggedPlan.begin(spec, value, untyped=True)
    assert chunk([value], plan).columns["node1-data"].tolist() == value
    assert RaggedPlan.begin(spec, [0.5], untyped=True).dtype == np.float64
    assert RaggedPlan.begin(spec, [], untyped=True).dtype == np.float64
    assert chunk([value], RaggedPlan.begin(spec)).rounded, "declared as floats"
    assert chunk([[2**64 - 1]], RaggedPlan.begin({"shape": [None], "dtype_numpy": "<u8"})).rounded, (
        "SQL has no such type"
    )
