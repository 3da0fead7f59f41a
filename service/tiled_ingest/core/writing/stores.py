"""Where the values of an array's node are: a child of the node that one claim made, and that nothing else writes to.

Tiled changes an array in place: a request of a dead owner could still lengthen it, or overwrite a neighbour's rows in a
chunk that both touch. So rows are never written to the node itself. Each claim writes to a store of its own, and then
one PUT lets the node show so many rows of it: readers see the old rows or the new ones, never zeros that wait for
their values.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tiled_ingest.core.errors import TiledRejected
from tiled_ingest.core.rows.blocks import ArrayPlan, Block, block
from tiled_ingest.core.rows.natural import Values
from tiled_ingest.core.rows.ragged import CHUNK, Chunks, RaggedPlan, chunk_of, chunks
from tiled_ingest.core.rows.sizes import spans
from tiled_ingest.core.steps import Procedure, Surroundings
from tiled_ingest.core.writes import (
    Append,
    ArraySource,
    Asset,
    CreateArray,
    CreateTable,
    Done,
    GetNode,
    Json,
    PatchArray,
    Path,
    ReadArray,
    ReadRows,
)

from .datasets import OURS
from .patience import WITNESSES_MIN, insist
from .reconcile import tally_at

Plan = ArrayPlan | RaggedPlan
Converted = Block | Chunks
Tags = tuple[str, ...] | None

CHUNK_NBYTES = 2**20  # of a regular array: small batches write their chunk again and again, large ones write many
CHUNK_ROWS_MAX = 10_000
EPOCH_MAX = 10**9
_ASSET = re.compile(r"a(\d{10})\d{10}")


class Store(Protocol):
    """Some rows of one array, and how they get there."""

    path: Path
    plan: Any
    rows: int

    def writes(self, converted: Any, nbytes_max: int) -> Iterator[PatchArray | Append]:
        """Yield the requests, each to be performed once, that put these rows after those that are there.

        None holds more than about `nbytes_max` bytes, unless it is of one row.
        """

    def rows_of(self, request: Any) -> int:
        """Return how many rows the request writes that was yielded last."""

    def arrived(self, around: Surroundings, lane: str, request: Any) -> Procedure[bool | None]:
        """Whether all that a request wrote is there (`None`: nobody will see). There is nobody else."""

    def wrote(self, converted: Any) -> None:
        """Note that all of its requests were confirmed."""

    def shown_by(self, node: ArraySource) -> ArraySource:
        """Return what the node must say to show all rows."""

    def reads(self) -> Iterator[ReadArray | ReadRows]:
        """Yield the requests that bring all rows back, in order."""

    def read(self, answer: Any, plan: Any) -> Iterator[Any]:
        """Yield the rows that such a request was answered with, as rows of the plan.

        Raises
        ------
        TiledRejected
            They are not the rows that were written.
        """


def converted(values: Sequence[Any], plan: Plan, nbytes_max: int) -> Converted:
    """Return the values as rows of the plan, or of a wider one, to be sent in requests of that size."""
    return block(values, plan) if isinstance(plan, ArrayPlan) else chunks(values, plan, nbytes_max)


def empty_source(plan: Plan, properties: Json) -> ArraySource:
    """Return an array of the plan with no rows."""
    if isinstance(plan, ArrayPlan):
        chunks = ((_chunk_rows(plan),), *((size,) for size in plan.row_shape))
        return ArraySource(
            0, "array", plan.dtype, (0, *plan.row_shape), chunks, _dims(plan.row_shape), properties=properties
        )
    sizes = tuple(None if size is None else (size,) for size in plan.row_shape)
    shape, dims = (0, *plan.row_shape), _dims(plan.row_shape)
    return ArraySource(0, "ragged", plan.dtype, shape, ((), *sizes), dims, properties=properties)


def _chunk_rows(plan: ArrayPlan) -> int:
    return max(1, min(CHUNK_ROWS_MAX, CHUNK_NBYTES // plan.row_nbytes))


def _dims(row_shape: tuple[int | None, ...]) -> tuple[str, ...]:
    """Name dimensions as TiledWriter does, so that those of one size are one; its number there is the size here."""
    named = (f"dim_int_{size}" if size is not None else f"dim_rgd_{axis}" for axis, size in enumerate(row_shape, 1))
    return ("time", *named)


def creation(parent: Path, key: str, plan: Plan, properties: Json, tags: Tags) -> CreateArray | CreateTable:
    """Return the request that makes a store."""
    if isinstance(plan, RaggedPlan):
        return CreateTable(parent, key, plan.schema, {}, tags, properties)
    return CreateArray(parent, key, empty_source(plan, properties), {}, tags)


def asset_of(made: ArraySource, epoch: int, serial: int) -> Asset:
    """Return a store's asset, under a parameter that sorts before those of earlier claims, and of ours before this."""
    return Asset(made.assets[0].uri, f"a{EPOCH_MAX - epoch:010d}{EPOCH_MAX - serial:010d}")


def epoch_of(source: ArraySource) -> int:
    """Return the epoch of the claim whose store the node shows, 0 for none.

    A late PUT of a zombie adds its asset to those that are there, and its properties replace theirs: so the assets, of
    which the latest claim's is read, know better.
    """
    found = _ASSET.fullmatch(source.assets[0].parameter) if source.assets else None
    return EPOCH_MAX - int(found[1]) if found else 0


