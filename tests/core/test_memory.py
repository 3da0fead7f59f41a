"""What is built of messages is bounded, whatever they say: no request is heavy, and no row is laid out for nothing.

Messages are counted as they stand in Kafka. Here a batch of little messages asks for much, by accident or not.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_engine import World
from tests.core.test_steps import HOME, MiniTiled, descriptor_doc, event_doc, record, run_of, start_doc, stop_doc
from tests.core.test_tables import Desk
from tiled_ingest.core import effects as fx
from tiled_ingest.core import writes as w
from tiled_ingest.core.decoding.eras import Eras
from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.decoding.weigh import held_nbytes
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.rows.batches import RowBuffer
from tiled_ingest.core.rows.blocks import ArrayPlan, block
from tiled_ingest.core.rows.ragged import RaggedPlan, chunks, ragged_in_sql
from tiled_ingest.core.rows.sizes import (
    PADDING_MAX,
    REQUEST_NBYTES_MAX,
    ROW_NBYTES_MAX,
    SMALL_ROW_NBYTES,
    VALUE_NBYTES_SMALL,
    spans,
)
from tiled_ingest.core.rows.stretch import ROW_BYTES_MIN
from tiled_ingest.core.runs.documents import normalise_descriptor
from tiled_ingest.core.runs.stream import Stream
from tiled_ingest.core.steps import Procedure
from tiled_ingest.core.writing.refill import Refill
from tiled_ingest.core.writing.values import Values

KINDS = (
    "|u1",
    "<i2",
    "<f8",
    "<c16",
    "<U3",
    "<U99999999",
    "S2147483647",
    "V2000000000",
    "f8,,",
    "<M8[s]",
    "f8,i4",
    None,
)
SIZES = st.integers(1, 30) | st.sampled_from([0, 10**6, 10**12])
HOLLOW = st.sampled_from([(0,), (0, 5_000_000), (1_000, 0), (3, 0, 10**6)])
PROVEN_NBYTES = 16  # what an element of the values below takes at most, as what it may become


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """A value that costs its publisher little, and may pretend to be more."""
    match draw(st.sampled_from(["list", "array", "hollow", "text", "none", "nested"])):
        case "list":
            return draw(st.lists(st.integers(0, 2**40) | st.floats(width=32), max_size=40))
        case "array":
            shape = draw(st.lists(st.integers(0, 12), min_size=1, max_size=3))
            return np.ones(shape, draw(st.sampled_from(["u1", "i8", "f4", "f8"])))
        case "hollow":
            return np.zeros(draw(HOLLOW), draw(st.sampled_from(["f8", "<U99999999"])))
        case "text":
            return [
                *draw(st.lists(st.text("ab", max_size=5), max_size=5)),
                "c" * draw(st.sampled_from([1, 90, 70_000])),
            ]
        case "nested":
            return [draw(st.lists(st.integers(0, 9), max_size=4)) for _ in range(draw(st.integers(1, 4)))]
    return None


def own_nbytes(value: Any) -> int:
    """What a value proves."""
    if isinstance(value, np.ndarray):
        return value.size * PROVEN_NBYTES
    if isinstance(value, list):
        return sum(map(own_nbytes, value))
    return 4 * len(value) if isinstance(value, str) else PROVEN_NBYTES


SPECS = st.fixed_dictionaries({"shape": st.lists(SIZES, max_size=3), "dtype_numpy": st.sampled_from(KINDS)})


@settings(max_examples=300, deadline=None)
@given(SPECS, st.lists(arrays(), min_size=1, max_size=6))
def test_a_row_is_never_far_larger_than_what_proves_it(spec: dict[str, Any], values: list[Any]) -> None:
    plan = ArrayPlan.begin(spec, values[0])
    while (held := block(values, plan)).plan != plan:
        plan = held.plan
    declared = np.prod([max(size, 1) for size in spec["shape"]], dtype=object) * PROVEN_NBYTES
    claimed = declared if declared <= ROW_NBYTES_MAX else 0
    largest = max(map(own_nbytes, values))
    # Rows may be padded, and before that the texts of one row are.
    assert plan.row_nbytes <= max(SMALL_ROW_NBYTES, VALUE_NBYTES_SMALL, PADDING_MAX * max(largest, claimed))
    assert plan.row_nbytes <= plan.limit
    assert plan.limit <= ROW_NBYTES_MAX
    for begin, end in spans(len(held), plan.row_nbytes):
        assert held.laid(begin, end).nbytes <= max(REQUEST_NBYTES_MAX, plan.row_nbytes)


@given(st.integers(0, 10**7), st.integers(1, 10**9))
def test_spans_are_all_rows_and_bearable(rows: int, row_nbytes: int) -> None:
    rows = min(rows, 1_000 * max(1, REQUEST_NBYTES_MAX // row_nbytes))
    found = list(spans(rows, row_nbytes))
    assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])][: len(found)]
    assert rows == (found[-1][1] if found else 0)
    assert all(end - begin == 1 or (end - begin) * row_nbytes <= REQUEST_NBYTES_MAX for begin, end in found)


# ---------------------------------------------------------------- what is built, measured


@dataclass
class Scales(MiniTiled):
    """A Tiled that keeps no rows of arrays, but weighs every request."""

    weights: list[tuple[int, int]] = field(default_factory=list)  # bytes and rows of each

    def __call__(self, request: w.Request) -> w.Outcome:
        return self.apply(request)  # without a note of it, which would keep its rows

    def apply(self, request: w.Request) -> w.Outcome:
        match request:
            case w.PatchArray():
                self.weights.append((request.array.nbytes, len(request.array)))
                return w.Done()
            case w.Append():
                self.weights.append((request.table.nbytes, request.table.num_rows))
                if request.path[-1].startswith("rebuild") and "chunk_index" in request.table.schema.names:
                    return w.Done()
        return super().apply(request)

    def check(self, nbytes_max: int = REQUEST_NBYTES_MAX) -> None:
        assert self.weights
        assert all(nbytes <= nbytes_max for nbytes, _ in self.weights), max(self.weights)


class Room(Desk):
    """A stream with one array."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        doc = {**descriptor_doc(), "data_keys": {"a": {"dtype": "array", "source": "s", **spec}}}
        self.one = Stream(("r", "primary"), normalise_descriptor(doc), fresh=True)
        self.run.streams["primary"] = self.one
        self.values = Values(self.around, self.run, self.one)
        self.scales = Scales()
        self.scales.nodes |= {("r",): w.Node({}), ("r", "primary"): w.Node({})}

    def write(self, values: list[Any]) -> tuple[set[int], int]:
        """Write a batch; return its misfits, and the bytes that this took at most besides the values."""
        buffer = RowBuffer()
        for number, value in enumerate(values, 1):
            made = Event("d", f"d/{number}", float(number), number, {"a": value}, {"a": 1.0})
            self.one.plan(made)
            buffer.append(made, number, 300)
        batch = buffer.take()
        tracemalloc.start()
        try:
            misfits: set[int] = self.drive(self.values.append(batch))
            return misfits, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def drive(self, procedure: Procedure[set[int]]) -> set[int]:
        """Answer its requests, and keep none of them."""
        answer: w.Outcome | None = None
        while True:
            try:
                step = procedure.send(answer)
            except StopIteration as ended:
                result: set[int] = ended.value
                return result
            assert isinstance(step, w.Request)
            answer = self.scales(step)
            del step


