"""Values of columns: each case of names, types and sizes with its exact result, on a real Tiled."""

import json
import re
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from tests.values.stage import Stage, event_of, run_of
from tiled_ingest.core.rows.names import ORIGINAL
from tiled_ingest.tiled.wire import ARROW_FILE

pytestmark = pytest.mark.real

NUMBER, INTEGER, TEXT, TRUTH = ({"dtype": dtype} for dtype in ("number", "integer", "string", "boolean"))

# What was declared, the values of events in order (`...`: the key is missing), what is read, what became dead letters.
SCALARS: dict[str, tuple[dict[str, Any], list[Any], list[Any], list[int]]] = {
    "int_then_half": (INTEGER, [1, 0.5, 2], [1.0, 0.5, 2.0], []),
    "half_then_int": (NUMBER, [0.5, 1, 2], [0.5, 1.0, 2.0], []),
    "bool_with_int": (TRUTH, [True, 2, False], [1, 2, 0], []),
    "int_with_bool": (INTEGER, [1, True, 2], [1, 1, 2], []),
    "number_then_off": (NUMBER, [1.5, "OFF", 2.5], [1.5, None, 2.5], [2]),
    "number_then_nan_text": (NUMBER, [1.5, "nan", 2.5], [1.5, None, 2.5], [2]),
    "none_first": (INTEGER, [None, 1, 2], [None, 1, 2], []),
    "missing_first": (NUMBER, [..., 1.5, 2.5], [None, 1.5, 2.5], []),
    "missing_later": (TEXT, ["a", ..., "c"], ["a", None, "c"], []),
    "two_to_63": (INTEGER, [1, 2**63, 2], [1.0, 2.0**63, 2.0], []),
    "not_exact": (INTEGER, [1, 2**63 + 1, 2], [1, None, 2], [2]),
    "infinite": (NUMBER, [float("inf"), float("-inf"), 1.0], [float("inf"), float("-inf"), 1.0], []),
    "nul_text": (TEXT, ["a", "b\0c", "d"], ["a", None, "d"], [2]),
    "number_in_text": (TEXT, ["a", 1.5, [1, 2]], ["a", "1.5", "[1, 2]"], []),
    "bytes_in_text": (TEXT, ["a", b"b", b"\xff"], ["a", "b", None], [3]),
    "arrays_in_text": (
        TEXT,
        ["a", [np.arange(2_000.0)] * 2, {"image": np.arange(2_000).reshape(40, 50)}],
        [
            "a",
            json.dumps([[float(n) for n in range(2_000)]] * 2),
            json.dumps({"image": [[50 * row + n for n in range(50)] for row in range(40)]}),
        ],
        [],
    ),
    "numbers_are_lists": ({**NUMBER, "shape": [3]}, [[1.5, 2.5], [3], []], [[1.5, 2.5], [3.0], []], []),
    "integers_are_lists": ({**INTEGER, "shape": [1]}, [[1], [2, 3], None], [[1], [2, 3], None], []),
    "truths_are_lists": (TRUTH, [[True, False], [True], False], [[True, False], [True], [False]], []),
    "texts_are_lists": (TEXT, [["a", "b"], ["c"], "d"], [["a", "b"], ["c"], ["d"]], []),
    "number_then_list": (NUMBER, [1.5, [2.5, 3], 4.5], [[1.5], [2.5, 3.0], [4.5]], []),
    "number_then_texts": (NUMBER, [1.5, ["a"], 4.5], [1.5, None, 4.5], [2]),
    "single_in_array": ({"dtype": "array", "shape": [1]}, [1.5, 2, 3.5], [1.5, 2.0, 3.5], []),
    "single_then_list": ({"dtype": "array", "shape": []}, [1.5, [2, 3], 3.5], [[1.5], [2.0, 3.0], [3.5]], []),
    "misfit_in_a_list": (
        {"dtype": "array", "shape": [2], "dtype_numpy": "<u8"},
        [[2**63, 2**63 + 1], [2**63 + 1, 2**63], [1, 2]],
        [None, None, [1, 2]],
        [1, 2],
    ),
    "small_array": ({"dtype": "array", "shape": [2]}, [[1.0, 2.0], [3, 4], []], [[1, 2], [3, 4], []], []),
}


