"""Arrays that have a node of their own: what readers see of every kind, after any cut into batches and any crash."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.values.stage import Died, Stage, run_of, run_of_streams
from tiled_ingest.core import writes as w

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
    "small 2-D": (array("<i8", 1, 2), [[[1, 2]], [[3, 4]]], np.array([[[1, 2]], [[3, 4]]])),
    "3-D": (array("<f4", 2, 2, 5), [ramp(1, dtype="<f4").reshape(2, 2, 5)], ramp(1, dtype="<f4").reshape(1, 2, 2, 5)),
    "4-D": (
        array("<i4", 2, 2, 5, 1),
        [ramp(1, dtype="<i4").reshape(2, 2, 5, 1)],
        ramp(1, dtype="<i4").reshape(1, 2, 2, 5, 1),
    ),
    "a number where an array was declared": (array("<f8", 20), [7.5], np.array([[7.5]])),
    "text": (array("<U3", 2), [["ab", "c"], ["añ☃", ""]], np.array([["ab", "c"], ["añ☃", ""]])),
    "text of a type not said": (array("|O", 2), [["ab", "c"]], np.array([["ab", "c"]])),
    "bytes": (array("|S4", 2), [np.array([b"ab", b"c\0d"])], np.array([[b"ab", b"c\0d"]])),
    "records": (
        {**array(None, 20), "dtype_descr": [["n", "<i4"], ["x", "<f8"]]},
        [np.array([(n, n / 2) for n in range(20)], [("n", "<i4"), ("x", "<f8")])],
        np.array([[(n, n / 2) for n in range(20)]], [("n", "<i4"), ("x", "<f8")]),
    ),
    "integers and 0.5": (array("<i8"), [ramp(1, dtype=np.int64), ramp(2) + 0.5], np.stack([ramp(1), ramp(2) + 0.5])),
    "0.5, then integers": (array(), [ramp(1) + 0.5, ramp(2, dtype=np.int64)], np.stack([ramp(1) + 0.5, ramp(2)])),
    "too large for the type": (array("<u1"), [[1] * 20, [300] * 20], np.array([[1] * 20, [300] * 20], np.int64)),
    "a sign in unsigned ones": (array("<u2"), [np.full(20, -1, np.int16)], np.full((1, 20), -1, np.int32)),
    "too large for signed ones": (array("<i2"), [np.full(20, 40_000, np.uint16)], np.full((1, 20), 40_000, np.int32)),
    "2**63 in signed ones": (array("<i8"), [[2**63] * 20], np.full((1, 20), 2.0**63)),
    "-1 in 64 unsigned bits": (array("<u8"), [[1] * 20, [-1] * 20], np.array([[1.0] * 20, [-1.0] * 20])),
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


RAGGED: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "ragged floats": (array("<f8", None), [[1.5], [2.5, 3.5], []], [[1.5], [2.5, 3.5], []]),
    "ragged integers": (array("<i8", None), [np.array([1, 2]), [3]], [[1, 2], [3]]),
    "ragged 2**63": (array("<i8", None), [[2**63] * 3, [1]], [[2.0**63] * 3, [1.0]]),
    "ragged -1 in unsigned ones": (array("|u1", None), [[-1], np.array([200], np.uint8)], [[-1], [200]]),
    "ragged integers of no type": (array(None, None), [[2**53 + 1], [1]], [[2**53 + 1], [1]]),
    "ragged integers, then 0.5": (array("<i8", None), [[1, 2], [0.5]], [[1.0, 2.0], [0.5]]),
    "rows of three": (
        array("<f8", None, 3),
        [[[1, 2, 3]], [[4, 5, 6], [7, 8, 9]]],
        [[[1, 2, 3]], [[4, 5, 6], [7, 8, 9]]],
    ),
    "ragged lists of lists": (array("<i8", None, None), [[[1, 2], [3]], [[]]], [[[1, 2], [3]], [[]]]),
    "ragged pairs": (array("<f8", 2, None), [[[1, 2], [3]], [[], [4]]], [[[1, 2], [3]], [[], [4]]]),
}


def differences(reader: Any, uid: str) -> list[str]:
    """Name the kinds that do not read as they should."""
    found = []
    for kind, (_, _, expected) in {**KINDS, **RAGGED}.items():
        held = reader[uid][kind].base["a"].read()
        same = held.tolist() == expected if isinstance(expected, list) else _same(held, expected)
        found += [] if same else [f"{kind}: {held!r}"]
    return found


def _same(held: Any, expected: Any) -> bool:
    try:
        assert_array_equal(held, expected, strict=held.dtype.kind not in "US")
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("one_by_one", [False, True], ids=["one batch", "a batch each"])
def test_every_kind_of_array_reads_as_it_was_sent(stage: Stage, reader: Any, uid: str, *, one_by_one: bool) -> None:
    streams = {kind: (spec, values) for kind, (spec, values, _) in {**KINDS, **RAGGED}.items()}
    documents = run_of_streams(uid, streams)
    (stage.publish_one_by_one if one_by_one else stage.publish)(documents)
    assert stage.codes == []
    assert differences(reader, uid) == []
    run = reader[uid]
    assert run.metadata["tiled_ingest"]["state"] == "complete"
    assert "Internal array data for 'a' in stream 'longer' written as zarr." in run.metadata["notes"]
    assert "Internal data for 'a' in stream 'ragged floats' written as ragged array." in run.metadata["notes"]
    text = "Array lengths for key 'a' in stream 'longer' are not consistent: min=3, max=5"
    assert f"{text}; the arrays are padded with NaNs." in run.metadata["notes"]
    stream = run["longer"]
    assert stream.base["internal"].columns == ["seq_num", "time", "x", "ts_a", "ts_x"]
    assert dict(stream.read().sizes) == {"time": 3, "dim_int_5": 5}
    assert stream.base["a"].metadata == {**KINDS["longer"][0], "source": "s", "dtype_numpy": "float64"}


ROUNDED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "signed and unsigned": (array("<u8"), [[-1, 2**63 + 1] * 10]),
    "unsigned, then signed": (array("<u8"), [[2**63 + 1] * 20, [-1] * 20]),
    "a gap": (array("<i8"), [[2**53 + 1, None] * 10]),
    "ragged": (array("<f8", None), [[2**53 + 1]]),
    "ragged, no such type in SQL": (array("<u8", None), [[2**64 - 1]]),
    "ragged, then floats": (array("<i8", None), [[2**53 + 1], [0.5]]),
}


@pytest.mark.parametrize("one_by_one", [False, True], ids=["one batch", "a batch each"])
def test_where_no_type_holds_all_digits_a_note_says_so(
    stage: Stage, reader: Any, uid: str, *, one_by_one: bool
) -> None:
    documents = run_of_streams(uid, ROUNDED)
    (stage.publish_one_by_one if one_by_one else stage.publish)(documents)
    assert stage.codes == []
    notes = reader[uid].metadata["notes"]
    text = "Integers of key 'a' in stream '{}' lost digits: the array became one of floats."
    assert [kind for kind in ROUNDED if text.format(kind) not in notes] == []
    for kind, (_, values) in ROUNDED.items():
        held = reader[uid][kind].base["a"].read().tolist()
        nearest = [[float("nan") if n is None else float(n) for n in value] for value in values]
        assert repr(held) == repr(nearest), kind


def test_text_in_an_array_of_numbers_is_missing_there_and_a_dead_letter(stage: Stage, reader: Any, uid: str) -> None:
    rows: list[dict[str, Any]] = [{"a": [1, 2]}, {"a": ["OFF", 2]}, {"a": [[1, 2]]}, {"a": [3, 4]}]
    stage.publish(run_of(uid, {"a": {**array("<i8", 20)}}, rows))
    assert_array_equal(stored(reader, uid), [[1, 2], [NAN, NAN], [NAN, NAN], [3, 4]])
    assert stage.codes == ["value_misfit", "value_misfit"]
    assert [letter.record.offset for letter in stage.world.letters] == [3, 4]


def test_only_events_that_have_the_key_are_rows(stage: Stage, reader: Any, uid: str) -> None:
    rows: list[dict[str, Any]] = [{"x": 1.0}, {"x": 2.0, "a": ramp(2)}, {"x": 3.0}, {"x": 4.0, "a": ramp(4)}]
    stage.publish_one_by_one(run_of(uid, {"x": {"dtype": "number"}, "a": array()}, rows))
    assert_array_equal(stored(reader, uid), np.stack([ramp(2), ramp(4)]))
    assert reader[uid]["primary"].base["internal"].read()["ts_a"].notna().tolist() == [False, True, False, True]


FILLED = {"dtype": "array", "shape": [2, 2], "dtype_numpy": "<f8", "external": "FILESTORE:"}


def filled_run(uid: str, values: list[Any], filled: list[bool]) -> list[Any]:
    """Return the documents of a run with an external key `a`; what is not filled is a datum's id."""
    documents = run_of(uid, {"a": FILLED, "x": {"dtype": "number"}}, [{"a": value, "x": 0.5} for value in values])
    flags = iter(filled)
    return [(kind, {**doc, "filled": {"a": next(flags)}} if kind == "event" else doc) for kind, doc in documents]