WAVE = {"shape": [20], "dtype_numpy": "<f8"}


def test_one_odd_event_among_many_costs_neither_memory_nor_storage() -> None:
    room = Room(WAVE)
    values: list[Any] = [np.arange(20.0)] * 45_000
    values[100] = np.arange(4_000.0)
    misfits, peak = room.write(values)
    assert misfits == {100}
    room.scales.check()
    arrays_nbytes = sum(nbytes for nbytes, _ in room.scales.weights)
    assert arrays_nbytes < 2 * 45_000 * 20 * 8 + 45_000 * 32  # the rows, and the table beside
    assert peak < 100_000_000, "laid out all together"


def test_rows_that_are_padded_go_in_many_requests() -> None:
    room = Room(WAVE)
    values: list[Any] = [np.arange(20.0)] * 20_000
    values[100] = np.arange(1_000.0)
    misfits, peak = room.write(values)
    assert misfits == set()
    room.scales.check()
    patched = [rows for nbytes, rows in room.scales.weights if nbytes == rows * 8_000]
    assert (sum(patched), len(patched)) == (20_000, 10)
    assert peak < 5 * REQUEST_NBYTES_MAX < 20_000 * 8_000


def test_lists_that_are_converted_are_not_all_kept() -> None:
    room = Room({"shape": [1_000], "dtype_numpy": "<i8"})
    shared = list(range(1_000))  # in the messages of a byte or two each
    misfits, peak = room.write([shared] * 12_000)
    assert misfits == set()
    assert sum(rows for nbytes, rows in room.scales.weights if nbytes == rows * 8_000) == 12_000
    assert peak < 4 * REQUEST_NBYTES_MAX < 12_000 * 8_000


def test_ragged_rows_go_in_many_chunks() -> None:
    room = Room({"shape": [None], "dtype_numpy": "<f8"})
    shared = np.ones(2_000, np.uint8)
    misfits, peak = room.write([shared] * 5_000)
    assert misfits == set()
    room.scales.check()
    assert room.one.arrays["a"].rows == 5_000
    source = room.scales.nodes["r", "primary", "a"].array
    assert source is not None
    assert source.chunks[0] is not None
    assert (len(source.chunks[0]), sum(source.chunks[0])) == (6, 5_000)
    assert peak < 6 * REQUEST_NBYTES_MAX < 5_000 * 2_000 * 8 * 2


