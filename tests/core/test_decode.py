"""Bytes to documents: real msgpack-numpy output comes through whole, and no bytes at all do harm."""

import pickle
import random
import resource
import time
from collections.abc import Callable
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiled_ingest.core.decoding.decode import KINDS, Decoder, kind_of
from tiled_ingest.core.decoding.events import BulkEvents, Event, EventPage, event_from, references, rows_of
from tiled_ingest.core.decoding.whereabouts import whereabouts
from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Handed, Record

CODES = {
    "tombstone", "undecodable", "unknown_kind", "schema", "object_array", "too_large", "too_nested",
    "too_many_elements", "bad_array",
}  # fmt: skip
decode = Decoder(Policy())


def record(value: bytes | None) -> Record:
    return Record("t", 0, 0, 0, None, value)


def published(name: Any, doc: Any) -> Record:
    return record(msgpack.dumps((name, doc), default=msgpack_numpy.encode))


def event(**changes: Any) -> dict[str, Any]:
    doc = {
        "descriptor": "d",
        "uid": "u",
        "time": 1.5,
        "seq_num": 1,
        "data": {"x": 1.0},
        "timestamps": {"x": 1.0},
    }
    return {**doc, "filled": {}, **changes}


def page(**changes: Any) -> dict[str, Any]:
    doc = {"descriptor": "d", "uid": ["a", "b"], "time": [1.0, 2.0], "seq_num": [1, 2], "filled": {}}
    return {**doc, "data": {"x": [1.0, 2.0]}, "timestamps": {"x": [1.0, 2.0]}, **changes}


def start(**more: Any) -> dict[str, Any]:
    return {"uid": "r", "time": 1.0, **more}


def descriptor(**spec: Any) -> dict[str, Any]:
    data_key = {"dtype": "number", "shape": [], "source": "s", **spec}
    return {"uid": "d", "time": 1.0, "run_start": "r", "name": "primary", "data_keys": {"x": data_key}}


def decoded_event(**changes: Any) -> Event:
    kind, doc = decode(published("event", event(**changes)))
    assert kind == "event"
    assert isinstance(doc, Event)
    return doc


def refused(value: Record, by: Decoder = decode) -> str:
    with pytest.raises(InvalidDocument) as caught:
        by(value)
    assert caught.value.code in CODES
    return caught.value.code


# ---------------------------------------------------------------- what is published comes through

DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("start", start(scan_id=1, plan={"args": [[1, 2], None]}, hints={"dimensions": [[["x"], "primary"]]})),
    ("descriptor", descriptor()),
    ("stop", {"uid": "s", "time": 2.0, "run_start": "r", "exit_status": "success", "num_events": {"a": 1}}),
    ("resource", {"uid": "q", "run_start": "r", "spec": "HDF5", "root": "/", "resource_path": "a",
                  "resource_kwargs": {}, "path_semantics": "posix"}),
    ("datum", {"datum_id": "q/0", "resource": "q", "datum_kwargs": {"frame": 0}}),
    ("datum_page", {"datum_id": ["q/0"], "resource": "q", "datum_kwargs": {"frame": [0]}}),
    ("stream_resource", {"uid": "q", "run_start": "r", "data_key": "x", "mimetype": "text/csv",
                         "parameters": {}, "uri": "file://localhost/a"}),
    ("stream_datum", {"uid": "q/0", "stream_resource": "q", "descriptor": "d",
                      "indices": {"start": 0, "stop": 1}, "seq_nums": {"start": 1, "stop": 2}}),
    ("bulk_events", {"primary": [event()]}),
    ("bulk_datum", {"resource": "q", "datum_ids": ["q/0"], "datum_kwarg_list": [{"frame": 0}]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "doc"), DOCUMENTS, ids=[kind for kind, _ in DOCUMENTS])
def test_a_plain_document_comes_through_unchanged(kind: str, doc: dict[str, Any]) -> None:
    expected = BulkEvents(tuple(map(event_from, doc["primary"]))) if kind == "bulk_events" else doc
    assert decode(published(kind, doc)) == (kind, expected)


def test_every_kind_of_event_model_is_known() -> None:
    assert {kind for kind, _ in DOCUMENTS} | {"event", "event_page"} == KINDS