@pytest.mark.parametrize("lives", [1, 2])
def test_arrays_of_external_keys_that_events_hold_themselves_are_arrays(
    stage: Stage, reader: Any, uid: str, lives: int
) -> None:
    values: list[Any] = [[[1.0, 2.0], [3.0, 4.0]], None, [np.array([5, 6]), np.array([7, 8])], "datum/1"]
    documents = filled_run(uid, values, [True, True, True, False])
    stage.publish(documents[:4])
    if lives > 1:
        stage.begin()  # another owner, who counts the rows that are there
    stage.publish(documents[4:])
    assert stage.codes == []
    assert_array_equal(stored(reader, uid), [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    base = reader[uid]["primary"].base
    assert set(base["internal"].columns) == {"seq_num", "time", "x", "ts_a", "ts_x"}
    assert reader[uid].metadata["tiled_ingest"]["state"] == "incomplete", "its datum never came"


def test_what_is_filled_after_a_datum_was_named_is_kept_as_text(stage: Stage, reader: Any, uid: str) -> None:
    """The node of the key's name is that of its files."""
    stage.publish(filled_run(uid, ["datum/1", [np.arange(2_000), [1]]], [False, True]))
    assert stage.codes == []
    (held,) = reader[uid]["primary"].base["internal"].read(["a"])["a"].dropna()
    assert json.loads(held) == [list(range(2_000)), [1]]


DEATHS = [
    (kind, number, applied)
    for kind, numbers in (
        (w.CreateArray, (1,)),
        (w.CreateTable, (1, 2)),
        (w.PatchArray, (1, 2)),
        (w.PutArray, (1, 2)),
        (w.PutSource, (1, 2)),
        (w.Append, (1, 2, 3, 4)),
    )
    for number in numbers
    for applied in (False, True)
]


@pytest.mark.parametrize(("kind", "number", "applied"), DEATHS, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_death_at_any_request_of_a_widening_leaves_the_same_tree(
    stage: Stage, reader: Any, uid: str, kind: type, number: int, *, applied: bool
) -> None:
    """The process ends before, or after, Tiled did what it asked for; the next one goes on from the log."""
    asks = 0

    def fault(request: w.Request, act: Any) -> w.Outcome | None:
        nonlocal asks
        asks += isinstance(request, kind)
        if isinstance(request, kind) and asks == number:
            if applied:
                act()
            raise Died
        return None

    spec = {"a": array("<i8", 20), "r": array("<i8", None), "n": {"dtype": "integer"}}
    rows = [{"a": ramp(1, dtype=np.int64), "r": [1], "n": 1}, {"a": [0.5] * 22, "r": [2, 0.5], "n": 0.5}]
    documents = run_of(uid, spec, rows)
    stage.publish(documents[:3])
    stage.fault = fault
    died = [stage.died([document]) for document in documents[3:]]
    assert died.count(True) == 1
    expected = np.full((2, 22), NAN)
    expected[0, :20], expected[1] = ramp(1), 0.5
    assert_array_equal(stored(reader, uid), expected)
    assert stored(reader, uid, "r").tolist() == [[1.0], [2.0, 0.5]]
    table = reader[uid]["primary"].base["internal"].read()
    assert sorted(table["n"]) == [0.5, 1.0]
    assert stage.codes == []
    assert reader[uid].metadata["tiled_ingest"]["state"] == "complete"
