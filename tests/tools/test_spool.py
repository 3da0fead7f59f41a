"""What is put down comes out once, with its run, in an order that a run can be built from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.tools.rebuild import Spool

KEYS = {"x": {"dtype": "number", "shape": [], "source": "sim"}}
START = ("start", {"uid": "run", "time": 1.0})
DESCRIPTOR = ("descriptor", {"uid": "d", "run_start": "run", "time": 2.0, "name": "primary", "data_keys": KEYS})
STOP = ("stop", {"uid": "end", "run_start": "run", "time": 9.0, "exit_status": "success"})


def event(number: int) -> tuple[str, dict[str, Any]]:
    data = {"data": {"x": 1.0}, "timestamps": {"x": 1.0}, "filled": {}}
    return "event", {"uid": f"e{number}", "descriptor": "d", "time": 3.0, "seq_num": number, **data}


def record(offset: int, document: Any, partition: int = 0, at_ms: int | None = None) -> Record:
    timestamp_ms = 1000 * offset if at_ms is None else at_ms
    return Record("docs", partition, offset, timestamp_ms, b"key", msgpack.dumps(document))


@pytest.fixture
def spool() -> Iterator[Spool]:
    with Spool(Policy()) as made:
        yield made


def order(spool: Spool) -> list[tuple[int, int]]:
    spool.follow_names()
    spool.put_in_order("run")
    found = list(spool.read("run", 0, 1_000, 1_000_000))
    assert [number for number, _ in found] == list(range(len(found)))
    return [(each.partition, each.offset) for _, each in found]


def test_a_position_counts_once_but_a_topic_of_the_same_name_is_another(spool: Spool) -> None:
    assert spool.add(record(3, START), code="run_failed")
    assert not spool.add(record(3, START), code="late")
    assert spool.add(record(3, DESCRIPTOR)), "the topic was deleted and created again"
    found = spool.of("run")
    assert (found.documents, dict(found.codes)) == (2, {"run_failed": 1, "late": 1})


def test_a_document_that_names_only_its_descriptor_finds_its_run_whatever_comes_first(spool: Spool) -> None:
    spool.add(record(1, event(1)), code="orphan")
    spool.add(record(2, event(2), 1), code="scattered_run")
    spool.add(record(9, ("event", {**event(3)[1], "descriptor": "nobody's"})), code="orphan")
    spool.add(Record("docs", 0, 10, 0, None, b"garbage"), code="undecodable")
    spool.add(record(0, DESCRIPTOR))
    spool.follow_names()
    assert spool.runs() == ["run"]
    assert spool.of("run").documents == 3
    assert dict(spool.letters_without_run()) == {"orphan": 1, "undecodable": 1}
    assert spool.strangers() == 2


def test_the_start_is_first_and_the_stop_last_whenever_they_came(spool: Spool) -> None:
    for offset, document in enumerate([DESCRIPTOR, START, event(1), STOP, event(2)]):
        spool.add(record(offset, document))
    assert order(spool) == [(0, 1), (0, 0), (0, 2), (0, 4), (0, 3)]


def test_partitions_are_merged_by_time_but_each_keeps_its_own_order(spool: Spool) -> None:
    spool.add(record(0, START, 0, 100))
    spool.add(record(1, DESCRIPTOR, 0, 200))
    spool.add(record(2, event(1), 0, 900))
    spool.add(record(3, event(2), 0, 300))  # a clock went back
    spool.add(record(7, event(3), 1, 250))
    spool.add(record(8, event(4), 1, 950))
    assert order(spool) == [(0, 0), (0, 1), (1, 7), (0, 2), (0, 3), (1, 8)]


def test_what_is_read_at_once_is_bounded_but_never_nothing(spool: Spool) -> None:
    for offset, document in enumerate([START, DESCRIPTOR, event(1)]):
        spool.add(record(offset, document))
    order(spool)
    assert len(list(spool.read("run", 0, 3, 1))) == 1
    assert [number for number, _ in spool.read("run", 1, 3, 10_000)] == [1, 2]


def test_the_digest_names_positions_and_contents(spool: Spool) -> None:
    spool.add(record(0, START))
    one = spool.put_in_order("run")
    assert spool.put_in_order("run") == one
    spool.add(record(1, STOP))
    assert spool.put_in_order("run") != one


def test_another_start_that_the_log_holds_is_left_out_but_no_repetition(spool: Spool) -> None:
    spool.add(record(5, ("start", {**START[1], "sample": "another"})))  # a letter, and first here
    spool.add(record(0, START))
    spool.add(record(7, START))
    spool.add(record(9, STOP))
    for _ in range(2):
        spool.drop_other_starts("run", Home("docs", 0), 0)
        assert sorted(order(spool)) == [(0, 0), (0, 7), (0, 9)]


def test_documents_of_another_run_of_the_uid_are_left_out(spool: Spool) -> None:
    spool.add(record(0, START))
    spool.add(record(5, ("start", {**START[1], "sample": "another"})), code="conflicting_run")
    spool.drop("run", "conflicting_run")
    found = spool.of("run")
    assert (found.documents, found.starts) == (1, {Home("docs", 0): 0})
