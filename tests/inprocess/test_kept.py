"""Whatever is declared and whatever is sent: a value reads back as it was sent, or somebody is told."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.differential.compose import Composer, key
from tests.differential.recorder import Documents
from tiled_ingest import TiledWriter
from tiled_ingest.core.errors import InvalidDocument

from .documents import facts, uid_of

EXAMPLES = int(os.environ.get("GENERATED_EXAMPLES", "20"))
EDGES = [
    0,
    1,
    -1,
    127,
    128,
    200,
    255,
    40_000,
    2**31,
    2**32 - 1,
    2**53,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**63 + 1,
    -(2**63),
]
DTYPES = ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8", ">i4", ">f8", None]
SHAPES: list[list[int | None]] = [[], [1], [3], [20], [2, 2], [None], [None, 2]]

INTEGERS = st.sampled_from(EDGES) | st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.just(0.5)
SINGLE = INTEGERS | FLOATS | st.booleans()
TEXT = st.text("abc é", max_size=6)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    dtype: np.dtype[Any] = np.dtype(draw(st.sampled_from([each for each in DTYPES if each])))
    shape = draw(st.sampled_from([(), (1,), (3,), (20,), (2, 2)]))
    numbers = [number % 251 if isinstance(number, int) else number for number in draw(st.lists(SINGLE, min_size=1))]
    with np.errstate(all="ignore"):
        return np.resize(np.array(numbers, np.float64), shape).astype(dtype)


VALUES = (
    SINGLE
    | TEXT
    | st.none()
    | st.lists(SINGLE, max_size=4)
    | st.lists(st.none() | FLOATS, min_size=1, max_size=3)
    | st.lists(SINGLE, min_size=20, max_size=20)
    | st.lists(TEXT, max_size=3)
    | st.lists(st.lists(SINGLE, min_size=2, max_size=2), min_size=1, max_size=2)
    | arrays()
    | st.lists(arrays(), max_size=2)
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Documents, Sequence[Any]]:
    """One stream with the key `x`, which may be external and filled in."""
    dtype = draw(st.sampled_from(["number", "integer", "boolean", "string", "array", "array", "array"]))
    more = {"dtype_numpy": spelled} if (spelled := draw(st.sampled_from(DTYPES))) else {}
    filled = draw(st.sampled_from([False, False, False, True]))
    if filled:
        more["external"] = "FILESTORE:"
    run = Composer()
    run.descriptor({"x": key(dtype, draw(st.sampled_from(SHAPES)), **more)}, object_keys={"dev": ["x"]})
    values = draw(st.lists(VALUES, min_size=1, max_size=4))
    for value in values:
        run.event({"x": value}, filled={"x": True} if filled else {})
    return run.stop(), values


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(drawn=runs(), batch_size=st.sampled_from([1, 100]))
def test_a_value_is_kept_or_somebody_is_told(
    client: Any, drawn: tuple[Documents, Sequence[Any]], batch_size: int
) -> None:
    documents, values = drawn
    writer = TiledWriter(client, batch_size=batch_size)
    told = 0
    for kind, doc in documents:
        try:
            writer(kind, doc)
        except InvalidDocument as error:
            told += error.code == "value_misfit"
    run = client[uid_of(documents)]
    assert facts(client, uid_of(documents))["state"] == "complete"
    notes = " ".join(run.metadata.get("notes", ()))
    held = _held(run["primary"].base, documents)
    assert len(held) == len(values)
    wrong = [(sent, there) for sent, there in zip(values, held, strict=True) if not _is_kept(sent, there)]
    unsaid = [pair for pair in wrong if not ("lost digits" in notes and _is_kept(*pair, rounded=True))]
    assert all(_is_nothing(there) for _, there in unsaid), unsaid
    assert told or not unsaid, unsaid


def _held(base: Any, documents: Documents) -> list[Any]:
    """The values of `x` by event, from the table or its node."""
    if "x" in base:
        return list(base["x"].read().tolist())
    buffer = io.BytesIO()
    base["internal"].export(buffer, format="application/vnd.apache.arrow.file")
    table = pa.ipc.open_file(pa.BufferReader(buffer.getvalue())).read_all().sort_by("seq_num")
    return list(table["x"].to_pylist()) if "x" in table.column_names else [None] * (len(documents) - 3)


def _is_kept(sent: Any, held: Any, *, rounded: bool = False) -> bool:
    sent = sent.tolist() if isinstance(sent, np.ndarray | np.generic) else sent
    if isinstance(held, str) and sent != held:
        held = json.loads(held)
    if isinstance(sent, list) and isinstance(held, list):
        longer = [*sent, *[None] * (len(held) - len(sent))]  # filled up at the end
        return len(longer) == len(held) and all(
            map(lambda one, other: _is_kept(one, other, rounded=rounded), longer, held)
        )
    if isinstance(held, list):  # a single value as an array of one element
        items = [item for item in _flat(held) if not _is_nothing(item)]
        return _is_nothing(sent) if not items else len(items) == 1 and _is_kept(sent, items[0], rounded=rounded)
    if isinstance(sent, int | float) and isinstance(held, int | float) and not _is_nothing(sent):
        return not _is_nothing(held) and (sent == held or (rounded and float(sent) == held))
    return bool(_is_nothing(sent) and _is_nothing(held)) or bool(sent == held)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _is_nothing(value: Any) -> bool:
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list):
        return all(map(_is_nothing, value))
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