def test_a_late_value_that_widens_ragged_chunks_widens_all() -> None:
    plan = RaggedPlan.begin({"shape": [None], "dtype_numpy": "<i8"})
    values: list[Any] = [np.ones(2**20, np.int64)] * 4 + [[0.5]]
    found = chunks(values, plan)
    assert [each.rows for each in found.each()] == [1, 1, 1, 2]
    assert {str(each.plan.dtype) for each in found.each()} == {"float64"}
    assert found.misfits == ()


@pytest.mark.parametrize("shape", [[10**9, None], [None, 2**62, 2**62], [-5, None], [*[1] * 40, None]])
def test_a_ragged_array_of_an_absurd_shape_stays_in_the_table(shape: list[int | None]) -> None:
    assert not ragged_in_sql({"shape": shape, "dtype_numpy": "<f8"})
    room = Room({"shape": shape, "dtype_numpy": "<f8"})
    assert room.write([None, [], [1.0]]) is not None
    assert not room.one.arrays


def test_many_images_without_pixels_take_nothing() -> None:
    room = Room({"shape": [1, 1], "dtype_numpy": "<f8"})
    misfits, peak = room.write([np.zeros((0, 5_000_000))] * 300)
    assert misfits == set()
    assert peak < 5_000_000
    assert max(nbytes for nbytes, _ in room.scales.weights) < 100_000


@pytest.mark.parametrize("kind", ["<U99999999", "S2147483647", "V2000000000", "(1000,1000)f8,f8", "f8,,"])
def test_what_a_descriptor_declares_absurdly_does_not_cost_the_data(kind: str) -> None:
    room = Room({"shape": [1, 1], "dtype_numpy": kind})
    value = [["ab"]]
    misfits, peak = room.write([value] * 20)
    assert misfits == set()
    assert peak < 5_000_000
    state = room.one.arrays["a"]
    assert state.rows == 20
    assert isinstance(state.plan, ArrayPlan)
    assert state.plan.row_nbytes <= 8


def test_one_long_text_does_not_lengthen_many() -> None:
    room = Room({"shape": [2], "dtype_numpy": "<U4"})
    values: list[Any] = [["a", "b"]] * 1_000
    values[10] = ["c" * 500_000, "d"]
    values[20] = ["c" * 500, "d"]
    misfits, peak = room.write(values)
    assert misfits == {10}
    room.scales.check()
    assert peak < 20_000_000


def test_texts_of_one_value_that_numpy_would_make_huge_are_none() -> None:
    room = Room({"shape": [2], "dtype_numpy": "<U4"})
    misfits, peak = room.write([["a", "b"], ["c" * 100_000, *["d"] * 20_000]])  # 8 GB
    assert misfits == {1}
    assert peak < 20_000_000


def test_gaps_in_images_that_are_too_large_for_floats_are_said() -> None:
    room = Room({"shape": [3_000, 3_000], "dtype_numpy": "|u1"})
    misfits, peak = room.write([np.ones((3_000, 3_000), np.uint8), None, np.ones((2, 2), np.uint8)])
    assert misfits == {1, 2}
    assert [nbytes for nbytes, _ in room.scales.weights[:3]] == [9_000_000] * 3
    assert peak < 100_000_000


@pytest.mark.parametrize("hollow", [np.zeros((0, 0)), None])
def test_rows_before_the_first_value_do_not_say_how_large_it_may_be(hollow: Any) -> None:
    room = Room({"shape": [0, 0], "dtype_numpy": "<f8"})
    misfits, _ = room.write([hollow, np.ones((300, 300)), np.ones((2, 2)), np.ones((3_000, 3_000))])
    assert misfits == {3}
    state = room.one.arrays["a"]
    assert isinstance(state.plan, ArrayPlan)
    assert state.plan.row_shape == (300, 300)


def test_a_successor_pads_as_far_as_its_predecessor() -> None:
    begun = ArrayPlan.begin(WAVE, np.arange(20.0))
    again = ArrayPlan.begin(WAVE, np.arange(4_000.0))  # its first value is the odd one
    assert begun.joined(again) == begun


# ---------------------------------------------------------------- tables


def wide(keys: int = 700) -> dict[str, Any]:
    return descriptor_doc(**dict.fromkeys((f"k{number}" for number in range(keys)), "number"))


def scant(number: int) -> dict[str, Any]:
    return {**event_doc(number), "data": {}, "timestamps": {}}


