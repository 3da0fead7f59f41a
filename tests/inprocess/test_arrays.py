"""Arrays with a node of their own, and split tables, where no log holds earlier rows: they are copied within Tiled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.differential.compose import Composer, key
from tiled_ingest import TiledWriter
from tiled_ingest.core.writes import Append, CreateTable, PatchArray, PutArray

from .documents import facts, give, run_of, uid_of
from .test_exactly_once import Road, driver_on

NAN = np.nan
LONG = {"shape": [20], "dtype_numpy": "<i8"}
RAGGED = {"shape": [None], "dtype_numpy": "<i8"}


def read(client: Any, uid: str) -> Any:
    return client[uid]["primary"].base["x"].read()


def line(start: float, size: int = 20) -> list[float]:
    return [start + number for number in range(size)]


WIDENINGS: dict[str, tuple[dict[str, Any], Sequence[Any], Any]] = {
    "another type": (LONG, [line(1), line(2), line(0.5)], np.array([line(1), line(2), line(0.5)])),
    "longer rows": (
        LONG,
        [line(1), line(2), line(3, 22)],
        np.array([[*line(1), NAN, NAN], [*line(2), NAN, NAN], line(3, 22)]),
    ),
    "ragged, another type": (RAGGED, [[1, 2], [3], [0.5]], [[1.0, 2.0], [3.0], [0.5]]),
}


@pytest.mark.parametrize("kind", WIDENINGS)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_array_that_proves_too_narrow_keeps_its_rows(client: Any, kind: str, batch_size: int) -> None:
    more, values, expected = WIDENINGS[kind]
    documents = run_of("array", [[int(n) if n == int(n) else n for n in value] for value in values], **more)
    give(TiledWriter(client, batch_size=batch_size), documents)
    found = read(client, uid_of(documents))
    if isinstance(expected, list):
        assert found.tolist() == expected
    else:
        assert_array_equal(found, expected)
    assert facts(client, uid_of(documents))["state"] == "complete"


@pytest.mark.parametrize("batch_size", [1, 10])
@pytest.mark.parametrize("short", [[1.0, 2.0], []])
def test_rows_of_different_length_are_told_of_in_the_log(
    client: Any, caplog: pytest.LogCaptureFixture, short: list[float], batch_size: int
) -> None:
    documents = run_of("array", [line(1.0), short, short], shape=[20], dtype_numpy="<f8")
    with caplog.at_level(logging.WARNING):
        give(TiledWriter(client, batch_size=batch_size), documents)
    text = f"Array lengths for key 'x' in stream 'primary' are not consistent: min={len(short)}, max=20"
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [f"{text}; the arrays are padded with NaNs."]


@pytest.mark.parametrize("fault", ["reply_lost", "late", "never"])
@pytest.mark.parametrize(
    ("more", "kind"), [(LONG, PatchArray), (LONG, PutArray), (RAGGED, Append), (RAGGED, CreateTable)]
)
@pytest.mark.parametrize("number", [0, 1])
def test_no_row_of_an_array_is_lost_or_doubled(
    client: Any, fault: str, more: dict[str, Any], kind: type, number: int
) -> None:
    if kind in {PutArray, CreateTable} and fault == "late":
        pytest.skip("a request that may be repeated is repeated at once: it cannot come late in one process")
    values = [[int(n) for n in line(start)] for start in range(5)]
    documents = run_of("array", values, **more)
    give(driver_on(Road(client, kind, number, fault)), documents)
    assert read(client, uid_of(documents)).tolist() == values
    assert facts(client, uid_of(documents))["state"] == "complete"


def test_a_column_in_a_later_part_of_a_split_table_becomes_wider(client: Any) -> None:
    run = Composer()
    names = [f"k{number:04}" for number in range(600)]
    run.descriptor({name: key("integer") for name in names})
    for value in (1, 2, 3, 0.5):
        run.event(dict.fromkeys(names, value))
    documents = run.stop()
    give(TiledWriter(client, batch_size=2), documents)
    base = client[uid_of(documents)]["primary"].base
    parts = sorted(base)
    assert parts == ["internal_0", "internal_1"]
    held = {name: values for part in parts for name, values in base[part].read().items()}
    assert sorted(held["k0000"]) == sorted(held["k0599"]) == [0.5, 1.0, 2.0, 3.0]
    assert facts(client, uid_of(documents))["state"] == "complete"


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("number", [1.5, None, [2.5, 3.5]], [[1.5], None, [2.5, 3.5]]),
        ("integer", [1, [2, 0.5], 3], [[1.0], [2.0, 0.5], [3.0]]),
        ("integer", [2**53 + 1, [1], 0.5], [[2.0**53], [1.0], [0.5]]),
    ],
)
def test_rows_that_are_there_become_lists_when_a_list_comes(
    client: Any, dtype: str, values: list[Any], expected: list[Any]
) -> None:
    documents = run_of(dtype, values)
    give(TiledWriter(client, batch_size=1), documents)
    uid = uid_of(documents)
    held = client[uid]["primary"].base["internal"].read().sort_values("seq_num")["x"]
    assert [None if value is None else list(value) for value in held] == expected
    lost = "Column 'x' of stream 'primary' holds floats: integers in it lost digits."
    assert (lost in client[uid].metadata["notes"]) == (2**53 + 1 in values)
