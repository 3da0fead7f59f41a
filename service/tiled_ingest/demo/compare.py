"""Is in Tiled what the RunEngine published? Read with Tiled's own client, compared row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tiled_ingest.demo.processes import ProcessError

Documents = Sequence[tuple[str, Mapping[str, Any]]]
Row = Mapping[str, Any]
Numbered = tuple[int, Row]


@dataclass(frozen=True)
class Stream:
    """One stream's rows; a row counts as `different` when any value, time stamp or column of it is."""

    name: str
    rows_published: int
    rows_in_tiled: int
    missing: int
    duplicated: int
    different: int
    surplus: int

    @property
    def same(self) -> bool:
        """Whether Tiled holds exactly what was published."""
        return not (self.missing or self.duplicated or self.different or self.surplus)


@dataclass(frozen=True)
class Run:
    """One run, as it was published and as Tiled shows it. `problems`: what is wrong beside its streams' rows."""

    uid: str
    plan: str
    exit_status: str
    state: str
    streams: tuple[Stream, ...]
    problems: tuple[str, ...]

    @property
    def rows_published(self) -> int:
        """Rows of all streams."""
        return sum(stream.rows_published for stream in self.streams)

    @property
    def rows_in_tiled(self) -> int:
        """Rows of all streams."""
        return sum(stream.rows_in_tiled for stream in self.streams)

    @property
    def same(self) -> bool:
        """Whether Tiled holds exactly what was published."""
        return not self.problems and all(stream.same for stream in self.streams)


@dataclass
class Published:
    """One run's documents, sorted."""

    start: Mapping[str, Any]
    stop: Mapping[str, Any] = field(default_factory=dict)
    streams: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def rows(self, stream: str) -> list[Numbered]:
        """Return the rows that Tiled should show for a stream, each with its seq_num."""
        return [(event["seq_num"], _row(event)) for event in self.streams[stream]]


class Catalog:
    """Tiled, seen through its own client."""

    def __init__(self, uri: str, api_key: str) -> None:
        # Seconds, which pass while other parts start. The plugin would be loaded by the first run that is looked at.
        import bluesky_tiled_plugins  # noqa: F401, PLC0415
        from tiled.client import from_uri  # noqa: PLC0415

        with _translated():
            self._client = from_uri(uri, api_key=api_key, show_progress=False)

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self._client.context.server_info.library_version)

    def uids(self) -> set[str]:
        """Return the runs that are there."""
        with _translated():
            return set(self._client)

    def state(self, uid: str) -> str:
        """Return what the service wrote about the run's state; `missing` without a run."""
        with _translated():
            if uid not in self._client:
                return "missing"
            return str(self._client[uid].metadata.get("tiled_ingest", {}).get("state", "open"))

    def closed(self, uid: str) -> bool:
        """Tell whether the service has finished with a run, well or not."""
        return self.state(uid) not in {"missing", "open"}

    def rows(self, uid: str, stream: str = "primary") -> int:
        """Count the rows that a reader sees in a stream at this moment.

        Only while nobody writes: on DuckDB, Tiled's requests share one connection, where the end of a reader's
        transaction is the end of the writer's too. Both then see errors, which cost a minute of retries.
        """
        with _translated():
            try:
                nodes = self._client[uid][stream].base
                tables = [node for name, node in nodes.items() if name.startswith("internal")]
            except KeyError:  # no run or stream yet
                return 0
            return sum(len(table.read(columns=["seq_num"])) for table in tables)

    def compare(self, plan: str, published: Published) -> Run:
        """Read a run and compare every row of every stream."""
        uid = published.start["uid"]
        if self.state(uid) == "missing":
            return Run(uid, plan, "", "missing", (), ("the run is missing",))
        with _translated():
            run = self._client[uid]
            found = {name: _rows(run[name]) for name in run}
        metadata = run.metadata
        streams = [compare_rows(name, published.rows(name), found.get(name, [])) for name in published.streams]
        problems = [f"stream {name!r} was not published" for name in sorted(set(found) - set(published.streams))]
        for name, document in (("start", published.start), ("stop", published.stop)):
            if dict(metadata.get(name, {})) != document:
                problems.append(f"its {name} document differs")
        state = self.state(uid)
        if state != "complete":
            problems.append(f"its state is {state!r}")
        exit_status = metadata.get("stop", {}).get("exit_status", "")
        return Run(uid, plan, exit_status, state, tuple(streams), tuple(problems))


def sort_runs(documents: Documents) -> list[Published]:
    """Sort documents by run, in the order of their starts; runs may be interleaved."""
    runs: dict[str, Published] = {}
    homes: dict[str, tuple[str, str]] = {}
    for name, document in documents:
        if name == "start":
            runs[document["uid"]] = Published(document)
        elif name == "descriptor":
            homes[document["uid"]] = (document["run_start"], document["name"])
            runs[document["run_start"]].streams.setdefault(document["name"], [])
        elif name == "event":
            uid, stream = homes[document["descriptor"]]
            runs[uid].streams[stream].append(document)
        elif name == "stop":
            runs[document["run_start"]].stop = document
        else:
            raise ValueError(f"the demo's plans publish no {name}")
    return list(runs.values())


def compare_rows(name: str, published: Sequence[Numbered], found: Sequence[Numbered]) -> Stream:
    """Compare a stream's rows, whatever their order; a seq_num is published once."""
    wanted = dict(published)
    there: dict[int, list[Row]] = {}
    for number, row in found:
        there.setdefault(number, []).append(row)
    return Stream(
        name,
        rows_published=len(published),
        rows_in_tiled=len(found),
        missing=len(wanted.keys() - there.keys()),
        duplicated=sum(len(rows) - 1 for rows in there.values()),
        different=sum(any(row != wanted[number] for row in there[number]) for number in wanted.keys() & there.keys()),
        surplus=len(there.keys() - wanted.keys()),
    )


def _row(event: Mapping[str, Any]) -> Row:
    stamps = {f"ts_{key}": stamp for key, stamp in event["timestamps"].items()}
    return {"time": event["time"], **event["data"], **stamps}


def _rows(stream: Any) -> list[Numbered]:
    """Read values, time stamps and numbers at once, so that what is in one row stays together."""
    table = stream.read(variables=list(stream))
    columns = {str(name): table[name].values.tolist() for name in table.variables}
    numbers = columns.pop("seq_num")
    return [
        (number, dict(zip(columns, row, strict=True)))
        for number, row in zip(numbers, zip(*columns.values(), strict=True), strict=True)
    ]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise ProcessError(f"Tiled did not answer as it should: {error}") from error
