"""What Tiled can be asked, and how it can answer.

A request is a value: the engine makes it, the shell performs it, once, without retries of its own, and hands back
one outcome. All that decides what happens next (was it applied? may it be repeated?) is in the outcome's type.

Paths are tuples of keys, from the node that `tiled.uri` names; they are not yet quoted for a URL.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .external.assets import AssetPlan

Path = tuple[str, ...]
Spec = tuple[str, str | None]
Json = dict[str, Any]


# ---------------------------------------------------------------- what a table node points to


@dataclass(frozen=True, slots=True)
class TableSource:
    """The one data source of a table node: which rows of which SQL table readers see.

    Attributes
    ----------
    id
        Tiled's number for the data source (not of the dataset); 0 before Tiled gave one.
    schema
        Names, order and types of the columns. An append is cast by name *in this order*.
    parameters
        `table_name` and `dataset_id`: the rows. Switching a node means putting other parameters.
    properties
        Free for us; our facts are under `tiled_ingest`.
    storage
        The dialect that holds the rows: `duckdb`, `postgresql`, `sqlite`; empty if Tiled does not say.
    """

    id: int
    schema: pa.Schema
    parameters: Mapping[str, Any]
    properties: Mapping[str, Any] = field(default_factory=dict)
    storage: str = ""

    @property
    def dataset(self) -> tuple[Any, Any]:
        """The dataset's identity: SQL table and number."""
        return self.parameters.get("table_name"), self.parameters.get("dataset_id")


@dataclass(frozen=True, slots=True)
class Asset:
    """A folder or file that holds values. Of several, Tiled reads the one whose `parameter` sorts first."""

    uri: str
    parameter: str


