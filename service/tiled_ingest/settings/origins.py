"""What each source gave, on its way to the model: shape checked, secrets read from their files, origin noted.

pydantic-settings lays the sources over one another and then forgets them: so a group that was given as a plain value
would vanish under another source's group without a word, and nobody could say where a value came from.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import SettingsError
from .names import FILE, Name, Names, dotted

Tree = dict[str, Any]


def read_json(value: Any) -> Any:
    """Read a text that looks like a list or a group in JSON; return anything else, or a failed one, as it is."""
    if not _looks_like_json(value):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:  # its text quotes what may be a secret: refused below, by its name
        return value


class Origins:
    """Notes where each value came from. The first source that gave a name is the one that counts."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.noted: dict[Name, str] = {}

    def taken(self, tree: Mapping[Any, Any], origin: Callable[[Name], str]) -> Tree:
        """Return what a source gave, fit for the model.

        Parameters
        ----------
        origin
            Says, for a person, where the source found a name.

        Raises
        ------
        SettingsError
            A group is no group, a secret's file cannot be read, or both are given.
        """
        return dict(self._group(tree, (), origin))

    def _group(self, tree: Mapping[Any, Any], at: Name, origin: Callable[[Name], str]) -> Iterator[tuple[str, Any]]:
        for key, given in tree.items():
            name = (*at, str(key))
            value = self._read(name, given, origin)
            if name not in self.names.groups:
                yield self._value(name, value, tree, origin(name))
            elif isinstance(value, Mapping):
                yield name[-1], dict(self._group(value, name, origin))
            elif value is not None:
                raise SettingsError(f"{dotted(name)}: is a group of settings, not a value (from {origin(name)})")

    def _read(self, name: Name, given: Any, origin: Callable[[Name], str]) -> Any:
        value = read_json(given) if self.names.takes_json(name) else given
        if _looks_like_json(value) and self.names.takes_json(name):
            raise SettingsError(f"{dotted(name)}: no JSON (from {origin(name)})")
        return value

    def _value(self, name: Name, value: Any, beside: Mapping[Any, Any], origin: str) -> tuple[str, Any]:
        plain = (*name[:-1], name[-1].removesuffix(FILE))
        if plain != name and self.names.holds_secret(plain):
            if plain[-1] in beside:
                raise SettingsError(f"{dotted(name)}: give the secret or its file, not both (from {origin})")
            name, value, origin = plain, _secret_in(name, value), f"{origin}, read from {value}"
        self.noted.setdefault(name, origin)
        return name[-1], value


def _looks_like_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith(("[", "{"))


def _secret_in(name: Name, path: Any) -> str:
    try:
        secret = Path(str(path)).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{dotted(name)}: cannot read {path}: {cause(error)}") from error
    if not secret:
        raise SettingsError(f"{dotted(name)}: {path} is empty")
    return secret


def cause(error: OSError | UnicodeDecodeError) -> str:
    """Say why a file cannot be read, without its content."""
    return error.strerror or "" if isinstance(error, OSError) else "no UTF-8"
