"""What `verify` says of a history that the engine has settled: it reads every message, and agrees."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from tests.core.test_engine import World
from tests.core.test_steps import MiniTiled
from tests.fuzz.mutate import History
from tiled_ingest.core import writes as w
from tiled_ingest.tiled import wire
from tiled_ingest.tiled.formats import Formats
from tiled_ingest.tools.verify.compare import compare_run
from tiled_ingest.tools.verify.expected import Partition, Run
from tiled_ingest.tools.verify.report import RunReport
from tiled_ingest.tools.verify.tree import Node, TiledUnreadable, Tree

SPECS = frozenset({"BlueskyRun", "BlueskyEventStream"})
FORMATS = Formats()


@dataclass(frozen=True)
class Message:
    """A record as Kafka's client hands it out."""

    place: int
    content: bytes

    def offset(self) -> int:
        return self.place

    def value(self) -> bytes:
        return self.content


class Reader(Tree):
    """The test's Tiled as `verify` reads a real one."""

    def __init__(self, tiled: MiniTiled) -> None:
        self.files_moved = False
        self._tiled = tiled

    def node(self, path: w.Path) -> Node | None:
        """Return a node as Tiled would describe it, through JSON."""
        if path not in self._tiled.nodes:
            return None
        node = self._tiled.nodes[path]
        metadata = msgspec.json.decode(wire.dump(node.metadata))
        if path in self._tiled.externals:
            source = FORMATS.build(self._tiled.externals[path]).source
            uris = tuple(asset["data_uri"] for asset in source["assets"])
            return Node(path, source["structure_family"], metadata, source.get("structure") or {}, uris)
        if node.array is not None:
            source = msgspec.json.decode(wire.dump(wire.shown(node.array)))["data_source"]
            return Node(path, node.array.family, metadata, source["structure"])
        if node.source is not None:
            encoded = b64encode(node.source.schema.serialize().to_pybytes()).decode()
            structure = {"columns": node.source.schema.names, "arrow_schema": f"base64,{encoded}"}
            return Node(path, "table", metadata, structure, (node.source.storage,))
        return Node(path, "container", metadata, specs=SPECS)

    def children(self, path: w.Path) -> list[Node]:
        """Return the nodes directly below."""
        below = [other for other in self._tiled.nodes if len(other) == len(path) + 1 and other[:-1] == path]
        return [node for other in below if (node := self.node(other))]

    def table(self, node: Node, columns: Sequence[str]) -> pa.Table:
        """Return columns of a table."""
        held = self._tiled.table_at(node.path)
        source = self._tiled.nodes[node.path].source
        assert source is not None
        return (source.schema.empty_table() if held is None else held).select(list(columns))

    def array(self, node: Node, begin: int, end: int) -> np.ndarray[Any, Any]:
        """Return rows of a regular array."""
        if node.path in self._tiled.externals:
            raise TiledUnreadable(f"{'/'.join(node.path)}: its file is not there")
        source = self._tiled.nodes[node.path].array
        assert source is not None
        held = self._tiled.stored.get(source.assets[0].uri, np.zeros((0, *node.shape[1:]), source.dtype))
        return held[begin:end]

    def ragged(self, node: Node, begin: int, end: int) -> list[Any]:
        """Return rows of a ragged array as lists, without the NaN that JSON has not."""
        source = self._tiled.nodes[node.path].array
        assert source is not None
        rows: list[Any] = []
        for table in self._tiled.rows.get(source.dataset, []):
            for chunk in table.to_pylist():
                rows += _unravelled(chunk, source.shape[1:])
        return rows[begin:end]


def _unravelled(chunk: dict[str, Any], shape: tuple[int | None, ...]) -> list[Any]:
    last = max(level for level, size in enumerate(shape) if size is None)
    data = [None if number != number else number for number in chunk[f"node{last + 1}-data"]]  # noqa: PLR0124
    flat = np.array(data, object).reshape(-1, *shape[last + 1 :]).tolist()
    for level, size in reversed(list(enumerate(shape[: last + 1]))):
        ends = chunk[f"node{level}-offsets"] if size is None else range(0, len(flat) + 1, size)
        flat = [flat[begin:end] for begin, end in pairwise(ends)]
    return flat


def disagreements(history: History, world: World) -> list[str]:
    """Return what `verify` calls wrong in what the engine made of a history, and is not."""
    letters = {letter.record.offset: letter.code for letter in reversed(world.letters)}
    partition = Partition(frozenset(), whole=True)
    messages = [Message(offset, value) for offset, value in enumerate(history)]
    partition.take_all(messages, letters, lambda message: letters[message.offset()])
    said = [f"offset {offset}: {why}" for offset, why in partition.unaccounted]
    for run in partition.runs.values():
        said += _of_run(run, partition, world)
    return said


def _of_run(run: Run, partition: Partition, world: World) -> list[str]:
    report = RunReport(run.uid, "t", 0, run.first_offset)
    if (run.uid,) in world.tiled.nodes:
        try:
            compare_run(Reader(world.tiled), partition, run, (run.uid,), report, open_end=False)
        except TiledUnreadable as error:  # a key that one descriptor has in files, and another one not
            return [str(error)]
    elif run.written:
        report.differences.append(f"run {run.uid!r} is missing")
    run.release()
    of_streams = (f"{stream.name}: {text}" for stream in report.streams for text in stream.differences)
    return [*report.differences, *of_streams]
