"""Rows on their way into batches: full, old or forced; a record is never cut in two; each batch has one hold."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.offsets import Hold
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.runs.documents import normalise_descriptor
from tiled_ingest.core.runs.stream import Sealed, Stream

POLICY = Policy(rows_max=4, bytes_max=1_000, age_s_max=2.0)


def descriptor(*keys: str, dtype: str = "number") -> dict[str, Any]:
    data_keys = {key: {"dtype": dtype, "shape": [], "source": "s"} for key in keys}
    return {"uid": "d", "time": 1.0, "run_start": "r", "name": "primary", "data_keys": data_keys}


def event(seq_num: int, **data: Any) -> Event:
    return Event("d", f"u{seq_num}", float(seq_num), seq_num, data, dict.fromkeys(data, 0.5))


class Feed:
    """Gives records of some rows to a stream, as a claim does."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.stream = Stream(("r", "primary"), normalise_descriptor(descriptor("x")), fresh=True)
        self.policy = policy
        self.held: list[Hold] = []
        self._rows = 0

    def record(self, offset: int, rows: int = 1, nbytes: int = 10, now_s: float = 0.0, stamp_ms: int = 0) -> None:
        for _ in range(rows):
            self._rows += 1
            if self.stream.empty:
                self.held.append(Hold(offset, len(self.held) + 1))
                self.stream.begin(self.held[-1], now_s, stamp_ms)
            self.stream.add(event(self._rows, x=1.0), offset, nbytes)
        self.stream.seal_if_full(self.policy)

    def take(self, now_s: float = 0.0, force: str | None = None) -> Sealed | None:
        return self.stream.take_due(now_s, self.policy, force)

    def taken(self, now_s: float = 0.0, force: str | None = None) -> list[Sealed]:
        return list(iter(lambda: self.take(now_s, force), None))


def test_names_and_places() -> None:
    stream = Feed().stream
    assert stream.name == "primary"
    assert (stream.waiting, stream.empty, stream.nbytes) == (False, True, 0)


def test_a_full_batch_goes_at_once() -> None:
    feed = Feed()
    for offset in range(3):
        feed.record(offset)
    assert not feed.stream.is_due(0.0, POLICY, None)
    assert feed.take() is None
    feed.record(3)
    assert feed.stream.is_due(0.0, POLICY, None)
    sealed = feed.take()
    assert sealed is not None
    assert (sealed.batch.rows, sealed.reason, sealed.nbytes, sealed.hold.offset) == (4, "rows", 40, 0)
    assert not feed.stream.waiting


def test_bytes_end_a_batch() -> None:
    feed = Feed()
    feed.record(0, nbytes=999)
    assert feed.take() is None
    feed.record(1, nbytes=1)
    sealed = feed.take()
    assert sealed is not None
    assert (sealed.reason, sealed.batch.rows, sealed.nbytes) == ("bytes", 2, 1_000)


def test_age_ends_a_batch_counted_from_its_first_row() -> None:
    feed = Feed()
    feed.record(0, now_s=10.0, stamp_ms=77)
    feed.record(1, now_s=11.9, stamp_ms=88)
    assert feed.stream.since_s == 10.0
    assert not feed.stream.is_due(11.9, POLICY, None)
    assert feed.take(11.9) is None
    assert feed.stream.is_due(12.0, POLICY, None)
    sealed = feed.take(12.0)
    assert sealed is not None
    assert (sealed.reason, sealed.batch.rows, sealed.since_s, sealed.timestamp_ms) == ("age", 2, 10.0, 77)


@pytest.mark.parametrize("reason", ["stop", "revoke", "shutdown"])
def test_a_reason_forces_even_a_young_batch(reason: str) -> None:
    feed = Feed()
    assert not feed.stream.is_due(0.0, POLICY, reason)
    assert feed.take(0.0, reason) is None
    feed.record(0)
    assert feed.stream.is_due(0.0, POLICY, reason)
    sealed = feed.take(0.0, reason)
    assert sealed is not None
    assert (sealed.reason, sealed.batch.rows) == (reason, 1)
    assert not feed.stream.is_due(0.0, POLICY, reason)


