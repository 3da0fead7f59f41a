"""From what was given to the settings in force, and back: where each came from."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from .errors import SettingsError, explained
from .model import Settings
from .names import PROPERTIES, Name, dotted, names_of
from .origins import Origins
from .places import GIVEN, Given

MASK = "********"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Effective:
    """A value in force (masked if it is a secret) and where it came from."""

    name: str
    value: Any
    origin: str


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings in force.

    Parameters
    ----------
    config
        A YAML file; without one, the file that `TILED_INGEST_CONFIG` names, if any.
    overrides
        What the command line set: dotted names and values (text is understood as in the environment).
    environ
        The environment; the process's own if `None`.

    Raises
    ------
    SettingsError
        With one line that names the first setting that is wrong.
    """
    return _made(_given(config, overrides, environ))


def sources(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Effective, ...]:
    """Return every setting in force, secrets masked, with its origin; raises as `load` does."""
    given = _given(config, overrides, environ)
    leaves = list(_leaves(_made(given), ()))
    return tuple(Effective(dotted(name), value, given.origins.noted.get(name, DEFAULT)) for name, value in leaves)


def _made(given: Given) -> Settings:
    arguments: dict[str, Any] = {GIVEN: given}
    try:
        return Settings(**arguments)
    except ValidationError as error:
        # `from None`: pydantic's own message quotes what was given, which may be a secret.
        raise SettingsError(explained(error, given.origins.noted, given.origins.names)) from None


def _given(config: Path | None, overrides: Mapping[str, Any] | None, environ: Mapping[str, str] | None) -> Given:
    origins = Origins(names_of(Settings))
    return Given(origins, config, overrides or {}, os.environ if environ is None else environ)


def _leaves(model: BaseModel, at: Name) -> Iterator[tuple[Name, Any]]:
    for key in type(model).model_fields:
        name, value = (*at, key), getattr(model, key)
        if isinstance(value, BaseModel):
            yield from _leaves(value, name)
        elif name == PROPERTIES:
            yield from (((*name, key), _shown(item)) for key, item in value.items())
        else:
            yield name, _shown(value)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    return value
