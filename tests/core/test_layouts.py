"""The fast way and the general way are one: whatever a message is, both make the same of it.

Messages are drawn as publishers make them, and as nobody should: rare types, lengths spelled long, doubled keys, single
bytes changed. The fast way may refuse to know a message; it may never know it otherwise.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_engine import POLICY, World
from tests.core.test_steps import HOME, STAMP_MS, MiniTiled, descriptor_doc, event_doc, start_doc, stop_doc
from tiled_ingest.core import effects as fx
from tiled_ingest.core import writes as w
from tiled_ingest.core.decoding.decode import Decoder
from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.decoding.known import KnownLayouts
from tiled_ingest.core.decoding.layouts import Layout, UnfitError
from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Record
from tiled_ingest.core.rows.packed import Packed
from tiled_ingest.core.rows.stretch import Stretch

DTYPES = {"x": "number", "i": "integer", "s": "string", "b": "boolean", "a": "array"}
decode = Decoder(Policy())


# ---------------------------------------------------------------- messages


def packed(doc: Any, kind: str = "event") -> bytes:
    return bytes(msgpack.packb((kind, doc), default=msgpack_numpy.encode))


def records_of(messages: Sequence[bytes]) -> list[Record]:
    return [Record("t", 0, 10 + 2 * place, STAMP_MS + place, None, message) for place, message in enumerate(messages)]


INTEGERS = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
NEGATIVE = [-1, -32, -33, -128, -129, -32_769, -(2**31) - 1, -(2**53) - 1, -(2**63)]
FLOATS = [0.0, -0.0, 0.5, 1e300, float("inf"), float("-inf"), float("nan")]
TEXTS = ["", "on", "x" * 31, "x" * 32, "x" * 300, "\0", "a\0b", "é", "\x7f"]
NUMPY = [np.float32(0.1), np.float16(2), np.float64(0.5), np.int64(-7), np.int64(2**62), np.uint8(200),
         np.uint64(2**63), np.bool_(True), np.longdouble(1), np.str_("on"), np.complex128(1j)]  # fmt: skip
DTYPES_OF_ARRAYS = ["<f8", ">f8", "<f4", "<f2", "<i8", "<i4", ">i2", "|u1", "<u4", "<u8", "|b1", "<U2", "|S2", "<c16"]
ARRAYS = [np.array([0, 1, 2]).astype(dtype) for dtype in DTYPES_OF_ARRAYS]
ODD: list[Any] = [np.array([np.nan, np.inf]), np.array([2**63], np.uint64), np.array([2**60 + 1]), np.array([]),
       np.array(0.5), np.ones((2, 2)), [], [1.0, 2.0], [1, None], [[1]], [True], True, False, None, b"bytes", {},
       {"a": 1}]  # fmt: skip
VALUES = [*INTEGERS, *NEGATIVE, *FLOATS, *TEXTS, *NUMPY, *ARRAYS, *ODD]
values = st.one_of(st.sampled_from(VALUES), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=3))
usual = {
    "x": st.floats(),
    "i": st.integers(0, 70_000),
    "s": st.sampled_from(["on", "off", ""]),
    "b": st.booleans(),
    "a": st.just(np.array([1.0, np.nan])),
}


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """An event; half of them with one thing that is rare."""
    rare = draw(st.sampled_from(["", "", "", "value", "value", "value", "keys", "field", "filled"]))
    keys = draw(st.lists(st.sampled_from([*usual, "z"]), unique=True)) if rare == "keys" else list(usual)
    data: dict[str, Any] = {key: draw(usual.get(key, values)) for key in keys}
    if rare == "value":
        data[draw(st.sampled_from(keys))] = draw(values)
    doc = event_doc(1, descriptor=draw(st.sampled_from("ddde?")), **data)
    doc["timestamps"] = {key: draw(st.floats()) for key in data}
    doc["filled"] = {"x": draw(st.booleans())} if rare == "filled" else {}
    return doc | (draw(st.sampled_from([{"more": 1}, {"time": 3}, {"seq_num": None}])) if rare == "field" else {})


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """Events of few forms; some repeated, or rewound; and of some, single bytes changed, doubled, or lost."""
    forms = draw(st.lists(events(), min_size=1, max_size=4))
    messages = []
    for count in range(1, draw(st.integers(1, 24)) + 1):
        seq_num = draw(st.sampled_from([count, count, count, count + 120, count + 250, 1, 2]))
        doc = dict(draw(st.sampled_from(forms)))
        if doc["seq_num"] is not None:
            doc |= {"seq_num": seq_num, "uid": draw(st.sampled_from([f"{seq_num:04}", f"{seq_num:04}", f"{count:04}"]))}
        messages.append(draw(damaged(packed(doc))) if draw(st.integers(0, 9)) == 0 else packed(doc))
    return messages


@st.composite
def damaged(draw: st.DrawFn, message: bytes) -> bytes:
    made = bytearray(message)
    at = draw(st.integers(0, len(made) - 1))
    made[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(made)


def same(one: Any, other: Any) -> bool:
    """Equal, NaN being equal to itself, and of the same types."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return type(one) is type(other) and (one == other or repr(one) == repr(other) == "nan")


