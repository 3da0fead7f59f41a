"""One run in Tiled against what its documents say."""

from collections.abc import Mapping

from .expected import Partition, Run
from .metadata import renames_of, shown, start_differences, stop_differences
from .report import SENTENCES_MAX, RunReport, StreamReport
from .streams import StreamComparison
from .tree import Node, Path, Tree


def compare_run(tree: Tree, partition: Partition, run: Run, path: Path, report: RunReport, *, open_end: bool) -> None:
    """Compare the run that `path` holds; what is found goes into the report.

    Parameters
    ----------
    open_end
        Whether Tiled may hold more of it than the range: the log goes on after the range.
    """
    node = tree.node(path)
    if node is None:
        report.differences.append(f"the node {'/'.join(path)} is gone")
        return
    facts = node.metadata.get("tiled_ingest")
    report.state = str(facts.get("state", "")) if isinstance(facts, Mapping) else ""
    if not isinstance(facts, Mapping):
        report.remarks.append("written by someone else")
    if report.state == "failed":
        _compare_failed(run, report)
        return
    open_end = open_end and run.stop is None
    if open_end:
        report.remarks.append("cut by the range's end: what Tiled holds beyond it is not looked at")
    _compare_documents(run, node, report, open_end=open_end)
    _compare_streams(tree, partition, run, node, report, open_end=open_end)


def _compare_failed(run: Run, report: RunReport) -> None:
    report.verdict = "failed"
    report.remarks.append("marked as failed: its rows in Tiled, if any, do not count")
    if run.written:
        report.differences.append(f"failed, but {run.written} of its documents are not in the dead letters")


def _compare_documents(run: Run, node: Node, report: RunReport, *, open_end: bool) -> None:
    metadata = node.metadata
    if "BlueskyRun" not in node.specs:
        report.differences.append("the node has no spec BlueskyRun")
    if not run.optional:
        report.differences += start_differences(metadata.get("start"), run.start)[:SENTENCES_MAX]
    if run.stop is None:
        if "stop" in metadata and not open_end:
            report.differences.append("a stop document that was not published")
        if report.state in {"open", "abandoned"} or not report.state:
            report.remarks.append(f"no stop document came; {report.state or 'unfinished'} in Tiled")
        elif not open_end:
            report.differences.append(f"no stop document came, but Tiled calls the run {report.state}")
    elif "stop" not in metadata:
        if not run.stop_optional:
            report.differences.append("stop is missing")
    elif not run.stop_optional:
        report.differences += stop_differences(metadata["stop"], run.stop)[:SENTENCES_MAX]


def _compare_streams(
    tree: Tree, partition: Partition, run: Run, node: Node, report: RunReport, *, open_end: bool
) -> None:
    there = {child.key: child for child in tree.children(node.path)}
    notes = node.metadata.get("notes") or (node.metadata.get("tiled_ingest") or {}).get("notes") or []
    for stream in run.streams.values():
        said = StreamReport(stream.name)
        report.streams.append(said)
        found = there.pop(stream.name, None)
        keys = found.metadata.get("data_keys") if found else None
        comparing = StreamComparison(tree, stream, renames_of(notes, stream.name, keys), said, open_end=open_end)
        comparing.compare(found, partition)
    if not open_end:
        report.differences += [f"stream {shown(name)} was not published" for name in there]
