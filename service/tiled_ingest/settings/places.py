"""The places where settings are given: pydantic-settings' sources, each with what we promise beyond them.

What they do not do: refuse a misspelled variable, read a secret from the file that `<name>_file` names
(`SecretsSettingsSource` reads a folder whose files bear the settings' names, which a mounted secret's seldom do),
complain about a configuration file that is not there, and tell where a value came from.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    YamlConfigSettingsSource,
)

from .errors import SettingsError
from .names import CONFIG, FILE, PREFIX, PROPERTIES, Name, names_of
from .origins import Origins, Tree, cause, read_json

GIVEN = "_given"  # an argument of the model that is no setting, like pydantic-settings' own `_env_file`


@dataclass(frozen=True, slots=True)
class Given:
    """What `load` was given, and where its values went."""

    origins: Origins
    config: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def path(self) -> Path | None:
        """The configuration file, if there is one."""
        named = self.environ.get(CONFIG)
        return self.config or (Path(named) if named else None)


def in_order(
    model: type[BaseSettings], arguments: PydanticBaseSettingsSource
) -> tuple[PydanticBaseSettingsSource, ...]:
    """Return the sources, what wins first: the model's arguments, command line, environment, file."""
    values = arguments()
    given = values.pop(GIVEN, None) or Given(Origins(names_of(model)))
    return (
        InitSettingsSource(model, values),
        CommandLine(model, given),
        Environment(model, given),
        *([File(model, given.path, given.origins)] if given.path else []),
        _empty_groups(model),
    )


class CommandLine(InitSettingsSource):
    """Dotted names and values; text is understood as in the environment."""

    def __init__(self, model: type[BaseSettings], given: Given) -> None:
        tree: Tree = {}
        for text, value in given.overrides.items():
            name = tuple(text.split(".", 2))
            if not given.origins.names.is_known(name):
                raise SettingsError(f"{given.origins.names.unknown(name)} (from command line)")
            _put(tree, name, read_json(value) if given.origins.names.takes_json(name) else value)
        super().__init__(model, tree)
        self._origins = given.origins

    def __call__(self) -> Tree:
        """Return what the command line says, as a tree."""
        return self._origins.taken(super().__call__(), lambda _: "command line")


class Environment(EnvSettingsSource):
    """Variables `TILED_INGEST_...`; those that mean nothing are refused."""

    def __init__(self, model: type[BaseSettings], given: Given) -> None:
        super().__init__(model)
        self._origins = given.origins
        self._variables = {
            _named(variable): variable for variable, text in given.environ.items() if is_setting(variable, text)
        }
        for name, variable in self._variables.items():
            if not given.origins.names.is_known(name):
                raise SettingsError(f"{given.origins.names.unknown(name)} (from environment {variable})")
        # Sorted: of a group and its members the group comes first, and the members are laid over it.
        self.env_vars = {
            self.env_prefix.lower() + "__".join(name): given.environ[variable]
            for name, variable in sorted(self._variables.items())
        }

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002
        """Read JSON. Other text stays as it is: one topic needs no brackets, and what is wrong is told by its name."""
        return read_json(value)

    def __call__(self) -> Tree:
        """Return what the variables say, as a tree."""
        return self._origins.taken(super().__call__(), self._origin)

    def _origin(self, name: Name) -> str:
        groups = (name[:length] for length in range(len(name), 0, -1))
        return f"environment {next(self._variables[group] for group in groups if group in self._variables)}"


class File(YamlConfigSettingsSource):
    """A YAML file, which must be there."""

    def __init__(self, model: type[BaseSettings], path: Path, origins: Origins) -> None:
        try:
            path.expanduser().stat()  # pydantic-settings passes over a file that is not there
            super().__init__(model, path, "utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--config: cannot read {path}: {cause(error)}") from error
        except yaml.YAMLError as error:
            # Neither the error's text nor its chain: both quote the file, which may hold a secret.
            raise SettingsError(f"--config: {path} is no YAML (line {_line(error)})") from None
        if not path.expanduser().is_file():
            raise SettingsError(f"--config: {path} is no file")
        self._path, self._origins = path, origins

    def __call__(self) -> Tree:
        """Return what the file says."""
        return self._origins.taken(super().__call__(), lambda _: f"file {self._path}")

    def _read_file(self, path: Path) -> Tree:
        tree: Any = super()._read_file(path)
        if not isinstance(tree, dict):
            raise SettingsError(f"--config: {path} must hold names and values")
        return tree


# ---------------------------------------------------------------- variables

_LINK_NAME = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def is_setting(variable: str, text: str) -> bool:
    """Tell whether a variable is meant for us: not so one without text, nor what Kubernetes puts there.

    In every pod beside a Service called `tiled-ingest`, Kubernetes sets TILED_INGEST_SERVICE_HOST and its like. None
    of them holds `__`, which every setting but `beamline` does: no misspelled setting hides behind this.
    """
    if not (variable.startswith(PREFIX) and text) or variable == CONFIG:
        return False
    link = _LINK_NAME.search(variable) or (variable.endswith("_PORT") and _LINK_VALUE.match(text))
    return "__" in variable or not link


def _named(variable: str) -> Name:
    """Return the name; a dot of a Kafka property is written `_`: `SASL_PASSWORD` is `sasl.password`."""
    name = tuple(variable.removeprefix(PREFIX).lower().split("__", 2))
    if name[:2] == PROPERTIES and len(name) == 3:
        stem = name[2].removesuffix(FILE).replace("_", ".")
        return (*PROPERTIES, stem + FILE if name[2].endswith(FILE) else stem)
    return name


# ---------------------------------------------------------------- trees


def _put(tree: Tree, name: Name, value: Any) -> None:
    for part in name[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            return  # a value where a group belongs: `Origins` refuses it
    tree[name[-1]] = _joined(tree.get(name[-1]), value)


def _joined(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return {**under, **{key: _joined(under.get(key), value) for key, value in over.items()}}


def _empty_groups(model: type[BaseSettings]) -> InitSettingsSource:
    """Return the last source: with every group there, what is missing is a setting, never a whole group."""
    return InitSettingsSource(model, {name: {} for name, *below in names_of(model).groups if not below})


def _line(error: yaml.YAMLError) -> int | str:
    return error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else "?"
