"""What a settings model says about its names: read off its fields, so that nothing is listed twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeGuard, get_origin

from pydantic import BaseModel

from .kafka_properties import is_secret

Name = tuple[str, ...]  # `kafka.topics` is ("kafka", "topics")

PREFIX = "TILED_INGEST_"
CONFIG = PREFIX + "CONFIG"
FILE = "_file"
PROPERTIES = ("kafka", "properties")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a model.

    Attributes
    ----------
    groups
        Names that hold names; `kafka.properties` among them, though any name may stand there.
    values
        Names that hold a value, `<name>_file` of secrets among them.
    lists
        Those of them that hold a list.
    secrets
        Those of them that hold a secret.
    """

    groups: frozenset[Name]
    values: frozenset[Name]
    lists: frozenset[Name]
    secrets: frozenset[Name]

    def is_known(self, name: Name) -> bool:
        """Tell whether a value, or a group as JSON, may stand under a name."""
        return name in self.values or name in self.groups or (name[:2] == PROPERTIES and len(name) == 3)

    def holds_secret(self, name: Name) -> bool:
        """Tell whether a name holds a secret."""
        if name[:2] == PROPERTIES and len(name) == 3:
            return is_secret(name[2])
        return name in self.secrets

    def takes_json(self, name: Name) -> bool:
        """Tell whether a text that looks like JSON is meant so."""
        return name in self.groups or name in self.lists

    def unknown(self, name: Name) -> str:
        """Say that a name is unknown, and which was probably meant."""
        close = get_close_matches(dotted(name), [dotted(known) for known in self.values], n=1, cutoff=0.7)
        return f"{dotted(name)}: unknown setting" + (f"; did you mean {close[0]}?" if close else "")


@cache
def names_of(model: type[BaseModel]) -> Names:
    """Return the names of a model."""
    kinds = dict(_fields(model, ()))
    groups = {name for name, kind in kinds.items() if _is_group(kind)} | {PROPERTIES}
    values = kinds.keys() - groups
    secrets = {name for name in values if "SecretStr" in str(kinds[name])}
    return Names(
        groups=frozenset(groups),
        values=frozenset(values | {(*name[:-1], name[-1] + FILE) for name in secrets}),
        lists=frozenset(name for name in values if get_origin(kinds[name]) is tuple),
        secrets=frozenset(secrets),
    )


def dotted(name: tuple[Any, ...]) -> str:
    """Return a name as a person writes it."""
    return ".".join(str(part) for part in name)


def _fields(model: type[BaseModel], at: Name) -> Iterator[tuple[Name, Any]]:
    for key, field in model.model_fields.items():
        yield (*at, key), field.annotation
        if _is_group(field.annotation):
            yield from _fields(field.annotation, (*at, key))


def _is_group(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
