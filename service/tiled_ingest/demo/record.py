"""Documents in a file, as JSON Lines: `{"name": ..., "doc": ...}`. Imports nothing of Bluesky."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Named = tuple[str, dict[str, Any]]


def write_documents(path: Path, documents: list[Named]) -> None:
    """Append documents."""
    with path.open("a") as file:
        for name, doc in documents:
            file.write(json.dumps({"name": name, "doc": doc}, default=_plain) + "\n")


def read_documents(path: Path) -> list[Named]:
    """Return what `write_documents` wrote, in its order."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [(line["name"], line["doc"]) for line in lines]


def _plain(value: Any) -> Any:
    """Turn numpy's arrays and scalars into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no document's value")
