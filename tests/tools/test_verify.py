"""`verify` on real Kafka and Tiled: what is right passes, and every planted defect is found and named."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.tools.conftest import Change, Written, read, rewrite
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


def with_rows(written: Written, change: Change) -> RunReport:
    """What is said of a run whose rows were changed; they are put back then."""
    run = written.scene.client[list(written.runs)[-1]]
    whole = read(run["primary"].base["internal"])
    rewrite(run, "primary", change)
    try:
        return look_at(written, run)
    finally:
        rewrite(run, "primary", lambda _: whole)


def test_a_missing_row(written: Written) -> None:
    report = with_rows(written, lambda rows: pa.concat_tables([rows.slice(0, 17), rows.slice(18)]))
    assert rows_of(report) == {"missing": 1}
    assert "is missing" in sentences(report)


def test_a_doubled_row(written: Written) -> None:
    report = with_rows(written, lambda rows: pa.concat_tables([rows, rows.slice(5, 1)]))
    assert rows_of(report) == {"duplicated": 1}


def changed(column: str, seq_num: int, value: Any) -> Change:
    def change(rows: pa.Table) -> pa.Table:
        row = rows.column("seq_num").to_pylist().index(seq_num)  # PostgreSQL gives rows in any order
        values = rows.column(column).to_pylist()
        values[row] = value
        at = rows.column_names.index(column)
        return rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))

    return change


VALUES = [
    ("det", 0.123456),
    ("det", None),
    ("sample", "Ge"),
    ("spectrum", [0.0, 1.0, 99.0]),
    ("spectrum", [0.0, 1.0]),
    ("frames", 77),
    ("ts_det", 1.5),
    ("time", 1.5),
    ("seq_num", 1_000),
]


@pytest.mark.parametrize(("column", "value"), VALUES)
def test_a_changed_value(written: Written, column: str, value: Any) -> None:
    report = with_rows(written, changed(column, 4, value))
    assert rows_of(report) == {"different": 1}
    assert f"'{column}': " in sentences(report)
    assert "row 3 (seq_num 4)" in sentences(report)


def test_order_counts_where_the_storage_keeps_it(written: Written) -> None:
    node = written.scene.client[list(written.runs)[-1]]["primary"].base["internal"]
    keeps_order = node.data_sources()[0].assets[0].data_uri.startswith("duckdb")
    report = with_rows(written, lambda rows: rows.take([1, 0, *range(2, rows.num_rows)]))
    assert rows_of(report) == ({"misplaced": 2} if keeps_order else {})


def test_rows_of_another_run(written: Written) -> None:
    other = written.scene.client[list(written.runs)[-2]]
    strange = read(other["primary"].base["internal"]).slice(0, 3)
    report = with_rows(written, lambda rows: pa.concat_tables([rows, strange.select(rows.column_names)]))
    assert rows_of(report) == {"foreign": 3}


def test_a_missing_column(written: Written) -> None:
    report = with_rows(written, lambda rows: rows.drop_columns(["det"]))
    assert rows_of(report)["different"] > 0
    assert "no column or node 'det'" in sentences(report)


def test_a_missing_stream(written: Written) -> None:
    run = written.take()
    run.base.delete_contents("primary", recursive=True, external_only=False)
    report = look_at(written, run)
    assert rows_of(report)["missing"] >= 60
    assert "the stream is missing" in sentences(report)


def test_a_stream_that_was_not_published(written: Written) -> None:
    run = written.take()
    run.base.create_container("surplus")
    assert "stream 'surplus' was not published" in sentences(look_at(written, run))


def test_a_missing_table(written: Written) -> None:
    run = written.take()
    run["primary"].base.delete_contents("internal", external_only=False)
    report = look_at(written, run)
    assert rows_of(report)["missing"] >= 60
    assert "the table is missing" in sentences(report)


@pytest.mark.parametrize("document", ["start", "stop"])
def test_a_changed_document(written: Written, document: str) -> None:
    run = written.scene.client[list(written.runs)[-2]]
    before = run.metadata[document]
    run.replace_metadata({**run.metadata, document: {**before, "sample": "Pb", "time": 1.0}})
    said = sentences(look_at(written, run))
    run.replace_metadata({**run.metadata, document: before})
    assert f"{document}, 'sample': 'Pb' instead of" in said
    assert f"{document}, 'time': 1.0 instead of" in said
    assert look_at(written, run).is_same


def test_a_changed_descriptor(written: Written) -> None:
    stream = written.take()["primary"].base
    keys = {**stream.metadata["data_keys"]}
    keys["det"] = {**keys["det"], "units": "furlong"}
    stream.update_metadata({"data_keys": keys})
    run = written.scene.client[stream.path_parts[-2]]
    assert "data_keys, 'det', 'units': 'furlong' instead of" in sentences(look_at(written, run))


def test_a_missing_run_and_one_that_the_topic_does_not_hold(written: Written) -> None:
    client = written.scene.client
    uid = written.take().metadata["start"]["uid"]
    metadata = dict(client[uid].metadata)
    client.delete_contents(uid, recursive=True, external_only=False)
    client.create_container("stranger", metadata=metadata, specs=[])
    report = look(written)
    missing = next(run for run in report.runs if run.uid == uid)
    assert missing.verdict == "missing"
    assert rows_of(missing)["missing"] >= 60
    assert report.not_in_topic == [f"stranger (offset {metadata['tiled_ingest']['source']['first_offset']})"]
    client.delete_contents("stranger", external_only=False)
    assert not report.passed
