"""How `verify` sees rows, without Kafka or Tiled: two ways to decode, values as codes, and rows that are matched."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiled_ingest.tools.decoding import Unreadable, opened
from tiled_ingest.tools.verify.codes import MISFIT, NULL, codes_of, nd_codes
from tiled_ingest.tools.verify.expected import LETTER, Partition, Run
from tiled_ingest.tools.verify.matching import match
from tiled_ingest.tools.verify.rows import Column, chunk_of

UID = "6f1b6a52-0d4b-4f0c-9d0e-aaaaaaaaaaaa"
KEYS = {"a": "number", "b": "integer", "c": "string", "d": "boolean"}
FITTING = st.fixed_dictionaries(
    {"a": st.floats(allow_nan=False), "b": st.integers(-(2**63), 2**63 - 1), "c": st.text(), "d": st.booleans()}
)
ANY = st.dictionaries(
    st.sampled_from([*KEYS, "e"]),
    st.one_of(st.none(), st.floats(), st.integers(-(2**63), 2**64 - 1), st.text(), st.lists(st.floats(), max_size=3)),
)


class Message:
    def __init__(self, offset: int, name: str, doc: dict[str, Any]) -> None:
        self._offset, self._value = offset, msgpack.dumps((name, doc))

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return bytes(self._value)


def run_of(data: list[dict[str, Any]], descriptor: str = UID) -> Run:
    """The run that a partition with these events holds."""
    keys = {key: {"dtype": dtype, "shape": [], "source": "sim"} for key, dtype in KEYS.items()}
    described = {"uid": descriptor, "run_start": "run", "time": 1.0, "name": "primary", "data_keys": keys}
    documents = [("start", {"uid": "run", "time": 0.0}), ("descriptor", described)]
    for number, values in enumerate(data, 1):
        stamps = dict.fromkeys(values, float(number))
        named = {"uid": f"event-{number}", "descriptor": descriptor, "time": float(number), "seq_num": number}
        documents.append(("event", {**named, "data": values, "timestamps": stamps, "filled": {}}))
    partition = Partition(frozenset(), whole=True)
    messages = [Message(offset, name, doc) for offset, (name, doc) in enumerate(documents)]
    partition.take_all(messages, {}, lambda _: None)
    assert partition.unaccounted == []
    run = partition.runs["run"]
    run.streams["primary"].rows.flush()
    return run


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(FITTING, ANY), max_size=30))
def test_the_quick_way_and_the_general_way_give_the_same_rows(data: list[dict[str, Any]]) -> None:
    # An uid of another length is not found in the bytes: all of its events take the general way.
    quick, general = (run_of(data, uid).streams["primary"].rows for uid in (UID, "short"))
    assert general.quick_count == 0
    assert quick.quick_count >= sum(values.keys() == KEYS.keys() and _plain(values) for values in data)
    assert quick.count == general.count == len(data)
    assert quick.heads["seq_num"].equals(general.heads["seq_num"])
    for name in quick.columns.keys() | general.columns.keys():
        one, other = (rows.columns.get(name, Column()) for rows in (quick, general))
        assert [repr(value) for value in one] == [repr(value) for value in other] or _equal(one, other)


def _plain(values: dict[str, Any]) -> bool:
    return isinstance(values["a"], float) and type(values["b"]) is int and abs(values["b"]) < 2**63 and (
        isinstance(values["c"], str) and isinstance(values["d"], bool)
    )  # fmt: skip


def _equal(one: Column, other: Column) -> bool:
    """Whether two columns have equal numbers, one as integers perhaps, and the other as floats."""
    pairs = zip(one, other, strict=True)
    return all(a == b or (a is not None and a != a and b != b) for a, b in pairs)  # noqa: PLR0124 - NaN


def column(*values: Any) -> Column:
    made = Column()
    made.add(chunk_of(list(values)))
    return made


def codes(published: list[Any], there: pa.Array[Any]) -> list[bool]:
    """Which of the published values are what Tiled has."""
    one, other = codes_of(column(*published), pa.chunked_array([there]))
    return [bool(equal) for equal in one == other]


def test_numbers_are_equal_as_numbers() -> None:
    assert codes([1, True, 0.5, None, 2**53], pa.array([1.0, 1.0, 0.5, None, 2.0**53])) == [True] * 5
    assert codes([float("nan"), 0.0], pa.array([None, -0.0])) == [True, True]
    assert codes([1, 2], pa.array([1, 3])) == [True, False]
    assert codes([2**53 + 1], pa.array([2**53])) == [False], "integers are compared to the last digit"
    assert codes(["OFF", 1], pa.array([None, 1.0])) == [False, True], "a value that became null is a difference"


NS = 1_795_000_000_000_000_001  # a time stamp in nanoseconds: above 2**53


@pytest.mark.parametrize("beside", [None, 5, 0.5, "OFF", True, [NS], 2**63, float("nan"), np.array([NS])])
def test_integers_are_compared_to_the_last_digit_whatever_is_beside_them(beside: Any) -> None:
    for chunks in ([[NS, beside]], [[NS], [beside]]):
        published = Column()
        for values in chunks:
            published.add(chunk_of(values))
        one, same = codes_of(published, pa.chunked_array([pa.array([NS, None], pa.int64())]))
        _, other = codes_of(published, pa.chunked_array([pa.array([NS - 1, None], pa.int64())]))
        assert one[0] == same[0] != other[0]
    assert codes([[NS, 0.5], [NS]], pa.array([[NS], [NS]])) == [False, True]
    assert codes([[NS], [NS]], pa.array([[NS - 1], [NS]])) == [False, True]


def test_what_an_integer_column_cannot_hold_is_equal_to_nothing_in_it() -> None:
    integers = [0, 1, -1, -(2**63), 2**63 - 1]
    for value in (0.5, "OFF", 2**63, 2**64 - 1, float("inf"), 2.0**63, [0]):
        for one in (column(value), column(value, "list")):
            published, there = codes_of(one, pa.chunked_array([pa.array(integers, pa.int64())]))
            assert published[0] not in there
    assert codes([1.0, -(2.0**63), -0.0], pa.array([1, -(2**63), 0])) == [True] * 3


def test_integers_in_a_column_of_floats_are_the_nearest_float() -> None:
    assert codes([NS, 0.5], pa.array([float(NS), 0.5])) == [True, True]
    assert codes([NS, 0.5], pa.array([float(NS) + 512, 0.5])) == [False, True]
    assert codes([2**63 + 1, None, "OFF", 0.5], pa.array([2.0**63, None, None, 0.5])) == [True, True, False, True]


def test_text_and_lists() -> None:
    assert codes(["a", 1.5, b"b", None], pa.array(["a", "1.5", "b", None])) == [True] * 4
    assert codes([NS, 5, 0.5, [1, 0.5]], pa.array([str(NS), "5", "0.5", "[1, 0.5]"])) == [True] * 4
    assert codes([NS, 5, 0.5, [1, 0.5]], pa.array([str(NS - 1), "5.0", "0.50", "[1.0, 0.5]"])) == [False] * 4
    assert codes([5, 0.5], pa.array(["5", "0.5"])) == [True, True]
    assert codes([[1, 2.5], [], None], pa.array([[1.0, 2.5], [], None])) == [True] * 3
    assert codes([[1.0, 2.0], [1.0, 2.0]], pa.array([[2.0, 1.0], [1.0]])) == [False, False]
    assert codes([[[1, 2], [3, 4]]], pa.array([[[1.0, 2.0], [3.0, 4.0]]])) == [True]
    assert codes([np.array([1, 2]), 7], pa.array([[1.0, 2.0], [7.0]])) == [True, True]


def test_arrays_have_the_codes_of_their_lists() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    listed, _ = codes_of(column(*values.tolist()), pa.chunked_array([pa.array(values.tolist())]))
    assert (nd_codes(values, "float") == listed).all()
    assert {int(NULL), int(MISFIT)}.isdisjoint(map(int, listed))


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_whatever_happens_to_rows_is_found(chance: random.Random, count: int) -> None:
    keys = np.array([chance.randrange(20) for _ in range(count)], np.uint64)
    wanted = {"seq_num": keys, "time": np.arange(count, dtype=np.uint64), "x": keys * np.uint64(3)}
    order = np.array(chance.sample(range(count), count))
    lost = chance.randrange(count)
    doubled, changed = chance.randrange(count), chance.randrange(count)
    order = np.concatenate([order[order != lost], [doubled] if doubled != lost else []]).astype(np.int64)
    there = {name: codes[order].copy() for name, codes in wanted.items()}
    spoiled = changed not in {lost, doubled}
    if spoiled:
        there["x"][np.flatnonzero(order == changed)[0]] = 999
    found = match(wanted, there, np.zeros(count, np.bool_), ordered=False)
    assert list(found.missing) == [lost]
    assert len(found.duplicated) == (doubled != lost)
    assert [pair[0] for pair in found.changed] == ([changed] if spoiled else [])
    assert len(found.foreign) == 0


def test_rows_that_need_not_be_there_may_be() -> None:
    wanted = {"x": np.array([1, 2, 3], np.uint64)}
    optional = np.array([False, True, False])
    for there, spared in (([1, 3], 0), ([1, 2, 3], 1)):
        found = match(wanted, {"x": np.array(there, np.uint64)}, optional, ordered=True)
        assert (len(found.missing), len(found.foreign), found.spared) == (0, 0, spared)
    assert len(match(wanted, {"x": np.array([1, 2, 2, 3], np.uint64)}, optional, ordered=True).duplicated) == 1


def test_a_redelivery_counts_once_and_a_rewind_twice() -> None:
    values = {"a": 0.5, "b": 1, "c": "x", "d": True}
    rows = run_of([values, values]).streams["primary"].rows
    rows.add({**_event(1), "uid": "event-1", "data": values}, 0)
    rows.add({**_event(1), "uid": "rewound", "data": values}, 0)
    rows.add({**_event(2), "uid": "letter", "data": values}, LETTER)
    rows.flush()
    kept, optional, _ = rows.kept()
    assert list(kept) == [True, True, False, True, True]
    assert list(optional) == [False, False, False, False, True]


def _event(number: int) -> dict[str, Any]:
    return {"descriptor": UID, "time": float(number), "seq_num": number, "timestamps": {}, "filled": {}}


def array(kind: str, dtype: Any, shape: list[int], data: bytes) -> bytes:
    """A start document with an array, as msgpack-numpy writes it."""
    fields = {b"nd": True, b"type": dtype, b"kind": kind.encode(), b"shape": shape, b"data": data}
    return bytes(msgpack.dumps(["start", {"x": fields}]))


HOSTILE = {
    "no msgpack": b"\xc1",
    "no pair": msgpack.dumps(["start"]),
    "no document": msgpack.dumps(["start", 3]),
    "no kind": msgpack.dumps(["bmm", {}]),
    "a pickle": array("O", "|O8", [1], b"x"),
    "a pickle inside a structure": array("V", [["f", "|O8"]], [1], b"12345678"),
    "a shape that lies": array("", "<f8", [2**40], b""),
    "nested without end": b"\x92\xa5start\x81\xa1x" + b"\x91" * 5_000 + b"\xc0",
    "an extension": b"\x92\xa5start\x81\xa1x\xd4\x01\x00",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_refused(what: str) -> None:
    with pytest.raises(Unreadable):
        opened(HOSTILE[what])
