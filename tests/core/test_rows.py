"""From events to tables: nothing changes silently, and one call for a column gives what one call a value gives."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiled_ingest.core.decoding.events import Event, EventPage
from tiled_ingest.core.rows.batches import Batch, Misfit, RowBuffer, TableResult
from tiled_ingest.core.rows.cells import converted, one_by_one, wider
from tiled_ingest.core.rows.columns import Columns, column_type

INT, FLOAT, TEXT, BOOL = pa.int64(), pa.float64(), pa.string(), pa.bool_()
SPELLED = {"integer": INT, "number": FLOAT, "string": TEXT, "boolean": BOOL}
WHY = "a misfit"


def event(seq_num: int, data: dict[str, Any], filled: dict[str, bool | str] | None = None) -> Event:
    return Event("d", f"u{seq_num}", float(seq_num), seq_num, data, dict.fromkeys(data, 0.5), filled or {})


def batch_of(*pieces: Event | EventPage) -> Batch:
    buffer = RowBuffer()
    for offset, piece in enumerate(pieces):
        for row in piece.events() if isinstance(piece, EventPage) else (piece,):
            buffer.append(row, 10 * offset, 100)
    return buffer.take()


def columns_of(**types: pa.DataType) -> Columns:
    stamps = {f"ts_{name}": FLOAT for name in types}
    return Columns({"seq_num": INT, "time": FLOAT, **types, **stamps})


def table_of(values: list[Any], data_type: pa.DataType) -> TableResult:
    events = (event(number, {"x": value}) for number, value in enumerate(values))
    return batch_of(*events).to_table(columns_of(x=data_type))


# ---------------------------------------------------------------- the buffer


def test_a_buffer_counts_and_begins_anew() -> None:
    buffer = RowBuffer()
    assert (buffer.rows, buffer.bytes) == (0, 0)
    buffer.append(event(1, {"x": 1}), 7, 100)
    for seq_num in (2, 3):
        buffer.append(event(seq_num, {"x": seq_num}), 9, 25)
    buffer.append(event(4, {"x": 4}), 12, 100)
    assert (buffer.rows, buffer.bytes, buffer.first_offset) == (4, 250, 7)
    batch = buffer.take()
    assert (buffer.rows, buffer.bytes) == (0, 0)
    assert (batch.rows, len(batch), batch.bytes, batch.first_offset, batch.last_offset) == (4, 4, 250, 7, 12)
    assert batch.offsets.tolist() == [7, 9, 9, 12]
    assert batch.keys.seq_num.tolist() == [1, 2, 3, 4]
    assert batch.keys.time.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert [row.uid for row in batch.events()] == ["u1", "u2", "u3", "u4"]
    assert batch.values("x") == [1, 2, 3, 4]


def test_a_batch_does_not_change_when_the_buffer_goes_on() -> None:
    buffer = RowBuffer()
    buffer.append(event(1, {}), 1, 1)
    batch = buffer.take()
    buffer.append(event(2, {}), 2, 1)
    assert batch.rows == 1
    assert batch.offsets.tolist() == [1]


# ---------------------------------------------------------------- tables


def test_events_become_rows() -> None:
    events = [event(1, {"a": 1, "b": "x"}), event(2, {"a": 2}), event(3, {"b": None, "a": 3})]
    result = batch_of(*events).to_table(columns_of(a=INT, b=TEXT))
    assert result.table.to_pylist() == [
        {"seq_num": 1, "time": 1.0, "a": 1, "b": "x", "ts_a": 0.5, "ts_b": 0.5},
        {"seq_num": 2, "time": 2.0, "a": 2, "b": None, "ts_a": 0.5, "ts_b": None},
        {"seq_num": 3, "time": 3.0, "a": 3, "b": None, "ts_a": 0.5, "ts_b": 0.5},
    ]
    assert result.table.schema == columns_of(a=INT, b=TEXT).schema
    assert (result.misfits, result.widen, result.rounded, result.unplanned) == ([], {}, frozenset(), frozenset())


def test_pages_and_their_rows_give_the_same_table() -> None:
    keys: dict[str, list[Any]] = {"a": [1, 2], "m": [np.arange(2), [3, 4]], "img": ["id", [1.5]]}
    stamps = {key: [0.1, 0.2] for key in ("a", "m")}
    page = EventPage("d", ["p", "q"], [1.0, 2.0], [1, 2], keys, stamps, {"img": [False, "id"]})
    types = columns_of(a=INT, m=pa.list_(INT), img=pa.list_(FLOAT), gone=TEXT).types
    columns = Columns(types, frozenset({"img"}))
    from_page, from_rows = batch_of(page).to_table(columns), batch_of(*page.events()).to_table(columns)
    assert from_page == from_rows
    assert from_page.table["img"].to_pylist() == [None, [1.5]]


def test_filled_decides_what_is_a_value() -> None:
    columns = Columns(columns_of(a=INT, img=INT).types, frozenset({"img"}))
    events = [
        event(1, {"a": 1, "img": "id"}),
        event(2, {"a": 2, "img": "id"}, {"img": False}),
        event(3, {"a": 3, "img": 5}, {"img": True}),
        event(4, {"a": "id"}, {"a": False}),
    ]
    table = batch_of(*events).to_table(columns).table
    assert table["img"].to_pylist() == [None, None, 5, None]
    assert table["a"].to_pylist() == [1, 2, 3, None]


def test_values_without_a_column_are_named() -> None:
    columns = Columns(columns_of(a=INT).types, frozenset({"img", "other"}), frozenset({"zarr"}))
    data = {"a": 1, "zarr": [1], "surprise": 2, "nothing": None, "img": "id", "other": 3}
    assert batch_of(event(1, data, {"other": True})).to_table(columns).unplanned == {"surprise", "other"}


def test_the_widened_columns_hold_the_batch() -> None:
    batch = batch_of(event(1, {"x": 1}), event(2, {"x": 0.5}), event(3, {"x": "text"}))
    columns = columns_of(x=INT)
    first = batch.to_table(columns)
    assert first.widen == {"x": FLOAT}
    again = batch.to_table(columns.widened("x", first.widen["x"]))
    assert again.table["x"].to_pylist() == [1.0, 0.5, None]
    assert again.misfits == [Misfit(2, "x", "text in a column of numbers")]


def test_many_blocks_stay_in_order() -> None:
    result = batch_of(*(event(number, {"x": number}) for number in range(2_000))).to_table(columns_of(x=INT))
    assert result.table["x"].to_pylist() == list(range(2_000))


def test_an_empty_batch_is_an_empty_table() -> None:
    assert RowBuffer().take().to_table(columns_of(x=pa.list_(INT))).table.num_rows == 0


# ---------------------------------------------------------------- values, one by one

CASES: list[tuple[pa.DataType, Any, Any]] = [
    (INT, 1, 1),
    (INT, True, 1),
    (INT, 2.0, 2),
    (INT, None, None),
    (INT, np.int8(3), 3),
    (INT, np.array(3), 3),
    (INT, 2**63 - 1, 2**63 - 1),
    (INT, -(2**63), -(2**63)),
    (INT, np.uint64(5), 5),
    (INT, np.float32(2), 2),
    (INT, 0.5, FLOAT),
    (INT, math.nan, FLOAT),
    (INT, math.inf, FLOAT),
    (INT, 1e300, FLOAT),
    (INT, 2**63, FLOAT),
    (INT, np.float32(0.5), FLOAT),
    (INT, np.array(0.5), FLOAT),
    (INT, 2**63 + 1, WHY),
    (INT, 10**400, WHY),
    (INT, "1", WHY),
    (INT, b"1", WHY),
    (INT, [1], pa.list_(INT)),
    (INT, {}, WHY),
    (INT, 1j, WHY),
    (INT, np.array([1]), pa.list_(INT)),
    (FLOAT, 1, 1.0),
    (FLOAT, True, 1.0),
    (FLOAT, 0.5, 0.5),
    (FLOAT, math.inf, math.inf),
    (FLOAT, 2**53 + 1, 2.0**53),
    (FLOAT, np.float32(0.5), 0.5),
    (FLOAT, 2**64, 2.0**64),
    (FLOAT, np.bool_(1), 1.0),
    (FLOAT, 10**400, WHY),
    (FLOAT, "nan", WHY),
    (FLOAT, "OFF", WHY),
    (FLOAT, [0.5], pa.list_(FLOAT)),
    (FLOAT, b"1", WHY),
    (FLOAT, 1j, WHY),
    (BOOL, True, True),
    (BOOL, np.bool_(0), False),
    (BOOL, 1, INT),
    (BOOL, 0, INT),
    (BOOL, 0.0, FLOAT),
    (BOOL, 2**63, FLOAT),
    (BOOL, 2**63 + 1, WHY),
    (BOOL, "x", WHY),
    (BOOL, [True], pa.list_(BOOL)),
    (TEXT, "a", "a"),
    (TEXT, "", ""),
    (TEXT, b"ab", "ab"),
    (TEXT, b"\xff", WHY),
    (TEXT, "\ud800", WHY),
    (TEXT, 1, "1"),
    (TEXT, 0.5, "0.5"),
    (TEXT, True, "true"),
    (TEXT, [1, "a"], '[1, "a"]'),
    (TEXT, 1j, '"1j"'),
    (TEXT, {"a": 1}, '{"a": 1}'),
    (TEXT, np.str_("a"), "a"),
    (TEXT, np.array(["a"]), '["a"]'),
    (pa.list_(INT), [1, None], [1, None]),
    (pa.list_(INT), np.array([1, 2], np.uint8), [1, 2]),
    (pa.list_(INT), (1,), [1]),
    (pa.list_(INT), [True], [1]),
    (pa.list_(INT), 3, [3]),
    (pa.list_(INT), np.array([1], ">i4"), [1]),
    (pa.list_(INT), [], []),
    (pa.list_(INT), [0.5], pa.list_(FLOAT)),
    (pa.list_(INT), np.array([0.5]), pa.list_(FLOAT)),
    (pa.list_(INT), ["a"], WHY),
    (pa.list_(INT), [[1]], WHY),
    (pa.list_(INT), np.ones((1, 1), int), WHY),
    (pa.list_(INT), b"ab", WHY),
    (pa.list_(INT), {1: 2}, WHY),
    (pa.list_(INT), [2**63 + 1], WHY),
    (pa.list_(FLOAT), [1, 0.5], [1.0, 0.5]),
    (pa.list_(FLOAT), np.ones(2), [1.0, 1.0]),
    (pa.list_(FLOAT), "ab", WHY),
    (pa.list_(TEXT), ["a", b"b"], ["a", "b"]),
    (pa.list_(TEXT), "ab", ["ab"]),
    (pa.list_(TEXT), np.array(["a", "b"]), ["a", "b"]),
    (pa.list_(TEXT), [[1, 2.5]], ["[1, 2.5]"]),
    (pa.list_(BOOL), [1], pa.list_(INT)),
    (pa.list_(pa.list_(INT)), np.ones((1, 2), int), [[1, 1]]),
    (pa.list_(pa.list_(INT)), [[0.5]], pa.list_(pa.list_(FLOAT))),
    (pa.list_(pa.list_(INT)), [np.ones(2, int), [3]], [[1, 1], [3]]),
    (pa.list_(pa.list_(INT)), 1, WHY),
]


@pytest.mark.parametrize(
    ("data_type", "value", "expected"), CASES, ids=[f"{kind}-{value!r}"[:40] for kind, value, _ in CASES]
)
def test_a_value_in_a_column(data_type: pa.DataType, value: Any, expected: Any) -> None:
    result = table_of([None, value], data_type)
    held = result.table["x"].to_pylist()[1]
    if isinstance(expected, pa.DataType):
        assert (held, result.widen, result.misfits) == (None, {"x": expected}, [])
    elif expected is WHY:
        assert (held, result.widen, [found.row_index for found in result.misfits]) == (None, {}, [1])
    else:
        assert (held, type(held), result.widen, result.misfits) == (expected, type(expected), {}, [])


def test_nan_is_no_null() -> None:
    for values in ([math.nan], [math.nan, True]):
        array = table_of(values, FLOAT).table["x"]
        assert array.null_count == 0
        assert math.isnan(array[0].as_py())


def test_lost_digits_are_told() -> None:
    assert table_of([2**53 + 1], FLOAT).rounded == {"x"}
    assert table_of([[2**53 + 1]], pa.list_(FLOAT)).rounded == {"x"}
    assert table_of([np.array([2**53 + 1])], pa.list_(FLOAT)).rounded == {"x"}
    assert table_of([2**53, 2**60, 2**63], FLOAT).rounded == frozenset()
    assert table_of([2**53 + 1, True], INT).rounded == frozenset()


def test_timestamps_that_are_none() -> None:
    odd = Event("d", "u", 1.0, 1, {"x": 1}, {"x": "yesterday"})  # type: ignore[dict-item]
    result = batch_of(odd).to_table(columns_of(x=INT))
    assert result.misfits == [Misfit(0, "ts_x", "text in a column of numbers")]


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
    | st.integers(-(2**63), 2**63 - 1).map(np.int64) | st.floats(width=32).map(np.float32)
)  # fmt: skip
TYPES = [INT, FLOAT, BOOL, TEXT]
LISTS = [pa.list_(data_type) for data_type in TYPES]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(TYPES + LISTS), st.lists(VALUES | st.lists(VALUES, max_size=3), max_size=4))
def test_any_values_become_a_column_and_the_two_ways_agree(data_type: pa.DataType, values: list[Any]) -> None:
    quick, slow = converted(values, data_type), one_by_one(values, data_type)
    assert quick.array.type == data_type
    assert len(quick.array) == len(values)
    assert repr(quick.array.to_pylist()) == repr(slow.array.to_pylist())
    assert (quick.misfits, quick.wider, quick.rounded) == (slow.misfits, slow.wider, slow.rounded)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.booleans() | st.integers(-(2**53), 2**53) | st.floats(), max_size=6), st.sampled_from(TYPES[:3]))
def test_numbers_are_kept_whatever_the_column(values: list[Any], data_type: pa.DataType) -> None:
    cells = converted(values, data_type)
    while cells.wider is not None:
        cells = converted(values, cells.wider)
    assert cells.misfits == ()
    assert [
        math.isnan(value) or value == kept for value, kept in zip(values, cells.array.to_pylist(), strict=True)
    ] == [True] * len(values)


def test_what_several_values_ask_for_is_the_widest() -> None:
    assert wider(None, INT) == INT
    assert wider(FLOAT, INT) == FLOAT


# ---------------------------------------------------------------- lists where single values were declared, and texts


@pytest.mark.parametrize(
    ("values", "begun", "expected", "held"),
    [
        ([1.5, [2.5, 3.5]], FLOAT, pa.list_(FLOAT), [[1.5], [2.5, 3.5]]),
        ([1, [2, 3]], INT, pa.list_(INT), [[1], [2, 3]]),
        ([[True, False], True], BOOL, pa.list_(BOOL), [[True, False], [True]]),
        ([1, [2, 0.5]], INT, pa.list_(FLOAT), [[1.0], [2.0, 0.5]]),
        ([[1], 0.5], INT, pa.list_(FLOAT), [[1.0], [0.5]]),
        ([True, np.array([2, 3])], BOOL, pa.list_(INT), [[1], [2, 3]]),
        ([None, []], INT, pa.list_(INT), [None, []]),
    ],
)
def test_lists_among_single_values_make_the_column_one_of_lists(
    values: list[Any], begun: pa.DataType, expected: pa.DataType, held: list[Any]
) -> None:
    for sent in (values, values[::-1]):
        cells = converted(sent, begun)
        assert (cells.wider, cells.misfits) == (expected, ())
        wide = converted(sent, expected)
        assert wide.wider is None
        assert wide.array.to_pylist() == (held if sent is values else held[::-1])


def test_what_is_no_list_of_values_leaves_the_column_as_it_is() -> None:
    values = [1.5, ["a"], [[1.5]], [{}]]
    cells = converted(values, FLOAT)
    assert cells.wider is None
    assert [row for row, _ in cells.misfits] == [1, 2, 3]


def test_a_misfit_in_a_list_counts_wherever_it_stands() -> None:
    big, inexact = 2**63, 2**63 + 1
    for value in ([big, inexact], [inexact, big], [0.5, inexact], [inexact, 0.5]):
        cells = converted([value], pa.list_(INT))
        assert (len(cells.misfits), cells.wider) == (1, None), value


def test_text_where_nobody_said_what_an_array_is_of() -> None:
    assert converted([1.5, "a"], FLOAT, untyped=True).wider == TEXT
    assert converted([1.5, ["a"]], FLOAT, untyped=True).wider == pa.list_(TEXT)
    assert converted([[1.5], "a"], pa.list_(FLOAT), untyped=True).wider == pa.list_(TEXT)


def test_nothing_is_lost_in_text() -> None:
    long = np.arange(2_000.0)
    values = [
        [long, long],
        {"image": long.reshape(40, 50), "n": np.int16(3)},
        long,
        [b"ab", np.str_("c")],
        np.array(["2026-11-23T01:02:03.000000004"], "M8[ns]"),
        [np.complex128(1 + 2j), datetime(2026, 11, 23, tzinfo=UTC), Path("/a")],
        np.array([(1, 0.5)], [("n", "<i4"), ("x", "<f8")]),
    ]
    cells = converted(values, TEXT)
    assert cells.misfits == ()
    assert [json.loads(str(text)) for text in cells.array.to_pylist()] == [
        [long.tolist()] * 2,
        {"image": long.reshape(40, 50).tolist(), "n": 3},
        long.tolist(),
        ["ab", "c"],
        ["2026-11-23T01:02:03.000000004"],
        ["(1+2j)", "2026-11-23 00:00:00+00:00", "/a"],
        [[1, 0.5]],
    ]
    assert [row for row, _ in converted([[b"\xff"], [object()], {(1,): 2}], TEXT).misfits] == [0, 1, 2]


@pytest.mark.parametrize(
    ("spec", "first", "expected"),
    [
        ({"dtype": "number", "shape": [3]}, [1.5, 2.5, 3.5], pa.list_(FLOAT)),
        ({"dtype": "integer", "shape": []}, np.array([1, 2]), pa.list_(INT)),
        ({"dtype": "boolean", "shape": [1]}, (True,), pa.list_(BOOL)),
        ({"dtype": "number", "shape": [3]}, 1.5, FLOAT),
        ({"dtype": "number", "shape": [2, 2]}, [[1.5], [2.5]], FLOAT),
        ({"dtype": "string", "shape": [2]}, ["a", "b"], pa.list_(TEXT)),
        ({"dtype": "string", "shape": [2]}, ["a", 1], TEXT),
        ({"dtype": "string", "shape": [2]}, [], TEXT),
        ({"dtype": "array", "shape": [1]}, 1.5, FLOAT),
        ({"dtype": "array", "shape": [], "dtype_numpy": "<i4"}, np.array(1), INT),
        ({"dtype": "array", "shape": [1]}, [1.5], pa.list_(FLOAT)),
        ({"dtype": "array", "shape": [1]}, None, pa.list_(FLOAT)),
        ({"dtype": "array", "shape": [3]}, 1.5, pa.list_(FLOAT)),
    ],
)
def test_the_first_value_tells_lists_from_single_values(
    spec: dict[str, Any], first: Any, expected: pa.DataType
) -> None:
    assert column_type(spec, first) == expected