class RegularStore:
    """A zarr array. Rows are at the places that the order of accepted events gives them."""

    def __init__(self, path: Path, plan: ArrayPlan, asset: Asset, properties: Json) -> None:
        self.path = path
        self.plan = plan
        self.rows = 0
        self._properties = properties
        self._asset = asset

    def writes(self, converted: Block, nbytes_max: int) -> Iterator[PatchArray]:
        """Yield patches of a bearable size; the rows of each are laid out when it is asked for."""
        for begin, end in spans(len(converted), self.plan.row_nbytes, nbytes_max):
            yield PatchArray(self.path, self.rows + begin, converted.laid(begin, end))

    def rows_of(self, request: PatchArray) -> int:
        """Return how many rows a patch has."""
        return len(request.array)

    def arrived(self, around: Surroundings, lane: str, request: PatchArray) -> Procedure[bool]:
        """Whether the rows of a patch read as they were written.

        The shape is looked at first: Tiled answers 500 to who reads an array without rows.
        """
        array, end = request.array, request.offset + len(request.array)
        node = yield from insist(around, lane, GetNode(self.path))
        if not isinstance(node, Done) or node.value.array is None or node.value.array.shape[0] < end:
            return False
        read = ReadArray(self.path, request.offset, end, array.dtype, array.shape[1:])
        answer = yield from insist(around, lane, read)
        return isinstance(answer, Done) and bool(answer.value.tobytes() == np.ascontiguousarray(array).tobytes())

    def wrote(self, converted: Block) -> None:
        """Count the rows."""
        self.rows += len(converted)

    def reads(self) -> Iterator[ReadArray]:
        """Yield reads of a bearable size."""
        for begin, end in spans(self.rows, self.plan.row_nbytes):
            yield ReadArray(self.path, begin, end, self.plan.dtype, self.plan.row_shape)

    def read(self, answer: Values, plan: ArrayPlan) -> Iterator[Block]:
        """Yield the rows as one block."""
        yield block(list(answer), plan)

    def shown_by(self, node: ArraySource) -> ArraySource:
        """Return the node's source with our asset first, and as many rows as we wrote."""
        new = empty_source(self.plan, self._properties)
        step = _chunk_rows(self.plan)
        full, rest = divmod(self.rows, step)
        chunks = ((step,) * full + ((rest,) if rest else ()), *new.chunks[1:])
        return replace(new, id=node.id, shape=(self.rows, *self.plan.row_shape), chunks=chunks, assets=(self._asset,))


class RaggedStore:
    """A table with a chunk in each row, as Tiled keeps ragged arrays."""

    def __init__(self, path: Path, plan: RaggedPlan, parameters: Json, properties: Json) -> None:
        self.path = path
        self.plan = plan
        self.rows = 0
        self._parameters = parameters
        self._properties = properties
        self._chunks: list[int] = []
        self._size = 0
        self._sent: list[tuple[int, int]] = []  # rows and elements of chunks that are not all confirmed yet

    def writes(self, converted: Chunks, _nbytes_max: int) -> Iterator[Append]:
        """Yield appends of one row each: a chunk, which was cut to size when it was converted."""
        self._sent = []
        for index, each in enumerate(converted.each(), len(self._chunks)):
            self._sent.append((each.rows, each.size))
            yield Append(self.path, each.table(index))

    def rows_of(self, _request: Append) -> int:
        """Return how many rows the last chunk has."""
        return self._sent[-1][0]

    def arrived(self, around: Surroundings, lane: str, request: Append) -> Procedure[bool | None]:
        """Whether the table has the row, too; `None` if it cannot be read."""
        index: int = request.table.column(CHUNK)[0].as_py()
        found = yield from tally_at(around, lane, self.path, CHUNK, witnesses_min=WITNESSES_MIN)
        return None if found is None else found.count == index + 1

    def wrote(self, _converted: Chunks) -> None:
        """Count the rows, by chunk."""
        for rows, size in self._sent:
            self.rows += rows
            self._size += size
            self._chunks.append(rows)
        self._sent = []

    def reads(self) -> Iterator[ReadRows]:
        """Yield one read, of all chunks."""
        yield ReadRows(self.path, tuple(self.plan.schema.names))

    def read(self, answer: pa.Table, plan: RaggedPlan) -> Iterator[Chunks]:
        """Yield the chunks that were confirmed; one that came since, whose reply was lost, is left out."""
        places = {index: place for place, index in enumerate(answer.column(CHUNK).to_pylist())}
        for index, rows in enumerate(self._chunks):
            if index not in places:
                raise TiledRejected(f"chunk {index} of {'/'.join(self.path)} is gone")
            yield chunk_of(rows, answer.slice(places[index], 1), plan)

    def shown_by(self, node: ArraySource) -> ArraySource:
        """Return the node's source with our table, and the chunks that are in it."""
        facts: Json = {**self._properties[OURS], "child": self.path[-1]}
        new = empty_source(self.plan, {**self._properties, OURS: facts})
        shape, chunks = (self.rows, *self.plan.row_shape), (tuple(self._chunks), *new.chunks[1:])
        kept = replace(new, id=node.id, size=self._size, parameters=self._parameters)
        return replace(kept, shape=shape, chunks=chunks)
