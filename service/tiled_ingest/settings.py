"""What can be set, and how it gets here: command line > environment > file > default.

`Settings` is the one model: names, defaults, bounds. `load` fills it from flat layers, one for each place,
laid over one another name by name: a password from the environment joins the file's other Kafka properties.
Wherever a secret may stand, `<name>_file` may stand instead: the secret is what that file holds, without the
line's end. Unlike pydantic-settings this refuses a misspelled environment variable and keeps origins.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from tiled_ingest import __version__
from tiled_ingest.core.policy import Policy

Name = tuple[str, ...]


# ---------------------------------------------------------------- environment variables

PREFIX = "TILED_INGEST_"
CONFIG = PREFIX + "CONFIG"

_LINK_NAME = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def is_service_link(variable: str, value: str) -> bool:
    """Tell whether Kubernetes put it there.

    In every pod beside a Service called `tiled-ingest`, Kubernetes sets
    TILED_INGEST_SERVICE_HOST and its like. None of them holds `__`, which every setting but
    `beamline` does: no misspelled setting hides behind this.
    """
    if "__" in variable:
        return False
    return bool(_LINK_NAME.search(variable) or (variable.endswith("_PORT") and _LINK_VALUE.match(value)))


# ---------------------------------------------------------------- librdkafka's properties

# What the promise rests on (an automatic commit, or a jump to the log's end, would break it), or what has a
# setting of its own; `metadata.broker.list` is librdkafka's other name for the servers.
OWNED = frozenset(
    {
        "auto.commit.interval.ms",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "metadata.broker.list",
    }
)

_SECRET = re.compile(r"password|secret|passphrase|credential|jaas|token|(^|[._])key([._]|$)|oauthbearer\.config")
_PLACE = re.compile(r"\.(location|file|url|type|uri)$")  # says where a secret is, not what it is


def is_secret(name: str) -> bool:
    """Tell whether the value of a property must never be shown."""
    return bool(_SECRET.search(name)) and not _PLACE.search(name)


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
    return SecretStr(value) if isinstance(value, str) and is_secret(name) else value


def revealed(properties: Mapping[str, str | SecretStr]) -> dict[str, str]:
    """Return the properties with their secrets in clear, as a client needs them."""
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in properties.items()
    }


# ---------------------------------------------------------------- the model

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)

_ENGINE = Policy()  # its limits are our defaults: each has one home
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_START_FIELD = re.compile(r"start(\[[^\[\].]+\])+")


def _compiles(expression: str) -> str:
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{expression!r} is no regular expression: {error}") from error
    return expression


Regex = Annotated[str, Field(min_length=1), BeforeValidator(lambda value: _compiles(str(value)))]


def _file_siblings(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Let the schema know `<name>_file` beside every secret, as `load` does."""
    for name, field in model.model_fields.items():
        if "SecretStr" in str(field.annotation):
            text = f"A file that holds `{name}`."
            schema["properties"][f"{name}_file"] = {"type": "string", "description": text}