def table(stage: Stage, *path: str) -> dict[str, list[Any]]:
    """Return a table as it is stored, its rows in their order, without a reader's conversions."""
    answer = stage.session.request(
        "GET", "table/partition", path, params={"partition": 0}, headers={"Accept": ARROW_FILE}
    )
    assert isinstance(answer, httpx.Response), answer
    held = pa.ipc.open_file(pa.py_buffer(answer.content)).read_all()
    rows = held.sort_by("seq_num") if "seq_num" in held.column_names else held
    return {name: rows[name].to_pylist() for name in rows.column_names if name != "__index_level_0__"}


def test_every_scalar_is_stored_as_the_table_says(stage: Stage, reader: Any, uid: str) -> None:
    rows = [
        {key: values[number] for key, (_, values, _, _) in SCALARS.items() if values[number] is not ...}
        for number in range(3)
    ]
    stage.publish_one_by_one(run_of(uid, {key: spec for key, (spec, _, _, _) in SCALARS.items()}, rows))
    held = table(stage, uid, "primary", "internal")
    wrong = {key: held[key] for key, (_, _, expected, _) in SCALARS.items() if held[key] != expected}
    assert wrong == {}
    letters = sorted({number for _, _, _, numbers in SCALARS.values() for number in numbers})
    # Events 1, 2, 3 stand at offsets 2, 3, 4.
    assert [(letter.record.offset - 1, letter.code) for letter in stage.world.letters] == [
        (number, "value_misfit") for number in letters
    ]
    facts = reader[uid].metadata["tiled_ingest"]
    assert (facts["state"], facts["rows"]) == ("complete", {"primary": 3})
    assert "Column 'int_then_half' of stream 'primary' became double: its values ask for it." in facts["notes"]


NAMES = [
    *("a(b)", "a=b", "50%", "a+b", "a;b", "a'b", 'a"b', "a`b", "a\\b", "a--b", "2theta", "x" * 61, "ü" * 40, "a/b"),
    *("X", "x", "Time", "time", "seq_num", "ts_x", "select", "table", "ctid", "rowid", "a.b", "a b", "_a", "é", "a\nb"),
]


def test_every_name_has_its_values_and_can_be_found(stage: Stage, reader: Any, uid: str) -> None:
    rows = [{name: float(100 * number + place) for place, name in enumerate(NAMES)} for number in (1, 2)]
    stage.publish(run_of(uid, dict.fromkeys(NAMES, NUMBER), rows))
    assert stage.codes == []
    stream = reader[uid]["primary"]
    data_keys = stream.metadata["data_keys"]
    stored = {spec.get(ORIGINAL, name): name for name, spec in data_keys.items()} | {
        "time": "time_",
        "seq_num": "seq_num_",
    }
    held = table(stage, uid, "primary", "internal")
    assert [held[stored[name]] for name in NAMES] == [[row[name] for row in rows] for name in NAMES]
    kept = {name for name in NAMES if stored[name] == name}
    assert kept == {"X", "select", "table", "a.b", "a b"}
    notes = reader[uid].metadata["notes"]
    assert all(
        f"Renamed data_key '{name}' to '{stored[name]}' in stream primary" in notes for name in set(NAMES) - kept
    )
    dataset = stream.read()
    assert {name: dataset[stored[name]].values.tolist() for name in NAMES} == {
        name: [row[name] for row in rows] for name in NAMES
    }


