"""librdkafka's properties as a site may give them: which are ours, which are secret, how values are spelled."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

# What the promise rests on (an automatic commit, or a jump to the log's end, would break it), or what has a
# setting of its own; `metadata.broker.list` is librdkafka's other name for the servers.
OWNED = frozenset(
    {
        "auto.commit.interval.ms",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "metadata.broker.list",
    }
)

# What a secret is. The chart refuses by the same expressions (`deploy.generate` hands them over), which Go reads, too:
# no look-around.
HIDDEN_NAME = r"password|secret|passphrase|credential|jaas|token|(^|\.)key(\.|$)|oauthbearer\.config"
OPEN_NAME = r"\.(location|file|url|type|uri)$"  # says where a secret is, not what it is
LOGIN = r":(//)?[^/\s]*@"  # `user:password@host`, with a scheme before it or without


def is_secret(name: str) -> bool:
    """Tell whether the value of a property must never be shown, however its name is spelled: `SASL_PASSWORD`."""
    plain = name.lower().replace("_", ".")
    return bool(re.search(HIDDEN_NAME, plain)) and not re.search(OPEN_NAME, plain)


def has_login(value: str) -> bool:
    """Tell whether an address has a login in it: then it is a secret under any name."""
    return bool(re.search(LOGIN, value))


def checked(properties: Any) -> Any:
    """Return the properties as librdkafka spells values, secrets wrapped; refuse those that we own."""
    if not isinstance(properties, Mapping):
        return properties  # the model says what it expected
    for name in properties:
        if name in OWNED:
            raise ValueError(f"{name}: is ours to set")
    if not str(properties.get("max.poll.interval.ms", 1)).isdigit():
        raise ValueError("max.poll.interval.ms: must be a whole number")
    return {name: _value(name, value) for name, value in properties.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        value = str(value)
    return SecretStr(value) if isinstance(value, str) and (is_secret(name) or has_login(value)) else value


def revealed(properties: Mapping[str, str | SecretStr]) -> dict[str, str]:
    """Return the properties with their secrets in clear, as a client needs them."""
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in properties.items()
    }
