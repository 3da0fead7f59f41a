"""One clear line out of pydantic's many."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from .names import PREFIX, Name, Names, dotted


class SettingsError(Exception):
    """A setting is wrong, missing or unknown. The message is one line that names it, and holds no secret."""


def explained(error: ValidationError, origins: Mapping[Name, str], names: Names) -> str:
    """Return a line that names the setting, what is wrong with it, and where it was given.

    An unknown name comes before a missing one: it is often the misspelling of it.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    place: tuple[Any, ...] = first["loc"]
    if first["type"] == "extra_forbidden":
        return names.unknown(tuple(map(str, place))) + _origin(place, origins)
    if first["type"] == "missing" and not any(isinstance(part, int) for part in place):
        return f"{dotted(place)}: is missing; {_how_to_set(place)}"
    message = _lower(first["msg"].removeprefix("Value error, "))
    if not place:
        return message
    binds_several = place in names.groups or (first["type"] == "value_error" and isinstance(place[-1], int))
    # Such a rule begins its message with the name of one of the settings.
    return dotted(place) + ("." if binds_several else ": ") + message + _origin(place, origins)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:] if message.startswith("Input ") else message


def _origin(place: tuple[Any, ...], origins: Mapping[Name, str]) -> str:
    for length in range(len(place), 0, -1):
        if place[:length] in origins:
            return f" (from {origins[place[:length]]})"
    return ""


def _how_to_set(place: tuple[Any, ...]) -> str:
    variable = PREFIX + "__".join(str(part).upper() for part in place)
    return f"set it in the configuration file, as {variable} or with --set {dotted(place)}=..."