def same_events(one: Event, other: Event) -> bool:
    return all(same(getattr(one, name), getattr(other, name)) for name in Event.__struct_fields__)


# ---------------------------------------------------------------- one message


@settings(max_examples=300, deadline=None)
@given(logs())
def test_what_has_a_layout_is_what_decoding_would_make_of_it(messages: list[bytes]) -> None:
    known = KnownLayouts(decode.read, rows_min=1)
    records = records_of([*messages, *messages])
    taken = []
    for piece in known(records):
        if isinstance(piece, Stretch):
            made = [zip(offsets.tolist(), part.events(), strict=True) for part, offsets in piece.packed]
            found = dict(chain.from_iterable(made))
            for record in piece.records:
                _, event = decode(record)
                assert isinstance(event, Event)
                assert same_events(event, found[record.offset])
        taken += list(piece.records) if isinstance(piece, Stretch) else [piece]
    assert taken == records


@settings(max_examples=200, deadline=None)
@given(events(), st.integers(0, 10_000), st.integers(0, 255))
def test_a_layout_never_fits_what_decoding_refuses(doc: dict[str, Any], place: int, byte: int) -> None:
    message = packed(doc)
    try:
        layout = Layout.of(message, decode(records_of([message])[0])[1])  # type: ignore[arg-type]
    except (InvalidDocument, UnfitError):
        return
    changed = bytearray(message)
    changed[place % len(message)] = byte
    words = np.frombuffer(bytes(changed) + bytes(-len(changed) % 8), np.uint64).reshape(1, -1)
    if layout.fits(words)[0]:
        _, event = decode(records_of([bytes(changed)])[0])
        assert isinstance(event, Event)


# ---------------------------------------------------------------- a whole run


LETTERS, LAST_COMMIT = 2, -1


def outcome(policy: Policy, messages: Sequence[bytes], slices: Sequence[int]) -> tuple[Any, ...]:
    """What the world has seen at the end: rows, types, notes, dead letters, counts, commits."""
    world = World(policy, MiniTiled())
    world.assign()
    opening = [
        packed(start_doc(), "start"),
        packed(descriptor_doc("d", **DTYPES), "descriptor"),
        packed(descriptor_doc("e", name="other", x="number"), "descriptor"),
    ]
    log = records_of([*opening, *messages, packed(stop_doc(), "stop")])
    edges = sorted({0, 3, len(log), *(edge % len(log) for edge in slices)})
    for begin, end in pairwise(edges):
        world.logs[HOME] += log[begin:end]
        world.tick()
    world.settle()
    appends = [
        (request.path, str(request.table.schema), repr(request.table.to_pylist()))
        for request in (ask.request for ask in world.kinds(fx.Ask))
        if isinstance(request, w.Append)
    ]
    counts: Counter[tuple[str, str]] = Counter()
    for told in world.told("documents"):
        counts[told["name"], told["result"]] += told["count"]
    letters = [(letter.record.offset, letter.code, letter.error, letter.run) for letter in world.letters]
    return appends, world.tiled.facts(("r",)), letters, counts, world.told("flush"), world.commits[-1]


@settings(max_examples=200, deadline=None)
@given(
    logs(),
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from([1, 3, 7, 50_000]),
    st.sampled_from([1, 700, 32_000_000]),
)
def test_the_world_cannot_tell_the_fast_way_from_the_general_one(
    messages: list[bytes], slices: list[int], rows_max: int, bytes_max: int
) -> None:
    policy = replace(POLICY, rows_max=rows_max, bytes_max=bytes_max, breaker_window=10_000)
    general = outcome(replace(policy, layout_rows_min=10**6), messages, slices)
    assert outcome(replace(policy, layout_rows_min=1), messages, slices) == general


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_every_kind_of_value_in_every_kind_of_column(value: Any) -> None:
    policy = replace(POLICY, breaker_window=10_000)
    usual_data: dict[str, Any] = {"x": 0.5, "i": 3, "s": "on", "b": True, "a": np.ones(2)}
    data = [usual_data, *(usual_data | {key: value} for key in (*DTYPES, *DTYPES))]
    messages = [packed(event_doc(number + 1, **each)) for number, each in enumerate(data)]
    general = outcome(replace(policy, layout_rows_min=10**6), messages, ())
    assert outcome(replace(policy, layout_rows_min=1), messages, ()) == general


