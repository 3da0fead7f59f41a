"""A user's own corrections of documents, made before anything else sees them."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import event_model

Document = dict[str, Any]
Patches = Mapping[str, Callable[[Any], Any]]
_UNPACKED = {
    "event_page": ("event", event_model.unpack_event_page),
    "datum_page": ("datum", event_model.unpack_datum_page),
}


class Patcher:
    """Applies the patches of one run.

    A patch gets a copy, and returns the document that counts. Pages are unpacked where their rows have a patch; a
    datum's `datum_kwargs` tell its patch the resource's spec as `_resource_spec`, as in RunNormalizer.
    """

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self._specs: dict[str, str] = {}  # by the resource's uid

    def __call__(self, name: str, doc: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
        """Yield what becomes of a document: copies, which are the receiver's."""
        single, unpack = _UNPACKED.get(name, (name, None))
        own = copy.deepcopy(dict(doc))
        if unpack is not None and single in self._patches:
            for row in unpack(own):
                yield single, self._patched(single, row)
        else:
            yield name, self._patched(name, own)

    def _patched(self, name: str, doc: Document) -> Document:
        patch = self._patches.get(name)
        if name == "resource":
            doc = patch(doc) if patch else doc
            self._specs[doc["uid"]] = str(doc.get("spec", "")).upper()
            return doc
        if patch is None:
            return doc
        return self._patched_datum(patch, doc) if name == "datum" else patch(doc)

    def _patched_datum(self, patch: Callable[[Any], Any], doc: Document) -> Document:
        if spec := self._specs.get(doc["resource"]):
            doc["datum_kwargs"] = doc.get("datum_kwargs", {}) | {"_resource_spec": spec}
        patched: Document = patch(doc)
        patched.get("datum_kwargs", {}).pop("_resource_spec", None)
        return patched
