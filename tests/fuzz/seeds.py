"""What mutations begin with: real runs, rare kinds, and messages that were made to do harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np

from tests.core.test_steps import descriptor_doc, event_doc, page_doc, start_doc, stop_doc

CORPUS = Path(__file__).parent / "corpus"
IMAGE = {"dtype": "array", "shape": [2, 2], "source": "s", "dtype_numpy": "|u1"}
TYPED: tuple[tuple[str, Any, Any], ...] = (
    ("image", [2, 2], "|u1"),
    ("wave", [20], "<f8"),
    ("labels", [2], "<U4"),
    ("ragged", [None, None], "<f4"),
    ("records", [20], [["a", "<i8"], ["b", "<f8"]]),
    ("when", [1, 1], "<M8[D]"),
)
ABSURD: tuple[tuple[str, Any, Any], ...] = (
    ("text", [1], "<U99999999"),
    ("void", [1, 1], "V2000000000"),
    ("many", [2_000_000, 2_000_000], "<f8"),
    ("hollow", [1, 1], "f8,,"),
    ("parts", [1_000_000_000, None], "<i8"),
    ("fields", [1, 1], "(1000,1000)f8,f8"),
    ("array", [1, 1], "(2,3)f8"),
)
fired: list[str] = []  # filled by code that a message made us run


def fire() -> None:
    """What a pickled array would call."""
    fired.append("a message ran code")


class _Weapon:
    def __reduce__(self) -> tuple[Any, ...]:
        return fire, ()


def packed(kind: str, doc: Any) -> bytes:
    """Encode as bluesky-kafka does."""
    encoded: bytes = msgpack.dumps((kind, doc), default=msgpack_numpy.encode)
    return encoded


def histories() -> list[list[bytes]]:
    """Short histories of one or two runs; each message a record's value."""
    return [
        [packed(kind, doc) for kind, doc in documents]
        for documents in (_plain(), _pages(), _arrays(), _typed(), _rare())
    ]


def _plain() -> list[tuple[str, Any]]:
    events = [("event", event_doc(number)) for number in (1, 2, 3, 2, 4)]
    return [("start", start_doc()), ("descriptor", descriptor_doc()), *events, ("stop", stop_doc())]


def _pages() -> list[tuple[str, Any]]:
    other = [("start", start_doc("q")), ("descriptor", descriptor_doc("e", "q", "baseline"))]
    return [
        *_plain()[:2],
        *other,
        ("event_page", page_doc(1, 2, 3)),
        ("event_page", page_doc(1, descriptor="e")),
        ("descriptor", descriptor_doc("d2")),
        ("event", event_doc(4, descriptor="d2")),
        ("stop", stop_doc("q")),
        ("stop", stop_doc()),
    ]


def _arrays() -> list[tuple[str, Any]]:
    shapes: dict[str, Any] = {"line": [3], "image": [2, 2], "ragged": [None], "name": []}
    keys = {key: {"dtype": "array", "shape": shape, "source": "s"} for key, shape in shapes.items()}
    keys["name"] = {"dtype": "string", "shape": [], "source": "s"}
    values: dict[str, Any] = {
        "line": np.arange(3.0),
        "image": np.eye(2, dtype=np.int32),
        "ragged": np.zeros(0, np.uint8),
        "name": "\u00fc\x00\U0001f600",
    }
    weapon = np.empty(1, object)
    weapon[0] = _Weapon()
    return [
        ("start", start_doc(scan=np.float32(1.5), deep=[[[[{"x": [None]}]]]])),
        ("descriptor", {**descriptor_doc(), "data_keys": keys, "configuration": {}, "hints": {"fields": ["line"]}}),
        ("event", {**event_doc(1), "data": values, "timestamps": dict.fromkeys(values, 1.0)}),
        ("event", {**event_doc(2), "data": {**values, "line": weapon}, "timestamps": {}}),
        ("event", {**event_doc(3), "data": {**values, "name": 2**63}, "timestamps": dict.fromkeys(values, 1)}),
        ("stop", stop_doc()),
    ]