def test_arrays_and_later_descriptors_have_safe_names_too(stage: Stage, reader: Any, uid: str) -> None:
    array = {"dtype": "array", "shape": [20], "dtype_numpy": "<f8"}
    documents = run_of(uid, {"a/b": array, "internal": array, "x": NUMBER}, [], stop=False)
    first = {"a/b": [1.0] * 20, "internal": [2.0] * 20, "x": 3.0}
    later = {"uid": f"{uid}-d2", "time": 2.0, "run_start": uid, "name": "primary", "configuration": {}}
    keys = {"X": {**NUMBER, "source": "s", "shape": []}, "b(": {**array, "source": "s"}}
    second = {"X": 4.0, "b(": [5.0] * 20}
    stage.publish([*documents, ("event", event_of(uid, 1, first)), ("descriptor", {**later, "data_keys": keys})])
    ending = {"uid": f"{uid}-s", "time": 9.0, "run_start": uid, "exit_status": "success"}
    stage.publish([("event", {**event_of(uid, 2, second), "descriptor": f"{uid}-d2"}), ("stop", ending)])
    assert stage.codes == []
    base = reader[uid]["primary"].base
    nodes = {re.sub("_[0-9a-f]{8}$", "#", key): key for key in base}
    assert set(nodes) == {"a_b#", "internal_", "b#", "internal"}
    assert base[nodes["a_b#"]].read().tolist() == [[1.0] * 20]
    assert base[nodes["b#"]].read().tolist() == [[5.0] * 20]
    held = table(stage, uid, "primary", "internal")
    late = next(name for name in held if name.startswith("X_"))
    assert (held["x"], held[late]) == ([3.0, None], [None, 4.0])


@pytest.mark.parametrize("keys", [499, 511, 512])
def test_tables_are_split_as_tiledwriter_splits_them_and_where_postgresql_must(
    stage: Stage, reader: Any, uid: str, keys: int
) -> None:
    names = [f"k{number:04}" for number in range(keys)]
    rows = [{name: float(number * 1_000 + place) for place, name in enumerate(names)} for number in (1, 2, 3)]
    documents = run_of(uid, dict.fromkeys(names, NUMBER), rows)
    stage.publish(documents[:4])
    stage.begin()  # another owner: every part gets a dataset of its own
    stage.publish(documents[4:])
    assert stage.codes == []
    base = reader[uid]["primary"].base
    wanted = sorted(["seq_num", "time", *names, *(f"ts_{name}" for name in names)])
    half = len(wanted) // 2
    parts = [wanted] if keys == 499 else [wanted[:half], wanted[half:]]
    keyed = ["internal"] if keys == 499 else ["internal_0", "internal_1"]
    assert {key: sorted(base[key].columns) for key in base} == dict(zip(keyed, parts, strict=True))
    held = {name: values for key in keyed for name, values in table(stage, uid, "primary", key).items()}
    assert sorted(held["k0000"]) == [1_000.0, 2_000.0, 3_000.0]
    assert sorted(held["ts_k0498"]) == [101.0, 102.0, 103.0]
    assert held.keys() == set(wanted)
    assert reader[uid].metadata["tiled_ingest"]["state"] == "complete"


def test_metadata_that_json_or_postgresql_cannot_hold(stage: Stage, reader: Any, uid: str) -> None:
    more: dict[str, Any] = {"big": 2**63, "nan": float("nan"), "infinite": float("inf"), "nul": "a\0b", "small": 1.5}
    documents = run_of(uid, {"x": NUMBER}, [{"x": 1.0}], **more)
    stage.publish(documents)
    assert stage.codes == []
    start = reader[uid].metadata["start"]
    assert {key: start[key] for key in more} == {
        "big": 2**53 - 1, "nan": None, "infinite": 2**53 - 1, "nul": "a\ufffdb", "small": 1.5,
    }  # fmt: skip


def test_digits_that_earlier_rows_lose_when_their_column_becomes_wider_are_noted(
    stage: Stage, reader: Any, uid: str
) -> None:
    documents = run_of(uid, {"n": INTEGER}, [{"n": 2**53 + 1}, {"n": 0.5}])
    stage.publish_one_by_one(documents)
    assert table(stage, uid, "primary", "internal")["n"] == [2.0**53, 0.5]
    assert "Column 'n' of stream 'primary' holds floats: integers in it lost digits." in reader[uid].metadata["notes"]