class Group(BaseModel):
    """Settings of one subject: frozen, unknown names refused, described by the strings below them."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, json_schema_extra=_file_siblings
    )


class Kafka(Group):
    """Where records come from."""

    bootstrap_servers: Annotated[str, Field(min_length=1)]
    """As in Kafka: `host:port`, several with commas between."""
    group_id: Annotated[str, Field(min_length=1)]
    """The consumer group. Renaming it means reading every topic anew."""
    topics: tuple[str, ...]
    """Topic names; an entry that begins with `^` is a regular expression."""
    start_offset: Literal["earliest", "latest"] = "earliest"
    """Where to begin in a partition that has no commit; nowhere else."""
    dead_letter_topic: str = Field(default_factory=lambda data: f"{data.get('group_id', '')}.dead-letters")
    """Default: `<group_id>.dead-letters`."""
    instance_id: Annotated[str, Field(min_length=1)] | None = None
    """Static membership (`group.instance.id`): one stable name for each replica."""
    properties: Annotated[
        dict[str, str | SecretStr],
        BeforeValidator(checked),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
    ] = {}
    """Any other librdkafka property (SASL, TLS, ...), passed as it is."""

    @field_validator("topics", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("topics")
    @classmethod
    def _usable_topics(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        if not topics:
            raise ValueError("at least one topic is needed")
        for topic in topics:
            if topic.startswith("^"):
                _compiles(topic)
            elif not _TOPIC_NAME.fullmatch(topic):
                raise ValueError(f"{topic!r} is no topic name (letters, digits, . _ -); give several as a list")
        return topics

    @field_validator("dead_letter_topic")
    @classmethod
    def _usable_name(cls, topic: str) -> str:
        if not _TOPIC_NAME.fullmatch(topic):
            raise ValueError(f"{topic!r} is no topic name (letters, digits, . _ -)")
        return topic

    @model_validator(mode="after")
    def _no_loop(self) -> "Kafka":
        for topic in self.topics:
            if self.reads(topic, self.dead_letter_topic):
                raise ValueError(f"topics: {topic!r} also reads the dead letters ({self.dead_letter_topic})")
        return self

    @property
    def poll_interval_s_max(self) -> float:
        """How long the group waits for a poll before it takes our partitions (by default 300 s)."""
        return float(revealed(self.properties).get("max.poll.interval.ms", "300000")) / 1000

    @property
    def protocol(self) -> str:
        """How we speak to Kafka, e.g. `sasl_ssl`."""
        return revealed(self.properties).get("security.protocol", "plaintext").lower()

    @staticmethod
    def reads(entry: str, topic: str) -> bool:
        """Tell whether an entry of `topics`, a name or a regular expression, covers a topic."""
        return bool(re.match(entry, topic)) if entry.startswith("^") else entry == topic

    def client_properties(self) -> dict[str, str]:
        """Return what every Kafka client needs: the servers and the free properties, secrets in clear."""
        return {"bootstrap.servers": self.bootstrap_servers, **revealed(self.properties)}


class Route(Group):
    """Runs of the topics that match go to this node."""

    topic: Regex
    """A regular expression; the first route whose expression matches counts."""
    path: Annotated[str, Field(min_length=1)]
    """Keys with `/` between; `{1}`, `{name}`: a group of the expression; `{start[data_session]}`: a field."""

    @model_validator(mode="after")
    def _known_fields(self) -> "Route":
        groups = re.compile(self.topic)
        allowed = {str(number) for number in range(groups.groups + 1)} | set(groups.groupindex)
        for _, name, spec, conversion in Formatter().parse(self.path):
            if name is None:
                continue
            if spec or conversion or not (name in allowed or _START_FIELD.fullmatch(name)):
                raise ValueError(f"path: {{{name}}} is neither a group of the expression nor a {{start[field]}}")
        return self


class Tiled(Group):
    """Where runs go."""

    uri: str
    """The node in which runs are created, e.g. `https://tiled.example.org/api/v1/metadata/raw`."""
    api_key: SecretStr | None = None
    """Needs the scopes read:metadata, read:data, create:node, write:metadata, write:data."""
    timeout_s: Seconds = 30.0
    """After so long a request counts as ambiguous."""
    late_write_s_max: Seconds = 30.0
    """How long an ambiguous append is looked for before its table is switched."""
    routes: tuple[Route, ...] = ()
    """Which topic's runs go where; without routes, all go to the node of `uri`."""
    requests_max: Positive = 4
    """Requests at once on PostgreSQL; embedded storage always gets one at a time."""

    @field_validator("uri")
    @classmethod
    def _plain_address(cls, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("an address like https://tiled.example.org is needed")
        if parts.username or parts.password or parts.query:
            raise ValueError("no login and no query in the address: the key belongs into tiled.api_key")
        return uri.rstrip("/")


class Batch(Group):
    """What ends a batch, whichever comes first."""

    rows_max: Positive = _ENGINE.rows_max
    bytes_max: Positive = _ENGINE.bytes_max
    age_s_max: Seconds = _ENGINE.age_s_max


class Runs(Group):
    """How runs live."""

    idle_s_max: Seconds = _ENGINE.idle_s_max
    """A run without a stop is closed as abandoned after so long without a document."""
    open_max: Positive = _ENGINE.open_max
    """Open runs at once."""
    foreign: Literal["dead_letter", "skip"] = "dead_letter"
    """What happens to documents of runs that someone else wrote into Tiled."""


class Limits(Group):
    """What one message may cost, when we stop rather than go on, and how long an end may take."""

    message_bytes_max: Positive = _ENGINE.message_bytes_max
    nesting_max: Positive = _ENGINE.nesting_max
    elements_max: Positive = _ENGINE.elements_max
    """Elements of all lists and maps of one message."""
    dead_letter_window: Positive = _ENGINE.breaker_window
    """The breaker looks at so many of the last documents..."""
    dead_letter_share_max: Annotated[float, Field(gt=0, le=1)] = _ENGINE.breaker_share_max
    """... and stops the service when more than this share of them was refused."""
    drain_s_max: Seconds = 60.0
    """How long writes may take to finish when partitions are revoked, or at the end."""
    commit_s_max: Seconds = 10.0
    """How long a commit may take."""
    stalled_s_max: Seconds = 120.0
    """The loop counts as dead when it made no progress for so long."""


class Memory(Group):
    """Bounds on memory."""

    bytes_max: Positive = _ENGINE.memory_bytes_max
    """Buffered bytes in all; above it intake pauses."""


class Http(Group):
    """Metrics, health, status page."""

    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0: any free port."""


class Log(Group):
    """Log lines, on standard error."""

    format: Annotated[Literal["json", "console"], Lower] = "json"
    level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = "info"


class Settings(Group):
    """Everything that can be set. Made by `load`; made directly, it reads no file and no environment."""

    beamline: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Label of every metric and log line."""
    kafka: Kafka
    tiled: Tiled
    batch: Batch = Batch()
    runs: Runs = Runs()
    limits: Limits = Limits()
    memory: Memory = Memory()
    http: Http = Http()
    log: Log = Log()

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        end_s = self.limits.drain_s_max + self.limits.commit_s_max
        if end_s >= self.kafka.poll_interval_s_max:
            raise ValueError(
                f"limits.drain_s_max: with limits.commit_s_max it is {end_s:g} s, but must stay below "
                f"Kafka's max.poll.interval.ms ({self.kafka.poll_interval_s_max:g} s)"
            )
        if self.batch.bytes_max > self.memory.bytes_max:
            raise ValueError("batch.bytes_max: must not exceed memory.bytes_max")
        return self

    def policy(self) -> Policy:
        """Return the engine's limits."""
        return Policy(
            rows_max=self.batch.rows_max,
            bytes_max=self.batch.bytes_max,
            age_s_max=self.batch.age_s_max,
            late_write_s_max=self.tiled.late_write_s_max,
            requests_max=self.tiled.requests_max,
            start_latest=self.kafka.start_offset == "latest",
            idle_s_max=self.runs.idle_s_max,
            open_max=self.runs.open_max,
            foreign_skip=self.runs.foreign == "skip",
            memory_bytes_max=self.memory.bytes_max,
            breaker_window=self.limits.dead_letter_window,
            breaker_share_max=self.limits.dead_letter_share_max,
            message_bytes_max=self.limits.message_bytes_max,
            nesting_max=self.limits.nesting_max,
            elements_max=self.limits.elements_max,
            routes=tuple((route.topic, route.path) for route in self.tiled.routes),
            version=__version__,
        )

    def secrets(self) -> tuple[str, ...]:
        """Return every secret in clear, for those who must keep them out of what they print."""
        hidden = [value for value in self.kafka.properties.values() if isinstance(value, SecretStr)]
        hidden += [self.tiled.api_key] if self.tiled.api_key else []
        return tuple(secret.get_secret_value() for secret in hidden)


# ---------------------------------------------------------------- what the model knows about names

PROPERTIES = ("kafka", "properties")
FILE = "_file"


def _fields(model: type[BaseModel], at: Name) -> Iterator[tuple[Name, Any]]:
    for key, field in model.model_fields.items():
        yield (*at, key), field.annotation
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, (*at, key))


