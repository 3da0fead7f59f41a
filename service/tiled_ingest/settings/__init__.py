"""What can be set, and how it gets here: command line > environment > file > default.

`Settings` is the one model; `load` fills it through pydantic-settings, name by name: a password from the environment
joins the file's other Kafka properties. Wherever a secret may stand, `<name>_file` may stand instead: the secret is
what that file holds, without the line's end.
"""

from .errors import SettingsError
from .fields import Group
from .kafka import Kafka
from .kafka_properties import HIDDEN_NAME, LOGIN, OPEN_NAME, OWNED, is_secret, revealed
from .loading import Effective, load, sources
from .model import Batch, Http, Limits, Log, Memory, Route, Runs, Settings, Tiled

__all__ = [
    "HIDDEN_NAME",
    "LOGIN",
    "OPEN_NAME",
    "OWNED",
    "Batch",
    "Effective",
    "Group",
    "Http",
    "Kafka",
    "Limits",
    "Log",
    "Memory",
    "Route",
    "Runs",
    "Settings",
    "SettingsError",
    "Tiled",
    "is_secret",
    "load",
    "revealed",
    "sources",
]