@dataclass(frozen=True, slots=True)
class ArraySource:
    """The one data source of a node that is an array, regular or ragged.

    Attributes
    ----------
    id
        Tiled's number for it; 0 before Tiled gave one.
    dtype
        Of every element.
    shape, dims
        Sizes and names; of a ragged array a size may be `None`.
    chunks
        How many rows of each dimension stand together; the last chunk may reach beyond the shape.
    size
        The number of elements of a ragged array.
    assets
        Where a regular array's values are, the one that is read first.
    parameters
        `table_name` and `dataset_id`: where a ragged array's values are.
    properties
        Free for us; our facts are under `tiled_ingest`.
    """

    id: int
    family: Literal["array", "ragged"]
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    chunks: tuple[tuple[int, ...] | None, ...]
    dims: tuple[str, ...]
    size: int = 0
    assets: tuple[Asset, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> tuple[Any, ...]:
        """What distinguishes its values from any other's."""
        if self.family == "array":
            return tuple(asset.uri for asset in self.assets[:1])
        return self.parameters.get("table_name"), self.parameters.get("dataset_id")

    @property
    def seen(self) -> tuple[Any, ...]:
        """What readers see of it."""
        return self.dataset, self.dtype, self.shape, self.chunks, self.dims


@dataclass(frozen=True, slots=True)
class Node:
    """A node as Tiled describes it: its metadata, and the data source if it is a table or an array."""

    metadata: Json
    source: TableSource | None = None
    array: ArraySource | None = None


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run of ours that Tiled holds as open, found without Kafka's help."""

    path: Path
    metadata: Json
    epoch_max: int  # the largest epoch in its metadata and in its tables' data sources
    descriptors: tuple[str, ...] = ()  # uids of those that its streams' nodes name

    @property
    def first_offset(self) -> int:
        """The offset of its start document."""
        offset: int = self.metadata["tiled_ingest"]["source"]["first_offset"]
        return offset


# ---------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class CreateContainer:
    """Create a container node. Answers: `Done`, `Exists`, or a failure."""

    parent: Path
    key: str
    metadata: Json
    specs: tuple[Spec, ...]
    access_tags: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class CreateTable:
    """Create a table node with an empty dataset of its own. Answers: `Done(TableSource)`, `Exists`, or a failure."""

    parent: Path
    key: str
    schema: pa.Schema
    metadata: Json
    access_tags: tuple[str, ...] | None
    properties: Json


@dataclass(frozen=True, slots=True)
class Append:
    """Append rows to the dataset that the table node points to. Not repeatable. Answers: `Done(None)` or a failure."""

    path: Path
    table: pa.Table


@dataclass(frozen=True, slots=True)
class ReadKeys:
    """Read the columns `seq_num` and `time` of a table, whole. Answers: `Done(Keys)`, `Missing`, or a failure."""

    path: Path


@dataclass(frozen=True, slots=True)
class CountRows:
    """Count the rows of a table by reading one of its columns. Answers: `Done(int)`, `Missing`, or a failure."""

    path: Path
    column: str


@dataclass(frozen=True, slots=True)
class CreateArray:
    """Create a node for an array, with nothing in it. Answers: `Done(ArraySource)`, `Exists`, or a failure."""

    parent: Path
    key: str
    source: ArraySource
    metadata: Json
    access_tags: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class PatchArray:
    """Write rows into a regular array from row `offset` on, making it longer. Answers: `Done(None)` or a failure.

    Sent to a node that one claim made and alone writes to: rows that share a chunk with those of another request
    that runs at the same time may be lost.
    """

    path: Path
    offset: int
    array: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ReadArray:
    """Read rows of a regular array of that type. Answers: `Done(array)`, as many rows as are there, or a failure."""

    path: Path
    start: int
    stop: int
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PutArray:
    """Let an array's node show what `source` says (its `id` is the node's own). Repeatable. Answers: `Done(None)`.

    Attributes
    ----------
    known
        Assets that the node surely has already.
    """

    path: Path
    source: ArraySource
    known: tuple[Asset, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Read columns of a table, whole, in the order of Tiled's storage (none, on PostgreSQL). Repeatable.

    Answers: `Done(pa.Table)`, `Missing`, or a failure; `Rejected` with 400 also for more than the server sends at once.
    Types are as they survive pandas on the server: nulls may turn integers into floats, and NaN comes as null.
    """

    path: Path
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GetNode:
    """Read a node's metadata and data source. Answers: `Done(Node)`, `Missing`, or a failure."""

    path: Path


@dataclass(frozen=True, slots=True)
class PutSource:
    """Point a table node to the dataset of `source` (its `id` is the node's own). Repeatable. Answers: `Done(None)`."""

    path: Path
    source: TableSource


@dataclass(frozen=True, slots=True)
class UpdateMetadata:
    """Replace the top-level keys of a node's metadata that `metadata` has, wholly, keeping no revision.

    Repeatable. Answers: `Done(None)`.
    """

    path: Path
    metadata: Json


@dataclass(frozen=True, slots=True)
class CloseStreams:
    """Tell live subscribers that nothing more will come, for each path in order. Repeatable. Answers: `Done(None)`."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class EnsureContainer:
    """Create the containers of a route that are missing, with the spec `CatalogOfBlueskyRuns` 3.0. Repeatable."""

    path: Path


@dataclass(frozen=True, slots=True)
class FindOpenRuns:
    """Find the open runs of a partition below `parent`. Answers: `Done(tuple[OpenRun, ...])`.

    `levels` is how many containers stand between `parent` and the runs.
    """

    parent: Path
    topic_id: str
    partition: int
    levels: int = 0


@dataclass(frozen=True, slots=True)
class RegisterExternal:
    """Make the node of an external data key, or bring it up to date with the plan. Repeatable.

    Without `known` the node is looked at first. It is never made smaller, unless `exact`: then it becomes what the plan
    says. Answers: `Done(Registered)`, `Missing` (the stream is gone), or a failure; `Rejected` also where no data
    source can be made of the documents.

    Attributes
    ----------
    description
        The data key as the normalised descriptor describes it.
    known
        What the last request of this claim about this node was answered.
    """

    path: Path
    description: Json
    plan: AssetPlan
    access_tags: tuple[str, ...] | None
    known: "Registered | None" = None
    exact: bool = False


Request = (
    CreateContainer
    | CreateTable
    | Append
    | ReadKeys
    | CountRows
    | CreateArray
    | PatchArray
    | ReadArray
    | PutArray
    | ReadRows
    | GetNode
    | PutSource
    | UpdateMetadata
    | CloseStreams
    | EnsureContainer
    | FindOpenRuns
    | RegisterExternal
)


# ---------------------------------------------------------------- outcomes


@dataclass(frozen=True, slots=True)
class Registered:
    """How Tiled holds the node of an external data key.

    Attributes
    ----------
    id
        Tiled's number for the data source.
    size
        Length of the first dimension; for opaque bytes the number of assets.
    assets
        How many assets of the plan are there.
    metadata
        What the node's metadata should hold in the end.
    notes
        What had to be changed in the documents, for a person.
    """

    id: int
    size: int
    assets: int
    metadata: Json = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Keys:
    """What identifies rows on read-back: `seq_num` (int64, shape (n,)) and `time` (float64, seconds, shape (n,))."""

    seq_num: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64]

    def between(self, start: int, stop: int | None = None) -> "Keys":
        """Return those of some rows."""
        return Keys(self.seq_num[start:stop], self.time[start:stop])


@dataclass(frozen=True, slots=True)
class Done:
    """Tiled confirmed: the effect is there. `value` is the request's answer."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Exists:
    """409 on a create: an answer, not an error. Whose it is must be looked up."""


@dataclass(frozen=True, slots=True)
class Missing:
    """404: the node, or one of its ancestors, is not there."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unprocessed:
    """Certainly not applied, now or later: never sent, or an answer that says so. A plain retry is allowed.

    `retry_after_s` is what the server asked for (429, 503), else `None`.
    """

    detail: str
    retry_after_s: float | None = None


PASSING = frozenset({404, 408, 425})  # statuses that say, in a proxy's mouth, that Tiled is away


@dataclass(frozen=True, slots=True)
class Unknown:
    """The write may have happened, may be happening, or may never happen (time-out, reset, 5xx, a proxy's 4xx)."""

    detail: str
    status: int | None = None

    @property
    def may_be_for_ever(self) -> bool:
        """Whether this request alone may be at fault: a bare 500, or a 4xx that Tiled did not say itself."""
        return self.status == 500 or (400 <= (self.status or 0) < 500 and self.status not in PASSING)


@dataclass(frozen=True, slots=True)
class Rejected:
    """4xx on this write: repeating it would fail again."""

    detail: str
    status: int


@dataclass(frozen=True, slots=True)
class Denied:
    """401 or 403. On everything, a configuration mistake; on one node, a refused access tag."""

    detail: str
    status: int

    @property
    def is_about_tags(self) -> bool:
        """Whether it is the access tags that Tiled refuses."""
        return self.status == 403 and "access tag" in self.detail.lower()


Outcome = Done | Exists | Missing | Unprocessed | Unknown | Rejected | Denied
