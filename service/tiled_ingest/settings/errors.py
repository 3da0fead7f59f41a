"""One clear line out of pydantic's many."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from .names import Name, Names


class SettingsError(Exception):
    """A setting is wrong, missing or unknown. The message is one line that names it, and holds no secret."""


def explained(
    error: ValidationError,
    origins: Mapping[Name, str],
    known: Collection[Name],
    groups: Collection[Name],
) -> str:
    """Return a line that names the setting, what is wrong with it, and where it was given.

    An unknown name comes before a missing one: it is often the misspelling of it.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    place: tuple[Any, ...] = first["loc"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return _dotted(place) + ": unknown setting" + _likely(place, known) + _origin(place, origins)
    if first["type"] == "missing" and not any(isinstance(part, int) for part in place):
        return f"{_dotted(place)}: is missing; {_how_to_set(place)}"
    # A rule that binds several settings begins its message with the name of one of them.
    joined = "." if place in groups else ": "
    if not place:
        return message
    if first["type"] == "value_error" and isinstance(place[-1], int) and place[:-1] not in groups:
        joined = "."
    return _dotted(place) + joined + _lower(message) + _origin(place, origins)


def _dotted(place: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in place)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:] if message.startswith("Input ") else message


def _likely(place: tuple[Any, ...], known: Collection[Name]) -> str:
    close = get_close_matches(_dotted(place), [_dotted(name) for name in known], n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _origin(place: tuple[Any, ...], origins: Mapping[Name, str]) -> str:
    for length in range(len(place), 0, -1):
        if place[:length] in origins:
            return f" (from {origins[place[:length]]})"
    return ""


def _how_to_set(place: tuple[Any, ...]) -> str:
    variable = PREFIX + "__".join(str(part).upper() for part in place)
    return f"set it in the configuration file, as {variable} or with --set {_dotted(place)}=..."
