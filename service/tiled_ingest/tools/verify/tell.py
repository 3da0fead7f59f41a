"""The report for a person: what is wrong first, the numbers in a table, one line at the end."""

from collections.abc import Iterable, Iterator

from .report import Counts, PartitionReport, Report, RunReport

ROWS_MAX = 40  # of the table: runs with differences come first
_COLUMNS = ("run", "stream", "verdict", "expected", "found", "missing", "doubled", "different", "foreign", "misplaced")


def lines(report: Report) -> Iterator[str]:
    """Yield the report, line by line, printable whatever the documents hold."""
    for line in _lines(report):
        yield "".join(character if character.isprintable() else " " for character in line)


def _lines(report: Report) -> Iterator[str]:
    for partition in report.partitions:
        yield from _partition(partition)
    for run in report.runs:
        if run.differences or any(stream.differences for stream in run.streams):
            yield from _run(run)
    yield from (f"in Tiled, but not in the topic: {where}" for where in report.not_in_topic)
    yield from _rounded(report)
    yield ""
    yield from _table(report)
    yield ""
    yield _sum(report)


def _rounded(report: Report) -> Iterator[str]:
    count = sum(len(stream.rounded) for run in report.runs for stream in run.streams)
    if count:
        yield (
            f"{count} columns hold integers beyond 2^53, and nulls: Tiled's server sends them as floats, "
            "so their last digits are not compared (--json names them)"
        )


def _partition(partition: PartitionReport) -> Iterator[str]:
    where = f"{partition.topic}[{partition.partition}]"
    yield f"{where}: offsets {partition.first_offset} to {partition.next_offset}, {partition.documents} records"
    if partition.low > 0 and partition.first_offset == partition.low:
        yield f"  the log begins at {partition.low}: what was before is gone, and cannot be verified"
    if 0 <= partition.committed < partition.next_offset:
        yield (
            f"  {partition.next_offset - partition.committed} offsets are beyond the group's commit "
            "(--committed leaves them out)"
        )
    yield from (f"  {text}" for text in partition.remarks)
    yield from (f"  WRONG: {text}" for text in partition.differences)


def _run(run: RunReport) -> Iterator[str]:
    yield f"run {run.uid} ({run.topic}[{run.partition}] from offset {run.first_offset}): {run.verdict}"
    yield from (f"  WRONG: {text}" for text in run.differences)
    for stream in run.streams:
        yield from (f"  WRONG: stream {stream.name}: {text}" for text in stream.differences)
    yield from (f"  {text}" for text in run.remarks)


def _table(report: Report) -> Iterator[str]:
    runs = sorted(report.runs, key=lambda run: run.is_same)
    rows = [row for run in runs for row in _rows(run)]
    shown = [_COLUMNS, *rows[:ROWS_MAX]]
    widths = [max(len(row[at]) for row in shown) for at in range(len(_COLUMNS))]
    for row in shown:
        cells = (cell.ljust(width) if at < 3 else cell.rjust(width) for at, (cell, width) in _zipped(row, widths))
        yield "  ".join(cells).rstrip()
    if len(rows) > ROWS_MAX:
        yield f"... and {len(rows) - ROWS_MAX} more streams (--json has them all)"


def _zipped(row: Iterable[str], widths: Iterable[int]) -> Iterator[tuple[int, tuple[str, int]]]:
    yield from enumerate(zip(row, widths, strict=True))


def _rows(run: RunReport) -> Iterator[tuple[str, ...]]:
    verdict = run.verdict + (f" ({run.state})" if run.state not in {"", "complete", "failed"} else "")
    if not run.streams:
        yield run.uid[:36], "-", verdict, *[""] * 7
    for stream in run.streams:
        yield run.uid[:36], stream.name[:40], verdict, *_cells(stream.counts)
        for part in stream.parts:
            yield run.uid[:36], f"{stream.name}/{part.key}"[:40], part.kind, *_cells(part.counts)


def _cells(counts: Counts) -> Iterator[str]:
    numbers = (counts.expected, counts.found, counts.missing, counts.duplicated, counts.different, counts.foreign)
    yield from map(str, (*numbers, counts.misplaced))


def _sum(report: Report) -> str:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(report.verdicts().items())) or "none"
    letters = ", ".join(f"{count} {code}" for code, count in sorted(report.dead_letters.items())) or "none"
    result = "Tiled holds what the topic holds" if report.passed else "DIFFERENCES"
    result = "Nothing was compared, so nothing is proved" if report.is_empty else result
    rate = f"{report.events / report.seconds:,.0f} events/s" if report.seconds else ""
    return (
        f"{result}: {report.documents} records, {report.events} events in {report.seconds:.1f} s ({rate}); "
        f"runs: {verdicts}; dead letters: {letters}"
    )
