"""Starts and descriptors as TiledWriter writes them: compared with TiledWriter's own code on real documents."""

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count, grid_scan
from bluesky_tiled_plugins.utils import truncate_json_overflow
from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer
from hypothesis import given
from hypothesis import strategies as st
from ophyd.sim import hw

from tiled_ingest.core.decoding.decode import Decoder
from tiled_ingest.core.decoding.events import Event, EventPage
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.runs.documents import (
    access_tags,
    clipped,
    config_update,
    content_hash,
    named,
    normalise_descriptor,
    rename_reserved,
    rename_reserved_page,
    run_metadata,
    specs,
    stream_metadata,
)

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.booleans()
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=3)
JSON = st.recursive(
    st.none() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


def data_key(dtype: str = "number", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [], "source": "s", **more}


def descriptor(data_keys: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"uid": "d", "time": 1.0, "run_start": "r", "name": "primary", "data_keys": data_keys, **more}


def theirs(doc: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    normalizer = RunNormalizer()
    emitted: list[dict[str, Any]] = []
    normalizer.emit = lambda _, normalised: emitted.append(normalised)  # without event-model's rules
    normalizer("descriptor", copy.deepcopy(doc))
    return emitted[0], normalizer.notes


def real_descriptors() -> list[dict[str, Any]]:
    devices, found = hw(), []
    engine = RunEngine({})
    engine.subscribe(lambda _, doc: found.append(doc), "descriptor")
    engine(count([devices.det, devices.motor, devices.img], 2))
    engine(grid_scan([devices.det4], devices.motor1, 0, 1, 2, devices.motor2, 0, 1, 2))
    decode = Decoder(Policy())
    plain = [decode.admit("descriptor", doc)[1] for doc in found]
    return [doc for doc in plain if isinstance(doc, dict)]


# ---------------------------------------------------------------- descriptors


def test_real_descriptors_become_what_tiledwriter_makes_of_them() -> None:
    found = real_descriptors()
    assert len(found) >= 2
    for doc in found:
        normalised = normalise_descriptor(doc)
        assert (normalised.doc, list(normalised.notes)) == theirs(doc)
        assert list(normalised.doc["data_keys"]) == list(theirs(doc)[0]["data_keys"])


SPECS = [
    data_key("integer"),
    data_key("string"),
    data_key("boolean", dtype_numpy="|i1"),
    data_key("array", dtype_str="<u2", shape=[3]),
    data_key("array", dtype_str="<u2", dtype_numpy="<f4", shape=[3]),
    data_key("array", dtype_descr=[("a", "<f8")], dtype_str="|V8"),
    data_key("array", dtype_descr=[], dtype_numpy=None),
    data_key("array", dtype_numpy=[["a", "<f8"]]),
    data_key("number", shape=None),
    data_key("number", external=None),
    data_key("number", external="FILESTORE:"),
    data_key("unheard"),
]


@pytest.mark.parametrize("spec", SPECS, ids=[str(number) for number in range(len(SPECS))])
def test_a_data_key_becomes_what_tiledwriter_makes_of_it(spec: dict[str, Any]) -> None:
    configuration = {"m": {"data": {"k": 1}, "timestamps": {}, "data_keys": {"k": copy.deepcopy(spec)}}}
    doc = descriptor({"x": spec, "y": data_key()}, object_keys={"o": ["x"]}, configuration=configuration)
    before = copy.deepcopy(doc)
    normalised = normalise_descriptor(doc)
    assert normalised.doc == theirs(doc)[0]
    assert doc == before


@pytest.mark.parametrize("names", [["time"], ["seq_num"], ["a", "seq_num", "time", "b"]])
def test_reserved_names_are_renamed_as_tiledwriter_does(names: list[str]) -> None:
    doc = descriptor({name: data_key() for name in names}, object_keys={"o": names})
    normalised = normalise_descriptor(doc)
    expected, notes = theirs(doc)
    assert (normalised.doc, list(normalised.notes)) == (expected, notes)
    assert list(normalised.doc["data_keys"]) == list(expected["data_keys"])
    assert normalised.renames == {name: f"{name}_" for name in ("time", "seq_num") if name in names}


def test_names_that_tiledwriter_cannot_tell_apart_are_renamed_too() -> None:
    keys = ("time", "time_", "x", "ts_x", "ts_y")
    normalised = normalise_descriptor(descriptor({key: data_key() for key in keys}))
    assert normalised.renames == {"time": "time__", "ts_x": "key_ts_x_a3f4fa32"}
    assert set(normalised.doc["data_keys"]) == {"time__", "time_", "x", "key_ts_x_a3f4fa32", "ts_y"}
    assert normalised.notes[1] == "Renamed data_key 'ts_x' to 'key_ts_x_a3f4fa32' in stream primary"


def test_what_tiledwriter_fails_on_is_kept() -> None:
    doc = descriptor({"x": data_key()}, object_keys={"o": ["x", "gone"]}, configuration={"m": {"data": {}}})
    del doc["name"]
    normalised = normalise_descriptor(doc)
    assert normalised.doc["name"] == "primary"
    assert normalised.doc["data_keys"]["x"]["object_name"] == "o"
    assert normalised.doc["configuration"] == {"m": {"data": {}}}


def test_what_the_streams_node_keeps() -> None:
    more = {"hints": {"m": {"fields": ["x"]}}, "configuration": {"m": {"data": {"k": 2**60}}}}
    doc = descriptor({"x": data_key()}, object_keys={}, **more)
    kept = stream_metadata(doc)
    assert list(kept) == ["uid", "time", "data_keys", "hints", "configuration"]
    assert kept["configuration"] == {"m": {"data": {"k": 2**53 - 1}}}
    assert config_update(doc) == {"uid": "d", "time": 1.0, "configuration": kept["configuration"]}
    assert config_update(descriptor({}, configuration={})) == {"uid": "d", "time": 1.0}


# ---------------------------------------------------------------- JSON


def test_text_that_storage_cannot_hold_is_marked_not_refused() -> None:
    assert clipped({"a\0b": ["x\0y", "half \ud83d", "ok"]}) == {"a\ufffdb": ["x\ufffdy", "half \ufffd", "ok"]}


def nearest(value: Any) -> Any:
    """Return what TiledWriter makes of a value, but for infinities: PostgreSQL spells its number out as an integer."""
    if isinstance(value, dict):
        return {key: nearest(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nearest(item) for item in value]
    return math.copysign(2**53 - 1, value) if isinstance(value, float) and abs(value) == 1.7976e308 else value


@given(JSON)
def test_numbers_are_clipped_as_tiledwriter_does(value: Any) -> None:
    ours = clipped(value)
    assert ours == nearest(truncate_json_overflow(value))
    json.dumps(ours, allow_nan=False)


def test_what_has_no_place_in_json() -> None:
    assert clipped({"a": [math.nan, math.inf, -math.inf], "b": (1, b"a"), "c": np.array([2**60])}) == {
        "a": [None, 2**53 - 1, 1 - 2**53],
        "b": [1, [97]],
        "c": [2**60],
    }
    assert clipped(1.7976931348623157e308) == truncate_json_overflow(1.7976931348623157e308)


# ---------------------------------------------------------------- starts


def test_what_the_runs_node_keeps() -> None:
    start = {"uid": "r", "time": 1.0, "big": 2**63, "tiled_access_tags": ["a"], "tiled_specs": ["b"]}
    assert run_metadata(start) == {"uid": "r", "time": 1.0, "big": 2**53 - 1}


@pytest.mark.parametrize(
    ("tags", "expected"), [(None, None), ("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (3, ("3",))]
)
def test_access_tags(tags: Any, expected: Any) -> None:
    assert access_tags({"tiled_access_tags": tags}) == expected
    assert access_tags({}) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, []),
        ("a", [("a", None)]),
        (["a", {"name": "b", "version": "1.0"}, {"name": "c"}], [("a", None), ("b", "1.0"), ("c", None)]),
        (["a", "a", 3, {}, {"version": "1"}, "BlueskyRun"], [("a", None)]),
        ([f"s{number}" for number in range(30)], [(f"s{number}", None) for number in range(19)]),
    ],
)
def test_specs(asked: Any, expected: list[Any]) -> None:
    assert specs({"tiled_specs": asked}) == (*expected, ("BlueskyRun", "3.0"))


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=5))
def test_the_hash_of_a_start_ignores_order_and_nothing_else(start: dict[str, Any]) -> None:
    backwards = dict(reversed(start.items()))
    assert content_hash(start) == content_hash(backwards)
    assert len(content_hash(start)) == 32
    assert content_hash({**start, "more": 1}) != content_hash({**start, "more": 2})
    assert content_hash({"a": math.nan, "b": b"x"}) == content_hash({"b": b"x", "a": math.nan})


# ---------------------------------------------------------------- events


def test_events_follow_the_renames() -> None:
    event = Event("d", "u", 1.0, 1, {"time": 5, "x": 1}, {"time": 6.0, "x": 2.0}, {"time": True})
    expected = Event("d", "u", 1.0, 1, {"x": 1, "time_": 5}, {"x": 2.0, "time_": 6.0}, {"time_": True})
    assert rename_reserved(event, {"time": "time_", "gone": "gone_"}) == expected
    assert rename_reserved(event, {}) is event
    page = EventPage("d", ["u"], [1.0], [1], {"time": [5]}, {"time": [6.0]})
    assert rename_reserved_page(page, {"time": "time_"}).data == {"time_": [5]}
    assert rename_reserved_page(page, {}) is page


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({"plan_name": "grid_scan", "scan_id": 7}, {"plan": "grid_scan", "scan_id": 7}),
        ({}, {}),
        ({"plan_name": None, "scan_id": "7"}, {}),
        ({"plan_name": "x" * 1000}, {"plan": "x" * 200}),
    ],
)
def test_what_people_call_a_run_by(start: dict[str, Any], expected: dict[str, Any]) -> None:
    assert named(start) == expected
