"""Writes of our own that Tiled must take if it takes any: they tell a request that is at fault from an outage.

Each is of the kind of the request that failed. The catalog, the tables and the files of arrays are three storages, and
one of them may be full, or away, while the others are well.
"""

import numpy as np
import pyarrow as pa

from tiled_ingest.core.steps import Procedure, Standing, Surroundings
from tiled_ingest.core.writes import (
    Append,
    ArraySource,
    CountRows,
    CreateArray,
    CreateTable,
    Done,
    GetNode,
    Missing,
    Outcome,
    PatchArray,
    Path,
    ReadArray,
    ReadKeys,
    ReadRows,
    Request,
    UpdateMetadata,
)

from .datasets import OURS

PROBE = pa.schema([("probe", pa.int64())])
PROBE_ARRAY = ArraySource(0, "array", np.dtype(np.int64), (0,), ((1,),), ("time",))


def is_taken(around: Surroundings, lane: str, request: Request) -> Procedure[bool | None]:
    """Whether Tiled takes another request of the kind; `None` where none can be made, but it can be read."""
    standing = around.standing(lane)
    if standing is None:
        proof = _is_read() if isinstance(request, GetNode) else _may_be_away()
        return (yield from proof)
    match request:
        case Append(path) | ReadKeys(path) | ReadRows(path) | CountRows(path) | CreateTable(path):
            proof = _takes_rows(around, standing, path)
        case PatchArray(path) | ReadArray(path) | CreateArray(path):
            proof = _takes_arrays(around, standing, path)
        case _:
            proof = _takes_metadata(standing)
    return (yield from proof)


def _is_read() -> Procedure[bool | None]:
    outcome: Outcome = yield GetNode(())
    return isinstance(outcome, Done | Missing)


def _may_be_away() -> Procedure[bool | None]:
    return None if (yield from _is_read()) else False


def _takes_metadata(standing: Standing) -> Procedure[bool | None]:
    """Write once more what the run's node says of us."""
    outcome: Outcome = yield UpdateMetadata(standing.path, {OURS: standing.facts})
    return isinstance(outcome, Done)


def _takes_rows(around: Surroundings, standing: Standing, above: Path) -> Procedure[bool | None]:
    """Write one row of our own into a table of its own below a node that has no other readers: it goes with the run."""
    key = f"probe-{around.epoch}-{around.fresh_nonce()}"
    made: Outcome = yield CreateTable(above, key, PROBE, {}, standing.tags, {})
    if not isinstance(made, Done):
        return False
    outcome: Outcome = yield Append((*above, key), pa.table({"probe": [1]}, PROBE))
    return isinstance(outcome, Done)


def _takes_arrays(around: Surroundings, standing: Standing, above: Path) -> Procedure[bool | None]:
    """Write one number into an array of its own, likewise."""
    key = f"probe-{around.epoch}-{around.fresh_nonce()}"
    made: Outcome = yield CreateArray(above, key, PROBE_ARRAY, {}, standing.tags)
    if not isinstance(made, Done):
        return False
    outcome: Outcome = yield PatchArray((*above, key), 0, np.ones(1, np.int64))
    return isinstance(outcome, Done)
