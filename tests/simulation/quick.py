"""What makes histories quick without changing them: half of their time went into event-model's schemas.

A document's validity does not depend on the digits in it (serial numbers, times, values), only on its keys, types,
signs and words. So each form is validated once per process, by the real validators, and its verdict is remembered.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tiled_ingest.core.decoding import schemas

_DIGITS = re.compile(rb"[0-9]+")
_FORMS_MAX = 50_000


class Remembering:
    """A validator that knows which forms of documents it has seen."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator
        self._verdicts: dict[bytes, list[Any]] = {}

    def iter_errors(self, doc: Any) -> Iterator[Any]:
        """As jsonschema's, all at once."""
        form = _DIGITS.sub(b"0", msgspec.json.encode(doc, enc_hook=repr))
        if form not in self._verdicts:
            if len(self._verdicts) >= _FORMS_MAX:
                self._verdicts.clear()
            self._verdicts[form] = list(self._validator.iter_errors(doc))
        return iter(self._verdicts[form])


def remember_forms(patch: pytest.MonkeyPatch) -> None:
    """Let the decoder validate each form of a document once, until the patch is undone."""
    quick = {kind: Remembering(validator) for kind, validator in schemas._VALIDATORS.items()}
    patch.setattr(schemas, "_VALIDATORS", quick)