def test_an_event_becomes_typed() -> None:
    expected = Event("d", "u", 2.0, 7, {"x": 1, "s": "a", "n": None, "l": [1, 2]}, {"x": 1.0}, {"x": False})
    changes = {"time": 2, "seq_num": 7, "data": expected.data, "filled": {"x": False}, "unknown": {"a": [1]}}
    assert decoded_event(**changes) == expected


def test_numpy_where_event_model_has_numbers_takes_the_general_path() -> None:
    doc = decoded_event(time=np.float64(2.5), seq_num=np.int64(3), timestamps={"x": np.float32(0.5)}, filled=None)
    assert (doc.time, doc.seq_num, doc.timestamps, doc.filled) == (2.5, 3, {"x": 0.5}, {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.complex64(1 + 2j), 1 + 2j),
        (1 + 2j, 1 + 2j),
        (2**64 - 1, 2**64 - 1),
        (np.array(3.0), 3.0),
        (b"bytes", b"bytes"),
        ([np.float64(1), [np.int64(2)]], [1.0, [2]]),
        (msgpack.Timestamp(5, 500_000_000), 5.5),
        ({"nd": 3, "type": "a word"}, {"nd": 3, "type": "a word"}),
    ],
)
def test_a_value_of_an_event_is_revived(value: Any, expected: Any) -> None:
    revived = decoded_event(data={"x": value}).data["x"]
    assert revived == expected
    assert type(revived) is type(expected)


ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.arange(6.0).reshape(2, 3).T,
    np.array([1, 2], ">i4"),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array([True, False]),
    np.zeros((0, 3)),
    np.array([1 + 2j]),
    np.array([1.5], np.float16),
]


@pytest.mark.parametrize("array", ARRAYS, ids=[f"{array.dtype.str}{array.shape}" for array in ARRAYS])
def test_an_array_of_an_event_stays_an_array(array: np.ndarray[Any, Any]) -> None:
    revived = decoded_event(data={"x": array}).data["x"]
    assert revived.dtype.isnative
    np.testing.assert_array_equal(revived, array)


def test_structured_arrays_become_lists() -> None:
    array = np.array([(1, 2.5, (3, 4), b"q")], [("a", "<i4"), ("b", "<f8"), ("c", "<u1", (2,)), ("d", "S3")])
    assert decoded_event(data={"x": array}).data["x"] == [[1, 2.5, [3, 4], b"q"]]
    aligned = np.zeros(2, np.dtype([("a", "u1"), ("b", [("c", "<f8")])], align=True))
    revived = decoded_event(data={"x": aligned}).data["x"]
    assert len(revived) == 2


def test_times_become_text() -> None:
    days = np.array(["2020-01-02"], "M8[D]")  # only where memory views of it are allowed msgpack-numpy writes it so
    encoded = {b"nd": True, b"type": "<M8[D]", b"kind": b"", b"shape": [1], b"data": days.tobytes()}
    assert decoded_event(data={"x": encoded}).data["x"].tolist() == ["2020-01-02"]


def test_metadata_becomes_plain() -> None:
    more = {"eye": np.eye(2), "n": np.int16(3), "c": 1 + 2j, "text": np.array(["a"]), "t": (1, 2)}
    _, doc = decode(published("start", start(**more)))
    assert doc == start(eye=[[1.0, 0.0], [0.0, 1.0]], n=3, c="(1+2j)", text=["a"], t=[1, 2])


def test_keys_of_an_older_msgpack_numpy_may_be_text() -> None:
    array = np.arange(3.0)
    encoded = {key.decode(): value for key, value in msgpack_numpy.encode(array).items()}
    np.testing.assert_array_equal(decoded_event(data={"x": encoded}).data["x"], array)
    scalar = {"nd": False, "type": "<f8", "data": np.float64(2.5).tobytes()}
    assert decoded_event(data={"x": scalar}).data["x"] == 2.5
    assert decoded_event(data={"x": {"complex": True, "data": "1j"}}).data["x"] == 1j


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.integers(-(2**63), 2**64 - 1)
        | st.lists(st.floats(allow_nan=False)),
    )
)  # fmt: skip
def test_the_typed_and_the_general_path_agree(data: dict[str, Any]) -> None:
    doc = event(data=data, timestamps=dict.fromkeys(data, 2.0))
    assert decode(published("event", doc)) == decode.admit("event", doc)


# ---------------------------------------------------------------- pages


