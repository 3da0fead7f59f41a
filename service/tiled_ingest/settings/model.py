"""The one model: names, defaults, bounds. Where they are given stands in `places`, the command line first."""

import re
from string import Formatter
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tiled_ingest import __version__
from tiled_ingest.core.decoding.patches import rewriting
from tiled_ingest.core.policy import Policy

from . import places
from .fields import Group, Lower, Positive, Regex, Seconds
from .kafka import Kafka
from .names import PREFIX

_ENGINE = Policy()  # its limits are our defaults: each has one home
_START_FIELD = re.compile(r"start(\[[^\[\].]+\])+")


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


class Rewrite(Group):
    """Detectors' files are elsewhere for Tiled than for those who wrote the documents."""

    match: Regex
    """A regular expression, looked for in the plain path of a file, or in the whole URI of anything else."""
    replace: str
    """What takes the place of what matched; `\\1` is a group of the expression."""

    @model_validator(mode="after")
    def _known_groups(self) -> "Rewrite":
        try:
            re.compile(self.match).sub(self.replace, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"replace: {error}") from error
        return self


class Tiled(Group):
    """Where runs go."""

    uri: str
    """The node in which runs are created, e.g. `https://tiled.example.org/api/v1/metadata/raw`."""
    api_key: SecretStr | None = None
    """Needs the scopes read:metadata, read:data, create:node, write:metadata, write:data, register."""
    timeout_s: Seconds = 30.0
    """After so long a request counts as ambiguous."""
    late_write_s_max: Seconds = 30.0
    """How long an ambiguous append is looked for before its table is switched."""
    array_size_max: int = Field(default=16, ge=-1)
    """Arrays in events with more elements get a node of their own, as in TiledWriter (`max_array_size`); -1: none."""
    routes: tuple[Route, ...] = ()
    """Which topic's runs go where; without routes, all go to the node of `uri`."""
    patches: tuple[Rewrite, ...] = ()
    """How the places of detectors' files are rewritten; the first rule that matches counts."""
    plugins: tuple[str, ...] = ()
    """Entry points of the group `tiled_ingest.plugins`: a site's consolidators, mimetypes, normalizer, patches."""
    requests_max: Positive = 4
    """Requests at once on PostgreSQL; embedded storage always gets one at a time."""

    @property
    def key(self) -> str | None:
        """The API key, revealed."""
        return self.api_key.get_secret_value() if self.api_key else None

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
    external_age_s_max: Seconds = _ENGINE.external_age_s_max
    """The same for files of detectors: each registration leaves a structure in Tiled's catalog."""


class Runs(Group):
    """How runs live."""

    idle_s_max: Seconds = _ENGINE.idle_s_max
    """A run without a stop is closed as abandoned after so long without a document; it may go on later."""
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
    external_rows_max: Positive = _ENGINE.external_rows_max
    """Rows of one external data key of a run."""
    datums_max: Positive = _ENGINE.datums_max
    """Datums of a partition that wait for the event that names them."""
    dead_letter_window: Positive = _ENGINE.breaker_window
    """The breaker looks at so many of the last documents..."""
    dead_letter_share_max: Annotated[float, Field(gt=0, le=1)] = _ENGINE.breaker_share_max
    """... and stops the service when more than this share of them was refused."""
    drain_s_max: Seconds = 60.0
    """How long writes may take to finish when partitions are revoked, or at the end."""
    commit_s_max: Seconds = 10.0
    """How long a commit may take."""
    stalled_s_max: Seconds = 120.0
    """The loop counts as dead when it made no progress for so long; standing in one call, it ends the process."""


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


class Settings(BaseSettings):
    """Everything that can be set."""

    # Made by `load`, with one-line errors. Made directly, it reads the process's own environment, too.

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours refuses what it does not know
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the YAML file is the one file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - `<name>_file` says where a secret is
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the places where settings are given, what wins first."""
        return places.in_order(settings_cls, init_settings)

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
            external_age_s_max=self.batch.external_age_s_max,
            late_write_s_max=self.tiled.late_write_s_max,
            array_size_max=self.tiled.array_size_max,
            requests_max=self.tiled.requests_max,
            announces=self.kafka.completed_topic is not None,
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
            external_rows_max=self.limits.external_rows_max,
            datums_max=self.limits.datums_max,
            patches=rewriting([(rule.match, rule.replace) for rule in self.tiled.patches]),
            routes=tuple((route.topic, route.path) for route in self.tiled.routes),
            version=__version__,
        )

    def secrets(self) -> tuple[str, ...]:
        """Return every secret in clear, for those who must keep them out of what they print."""
        hidden = [value for value in self.kafka.properties.values() if isinstance(value, SecretStr)]
        hidden += [self.tiled.api_key] if self.tiled.api_key else []
        return tuple(secret.get_secret_value() for secret in hidden)
