"""Rows once more, from Tiled's answers: groups of columns put together again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tiled_ingest.core.errors import TiledRejected
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.steps import Sleep
from tiled_ingest.core.writes import Done, Keys, Missing, Outcome, ReadRows, Rejected, Unknown
from tiled_ingest.core.writing import reread
from tiled_ingest.core.writing.reread import Confirmed, Portion, Reread

ROWS = pa.table(
    {
        "seq_num": [1, 2, 3, 3],
        "time": [1.0, 2.0, 3.0, 4.0],
        "a": [1, None, 3, 4],
        "b": ["p", "q", None, "s"],
        "c": [0.5, 1.5, 2.5, 3.5],
    }
)
KEYS = Keys(np.array([1, 2, 3, 3]), np.array([1.0, 2.0, 3.0, 4.0]))
COLUMNS = {column.name: column.type for column in ROWS.schema}


class Around:
    policy = Policy()


def reading(schema: pa.Schema = ROWS.schema, doubtful: Keys | None = None, rows_max: int = 3) -> Reread:
    around: Any = Around()
    expected = Confirmed(Tally.of(KEYS), doubtful, keyed=True)
    return Reread(around, "run", ("run", "primary", "internal"), schema, COLUMNS, expected, rows_max)


def read(source: Reread, answer: Callable[[ReadRows], Outcome]) -> list[Portion]:
    portions = []
    while not source.done:
        procedure, given = source.next(), None
        while True:
            try:
                step = procedure.send(given)
            except StopIteration as end:
                portions.append(end.value)
                break
            given = None if isinstance(step, Sleep) else answer(step)  # type: ignore[arg-type]
    return portions


def tiled(rows: pa.Table = ROWS, *, shuffled: bool = False) -> Callable[[ReadRows], Outcome]:
    """Tiled, with rows in no order if `shuffled`."""
    asked = iter(range(1_000))

    def answer(request: ReadRows) -> Outcome:
        order = np.random.default_rng(next(asked)).permutation(rows.num_rows) if shuffled else range(rows.num_rows)
        return Done(
            rows.take(pa.array(order, pa.int64())).select(
                [name for name in request.columns if name in rows.column_names]
            )
        )

    return answer


def whole(portions: list[Portion]) -> list[Any]:
    rows = pa.concat_tables([portion.table for portion in portions]).to_pylist()
    return sorted(rows, key=lambda row: row["time"])


def test_rows_come_in_portions() -> None:
    portions = read(reading(), tiled())
    assert [portion.table.num_rows for portion in portions] == [3, 1]
    assert whole(portions) == ROWS.to_pylist()
    assert sum((Tally.of(portion.keys) for portion in portions), Tally()) == Tally.of(KEYS)


def test_groups_of_columns_are_put_together_by_what_names_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reread, "GROUP_COLUMNS_MAX", 1)
    assert whole(read(reading(), tiled(shuffled=True))) == ROWS.to_pylist()


def test_a_group_that_is_too_large_is_halved() -> None:
    asked: list[int] = []

    def answer(request: ReadRows) -> Outcome:
        asked.append(len(request.columns) - 2)
        return Rejected("too large", 400) if asked[-1] > 1 else tiled(shuffled=True)(request)

    assert whole(read(reading(), answer)) == ROWS.to_pylist()
    assert max(asked) == 3


def test_two_rows_of_one_name_cannot_be_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = ROWS.set_column(1, "time", pa.array([1.0, 2.0, 3.0, 3.0]))
    source = reading()
    source.expected = Confirmed(Tally.of(Keys(KEYS.seq_num, np.array([1.0, 2.0, 3.0, 3.0]))), None, keyed=True)
    assert len(whole(read(source, tiled(twice)))) == 4, "in one answer they can"
    monkeypatch.setattr(reread, "GROUP_COLUMNS_MAX", 1)
    source = reading()
    with pytest.raises(TiledRejected, match="one name"):
        read(source, tiled(twice))


def test_doubtful_rows_are_left_out_whether_they_came_or_not() -> None:
    doubtful = Keys(np.array([4]), np.array([5.0]))
    late = pa.concat_tables([ROWS, pa.table({"seq_num": [4], "time": [5.0], "a": [9], "b": ["x"], "c": [9.5]})])
    for shown in (ROWS, late):
        assert whole(read(reading(doubtful=doubtful), tiled(shown))) == ROWS.to_pylist()


@pytest.mark.parametrize("shown", [ROWS.slice(0, 3), pa.concat_tables([ROWS, ROWS.slice(0, 1)])])
def test_other_rows_than_were_confirmed_are_not_taken(shown: pa.Table) -> None:
    with pytest.raises(TiledRejected, match="4 rows were confirmed"):
        read(reading(), tiled(shown))


def test_columns_become_wider_and_new_ones_are_null() -> None:
    schema = pa.schema({**COLUMNS, "a": pa.float64(), "d": pa.string()})
    rows = whole(read(reading(schema), tiled()))
    assert [row["a"] for row in rows] == [1.0, None, 3.0, 4.0]
    assert isinstance(rows[0]["a"], float)
    assert [row["d"] for row in rows] == [None] * 4


def test_no_answer_is_asked_for_again_and_a_table_that_is_gone_is_not() -> None:
    outcomes: list[Outcome] = [Unknown("a reset"), Unknown("a time-out")]
    assert whole(read(reading(), lambda request: outcomes.pop() if outcomes else tiled()(request))) == ROWS.to_pylist()
    with pytest.raises(TiledRejected, match="gone"):
        read(reading(), lambda _: Missing())


def test_an_empty_table_is_one_empty_portion() -> None:
    source = reading()
    source.expected = Confirmed(Tally(), None, keyed=True)
    (portion,) = read(source, tiled(ROWS.slice(0, 0)))
    assert portion.table.num_rows == 0
    assert portion.table.schema == ROWS.schema


def test_a_part_without_keys_is_read_at_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reread, "GROUP_COLUMNS_MAX", 1)
    part = ROWS.select(["a", "b", "c"])
    source = reading(part.schema)
    source.expected = Confirmed(Tally(4), None, keyed=False)
    assert pa.concat_tables([portion.table for portion in read(source, tiled(part))]).equals(part)
    source = reading(part.schema)
    source.expected = Confirmed(Tally(5), None, keyed=False)
    with pytest.raises(TiledRejected, match="5 rows were confirmed"):
        read(source, tiled(part))


def test_a_part_without_keys_that_is_too_large_is_refused_rather_than_mixed_up() -> None:
    source = reading(ROWS.select(["a", "b", "c"]).schema)
    source.expected = Confirmed(Tally(4), None, keyed=False)
    with pytest.raises(TiledRejected, match="too large"):
        read(source, lambda _: Rejected("too large", 400))