def test_a_page_keeps_its_columns() -> None:
    _, doc = decode(published("event_page", page()))
    assert isinstance(doc, EventPage)
    assert len(doc) == 2
    assert list(doc.events()) == [
        Event("d", "a", 1.0, 1, {"x": 1.0}, {"x": 1.0}),
        Event("d", "b", 2.0, 2, {"x": 2.0}, {"x": 2.0}),
    ]


def test_columns_of_a_page_may_be_arrays() -> None:
    changes = {"data": {"x": np.array([1, 2]), "m": np.arange(4).reshape(2, 2)}, "time": np.array([1.0, 2.0])}
    _, doc = decode(published("event_page", page(**changes)))
    assert isinstance(doc, EventPage)
    assert doc.data["x"] == [1, 2]
    assert [row.tolist() for row in doc.data["m"]] == [[0, 1], [2, 3]]
    _, doc = decode(published("event_page", page(data={"x": [np.float64(1), None]}, filled={"x": [False, "id"]})))
    assert isinstance(doc, EventPage)
    assert doc.data == {"x": [1.0, None]}


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": ["a"]},
        {"time": [1.0]},
        {"seq_num": [1, 2, 3]},
        {"data": {"x": [1.0]}},
        {"timestamps": {"x": []}},
        {"filled": {"x": [True]}},
        {"data": {"x": 1.0}},
        {"data": {"x": np.float64(1)}},
        {"data": None},
        {"uid": "ab"},
    ],
)
def test_columns_of_different_length_are_refused(changes: dict[str, Any]) -> None:
    assert refused(published("event_page", page(**changes))) == "schema"


# ---------------------------------------------------------------- refusals

HEAD = b"\x92\xa5event"
ND: dict[Any, Any] = {b"nd": True, b"type": "<f8", b"kind": b"", b"shape": [1], b"data": bytes(8)}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "tombstone"),
        (b"", "tombstone"),
        (b"{}", "undecodable"),
        (b'["start", {}]', "undecodable"),
        (b"\xff\xfe garbage", "undecodable"),
        (msgpack.dumps({"start": 1}), "undecodable"),
        (msgpack.dumps(("start",)), "undecodable"),
        (msgpack.dumps(("start", {}, 1)), "undecodable"),
        (msgpack.dumps((1, {})), "undecodable"),
        (msgpack.dumps(("start", 3)), "undecodable"),
        (msgpack.dumps(("event", [1])), "undecodable"),
        (msgpack.dumps(("start", start())) + b"\x00", "undecodable"),
        (msgpack.dumps(("start", start()))[:-1], "undecodable"),
        (b"\x92\xa5start\x81\xa1a\xa1\xff", "undecodable"),
        (msgpack.dumps(("bmm", {"a": 1})), "unknown_kind"),
        (msgpack.dumps(("Start", {})), "unknown_kind"),
        (HEAD + b"\xdd\xff\xff\xff\xff", "undecodable"),
        (HEAD + b"\xdf\xff\xff\xff\xff", "undecodable"),
        (HEAD + b"\xc6\xff\xff\xff\xff", "undecodable"),
        (HEAD + b"\x91" * 1_000_000 + b"\x01", "too_nested"),
        (HEAD + b"\x81\xa1a" * 1_000_000 + b"\x01", "too_nested"),
        (HEAD + b"\x81" * 1_000_000 + b"\x01", "too_nested"),
    ],
)
def test_what_is_no_document_is_refused(value: bytes | None, code: str) -> None:
    assert refused(record(value)) == code


@pytest.mark.parametrize(
    ("kind", "doc"),
    [
        ("start", {"time": 1.0}),
        ("start", {"uid": 1, "time": 1.0}),
        ("start", {"uid": "r", "time": "now"}),
        ("start", start(x={1: "a"})),
        ("start", start(x={b"a": "a"})),
        ("start", start(x=msgpack.ExtType(5, b"a"))),
        ("stop", {"uid": "s", "time": 1.0}),
        ("descriptor", {"uid": "d", "time": 1.0, "run_start": "r"}),
        ("descriptor", descriptor(dtype="float")),
        ("event", event(time="now")),
        ("event", event(seq_num=2**63)),
        ("event", event(seq_num=1.5)),
        ("event", event(data=[1])),
        ("event", event(data={1: 2})),
        ("event", event(data={"x": {b"a": 2}})),
        ("event", {"descriptor": "d"}),
        ("event", {key: value for key, value in event().items() if key != "timestamps"}),
        ("datum", {"datum_id": "a"}),
        ("stream_datum", {"uid": "a"}),
        ("stream_resource", {"uid": "a"}),
    ],
)
def test_a_violated_schema_is_refused(kind: str, doc: dict[str, Any]) -> None:
    assert refused(record(msgpack.dumps((kind, doc)))) == "schema"


