"""`verify` on real Kafka and Tiled: what is right passes, and every planted defect is found and named."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.tools.conftest import Change, Written, rewrite
from tiled_ingest.tools.progress import Silent
from tiled_ingest.tools.verify import Report, RunReport, Wanted, verify

pytestmark = pytest.mark.real


def look(written: Written, **wanted: Any) -> Report:
    return verify(written.settings, Wanted(**wanted), Silent())


def look_at(written: Written, run: Any) -> RunReport:
    report = look(written, runs=frozenset({run.metadata["start"]["uid"]}))
    assert len(report.runs) == 1
    assert report.passed == report.runs[0].is_same
    return report.runs[0]


def rows_of(report: RunReport, stream: str = "primary") -> dict[str, int]:
    counts = next(each.counts for each in report.streams if each.name == stream)
    wrong = ("missing", "duplicated", "different", "foreign", "misplaced")
    return {name: number for name in wrong if (number := getattr(counts, name))}


def sentences(report: RunReport) -> str:
    return "\n".join([*report.differences, *(text for stream in report.streams for text in stream.differences)])


def test_what_the_service_wrote_passes(written: Written) -> None:
    report = look(written)
    wrong = [(run.uid, sentences(run)) for run in report.runs if not run.is_same]
    assert wrong == []
    assert report.passed
    assert {run.uid for run in report.runs} == set(written.runs)
    assert {run.state for run in report.runs} == {"complete"}
    assert report.documents == sum(map(len, written.runs.values()))
    rewound = next(run for run in report.runs if run.uid == next(iter(written.runs)))
    primary = next(stream for stream in rewound.streams if stream.name == "primary")
    assert primary.counts.expected == primary.counts.found > 60, "the rows of rewinds count"


def test_a_missing_row(written: Written) -> None:
    run = written.take()
    rewrite(run, "primary", lambda rows: pa.concat_tables([rows.slice(0, 17), rows.slice(18)]))
    report = look_at(written, run)
    assert rows_of(report) == {"missing": 1}
    assert "is missing" in sentences(report)


def test_a_doubled_row(written: Written) -> None:
    run = written.take()
    rewrite(run, "primary", lambda rows: pa.concat_tables([rows, rows.slice(5, 1)]))
    assert rows_of(look_at(written, run)) == {"duplicated": 1}


def changed(column: str, row: int, value: Any) -> Change:
    def change(rows: pa.Table) -> pa.Table:
        values = rows.column(column).to_pylist()
        values[row] = value
        at = rows.column_names.index(column)
        return rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))

    return change


@pytest.mark.parametrize(
    ("column", "value"),
    [("det", 0.123456), ("sample", "Ge"), ("spectrum", [0.0, 1.0, 99.0]), ("frames", 77), ("ts_det", 1.5), ("det", None)],
)
def test_a_changed_value(written: Written, column: str, value: Any) -> None:
    run = next(written.scene.client[uid] for uid in list(written.runs)[:1])
    table = run["primary"].base["internal"]
    before: list[pa.Table] = []

    def keep_and_change(rows: pa.Table) -> pa.Table:
        before.append(rows)
        return changed(column, 3, value)(rows)

    del table
    rewrite(run, "primary", keep_and_change)
    report = look_at(written, run)
    rewrite(run, "primary", lambda _: before[0])
    assert rows_of(report) == {"different": 1}
    assert column in sentences(report)
    assert look_at(written, run).is_same, "and with its own value again it passes"
