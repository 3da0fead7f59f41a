"""Documents against event-model's rules, which are slow to check: what one repeats of another is checked once."""

import hashlib
from collections import OrderedDict
from typing import Any

import event_model
import msgspec
from event_model import DocumentNames

from tiled_ingest.core.errors import InvalidDocument

REMEMBERED_MAX = 1_000  # documents that differ in more than what each has of its own

_ANY_NAME = str.maketrans("./", "\ue000\ue001")
_VALIDATORS = {name.value: validator for name, validator in event_model.schema_validators.items()}
_NAMED = {
    kind: event_model.schemas[DocumentNames[kind]]["properties"].keys() for kind in ("start", "stop", "descriptor")
}
_RANGE = {"start": 0, "stop": 0}
_OF_ITS_OWN: dict[str, dict[str, Any]] = {  # what differs from document to document: any value of that type is as good
    "descriptor": {"uid": "", "run_start": "", "time": 0.0},
    "stream_datum": {"uid": "", "descriptor": "", "stream_resource": "", "indices": _RANGE, "seq_nums": _RANGE},
}


class Schemas:
    """Checks documents.

    A scan has the descriptors of the one before it, each of which takes a millisecond to check and 20 us to recognise;
    and its stream_datums are alike but for names and numbers.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def check(self, kind: str, doc: dict[str, Any]) -> None:
        """Check the fields that event-model names as it does; the first violation is enough.

        What a user adds to a start may have any name and depth (event-model forbids dots there, Tiled does not); to
        walk through it rule by rule would take a hostile message minutes.

        Raises
        ------
        InvalidDocument
            `schema`.
        """
        known = _digest(kind, doc) if kind in _OF_ITS_OWN else None
        if known is None or known not in self._known:
            _validate(kind, doc)
        if known is not None:
            self._known[known] = None
            self._known.move_to_end(known)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)


def _digest(kind: str, doc: dict[str, Any]) -> bytes | None:
    """Return a hash of what the rules look at, the same for all documents that they judge alike; `None` for an odd one.

    The order of keys counts: nearly always it is the same, too.
    """
    own = _OF_ITS_OWN[kind]
    if not all(_is_like(doc.get(name), value) for name, value in own.items()):
        return None
    try:
        return hashlib.blake2b(msgspec.msgpack.encode((kind, doc | own)), digest_size=16).digest()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
        return None


def _is_like(value: Any, example: Any) -> bool:
    if isinstance(example, dict) and isinstance(value, dict):
        return value.keys() == example.keys() and all(_is_like(value[key], example[key]) for key in example)
    return type(value) is type(example)


def _validate(kind: str, doc: dict[str, Any]) -> None:
    named = _NAMED.get(kind)
    checked = doc if named is None else {name: value for name, value in doc.items() if name in named}
    checked = _lenient(checked) if kind == "descriptor" else checked
    rules = kind
    if kind == "stream_resource" and "mimetype" not in doc:  # before event-model 1.20 it was a resource with a key
        rules, checked = "resource", {name: value for name, value in doc.items() if name != "data_key"}
    for error in _VALIDATORS[rules].iter_errors(checked):
        raise InvalidDocument("schema", f"{kind}: {_where(error)} breaks the rule {error.validator!r}")


def _where(error: Any) -> str:
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{error.json_path[:200]!a} without {missing}"
    return f"{error.json_path[:200]!a}"


def _lenient(descriptor: dict[str, Any]) -> dict[str, Any]:
    """Return the descriptor as event-model's present rules want it, for checking only.

    Old documents have `None` for what is not there, and types and places of data in other spellings;
    TiledWriter takes them, and so do we.
    """
    doc = {**descriptor, "data_keys": _lenient_keys(descriptor.get("data_keys"))}
    if isinstance(objects := doc.get("configuration"), dict):
        doc["configuration"] = {
            name: {**conf, "data_keys": _lenient_keys(conf.get("data_keys", {}))} if isinstance(conf, dict) else conf
            for name, conf in objects.items()
        }
    return doc


def _lenient_keys(data_keys: Any) -> Any:
    if not isinstance(data_keys, dict):
        return data_keys
    # Names with a dot or a slash break a rule, but they name data: `names` finds others for them.
    return {key.translate(_ANY_NAME): _lenient_key(described) for key, described in data_keys.items()}


def _lenient_key(described: Any) -> Any:
    if not isinstance(described, dict):
        return described
    known = {name: value for name, value in described.items() if value is not None}
    for name in ("external", "dtype_numpy"):
        if isinstance(known.get(name), str):
            del known[name]
    return {"shape": [], "source": "", **known}