_KINDS = dict(_fields(Settings, ()))
GROUPS = {name for name, kind in _KINDS.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
GROUPS.add(PROPERTIES)
STRUCTURED = GROUPS | {name for name, kind in _KINDS.items() if get_origin(kind) is tuple}
_SECRETS = {name for name, kind in _KINDS.items() if "SecretStr" in str(kind) and name not in GROUPS}
KNOWN = {name for name in _KINDS if name not in GROUPS} | {(*name[:-1], name[-1] + FILE) for name in _SECRETS}


def holds_secret(name: Name) -> bool:
    """Tell whether a name holds a secret."""
    if name[:2] == PROPERTIES:
        return is_secret(name[-1])
    return name in _SECRETS


# ---------------------------------------------------------------- one clear line out of pydantic's many


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


# ---------------------------------------------------------------- the three places where values are given


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody wrote it, and where."""

    value: Any
    origin: str


Layer = dict[Name, Given]


def layered(config: Path | None, overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Layer:
    """Return all that was given: the command line over the environment over the file."""
    path = config or (Path(environ[CONFIG]) if environ.get(CONFIG) else None)
    layers = (_from_file(path) if path else {}, _from_environment(environ), _from_overrides(overrides))
    return {name: given for layer in layers for name, given in _with_files_read(layer).items()}


def _from_file(path: Path) -> Layer:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config: cannot read {path}: {_cause(error)}") from error
    except yaml.YAMLError as error:
        # Neither the error's text nor its chain: both quote the file, which may hold a secret.
        line = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else "?"
        raise SettingsError(f"--config: {path} is no YAML (line {line})") from None
    if not isinstance(tree, dict | None):
        raise SettingsError(f"--config: {path} must hold names and values")
    return dict(_flat(tree or {}, f"file {path}", ()))


def _from_environment(environ: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG or is_service_link(variable, text):
            continue
        name = _named_in_environment(variable)
        layer.update(_read_text(name, text, f"environment {variable}"))
    return layer


def _named_in_environment(variable: str) -> Name:
    """Return the name; a dot of a Kafka property is written `_`: `SASL_PASSWORD` is `sasl.password`."""
    name = tuple(variable.removeprefix(PREFIX).lower().split("__", 2))
    if name[:2] == PROPERTIES and len(name) == 3:
        stem = name[2].removesuffix(FILE).replace("_", ".")
        return (*PROPERTIES, stem + FILE if name[2].endswith(FILE) else stem)
    return name


def _from_overrides(overrides: Mapping[str, Any]) -> Layer:
    layer: Layer = {}
    for dotted, value in overrides.items():
        name = tuple(dotted.split(".", 2))
        if isinstance(value, str):
            layer.update(_read_text(name, value, "command line"))
        else:
            layer.update(_flat_one(name, value, "command line"))
    return layer


def _read_text(name: Name, text: str, origin: str) -> Layer:
    if not (name in STRUCTURED and text.lstrip().startswith(("[", "{"))):
        return dict(_flat_one(name, text, origin))
    try:
        return dict(_flat_one(name, json.loads(text), origin))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{'.'.join(name)}: no JSON (character {error.pos}; from {origin})") from None


def _flat(tree: Mapping[Any, Any], origin: str, at: Name) -> Iterator[tuple[Name, Given]]:
    for key, value in tree.items():
        yield from _flat_one((*at, str(key)), value, origin)


def _flat_one(name: Name, value: Any, origin: str) -> Iterator[tuple[Name, Given]]:
    if name not in GROUPS:
        yield name, Given(value, origin)
    elif isinstance(value, Mapping):
        yield from _flat(value, origin, name)
    elif value is not None:
        raise SettingsError(f"{'.'.join(name)}: is a group of settings, not a value (from {origin})")


# ---------------------------------------------------------------- secrets in files


def _with_files_read(layer: Layer) -> Layer:
    read: Layer = {}
    for name, given in layer.items():
        plain = (*name[:-1], name[-1].removesuffix(FILE))
        if plain == name or not holds_secret(plain):
            read[name] = given
        elif plain in layer:
            raise SettingsError(f"{'.'.join(name)}: give the secret or its file, not both (from {given.origin})")
        else:
            read[plain] = Given(_secret_in(name, given), f"{given.origin}, read from {given.value}")
    return read


def _secret_in(name: Name, given: Given) -> str:
    try:
        secret = Path(str(given.value)).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{'.'.join(name)}: cannot read {given.value}: {_cause(error)}") from error
    if not secret:
        raise SettingsError(f"{'.'.join(name)}: {given.value} is empty")
    return secret


def _cause(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "" if isinstance(error, OSError) else "no UTF-8"


# ---------------------------------------------------------------- filling the model

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
    return _validated(layered(config, overrides or {}, os.environ if environ is None else environ))


def sources(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Effective, ...]:
    """Return every setting in force, secrets masked, with its origin; raises as `load` does."""
    given = layered(config, overrides or {}, os.environ if environ is None else environ)
    return tuple(
        Effective(".".join(name), value, given[name].origin if name in given else DEFAULT)
        for name, value in _leaves(_validated(given), ())
    )


def _validated(given: Layer) -> Settings:
    tree: dict[str, Any] = {name: {} for (name, *rest) in GROUPS if not rest}
    for (*groups, last), entry in given.items():
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise SettingsError(f"{'.'.join((*groups, last))}: unknown setting")
        place[last] = entry.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        origins = {name: entry.origin for name, entry in given.items()}
        # `from None`: pydantic's own message quotes what was given, which may be a secret.
        raise SettingsError(explained(error, origins, KNOWN, GROUPS)) from None


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
