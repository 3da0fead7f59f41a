"""Values as rows of an array: nothing changes silently, however they were cut into batches."""

from typing import Any

import awkward
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiled.structures.array import BuiltinDtype
from tiled.structures.ragged import RaggedStructure

from tiled_ingest.core.rows.blocks import ArrayPlan, Block, block
from tiled_ingest.core.rows.ragged import RaggedPlan, chunk

ELEMENTS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.booleans() | st.none()
ROWS = st.lists(st.lists(ELEMENTS, max_size=5), min_size=1, max_size=5)
DECLARED = st.sampled_from(["<i8", "<f8", "<u2", "<f4", "|b1", None])
TEXTS = st.lists(
    st.lists(st.text(st.characters(exclude_characters="\0"), max_size=9), min_size=1, max_size=3), min_size=1
)


def rows_of(held: Block) -> Any:
    return held.laid(0, len(held))


def settled(values: list[Any], plan: ArrayPlan) -> Block:
    while (found := block(values, plan)).plan != plan:
        assert found.plan.row_shape >= plan.row_shape
        plan = found.plan
    return found


@settings(max_examples=300, deadline=None)
@given(DECLARED, ROWS)
def test_numbers_are_kept_and_what_is_missing_is_nan(declared: str | None, values: list[list[Any]]) -> None:
    held = settled(values, ArrayPlan.begin({"dtype_numpy": declared}, values[0]))
    assert held.misfits == ()
    longest = held.plan.row_shape[0]
    for value, row in zip(values, rows_of(held).tolist(), strict=True):
        wanted = [*value, *[None] * (longest - len(value))]
        assert all(_same(one, other) for one, other in zip(wanted, row, strict=True))


def _same(sent: Any, held: Any) -> bool:
    return held != held if sent is None else bool(held == sent)  # noqa: PLR0124  NaN


@settings(max_examples=200, deadline=None)
@given(DECLARED, ROWS, st.data())
def test_the_plan_does_not_depend_on_how_values_are_cut(declared: Any, values: list[Any], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    begun = ArrayPlan.begin({"dtype_numpy": declared}, values[0])
    first = settled(values[:cut], begun).plan if cut else begun
    second = settled(values[cut:], first).plan if cut < len(values) else first
    # Once wide enough for the later rows, the earlier ones fit without another widening, or lead to the same plan.
    assert settled(values, second).plan == settled(values, settled(values, begun).plan.joined(second)).plan


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_text_is_never_cut(values: list[list[str]]) -> None:
    held = settled(values, ArrayPlan.begin({"dtype_numpy": "<U1"}, values[0]))
    longest = held.plan.row_shape[0]
    assert rows_of(held).tolist() == [[*value, *[""] * (longest - len(value))] for value in values]


def test_what_is_no_row_is_missing_and_said() -> None:
    held = settled([[1, 2], ["a", "b"], [[1, 2]], [1, [2]], [3, 4]], ArrayPlan.begin({"dtype_numpy": "<i8"}, [1, 2]))
    assert [position for position, _ in held.misfits] == [1, 2, 3]
    np.testing.assert_array_equal(rows_of(held), [[1, 2], *[[np.nan] * 2] * 3, [3, 4]])


def test_one_row_cannot_make_all_others_huge() -> None:
    held = settled([[1.0] * 20, [1.0] * 1_000_000], ArrayPlan.begin({}, [1.0] * 20))
    assert held.plan.row_shape == (20,)
    assert [position for position, _ in held.misfits] == [1]


def test_integers_that_floats_cannot_hold_are_told_of() -> None:
    assert settled([[2**53 + 1], [0.5]], ArrayPlan.begin({"dtype_numpy": "<i8"}, [2**53 + 1])).rounded
    assert not settled([[2**53], [0.5]], ArrayPlan.begin({"dtype_numpy": "<i8"}, [2**53])).rounded


NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
NESTED = {
    (None,): st.lists(NUMBERS, max_size=4),
    (None, None): st.lists(st.lists(NUMBERS, max_size=3), max_size=3),
    (2, None): st.lists(st.lists(NUMBERS, max_size=3), min_size=2, max_size=2),
    (None, 2): st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=3),
    (None, 2, None): st.lists(st.lists(st.lists(NUMBERS, max_size=2), min_size=2, max_size=2), max_size=2),
}


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([*NESTED]), st.sampled_from(["<i8", "<f8", "<f4"]))
def test_awkward_reads_a_chunk_as_it_was_sent(data: st.DataObject, shape: tuple[int | None, ...], dtype: str) -> None:
    values = data.draw(st.lists(NESTED[shape], min_size=1, max_size=4))
    plan = RaggedPlan.begin({"shape": list(shape), "dtype_numpy": dtype})
    while (held := chunk(values, plan)).plan != plan:
        plan = held.plan
    assert held.misfits == ()
    row = held.table(0).to_pylist()[0]
    chunks = ((len(values),), *(None if size is None else (size,) for size in shape))
    kind = BuiltinDtype.from_numpy_dtype(plan.dtype)
    form = RaggedStructure(data_type=kind, shape=(len(values), *shape), size=held.size, chunks=chunks).awkward_form
    buffers = {name: np.array(row[name], dtype) for name, dtype in form.expected_from_buffers().items()}
    assert awkward.from_buffers(form, len(values), buffers).to_list() == values
