"""Arrays in Tiled as a writer sees them: folders of chunks, and nodes that show so many rows of one of them.

The vices are those of the real one: a patch changes the folder that its node pointed to when it was resolved, writes
whole chunks as they were then, and afterwards sets the node's shape to what it knew, whatever the node shows by now.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tiled_ingest.core.writes import ArraySource, Asset, Done, Outcome, PatchArray, ReadArray, Unknown

CHUNK_ROWS = 2  # few, so that different patches meet in one chunk


@dataclass
class Folder:
    """A zarr array on disk: its length, and the rows that were written."""

    length: int
    rows: dict[int, Any] = field(default_factory=dict)


class Folders:
    """All arrays on the server's disk, by address."""

    def __init__(self) -> None:
        self._by_uri: dict[str, Folder] = {}

    def make(self, uri: str, source: ArraySource) -> ArraySource:
        """Make the folder of a new array: as long as its chunks, as Tiled does."""
        length = sum(source.chunks[0] or ()) if source.family == "array" else 0
        self._by_uri[uri] = Folder(length)
        return replace(source, assets=(Asset(uri, "data_uri"),))

    def snapshot(self, source: ArraySource) -> Folder:
        """Return what a patch sees when it is resolved."""
        folder = self._by_uri[source.assets[0].uri]
        return Folder(folder.length, dict(folder.rows))

    def patch(self, request: PatchArray, resolved: ArraySource, then: Folder, now: ArraySource) -> ArraySource | None:
        """Write the chunks that the patch touches; return what the node shows afterwards. `None` for a 500."""
        if request.array.dtype.itemsize != resolved.dtype.itemsize:
            return None
        folder = self._by_uri[resolved.assets[0].uri]
        stop = request.offset + len(request.array)
        for row in range(request.offset // CHUNK_ROWS * CHUNK_ROWS, -(-stop // CHUNK_ROWS) * CHUNK_ROWS):
            if request.offset <= row < stop:
                folder.rows[row] = request.array[row - request.offset]
            elif row in then.rows:
                folder.rows[row] = then.rows[row]
            else:
                folder.rows.pop(row, None)
        folder.length = max(then.length, stop)
        return replace(now, shape=(folder.length, *now.shape[1:]))

    def read(self, source: ArraySource, start: int, stop: int) -> list[Any]:
        """Return rows as readers see them: zeros where nothing was written."""
        folder, zeros = self._by_uri[source.assets[0].uri], np.zeros(_sizes(source), source.dtype)
        return [folder.rows.get(row, zeros) for row in range(start, min(stop, source.shape[0] or 0))]

    def rows(self, request: ReadArray, source: ArraySource) -> Outcome:
        """Answer a request for rows."""
        rows = self.read(source, request.start, request.stop)
        if not rows:
            return Unknown("TypeError: memoryview: cannot cast view with zeros in shape or strides", 500)
        return Done(np.array(rows, source.dtype).reshape(-1, *_sizes(source)))


def _sizes(source: ArraySource) -> tuple[int, ...]:
    return tuple(size or 0 for size in source.shape[1:])


def shown(new: ArraySource, old: ArraySource) -> ArraySource | Outcome:
    """Return what a node shows after a PUT: assets are only added, and the first by parameter counts."""
    assets = {asset.parameter: asset for asset in old.assets}
    for asset in new.assets:
        if assets.setdefault(asset.parameter, asset).uri != asset.uri:
            return Unknown("Can only insert num=NULL if no other row exists for the same parameter", 500)
    return replace(new, assets=tuple(assets[parameter] for parameter in sorted(assets)))
