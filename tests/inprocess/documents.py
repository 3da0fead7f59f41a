"""Small runs, and how the rows that Tiled shows of them look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dask

from tests.differential.compose import Composer, key
from tests.differential.recorder import Documents

dask.config.set({"dataframe.convert-string": False})  # else dask turns a column of lists into text


def run_of(dtype: str, values: Sequence[Any], **more: Any) -> Documents:
    """One stream with the key `x`, an event for each value."""
    run = Composer()
    run.descriptor({"x": key(dtype, **more)}, object_keys={"dev": ["x"]})
    for value in values:
        run.event({"x": value})
    return run.stop()


def uid_of(documents: Documents) -> str:
    return str(documents[0][1]["uid"])


def give(writer: Any, documents: Iterable[tuple[str, Any]]) -> None:
    for name, doc in documents:
        writer(name, doc)


def rows(client: Any, uid: str, column: str = "x") -> list[Any]:
    """The values that a reader sees, in the order of seq_num."""
    table = client[uid]["primary"].base["internal"].read()
    return list(table.sort_values("seq_num")[column])


def facts(client: Any, uid: str) -> dict[str, Any]:
    """What we say about the run."""
    return dict(client[uid].metadata["tiled_ingest"])
