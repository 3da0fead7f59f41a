"""What `verify` makes of documents that are none, without Kafka or Tiled: each is judged, and ends nothing."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from tests.tools.test_verify_rows import HOSTILE
from tiled_ingest.tools.decoding import Unreadable, opened
from tiled_ingest.tools.verify.expected import LETTER, Partition
from tiled_ingest.tools.verify.report import Report, StreamReport
from tiled_ingest.tools.verify.rows import Rows
from tiled_ingest.tools.verify.streams import StreamComparison

Doc = dict[str, Any]
START = {"uid": "run", "time": 1.0}
DESCRIPTOR = {"uid": "d", "run_start": "run", "time": 1.0, "name": "primary", "data_keys": {"x": {"dtype": "number"}}}
EVENT = {"uid": "e", "descriptor": "d", "time": 1.0, "seq_num": 1, "data": {"x": 1.0}, "timestamps": {}, "filled": {}}
STOP = {"uid": "s", "run_start": "run", "time": 2.0}
COMPLEX = {b"complex": True, b"data": b"1j"}
NUMBER = {b"nd": False, b"type": "<f8", b"data": b"\x00" * 8}
ARRAY = {b"nd": True, b"type": "<f8", b"kind": b"", b"shape": [1], b"data": b"\x00" * 8}

PAGE = {**EVENT, "uid": ["a"], "time": [1.0], "seq_num": [1]}
DATUMS = {"datum_id": ["a"], "resource": "r", "datum_kwargs": {"k": []}}
SHAPED = {"x": {"dtype": "array", "shape": "3"}}

BROKEN: dict[str, tuple[str, Any]] = {
    "a complex number": ("event", COMPLEX),
    "a number": ("event", NUMBER),
    "an array": ("start", ARRAY),
    "a uid that is a list": ("start", {**START, "uid": ["run"]}),
    "no time": ("start", {"uid": "run"}),
    "data keys that are text": ("descriptor", {**DESCRIPTOR, "uid": "o", "data_keys": "x"}),
    "no data keys": ("descriptor", {"uid": "o", "run_start": "run", "time": 1.0}),
    "a data key that is none": ("descriptor", {**DESCRIPTOR, "uid": "o", "data_keys": {"x": 1}}),
    "a dtype that is a list": ("descriptor", {**DESCRIPTOR, "uid": "o", "data_keys": {"x": {"dtype": ["number"]}}}),
    "a shape that is text": ("descriptor", {**DESCRIPTOR, "uid": "o", "data_keys": SHAPED}),
    "configuration that is a list": ("descriptor", {**DESCRIPTOR, "uid": "o", "configuration": [1]}),
    "a seq_num beyond 64 bits": ("event", {**EVENT, "seq_num": 2**63}),
    "a seq_num that is text": ("event", {**EVENT, "seq_num": "1"}),
    "a seq_num that is infinite": ("event", {**EVENT, "seq_num": float("inf")}),
    "a time that is text": ("event", {**EVENT, "time": "1.0"}),
    "data that are a list": ("event", {**EVENT, "data": [1]}),
    "keys that are no text": ("event", {**EVENT, "data": {1: 1.0}}),
    "a page of uneven columns": ("event_page", {**PAGE, "data": {"x": []}}),
    "indices that are infinite": (
        "stream_datum",
        {"uid": "t", "descriptor": "d", "stream_resource": "r", "indices": {"start": 0, "stop": float("inf")}},
    ),
    "a datum's id that is a mapping": ("datum", {"datum_id": {}, "resource": "r", "datum_kwargs": {}}),
    "a page of datums of uneven columns": ("datum_page", DATUMS),
}  # fmt: skip


def packed(kind: str, doc: Any) -> bytes:
    return bytes(msgpack.dumps([kind, doc]))


def partition_of(*values: bytes, letters: tuple[int, ...] = (), only: frozenset[str] = frozenset()) -> Partition:
    partition = Partition(only, whole=True)
    for offset, value in enumerate(values):
        partition.take(offset, value, "schema" if offset in letters else None)
    for run in partition.runs.values():
        for stream in run.streams.values():
            stream.rows.flush()
            assert stream.data_keys == DESCRIPTOR["data_keys"]
            partition.files(stream)
    return partition


AGAIN: dict[str, tuple[tuple[str, Doc], Doc]] = {
    "a start": (("start", {**START, "sample": [1.0, float("nan")]}), {"sample": [1.0, 2.0]}),
    "a descriptor": (("descriptor", {**DESCRIPTOR, "hints": {}}), {"hints": {"fields": ["x"]}}),
    "a resource": (("resource", {"uid": "r", "run_start": "run", "resource_path": "a"}), {"resource_path": "b"}),
    "a datum": (("datum", {"datum_id": "r/0", "resource": "r", "datum_kwargs": {"frame": 0}}), {"resource": "other"}),
    "a stop": (("stop", STOP), {"time": 3.0}),
}


@pytest.mark.parametrize("what", AGAIN)
def test_what_comes_again_must_be_the_same_or_a_dead_letter(what: str) -> None:
    (kind, document), other = AGAIN[what]
    before = [packed("start", START)] * (kind != "start") + [packed("descriptor", DESCRIPTOR)] * (kind == "stop")
    first, changed = packed(kind, document), packed(kind, {**document, **other})
    at = len(before) + 1
    assert partition_of(*before, first, first).unaccounted == []
    assert [offset for offset, _ in partition_of(*before, first, changed).unaccounted] == [at]
    assert partition_of(*before, first, changed, letters=(at,)).unaccounted == []


def test_a_resource_may_come_again_in_another_run() -> None:
    two = [packed("resource", {"uid": "r", "run_start": run, "resource_path": "a"}) for run in ("run", "other")]
    starts = [packed("start", START), packed("start", {**START, "uid": "other"})]
    assert partition_of(*starts, *two).unaccounted == []


RESOURCE = packed("resource", {"uid": "r", "run_start": "run"})
GOOD = (packed("start", START), packed("descriptor", DESCRIPTOR), RESOURCE, packed("event", EVENT))


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_its_kinds_rules_must_be_a_dead_letter(what: str) -> None:
    broken = packed(*BROKEN[what])
    partition = partition_of(*GOOD, broken)
    assert [offset for offset, _ in partition.unaccounted] == [len(GOOD)]
    assert partition.runs["run"].streams["primary"].rows.count == 1
    assert partition_of(*GOOD, broken, letters=(len(GOOD),)).unaccounted == []


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_judged(what: str) -> None:
    assert [offset for offset, _ in partition_of(*GOOD, HOSTILE[what]).unaccounted] == [len(GOOD)]


def test_arrays_of_an_old_msgpack_are_read() -> None:
    text = {"nd": True, "type": "<f8", "kind": "", "shape": [1], "data": b"\x00" * 8}
    assert opened(packed("start", {**START, "x": text}))[1]["x"].tolist() == [0.0]
    with pytest.raises(Unreadable):
        opened(packed("start", text))


def test_a_refused_descriptor_is_forgotten_when_a_good_one_of_its_uid_comes() -> None:
    bad = packed("descriptor", {**DESCRIPTOR, "data_keys": {"y": {"dtype": "array", "external": "FILE:"}}})
    partition = partition_of(GOOD[0], bad, *GOOD[1:], letters=(1,))
    stream = partition.runs["run"].streams["primary"]
    assert (stream.optional, len(stream.descriptors), stream.rows.external) == (False, 1, set())


# ---------------------------------------------------------------- only one run


def test_what_names_the_wanted_run_is_judged_and_nothing_of_others() -> None:
    other = [packed("start", {**START, "uid": "q"}), packed("stop", {**STOP, "run_start": "q", "time": "late"})]
    mine = [
        packed("event", {**EVENT, "seq_num": "1"}),  # by its descriptor
        packed("stop", {**STOP, "time": "late"}),  # by the run
        packed("datum", {"datum_id": "a", "resource": "r", "datum_kwargs": None}),  # by its resource
        packed("start", {**START, "time": 7.0}),  # another start
    ]
    partition = partition_of(*GOOD, *other, *mine, b"garbage", only=frozenset({"run"}))
    assert [offset for offset, _ in partition.unaccounted] == [6, 7, 8, 9]
    assert partition.nameless == 1
    partition = partition_of(*GOOD, *other, *mine, letters=(6, 7, 8), only=frozenset({"run"}))
    assert [offset for offset, _ in partition.unaccounted] == [9]
    assert partition.runs["run"].letters == {"schema": 3}


def test_a_wanted_run_that_did_not_begin_is_missed() -> None:
    assert len(partition_of(packed("stop", STOP), only=frozenset({"run"})).unaccounted) == 1


def test_nothing_compared_is_not_passed() -> None:
    assert not Report().passed
    assert Report().is_empty
    assert not Report().as_json()["compared"]


# ---------------------------------------------------------------- names


def columns_of(keys: dict[str, Any], renames: dict[str, str]) -> dict[str, list[Any]]:
    """What Tiled should hold of one event with these values: by column."""
    described = {**DESCRIPTOR, "data_keys": {key: {"dtype": "number"} for key in keys}}
    event = {**EVENT, "data": keys, "timestamps": dict.fromkeys(keys, 9.0)}
    partition = Partition(frozenset(), whole=True)
    for offset, (kind, doc) in enumerate((("start", START), ("descriptor", described), ("event", event))):
        partition.take(offset, packed(kind, doc), None)
    stream = partition.runs["run"].streams["primary"]
    comparison = StreamComparison(None, stream, renames, StreamReport("primary"), open_end=False)  # type: ignore[arg-type]
    return {name: list(column) for name, column in comparison._columns.items()}


def test_keys_that_are_called_like_columns_of_ours() -> None:
    found = columns_of({"time": 5.0, "seq_num": 6.0, "seq_num_": 7.0}, {"time": "time_"})
    assert (found["time"], found["seq_num"]) == ([1.0], [1])
    assert (found["time_"], found["seq_num__"], found["seq_num_"]) == ([5.0], [6.0], [7.0])
    assert found["ts_seq_num__"] == [9.0]


def test_a_key_that_is_called_like_anothers_time_stamps() -> None:
    found = columns_of({"x": 5.0, "ts_x": 6.0}, {"ts_x": "key_ts_x_1"})
    assert (found["x"], found["ts_x"], found["key_ts_x_1"]) == ([5.0], [9.0], [6.0])


def test_filled_says_nothing_of_a_key_that_is_not_external() -> None:
    rows = Rows()
    rows.add({**EVENT, "filled": {"x": False}}, 0)
    rows.add({**EVENT, "data": {"x": np.ones(2)}}, LETTER)
    rows.flush()
    assert next(iter(rows.columns["x"])) == 1.0
