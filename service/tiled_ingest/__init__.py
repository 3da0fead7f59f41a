"""tiled-ingest: Bluesky documents from Kafka to Tiled, exactly once."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inprocess import TiledWriter

__all__ = ["TiledWriter", "__version__"]
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """Import `TiledWriter` when it is asked for: the service must start without what it needs."""
    if name == "TiledWriter":
        return importlib.import_module(".inprocess", __name__).TiledWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