def test_the_error_never_quotes_a_value() -> None:
    with pytest.raises(InvalidDocument) as caught:
        decode(published("start", start(scan_id="secret\nvalue", uid=5)))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec", [{"shape": None}, {"external": None}, {"external": ""}, {"dtype_numpy": None}, {"dims": None}]
)
def test_a_descriptor_may_be_old(spec: dict[str, Any]) -> None:
    assert decode(published("descriptor", descriptor(**spec)))[1] == descriptor(**spec)
    old = {
        **descriptor(),
        "configuration": {"m": {"data": {}, "timestamps": {}, "data_keys": {"k": spec | {"dtype": "string"}}}},
    }
    assert decode(published("descriptor", old))[1] == old


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({b"kind": b"O"}, "object_array"),
        ({b"kind": "O"}, "object_array"),
        ({b"type": "|O"}, "object_array"),
        ({b"type": "O"}, "object_array"),
        ({b"type": [["a", "|O"]], b"kind": b"V"}, "object_array"),
        ({b"shape": [2]}, "bad_array"),
        ({b"shape": [2**62]}, "bad_array"),
        ({b"shape": [-1]}, "bad_array"),
        ({b"shape": [0, 2**40]}, "bad_array"),
        ({b"shape": [0.5]}, "bad_array"),
        ({b"shape": [1] * 100}, "bad_array"),
        ({b"shape": "abc"}, "bad_array"),
        ({b"shape": [0, 2**40], b"data": b""}, "bad_array"),
        ({b"shape": [2**40], b"type": "<U0", b"data": b""}, "bad_array"),
        ({b"type": "<f8,<f8"}, "bad_array"),
        ({b"type": "__import__('os')"}, "bad_array"),
        ({b"type": "f99999999"}, "bad_array"),
        ({b"type": 3}, "bad_array"),
        ({b"type": None}, "bad_array"),
        ({b"type": []}, "bad_array"),
        ({b"type": [["a"]]}, "bad_array"),
        ({b"type": [["a", "<f4"], ["a", "<f4"]]}, "bad_array"),
        ({b"type": [["a", "<f8", [2**60, 2**60]]]}, "bad_array"),
        ({b"type": [[3, "<f8"]]}, "bad_array"),
        ({b"data": 3}, "bad_array"),
        ({b"data": [1]}, "bad_array"),
        ({b"nd": False}, "bad_array"),
    ],
)
def test_a_hostile_array_is_refused(changes: dict[bytes, Any], code: str) -> None:
    for kind in ("event", "start"):
        doc = event(data={"x": {**ND, **changes}}) if kind == "event" else start(x={**ND, **changes})
        assert refused(record(msgpack.dumps((kind, doc)))) == code


def test_a_pickle_is_never_opened() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return pytest.fail, ("the pickle was opened",)

    bomb = pickle.dumps(Bomb())
    assert refused(record(msgpack.dumps(("start", start(x={**ND, b"kind": b"O", b"data": bomb}))))) == "object_array"
    assert refused(published("event", event(data={"x": np.array([None, {}], object)}))) == "object_array"


# ---------------------------------------------------------------- limits


def test_each_limit_refuses() -> None:
    small = Decoder(Policy(message_bytes_max=1_000, nesting_max=4, elements_max=100))
    assert refused(published("start", start(x="a" * 1_000)), small) == "too_large"
    assert refused(published("start", start(x=[[[[1]]]])), small) == "too_nested"
    assert refused(published("event", event(data={"x": [[[[1]]]]})), small) == "too_nested"
    assert refused(published("start", start(x=[1] * 200)), small) == "too_many_elements"
    assert refused(published("start", start(x=np.zeros(101, bool))), small) == "too_many_elements"
    assert refused(published("start", start(x=np.zeros(51, [("a", "u1"), ("b", "u1")]))), small) == "too_many_elements"
    assert small(published("start", start(x="a" * 500))) == ("start", start(x="a" * 500))


