"""The plan of a table: TiledWriter's names and order, the descriptor's types, and as many orders as it takes."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.rows.columns import Columns, column_type, numpy_kind, store


def data_key(dtype: str = "number", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [], "source": "s", **more}


def event(data: dict[str, Any], filled: dict[str, bool | str] | None = None) -> Event:
    return Event("d", "u", 1.0, 1, data, dict.fromkeys(data, 1.0), filled or {})


def plan(keys: dict[str, Any], first: Event, elsewhere: tuple[str, ...] = ()) -> Columns:
    return Columns.plan({"data_keys": keys}, first, elsewhere)


KEYS = {"a": data_key(), "b": data_key("integer"), "c": data_key("string"), "img": data_key("array", external="F:")}


def test_the_first_event_decides_the_order_and_the_descriptor_the_rest() -> None:
    columns = plan(KEYS, event({"c": "x", "unknown": 1, "a": 1, "img": "id"}, {"img": False}))
    assert list(columns.types) == ["seq_num", "time", "c", "a", "b", "ts_c", "ts_a", "ts_b"]
    assert columns.data == ("c", "a", "b")
    assert columns.stamps == ("c", "a", "b")
    assert columns.external == {"img"}
    assert columns.schema.field("b").type == pa.int64()
    assert columns.schema.names == list(columns.types)


def test_an_external_key_that_comes_filled_is_internal() -> None:
    assert "img" in plan(KEYS, event({"img": [1.0]}, {"img": "datum"})).data


def test_what_is_kept_elsewhere_has_timestamps_only() -> None:
    columns = plan(KEYS, event({"a": 1, "b": 2, "c": "x"}), ("a",))
    assert list(columns.types) == ["seq_num", "time", "b", "c", "ts_a", "ts_b", "ts_c"]
    assert columns.stamps == ("a", "b", "c")


def test_a_data_key_may_look_like_timestamps() -> None:
    columns = plan({"ts_time": data_key(), "ts_y": data_key("integer")}, event({"ts_time": 1, "ts_y": 1}))
    assert columns.data == ("ts_time", "ts_y")
    assert columns.stamps == ("ts_time", "ts_y")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (data_key("integer", dtype_numpy="|u1"), pa.int64()),
        (data_key("number", dtype_numpy="<f4"), pa.float64()),
        (data_key("string"), pa.string()),
        (data_key("boolean"), pa.bool_()),
        (data_key("array"), pa.list_(pa.float64())),
        (data_key("array", shape=[]), pa.list_(pa.float64())),
        (data_key("array", shape=None), pa.list_(pa.float64())),
        (data_key("array", shape=[3], dtype_numpy="<i4"), pa.list_(pa.int64())),
        (data_key("array", shape=[2, 3], dtype_numpy="<u2"), pa.string()),
        (data_key("array", shape=[3], dtype_numpy="|b1"), pa.list_(pa.bool_())),
        (data_key("array", shape=[3], dtype_numpy="<U5"), pa.list_(pa.string())),
        (data_key("array", shape=[3], dtype_numpy=[["a", "<f8"]]), pa.list_(pa.string())),
        (data_key("array", shape=[3], dtype_numpy="<c8"), pa.list_(pa.string())),
        (data_key("array", shape=[3], dtype_numpy="nonsense"), pa.list_(pa.float64())),
    ],
)
def test_types_come_from_the_descriptor(spec: dict[str, Any], expected: pa.DataType) -> None:
    assert column_type(spec) == expected


@pytest.mark.parametrize(
    "dtype",
    [
        "<f8",
        "|b1",
        "<i2",
        ">u4",
        "<U7",
        "|S3",
        "|V8",
        "<c16",
        "?",
        "float32",
        "int64",
        "uint8",
        "bool",
        "<M8[ns]",
        "|O",
    ],
)
def test_the_kind_is_numpys(dtype: str) -> None:
    assert numpy_kind(dtype) == np.dtype(dtype).kind


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (data_key(), "table"),
        (data_key("array", external=""), "external"),
        (data_key("array", shape=[16]), "table"),
        (data_key("array", shape=[1, 2]), "zarr"),
        (data_key("array", shape=[17]), "zarr"),
        (data_key("array", shape=[2], dtype_numpy="<U3"), "zarr"),
        (data_key("array", shape=[None]), "ragged"),
        (data_key("number", shape=[100]), "table"),
    ],
)
def test_where_values_are_kept(spec: dict[str, Any], expected: str) -> None:
    assert store(spec) == expected


def test_the_longest_array_of_a_table_is_a_choice() -> None:
    assert store(data_key("array", shape=[100]), -1) == "table"
    assert store(data_key("array", shape=[1]), 0) == "zarr"


# ---------------------------------------------------------------- orders


def test_every_order_comes_once() -> None:
    columns = plan({"a": data_key()}, event({"a": 1}))
    orders = [tuple(columns.permuted(k).names) for k in range(columns.permutations)]
    assert columns.permutations == 24
    assert len(set(orders)) == 24
    assert orders[0] == ("seq_num", "time", "a", "ts_a")
    assert columns.permuted(24) == columns.schema


def test_a_table_without_keys_has_two_orders() -> None:
    assert plan({}, event({})).permutations == 2


def test_wide_tables_have_orders_enough() -> None:
    columns = plan({f"k{number}": data_key() for number in range(600)}, event({}))
    assert columns.permutations == 2**62
    orders = [columns.permuted(k).names for k in range(60)]
    assert all(one != other for one, other in pairwise(orders))
    assert len({tuple(order) for order in orders}) == 60
    assert sorted(columns.permuted(2**62 - 1).names) == sorted(columns.types)
    assert all(columns.permuted(7).field(name).type == columns.types[name] for name in columns.types)


def test_widening() -> None:
    columns = plan(KEYS, event({"a": 1}))
    assert columns.widened("b", pa.float64()).types == {**columns.types, "b": pa.float64()}
    assert list(columns.widened("b", pa.float64()).types) == list(columns.types)
    assert list(columns.widened("new", pa.int64()).types)[-2:] == ["new", "ts_new"]


# ---------------------------------------------------------------- names
