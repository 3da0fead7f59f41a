"""A site's own knowledge of files and documents, found by the names of entry points.

An entry point of the group `tiled_ingest.plugins` leads to an object (a module, say) with any of these attributes:
`consolidators` (by mimetype), `spec_to_mimetype`, `normalizer` (in place of bluesky-tiled-plugins' `RunNormalizer`),
`patches` (functions from document to document, by kind).
"""

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from tiled_ingest.core.decoding.patches import Patches, joined
from tiled_ingest.core.errors import Forbidden
from tiled_ingest.tiled.formats import Formats

GROUP = "tiled_ingest.plugins"


def load(names: Iterable[str]) -> tuple[Formats, Patches]:
    """Import what `tiled.plugins` names; later ones win.

    Raises
    ------
    Forbidden
        There is no such entry point, or it cannot be imported.
    """
    loaded = [_loaded(name) for name in names]
    normalizers = [plugin.normalizer for plugin in loaded if getattr(plugin, "normalizer", None)]
    formats = Formats(
        _merged(loaded, "spec_to_mimetype"), _merged(loaded, "consolidators"), normalizers[-1] if normalizers else None
    )
    return formats, joined(*(getattr(plugin, "patches", {}) for plugin in loaded))


def _merged(plugins: Iterable[Any], attribute: str) -> dict[str, Any]:
    return {key: value for plugin in plugins for key, value in getattr(plugin, attribute, {}).items()}


def _loaded(name: str) -> Any:
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        raise Forbidden(f"tiled.plugins: no entry point {name!r} of the group {GROUP} is installed")
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise Forbidden(f"tiled.plugins: {name!r} cannot be loaded: {error}") from error