def test_hostile_messages_cost_little_time_and_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    for body in (
        b"\xdd\xff\xff\xff\xff" * 1_000_000,
        b"\x90" * 20_000_000,
        b"\xdc\xff\xff" + b"\x80" * 65_535,
    ):
        refused(record(HEAD + b"\xdd" + len(body).to_bytes(4, "big") + body))
    refused(record(msgpack.dumps(("start", start(x={**ND, b"shape": [2**31, 2**31]})))))
    taken_s = time.process_time() - began
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    assert taken_s < 20 * _one_look_at_each_byte_s()


def _one_look_at_each_byte_s() -> float:
    """A yardstick of the machine as it is now."""
    began = time.process_time()
    sum(b"\x90" * 20_000_000)
    return time.process_time() - began


SEEDS = [msgpack.dumps((kind, doc)) for kind, doc in DOCUMENTS] + [
    msgpack.dumps(item, default=msgpack_numpy.encode)
    for item in (
        (
            "event",
            event(data={"x": np.arange(3.0), "y": np.float32(1), "z": 1j, "s": np.zeros(1, [("a", "<i4")])}),
        ),
        ("event", event()),
        ("event_page", page(data={"x": np.arange(2)})),
        ("start", start(x=np.eye(2), y={"z": [1, [2, {"a": np.int8(3)}]]})),
    )
]


def mutated(message: bytes, dice: random.Random) -> bytes:
    body = bytearray(message)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(body))
        match dice.randrange(4):
            case 0:
                body[at] = dice.randrange(256)
            case 1:
                del body[at : at + dice.randint(1, 8)]
            case 2:
                body[at:at] = dice.randbytes(dice.randint(1, 8))
            case _:
                other = dice.choice(SEEDS)
                begin = dice.randrange(len(other))
                body[at : at + 8] = other[begin : begin + dice.randint(1, 40)]
        if not body:
            return b"\x00"
    return bytes(body)


def outcome(value: bytes) -> None:
    code = None
    try:
        kind, doc = decode(record(value))
        references(kind, doc)
        if isinstance(doc, EventPage):
            list(doc.events())
    except InvalidDocument as error:
        code = error.code
    assert code is None or code in CODES


def test_mutated_messages_are_decoded_or_refused_and_nothing_else() -> None:
    dice = random.Random(1)
    for _ in range(5_000):
        outcome(mutated(dice.choice(SEEDS), dice))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_and_nothing_else(value: bytes) -> None:
    outcome(value)
    outcome(HEAD + value)


# ---------------------------------------------------------------- which run


