"""From a plan to a data source: bluesky-tiled-plugins knows the formats, its converters and consolidators do the work.

The package is large (280 MB in memory), so it is imported when the first external data come. What it raises for
documents that it cannot use is told apart from what is wrong with us: nothing here asks Tiled.
"""

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib import import_module
from itertools import starmap
from typing import Any

from jsonschema import ValidationError

from tiled_ingest.core.external.assets import AssetPlan, Use
from tiled_ingest.core.writes import Json, RegisterExternal
from tiled_ingest.tiled import wire

PACKAGE = "bluesky_tiled_plugins"
FILES_MAX = 1_000_000  # of one data key: each is an object here and a row in Tiled's catalog
CHUNKS_MAX = 10_000_000  # numbers in a structure: hostile shapes cost nothing to claim
CONVERTED_MAX = 10_000  # resources whose conversion is remembered
# What the library, or a site's own consolidator, raises for documents that it cannot use.
_UNUSABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, ValidationError)
# A field width of four digits in a template of file names makes megabytes of each.
_WIDE = re.compile(r"%[-+ 0#]*\d{4,}|%[-+ 0#]*\d*\.\d{4,}|\{[^{}]*\d{4,}[^{}]*\}")


class UnusableError(Exception):
    """No data source can be made of these documents; the text says why."""


class NotInstalledError(Exception):
    """The package that knows the formats is not there."""


@dataclass(frozen=True, slots=True)
class Built:
    """A data source as Tiled takes it, all assets included.

    Attributes
    ----------
    size
        Length of the first dimension; for opaque bytes the number of files.
    """

    source: Json
    size: int
    metadata: Json
    notes: tuple[str, ...]

    @property
    def assets(self) -> list[Json]:
        """Files in their order, each once."""
        assets: list[Json] = self.source["assets"]
        return assets


@dataclass
class Formats:
    """Makes data sources.

    Parameters
    ----------
    spec_to_mimetype
        Mimetypes of old resources' specs, beside those that the library knows.
    consolidators
        A site's own, by mimetype; called with a stream_resource and a descriptor.
    normalizer
        A site's own converter of old documents, in place of the library's `RunNormalizer`.
    """

    spec_to_mimetype: Mapping[str, str] = field(default_factory=dict)
    consolidators: Mapping[str, Callable[[Json, Json], Any]] = field(default_factory=dict)
    normalizer: Callable[..., Any] | None = None
    _converted: dict[tuple[str, str], tuple[Use, Json]] = field(default_factory=dict)

    def build(self, request: RegisterExternal) -> Built:
        """Return the data source that the request's plan describes.

        Raises
        ------
        UnusableError
            The library refuses the documents, or they would cost too much.
        NotInstalledError
            The library is not there.
        """
        notes: list[str] = []
        try:
            consolidator = self._consolidated(request, notes)
            _limit_chunks(consolidator, notes, request.path[-1])
            return _built(consolidator, notes)
        except ImportError as error:
            raise NotInstalledError(
                f"external data needs the package {PACKAGE}: install tiled-ingest[external] ({error})"
            ) from error
        except _UNUSABLE as error:
            raise UnusableError(_told_shortly(error)) from error

    def _consolidated(self, request: RegisterExternal, notes: list[str]) -> Any:
        key, plan = request.path[-1], request.plan
        descriptor = {"data_keys": {key: deepcopy(request.description)}}
        consolidator: Any = None
        met: set[int] = set()
        for part in plan:
            if part.use not in met:
                met.add(part.use)
                resource = self._stream_resource(plan, part.use, key, notes)
                if consolidator is None:
                    consolidator = self._made(resource, descriptor)
                else:
                    _go_on(consolidator, resource)
            _consume(consolidator, plan, *part)
        return consolidator

    def _made(self, resource: Json, descriptor: Json) -> Any:
        own = self.consolidators.get(resource["mimetype"])
        if own is not None:
            return own(resource, descriptor)
        return import_module(f"{PACKAGE}.writing.consolidators").consolidator_factory(resource, descriptor)

    # ------------------------------------------------------------ resources

    def _stream_resource(self, plan: AssetPlan, number: int, key: str, notes: list[str]) -> Json:
        use = plan.uses[number]
        known = self._converted.get((use.resource.uid, key))
        if known is None or known[0] != use:
            if len(self._converted) >= CONVERTED_MAX:
                self._converted.clear()
            known = self._converted[use.resource.uid, key] = (use, self._convert(use, key))
        resource = deepcopy(known[1])  # consolidators change it
        _check_template(resource)
        _drop_bad_chunks(resource, notes)
        return resource

    def _convert(self, use: Use, key: str) -> Json:
        """Return a resource as today's stream_resource for this key: the library's conversion, whatever it came as."""
        made = self.normalizer or import_module(f"{PACKAGE}.writing.tiled_writer").RunNormalizer
        normalizer = made(patches=None, spec_to_mimetype=dict(self.spec_to_mimetype))
        found: list[Json] = []
        normalizer.subscribe(lambda _, doc: found.append(doc), "stream_resource")
        for name, doc in _told(use, key):
            normalizer(name, doc)
        if not found:
            raise UnusableError(f"nothing was made of resource {use.resource.uid[:64]!r}")
        return {**found[0], "data_key": key}


