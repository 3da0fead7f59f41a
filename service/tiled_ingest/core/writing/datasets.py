"""What a table's data source tells about its owner: our facts in its properties, and how datasets differ."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from tiled_ingest.core.errors import IngestError
from tiled_ingest.core.rows.columns import Columns
from tiled_ingest.core.steps import Surroundings
from tiled_ingest.core.writes import ArraySource, Json, TableSource

OURS = "tiled_ingest"  # the key of our facts, in properties as in metadata
ORDER_FAMILIES = 64
ORDERS_TRIED_MAX = 10_000


class Superseded(IngestError):
    """Tiled shows that a later claim owns this partition: we are the zombie, and write nothing more."""

    reason = "Superseded"


def facts_of(source: TableSource | ArraySource) -> Mapping[str, Any]:
    """Our facts about a dataset.

    `epoch` and `nonce` of the claim that made it, the `orders` used so far; after a switch also the `child` that it
    came from and what it `replaced`.
    """
    facts = source.properties.get(OURS)
    return facts if isinstance(facts, Mapping) else {}


def check_epoch(around: Surroundings, where: str, source: TableSource | ArraySource) -> None:
    """Raise `Superseded` if a later claim made the dataset, or another one of the same epoch."""
    facts = facts_of(source)
    later = facts.get("epoch", 0) > around.epoch
    twin = facts.get("epoch") == around.epoch and facts.get("nonce") != around.nonce
    if later or twin:
        raise Superseded(f"{where} belongs to claim {facts.get('epoch')}, ours is {around.epoch}")


def orders_to_try(epoch: int, count: int) -> Iterator[int]:
    """Orders of columns: first those that only claims of this epoch choose (modulo a large number), then any.

    Two claims that switch at the same time, or one after the other without seeing each other, choose differently.
    """
    families = max(1, min(ORDER_FAMILIES, count // 4))
    own = range(epoch % families, count, families)
    yield from own[:ORDERS_TRIED_MAX]
    yield from range(min(count, ORDERS_TRIED_MAX))


def same_types(schema: pa.Schema, columns: Columns) -> bool:
    """Whether a dataset has exactly these columns, in whatever order."""
    return {column.name: column.type for column in schema} == dict(columns.types)


def packed(source: TableSource) -> Json:
    """Spell a data source so that it can stand in another one's properties."""
    schema = base64.b64encode(source.schema.serialize().to_pybytes()).decode()
    facts = {key: value for key, value in facts_of(source).items() if key != "replaced"}  # no chain of all ancestors
    return {"schema": schema, "parameters": dict(source.parameters), "facts": facts}


def unpacked(spelled: Mapping[str, Any], node: TableSource) -> TableSource:
    """The data source that `packed` spelled, as one of `node`'s."""
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(spelled["schema"])))
    return TableSource(node.id, schema, spelled["parameters"], {OURS: spelled["facts"]}, node.storage)
