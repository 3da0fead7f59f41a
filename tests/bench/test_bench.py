"""The benchmark runs, and what it wrote into Tiled is what was published. No time is ever looked at.

Its rows fail by themselves when Tiled does not hold what a topic held (`readback`).
"""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import msgpack_numpy
import numpy as np
import pyarrow as pa
import pytest

from tests.bench import readback, report
from tests.bench.bench import QUICK, Bench
from tests.bench.figures import Figure, Goal
from tests.bench.messages import Events, Names
from tests.bench.places import Place
from tests.bench.rows import ROWS
from tests.bench.shapes import SHAPES, Shape

NUMBERS = np.arange(1, 301)


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


def test_messages_are_what_a_publisher_would_send(shape: Shape) -> None:
    events = Events(Names("0badcafe"), shape).messages(np.full(300, 7), NUMBERS)
    decoded = [msgpack.unpackb(message, object_hook=msgpack_numpy.decode) for message in events]
    assert {name for name, _ in decoded} == {"event"}
    rows = [doc for _, doc in decoded]
    assert len({doc["uid"] for doc in rows}) == 300
    assert {doc["descriptor"] for doc in rows} == {Names("0badcafe").descriptor(7)}
    expected = shape.table(NUMBERS)
    assert [doc["seq_num"] for doc in rows] == expected["seq_num"].to_pylist()
    for column in shape.columns:
        found = [doc["data"].get(column.name) for doc in rows]
        plain = [value.tolist() if isinstance(value, np.ndarray) else value for value in found]
        assert plain == expected[column.name].to_pylist()
        stamps = [doc["timestamps"].get(column.name) for doc in rows]
        assert stamps == expected[f"ts_{column.name}"].to_pylist()


def test_other_values_and_rows_are_told(shape: Shape) -> None:
    table = shape.table(NUMBERS)
    last = table.schema.names[1 + len(shape.columns)]
    values = table[last].to_pylist()
    other = table.set_column(
        table.schema.get_field_index(last), last, pa.array([values[1], *values[1:]], table[last].type)
    )
    assert readback.different_columns(table, shape, 300) == []
    assert readback.different_columns(other, shape, 300) == ([last] if values[0] != values[1] else [])
    assert readback.different_columns(table.slice(1), shape, 300) == ["299 rows instead of 300"]


def test_a_figure_knows_whether_its_goal_is_reached() -> None:
    rates = Figure("row", "what", "events/s", [90, 110, 100], "peer", [9, 10, 50], Goal("ratio", ">=", 10))
    assert (rates.value, rates.ratio, rates.reached) == (100, 10, True)
    assert Figure("row", "what", "s", [2.0], goal=Goal("value", "<=", 1)).reached is False
    assert Figure("row", "what", "s", (), goal=Goal("value", "<=", 1)).reached is None


def test_the_table_stands_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    figures = [Figure("row", "what", "us", [4.0, 5.0, 6.0], "peer", [190, 200, 210], Goal("value", "<=", 5))]
    report.write(figures, report.Circumstances("2026-11-23", 3, 0.1), tmp_path / "made", page)
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    assert "| row | what | 5 us | 200 (peer) | 0.03 | <= 5 | yes |" in page.read_text()
    assert "old" not in page.read_text()
    assert json.loads((tmp_path / "made" / "results.json").read_text())["figures"][0]["reached"] is True
    assert (tmp_path / "made" / "ratios.svg").exists()


@pytest.mark.real
@pytest.mark.timeout(900)  # most of it is imports, which a busy machine stretches
def test_quick(tmp_path: Path) -> None:
    """Rows that between them use every program, both storages, and a reader beside the writer."""
    told: list[str] = []
    with Place(tmp_path) as place:
        bench = Bench(place, QUICK, 1, quick=True, log=told.append)
        figures = [figure for row in ("backlog", "live") for figure in ROWS[row](bench)]
    assert {figure.row for figure in figures} == {"backlog", "live"}
    assert all(min(figure.values) >= 0 for figure in figures)
    assert any("TiledWriter" in line for line in told)
