"""Arrays that have a node of their own: what readers see of every kind, after any cut into batches and any crash."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.values.stage import Stage, run_of

pytestmark = pytest.mark.real

NAN = float("nan")


def array(dtype: Any = "<f8", *shape: int | None) -> dict[str, Any]:
    return {"dtype": "array", "shape": list(shape or (20,)), **({"dtype_numpy": dtype} if dtype else {})}


def stored(reader: Any, uid: str, key: str = "a") -> Any:
    return reader[uid]["primary"].base[key].read()


def ramp(number: int, size: int = 20, dtype: Any = np.float64) -> Any:
    return (np.arange(size) + 100 * number).astype(dtype)


KINDS: dict[str, tuple[dict[str, Any], list[Any], Any]] = {
    "floats": (array(), [ramp(1), ramp(2)], np.stack([ramp(1), ramp(2)])),
    "lists of floats": (array(), [ramp(1).tolist(), ramp(2).tolist()], np.stack([ramp(1), ramp(2)])),
    "small unsigned": (array("<u2"), [ramp(1).tolist()], ramp(1, dtype=np.uint16)[None]),
    "uint64": (array("<u8"), [[2**63 + n for n in range(20)]], np.array([[2**63 + n for n in range(20)]], np.uint64)),
    "truth": (array("|b1"), [[True, False] * 10], np.array([[True, False] * 10])),
    "complex": (array("<c16"), [ramp(1) + 2j], (ramp(1) + 2j)[None]),
    "2-D": (array("<f8", 4, 5), [ramp(1).reshape(4, 5).tolist()], ramp(1).reshape(1, 4, 5)),
    "3-D": (array("<f4", 2, 2, 5), [ramp(1, dtype="<f4").reshape(2, 2, 5)], ramp(1).reshape(1, 2, 2, 5)),
    "4-D": (array("<i4", 2, 2, 5, 1), [ramp(1, dtype="<i4").reshape(2, 2, 5, 1)], ramp(1).reshape(1, 2, 2, 5, 1)),
    "a number where an array was declared": (array("<f8", 20), [7.5], np.array([[7.5]])),
    "text": (array("<U3", 2), [["ab", "c"], ["añ☃", ""]], np.array([["ab", "c"], ["añ☃", ""]])),
    "text of a type not said": (array("|O", 2), [["ab", "c"]], np.array([["ab", "c"]])),
    "bytes": (array("|S4", 2), [np.array([b"ab", b"c\0d"])], np.array([[b"ab", b"c\0d"]])),
    "records": (
        {**array(None, 20), "dtype_descr": [["n", "<i4"], ["x", "<f8"]]},
        [np.array([(n, n / 2) for n in range(20)], [("n", "<i4"), ("x", "<f8")])],
        np.array([[(n, n / 2) for n in range(20)]], [("n", "<i4"), ("x", "<f8")]),
    ),
    "integers, then 0.5": (array("<i8"), [ramp(1, dtype=np.int64), ramp(2) + 0.5], np.stack([ramp(1), ramp(2) + 0.5])),
    "0.5, then integers": (array(), [ramp(1) + 0.5, ramp(2, dtype=np.int64)], np.stack([ramp(1) + 0.5, ramp(2)])),
    "too large for the type": (array("<u1"), [[1] * 20, [300] * 20], np.array([[1] * 20, [300] * 20], np.int64)),
    "longer text": (array("<U2", 2), [["ab", "c"], ["abcdef", "g"]], np.array([["ab", "c"], ["abcdef", "g"]])),
    "longer": (
        array("<i8"),
        [ramp(1, 3).tolist(), ramp(2, 5).tolist(), ramp(3, 4).tolist()],
        np.array([[100, 101, 102, NAN, NAN], [200, 201, 202, 203, 204], [300, 301, 302, 303, NAN]]),
    ),
    "empty": (array(), [[], ramp(1, 3).tolist(), []], np.array([[NAN] * 3, [100.0, 101.0, 102.0], [NAN] * 3])),
    "nothing but empty": (array(), [[], []], np.array([[NAN], [NAN]])),
    "gaps": (array("<i8"), [[1, None, 3], [4, 5, 6]], np.array([[1, NAN, 3], [4, 5, 6]])),
    "None first": (array(), [None, ramp(1)], np.stack([np.full(20, NAN), ramp(1)])),
}


@pytest.mark.parametrize("one_by_one", [False, True], ids=["one batch", "a batch each"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read(stage: Stage, reader: Any, uid: str, kind: str, *, one_by_one: bool) -> None:
    spec, values, expected = KINDS[kind]
    documents = run_of(uid, {"a": spec, "x": {"dtype": "number"}}, [{"a": value, "x": 1.0} for value in values])
    (stage.publish_one_by_one if one_by_one else stage.publish)(documents)
    assert stage.codes == []
    assert_array_equal(stored(reader, uid), expected)
    stream = reader[uid]["primary"]
    assert set(stream.base["internal"].columns) == {"seq_num", "time", "x", "ts_a", "ts_x"}
    dataset = stream.read()
    assert dataset["a"].dims[0] == "time"
    assert reader[uid].metadata["tiled_ingest"]["state"] == "complete"
    note = "Internal array data for 'a' in stream 'primary' written as zarr."
    assert note in reader[uid].metadata["notes"]


RAGGED: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "floats": (array("<f8", None), [[1.5], [2.5, 3.5], []], [[1.5], [2.5, 3.5], []]),
    "integers": (array("<i8", None), [np.array([1, 2]), [3]], [[1, 2], [3]]),
    "integers, then 0.5": (array("<i8", None), [[1, 2], [0.5]], [[1.0, 2.0], [0.5]]),
    "rows of three": (
        array("<f8", None, 3),
        [[[1, 2, 3]], [[4, 5, 6], [7, 8, 9]]],
        [[[1, 2, 3]], [[4, 5, 6], [7, 8, 9]]],
    ),
    "lists of lists": (array("<i8", None, None), [[[1, 2], [3]], [[]]], [[[1, 2], [3]], [[]]]),
    "pairs": (array("<f8", 2, None), [[[1, 2], [3]], [[], [4]]], [[[1, 2], [3]], [[], [4]]]),
}


@pytest.mark.parametrize("one_by_one", [False, True], ids=["one batch", "a batch each"])
@pytest.mark.parametrize("kind", RAGGED)
def test_what_is_read_of_ragged_arrays(stage: Stage, reader: Any, uid: str, kind: str, *, one_by_one: bool) -> None:
    spec, values, expected = RAGGED[kind]
    documents = run_of(uid, {"a": spec}, [{"a": value} for value in values])
    (stage.publish_one_by_one if one_by_one else stage.publish)(documents)
    assert stage.codes == []
    node = reader[uid]["primary"].base["a"]
    assert node.read().tolist() == expected
    assert node.structure_family == "ragged"
    assert reader[uid].metadata["tiled_ingest"]["state"] == "complete"