def wide_world(rows: int) -> World:
    world = World(Policy(age_s_max=0.2), Scales())
    world.logs[HOME] = [record(0, "start", start_doc()), record(1, "descriptor", wide())]
    world.logs[HOME] += [record(1 + number, "event", scant(number)) for number in range(1, rows + 1)]
    return world


def test_events_without_values_fill_wide_tables_in_portions() -> None:
    world = wide_world(6_000)
    world.logs[HOME].append(record(6_002, "stop", stop_doc()))
    world.assign()
    world.settle()
    assert isinstance(world.tiled, Scales)
    world.tiled.check(int(Policy().bytes_max * 1.1))
    assert max(rows for _, rows in world.tiled.weights) < 6_000
    assert world.committed == len(world.logs[HOME])
    assert world.tiled.facts(("r",))["state"] == "complete"


def test_a_wide_table_is_written_anew_in_portions() -> None:
    log = wide_world(6_000).logs[HOME]
    run = run_of()
    normalised = normalise_descriptor(wide())
    run.acceptance.add_descriptor("d", "primary", normalised.doc["data_keys"], offset=1, content="")
    stream = run.streams["primary"] = Stream(("r", "primary"), normalised, fresh=False)
    stream.plan(Event("d", "d/1", 1.0, 1, {}, {}))
    rows_max = stream.laid_rows_max(Policy())
    chunk = fx.LogRead(0, log, len(log), 0)
    batches = list(Refill(run, "primary", len(log), rows_max, 2**62).take(chunk, Eras(Policy())))
    assert [batch.rows for batch in batches] == [rows_max, rows_max, 6_000 - 2 * rows_max]
    assert np.concatenate([batch.keys.seq_num for batch in batches]).tolist() == [*range(1, 6_001)]
    weights = [batch.to_table(part.columns).table.nbytes for batch in batches for part in stream.parts]
    assert max(weights) < 1.1 * Policy().bytes_max < sum(weights)


def test_a_page_that_would_fill_a_wide_table_is_too_large() -> None:
    world = World(Policy(age_s_max=0.2))
    world.assign()
    rows = 6_000
    page = {"descriptor": "d", "uid": [""] * rows, "time": [1] * rows, "seq_num": [*range(1, rows + 1)], "filled": {}}
    world.publish(
        ("start", start_doc()),
        ("descriptor", wide()),
        ("event", scant(1)),
        ("event_page", {**page, "data": {}, "timestamps": {}}),
    )
    world.settle()
    assert [letter.code for letter in world.letters] == ["too_large"]
    assert world.stop is None


# ---------------------------------------------------------------- events that wait

SPELLED: dict[str, Any] = {
    "nothing": {},
    "numbers": {f"k{number}": 0.5 * number for number in range(10)},
    "empty lists": {"x": [[]] * 5_000},
    "empty mappings": {"x": [{}] * 5_000},
    "lists of lists": {"x": [[[[1]]]] * 2_000},
    "short texts": {"x": [f"{number:03}" for number in range(5_000)]},
    "integers": {"x": [*range(300, 5_300)]},
    "floats": {"x": [0.5] * 5_000},
    "keys": {f"{number:04}": None for number in range(5_000)},
    "mappings": {"x": {f"{number:04}": 1 for number in range(5_000)}},
}


@pytest.mark.parametrize("name", SPELLED)
def test_a_waiting_event_counts_what_it_takes(name: str) -> None:
    """`memory.bytes_max` bounds memory only if no event takes far more of it than it counts."""
    message = record(0, "event", {**event_doc(1), "data": SPELLED[name], "timestamps": {}})
    decode = Eras(Policy())
    decode(message)
    tracemalloc.start()
    try:
        _, held = decode(message)
        took = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert isinstance(held, Event)
    assert took <= 16 * max(message.nbytes, ROW_BYTES_MIN, held_nbytes(held))


def test_an_ordinary_event_counts_its_bytes() -> None:
    message = record(0, "event", {**event_doc(1), "data": {f"motor{number}": 0.5 for number in range(10)}})
    _, held = Eras(Policy())(message)
    assert isinstance(held, Event)
    assert held_nbytes(held) <= message.nbytes


def test_lists_that_are_heavier_than_their_bytes_end_a_batch() -> None:
    world = World(Policy(age_s_max=1e6, bytes_max=1_000_000))
    world.assign()
    heavy = {**event_doc(1), "data": {"x": [[]] * 50_000}, "timestamps": {}}
    world.publish(("start", start_doc()), ("descriptor", descriptor_doc(x="string")))
    world.publish(*(("event", {**heavy, "uid": f"e{number}", "seq_num": number}) for number in range(1, 5)))
    world.settle(2)
    appended = [ask.request for ask in world.kinds(fx.Ask) if isinstance(ask.request, w.Append)]
    assert [ask.table.num_rows for ask in appended] == [2, 2]