@pytest.mark.parametrize(
    ("kind", "doc", "expected"),
    [
        ("start", start(), ("run", "r", "r")),
        ("descriptor", descriptor(), ("run", "r", "d")),
        ("stop", {"uid": "s", "run_start": "r"}, ("run", "r", "s")),
        ("event", event(), ("descriptor", "d", "u")),
        ("event_page", page(), ("descriptor", "d", "")),
        ("stream_datum", {"uid": "u", "descriptor": "d", "stream_resource": "q"}, ("descriptor", "d", "u")),
        ("resource", {"uid": "q"}, ("run", "", "q")),
        ("stream_resource", {"uid": "q", "run_start": "r"}, ("run", "r", "q")),
        ("datum", {"datum_id": "q/0", "resource": "q"}, ("resource", "q", "q/0")),
        ("datum_page", {"datum_id": ["q/0"], "resource": "q"}, ("resource", "q", "")),
        ("bulk_datum", {"resource": "q"}, ("resource", "q", "")),
        ("bulk_events", {"primary": [event()]}, ("descriptor", "d", "")),
        ("bulk_events", {}, ("descriptor", "", "")),
    ],
)
def test_a_document_says_where_it_belongs(kind: str, doc: dict[str, Any], expected: tuple[str, str, str]) -> None:
    typed = decode.admit(kind, doc)[1] if kind in {"event", "event_page", "bulk_events"} else doc
    assert references(kind, typed) == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (msgpack.dumps(("event", {})), "event"),
        (msgpack.dumps(("bmm", {})), "unknown"),
        (msgpack.dumps(("event", {}, 3)), "unknown"),
        (b"garbage", "unknown"),
        (b"\x92\xa2\xff\xfe\x80", "unknown"),
        (b"\x92\xa5event" + b"\x91" * 100_000, "unknown"),
        (b"", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_label_of_what_cannot_be_read_is_bounded(value: bytes | None, kind: str) -> None:
    assert kind_of(record(value)) == kind


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("document", [np.datetime64("2026-01-01"), np.float64(1.0), np.arange(3)], ids=str)
def test_a_document_that_is_an_array_in_disguise(kind: str, document: Any) -> None:
    """On the wire it is a mapping: a fuzzer found that it stopped the service."""
    as_map = {b"nd": isinstance(document, np.ndarray), b"type": document.dtype.str, b"data": document.tobytes()}
    shaped = {**as_map, b"kind": b"", b"shape": document.shape} if as_map[b"nd"] else as_map
    with pytest.raises(InvalidDocument) as refusal:
        decode(record(msgpack.dumps((kind, shaped))))
    assert refusal.value.code in {"undecodable", "schema"}


@pytest.mark.parametrize("doc", [{"a": [1]}, {"a": 3}, {"a": [{"descriptor": "d"}]}])
def test_bulk_events_that_are_none_break_the_schema(doc: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument, match="schema"):
        decode.admit("bulk_events", doc)


def test_an_old_stream_resource_says_where_its_files_are_as_a_resource_does() -> None:
    old = {"uid": "q", "spec": "AD_HDF5", "root": "/", "resource_path": "a.h5", "resource_kwargs": {}, "data_key": "k"}
    assert decode.admit("stream_resource", old)[1] == old
    with pytest.raises(InvalidDocument, match="schema"):
        decode.admit("stream_resource", {"uid": "q", "spec": "AD_HDF5"})


@pytest.mark.parametrize("kind", ["event", "event_page", "bulk_events"])
def test_events_are_patched_one_by_one_whatever_brought_them(kind: str) -> None:
    def patch(doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, "seq_num": doc["seq_num"] + 10}

    patched = Decoder(Policy(patches={"event": patch}))
    given = {"event": event(), "event_page": page(), "bulk_events": {"primary": [event()]}}[kind]
    plain = [each.seq_num for each in rows_of(decode.admit(kind, given)[1])]  # type: ignore[arg-type]
    for doc in (patched.admit(kind, given)[1], patched(record(msgpack.dumps((kind, given))))[1]):
        assert [each.seq_num for each in rows_of(doc)] == [number + 10 for number in plain]  # type: ignore[arg-type]


def test_a_patch_may_mend_what_the_schema_refuses() -> None:
    mend = Decoder(Policy(patches={"stop": lambda doc: {**doc, "exit_status": "abort"}}))
    broken = {"uid": "s", "run_start": "r", "time": 1.0}
    assert mend.admit("stop", broken)[1] == {**broken, "exit_status": "abort"}


# ---------------------------------------------------------------- what says where it belongs


@pytest.mark.parametrize(
    ("doc", "named"),
    [
        ({"descriptor": "d", "seq_num": "one"}, ("descriptor", "d")),
        ({"run_start": "r", "data_keys": 7}, ("run", "r")),
        ({"descriptor": 7, "run_start": "r"}, ("run", "r")),
        ({"descriptor": "d", "uid": "e"}, ("descriptor", "d")),
        ({"descriptor": ["d"]}, None),
        ({"descriptor": ""}, None),
        ({}, None),
        (["descriptor", "d"], None),
    ],
)
def test_a_document_that_cannot_be_read_may_still_say_where_it_belongs(doc: Any, named: tuple[str, str] | None) -> None:
    for told in (published("event", doc), Handed("t", 0, 0, 0, None, None, "event", doc, 10)):
        found = whereabouts(told)
        assert (found and (found.by, found.uid)) == named
        assert found is None or found.own == doc.get("uid", "")


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_asking_where_they_belong_does_no_harm(value: bytes) -> None:
    for wrapped in (value, b"\x92\xa5event" + value, b"\x92\xa5event\x81\xaadescriptor" + value):
        found = whereabouts(record(wrapped))
        assert found is None or found.uid


def test_a_document_of_ten_thousand_levels_says_nothing() -> None:
    deep = b"\x92\xa5event\x81\xa1x" + b"\x91" * 10_000 + b"\xc0"
    assert whereabouts(record(deep)) is None