def _told(use: Use, key: str) -> list[tuple[str, Json]]:
    """Return the documents by which a normalizer learns of a resource: an old one counts when an event uses it."""
    kind, doc = use.resource.kind, deepcopy(use.resource.doc)
    if use.datum is None:
        return [(kind, doc)]
    described = {key: {"source": "", "dtype": "array", "shape": [], "external": "FILE:"}}
    datum = {"datum_id": use.datum.id, "resource": use.resource.uid, "datum_kwargs": deepcopy(use.datum.kwargs)}
    head = {"uid": use.descriptor, "time": 0.0}
    event = {"descriptor": use.descriptor, "seq_num": 1, "timestamps": {key: 0.0}, "filled": {key: False}}
    return [
        ("descriptor", {**head, "run_start": "", "name": "primary", "data_keys": described}),
        (kind, doc),
        ("datum", datum),
        ("event", {**head, **event, "data": {key: use.datum.id}}),
    ]


def _check_template(resource: Json) -> None:
    if _WIDE.search(str(resource["parameters"].get("template", ""))):
        raise UnusableError("the template of the file names asks for thousands of digits")


def _drop_bad_chunks(resource: Json, notes: list[str]) -> None:
    """A chunk of no size says nothing: without it the data are read as well."""
    shape = resource["parameters"].get("chunk_shape")
    bad = shape is not None and not all(isinstance(size, int) and size > 0 for size in shape)
    if bad or shape is None:
        resource["parameters"].pop("chunk_shape", None)
    if bad:
        notes.append(f"External data '{resource['data_key']}': chunk_shape {shape} was left out.")


def _told_shortly(error: Exception) -> str:
    message = error.message if isinstance(error, ValidationError) else str(error)
    return f"{type(error).__name__}: {message}"


# ---------------------------------------------------------------- consolidators


def _go_on(consolidator: Any, resource: Json) -> None:
    consolidator.update_from_stream_resource(resource)
    # The library's own go on to name files by the first resource's place.
    if getattr(consolidator, "template", None) is not None and type(consolidator).__module__.startswith(PACKAGE):
        consolidator.uri = resource["uri"]


def _consume(consolidator: Any, plan: AssetPlan, number: int, indices: Any, seq_nums: Any) -> None:
    files = indices.rows * getattr(consolidator, "files_per_datum", 1) + len(consolidator.assets)
    # Only consolidators of sequences of files add one for each row.
    one_each = getattr(consolidator, "template", None) is not None or hasattr(consolidator, "files_per_datum")
    if one_each and files > FILES_MAX:
        raise UnusableError(f"{files} files; at most {FILES_MAX}")
    # The library's own remember each seq_num, 100 bytes a row, and make nothing of it.
    named = (0, 0) if type(consolidator).__module__.startswith(PACKAGE) else seq_nums
    use = plan.uses[number]
    document = {"uid": use.resource.uid, "stream_resource": use.resource.uid, "descriptor": use.descriptor}
    ranges = {"indices": indices, "seq_nums": named}
    consolidator.consume_stream_datum(
        document | {name: {"start": start, "stop": stop} for name, (start, stop) in ranges.items()}
    )


def _limit_chunks(consolidator: Any, notes: list[str], key: str) -> None:
    """Leave out a chunk shape that does not fit the data, or that would make a structure of endless numbers."""
    chunks = getattr(consolidator, "chunk_shape", None)
    if not chunks:
        return
    shape = consolidator.shape
    count = sum(starmap(lambda size, chunk: size // chunk + 1, zip(shape, chunks, strict=False)))
    if len(chunks) > len(shape) or count > CHUNKS_MAX:
        consolidator.chunk_shape = ()
        notes.append(f"External data '{key}': chunk_shape {list(chunks)} does not fit shape {list(shape)}; left out.")


def _built(consolidator: Any, notes: list[str]) -> Built:
    # Through JSON, as it will be compared with what Tiled answers.
    source: Json = wire.load(wire.dump({"source": consolidator.get_data_source()}))["source"]
    first: dict[str, Json] = {}
    for asset in source["assets"]:  # Tiled takes a file once
        first.setdefault(asset["data_uri"], asset)
    source["assets"] = list(first.values())
    shape = (source.get("structure") or {}).get("shape")
    size = shape[0] if shape else len(source["assets"])
    return Built(source, size, dict(consolidator.metadata), tuple(notes))