def test_the_breaker_hears_the_same_in_the_same_order() -> None:
    """It opens at the same document, and nothing behind that is committed, whichever way was taken.

    Rows behind it may be written already: they will come again, as after a crash.
    """
    for pattern in ("d?", "ddd?????????", "?d???d?????????d"):
        messages = [
            packed(event_doc(number, descriptor="d" if letter == "d" else f"lost-{number:03}"))
            for number, letter in enumerate(pattern * 8, 1)
        ]
        policy = replace(POLICY, breaker_window=10, breaker_share_max=0.8)
        general = outcome(replace(policy, layout_rows_min=10**6), messages, ())
        fast = outcome(replace(policy, layout_rows_min=1), messages, ())
        assert fast[LETTERS] == general[LETTERS]
        assert fast[LAST_COMMIT] == general[LAST_COMMIT]


def test_usual_events_have_layouts_and_few() -> None:
    """The proof above is worth nothing if no message takes the fast way."""
    chance = random.Random(5)
    messages = [
        packed(event_doc(n, x=chance.random(), i=n, s=chance.choice(["on", "off"]), b=n % 2 == 0, a=np.ones(3) * n))
        for n in range(1, 2_000)
    ]
    pieces = list(KnownLayouts(decode.read, rows_min=16)(records_of(messages)))
    assert sum(len(piece) for piece in pieces if isinstance(piece, Stretch)) > 1_900
    assert sum(len(piece.packed) for piece in pieces if isinstance(piece, Stretch)) < 40


@pytest.mark.parametrize(
    "doc",
    [
        event_doc(1, x="é"),
        event_doc(1, x=[1.0, 2.0]),
        event_doc(1, x=2**64 - 1),
        event_doc(1, x=np.ones((2, 2))),
        event_doc(1, x=b"bytes"),
        event_doc(1, x=1.0) | {"more": 1},
        event_doc(1, x=1.0) | {"time": 3},
        event_doc(1, x="x" * 70_000),
    ],
)
def test_what_is_rare_has_no_layout(doc: dict[str, Any]) -> None:
    message = packed(doc)
    _, event = decode(records_of([message])[0])
    assert isinstance(event, Event)
    with pytest.raises(UnfitError):
        Layout.of(message, event)


# ---------------------------------------------------------------- many runs at once


def interleaved(runs: int, order: Sequence[int]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Beginnings, events in that order of their runs, and ends; messages of a run's odd events are of another form."""
    uids = [f"r{number:03}" for number in range(runs)]
    opening = [
        message
        for uid in uids
        for message in (
            packed(start_doc(uid), "start"),
            packed(descriptor_doc(f"d-{uid}", run=uid, x="number", i="integer"), "descriptor"),
        )
    ]
    counts: Counter[int] = Counter()
    events_in_order = []
    for run in order:
        counts[run] += 1
        number = counts[run]
        data: dict[str, Any] = {"x": number + run / 1_000, "i": number} if number % 2 else {"x": number + run / 1_000}
        events_in_order.append(packed(event_doc(number, descriptor=f"d-{uids[run]}", **data)))
    return opening, events_in_order, [packed(stop_doc(uid), "stop") for uid in uids]


def rows_of_all(policy: Policy, parts: Sequence[Sequence[bytes]]) -> tuple[dict[w.Path, str], set[Any]]:
    """What was written of each table, and what became of the runs."""
    world = World(policy, MiniTiled())
    world.assign()
    log = records_of([message for part in parts for message in part])
    begin = 0
    for part in parts:
        world.logs[HOME] += log[begin : begin + len(part)]
        begin += len(part)
        world.tick()
    world.settle(3 * len(parts[0]))
    written: dict[w.Path, str] = {}
    for request in (ask.request for ask in world.kinds(fx.Ask) if isinstance(ask.request, w.Append)):
        written[request.path] = written.get(request.path, "") + repr(request.table.to_pylist())
    return written, {(told["run"], told["state"], told["rows"]) for told in world.told("run_closed")}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_events_of_runs_that_are_interleaved_each_find_theirs(order: list[int]) -> None:
    parts = interleaved(7, order)
    general, closed = rows_of_all(replace(POLICY, layout_rows_min=10**6), parts)
    assert rows_of_all(replace(POLICY, layout_rows_min=1), parts) == (general, closed)
    assert {run: rows for run, _, rows in closed} == {f"r{run:03}": order.count(run) for run in range(7)}


def test_of_interleaved_runs_each_ones_first_event_alone_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand open runs have a few rows each in what comes together: the work on each must be little."""
    decoded: list[int] = []
    events_of = Packed.events

    def counted(rows: Packed) -> list[Event]:
        decoded.append(len(rows))
        return events_of(rows)

    monkeypatch.setattr(Packed, "events", counted)
    runs, rounds = 50, 8
    opening, events_in_order, ends = interleaved(runs, [*range(runs)] * rounds)
    portions = [events_in_order[begin : begin + 2 * runs] for begin in range(0, len(events_in_order), 2 * runs)]
    _, closed = rows_of_all(POLICY, [opening, *portions, ends])
    assert sum(rows for _, _, rows in closed) == runs * rounds
    assert decoded == [1] * runs