def _typed() -> list[tuple[str, Any]]:
    """Arrays that say what they are arrays of, and have nodes of their own; some say so absurdly."""
    keys = {key: {"dtype": "array", "shape": shape, "dtype_numpy": kind, "source": "s"} for key, shape, kind in TYPED}
    absurd = {
        key: {"dtype": "array", "shape": shape, "dtype_numpy": kind, "source": "s"} for key, shape, kind in ABSURD
    }
    values: dict[str, Any] = {
        "image": np.eye(2, dtype=np.uint8),
        "wave": np.arange(20.0),
        "labels": ["a", "bcd"],
        "ragged": [[1.0], [2.0, 3.0]],
        "records": [[1, 2.5], [3, 4.5]],
        "when": [["2026-11-23"]],
    }
    hollow = np.zeros((0, 4_000), np.float64)
    more = [{**values, "wave": np.arange(700)}, {**values, "image": hollow, "labels": ["x" * 300, ""]}]
    odd: dict[str, Any] = {"text": ["a"], "void": [[1]], "many": None, "hollow": hollow, "parts": None, "fields": [[1]]}
    odd["array"] = [[1]]
    return [
        ("start", start_doc()),
        ("descriptor", {**descriptor_doc(), "data_keys": keys}),
        *(("event", {**event_doc(at), "data": each, "timestamps": {}}) for at, each in enumerate([values, *more], 1)),
        ("descriptor", {**descriptor_doc("e", name="absurd"), "data_keys": absurd}),
        *(("event", {**event_doc(at, descriptor="e"), "data": odd, "timestamps": {}}) for at in (1, 2)),
        ("stop", stop_doc()),
    ]


def _rare() -> list[tuple[str, Any]]:
    resource = {"uid": "s", "run_start": "r", "spec": "AD_HDF5", "root": "/", "resource_path": "x.h5"}
    stream = {"uid": "t", "run_start": "r", "data_key": "x", "mimetype": "application/x-hdf5", "uri": "file://h/x.h5"}
    span = {"start": 0, "stop": 3}
    used = {"uid": "t/0", "stream_resource": "t", "descriptor": "d", "indices": span, "seq_nums": span}
    tiff = {**stream, "uid": "v", "data_key": "img", "mimetype": "multipart/related;type=image/tiff"}
    keys = {**descriptor_doc()["data_keys"], "img": {**IMAGE, "external": "FILE:"}}
    return [
        _plain()[0],
        ("descriptor", {**descriptor_doc(), "data_keys": keys}),
        ("resource", {**resource, "resource_kwargs": {}, "path_semantics": "posix"}),
        ("datum", {"datum_id": "s/0", "resource": "s", "datum_kwargs": {"frame": 0}}),
        ("datum_page", {"datum_id": ["s/1"], "resource": "s", "datum_kwargs": {"frame": [1]}}),
        ("stream_resource", {**stream, "parameters": {"dataset": "d", "chunk_shape": [1]}}),
        ("stream_datum", used),
        ("stream_resource", {**tiff, "parameters": {"template": "%s_%06d.tif", "filename": "f", "chunk_shape": [1]}}),
        ("stream_datum", {**used, "uid": "v/0", "stream_resource": "v"}),
        ("event", {**event_doc(2), "data": {"x": 1.0, "i": 2, "img": "s/0"}, "filled": {"img": False}}),
        ("event", {**event_doc(3), "data": {"x": 1.0, "i": 2, "img": "s/1"}, "filled": {"img": False}}),
        ("bulk_events", {"primary": [event_doc(5)]}),
        ("bulk_datum", {"resource": "s", "datum_ids": ["s/2"], "datum_kwarg_list": [{}]}),
        ("stop", stop_doc()),
    ]