def test_what_was_sealed_first_goes_first_and_keeps_its_reason() -> None:
    feed = Feed()
    for offset in range(6):
        feed.record(10 * offset, now_s=float(offset))
    assert (feed.stream.first_offset, feed.stream.since_s) == (0, 0.0)
    first = feed.take(0.0, "stop")
    assert first is not None
    assert (first.reason, feed.stream.first_offset, feed.stream.since_s) == ("rows", 40, 4.0)
    second = feed.take(0.0, "stop")
    assert second is not None
    assert (second.reason, second.batch.offsets.tolist(), second.hold.offset) == ("stop", [40, 50], 40)


def test_the_rows_of_a_record_are_never_split() -> None:
    feed = Feed()
    feed.record(0)
    feed.record(1, rows=9)
    feed.record(2)
    assert [sealed.batch.offsets.tolist() for sealed in feed.taken(0.0, "stop")] == [[0, *[1] * 9], [2]]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 400)), max_size=40))
def test_batches_are_the_records_in_order_each_whole(records: list[tuple[int, int]]) -> None:
    feed = Feed()
    for offset, (rows, nbytes) in enumerate(records):
        feed.record(offset, rows, nbytes)
        assert feed.stream.nbytes == sum(rows * nbytes for rows, nbytes in records[: offset + 1])
    sealed = feed.taken(0.0, "stop")
    offsets = [set(batch.batch.offsets.tolist()) for batch in sealed]
    assert all(not one & other for one, other in pairwise(offsets))
    assert [row.seq_num for batch in sealed for row in batch.batch.events()] == [
        number + 1 for number in range(sum(rows for rows, _ in records))
    ]
    assert [batch.hold for batch in sealed] == feed.held
    assert all(batch.hold.offset == batch.batch.first_offset for batch in sealed)
    assert feed.stream.nbytes == 0


def test_dropping_gives_every_hold_once() -> None:
    feed = Feed()
    for offset in range(10):
        feed.record(offset)
    assert len(feed.held) == 3
    assert feed.stream.drop() == feed.held
    assert feed.stream.drop() == []
    assert (feed.stream.waiting, feed.stream.nbytes) == (False, 0)


# ---------------------------------------------------------------- columns


def test_the_first_event_plans_and_later_ones_change_nothing() -> None:
    stream = Stream(("r", "primary"), normalise_descriptor(descriptor("a", "b")), fresh=True)
    stream.plan(event(1, b=1.0, a=1.0))
    stream.plan(event(2, a=1.0, b=1.0))
    assert stream.parts
    assert stream.parts[0].columns.data == ("b", "a")


def test_a_later_descriptor_adds_keys_and_changes_none() -> None:
    stream = Stream(("r", "primary"), normalise_descriptor(descriptor("a")), fresh=True)
    stream.reconfigure(normalise_descriptor(descriptor("a", "b", dtype="integer")))
    assert {key: spec["dtype"] for key, spec in stream.data_keys.items()} == {"a": "number", "b": "integer"}


# ---------------------------------------------------------------- rebuild


def test_recalled_rows_are_counted_and_do_not_wait() -> None:
    stream = Feed().stream
    events = [event(number, x=1.0) for number in range(1, 6)]
    for old in events:
        stream.recall(old)
    stream.recalled()
    stream.recalled()
    feed = Feed()
    feed.record(0, rows=5)
    same = feed.taken(0.0, "stop")[0].batch
    assert stream.confirmed == Tally.of(same.keys)
    assert (stream.waiting, stream.nbytes) == (False, 0)


def test_a_long_rebuild_holds_no_rows() -> None:
    stream = Feed().stream
    for number in range(1, 65_537):
        stream.recall(Event("d", "u", 1.0, number, {}, {}))
    assert stream.confirmed.count == 65_536
    assert len(stream._old_times) == 0
