"""Everything the service needs, asked of the real parts: one finding for each, with a hint when it is not so.

The trial in Tiled writes a small container and table under a random name, and removes them again. `run`
never deletes, because Tiled keeps all streams of one schema in one SQL table and drops it with its last
rows. Here that is safe: a column with a random name gives the trial an SQL table that no run shares.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx
import pyarrow as pa
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from tiled_ingest.core.errors import Forbidden
from tiled_ingest.core.writes import (
    Append,
    CreateContainer,
    CreateTable,
    Denied,
    Done,
    GetNode,
    Json,
    Outcome,
    Path,
    PutSource,
    ReadKeys,
    TableSource,
)
from tiled_ingest.settings import Settings
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.probe import SCOPES_NEEDED, VERSION_MIN, key_scopes, probe, server_version
from tiled_ingest.tiled.session import Params, Session

ANSWER_S_MAX = 10.0
SKEW_S_MAX = 5.0
ASK_AGAIN_S = 0.25
COORDINATOR_MOVES = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)
EMBEDDED = frozenset({"duckdb", "sqlite"})

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `hint` says what to do when it is not `ok`."""

    name: str
    verdict: Verdict
    detail: str
    hint: str = ""


Findings = Iterator[Finding]


def check(settings: Settings) -> list[Finding]:
    """Look at everything, the more basic first; what cannot be asked any more is left out.

    Nothing is committed, consumed or produced. In Tiled a trial node is created and removed.
    """
    return [Finding("settings", "ok", f"beamline {settings.beamline}"), *_kafka(settings), *_tiled(settings)]


def passed(findings: list[Finding]) -> bool:
    """Tell whether the service can work: warnings do not stop it."""
    return all(finding.verdict != "failed" for finding in findings)


# ---------------------------------------------------------------- Kafka


def _kafka(settings: Settings) -> Findings:
    errors: list[KafkaError] = []
    where = settings.kafka.bootstrap_servers
    try:
        # librdkafka's own lines would stand between ours: what matters comes through `error_cb`.
        admin = AdminClient({**settings.kafka.client_properties(), "error_cb": errors.append, "log_level": 0})
    except KafkaException as error:
        yield Finding("kafka", "failed", _said(error), "correct kafka.properties")
        return
    try:
        topics = admin.list_topics(timeout=ANSWER_S_MAX).topics
    except KafkaException as error:
        admin.poll(0)
        yield _no_kafka(where, errors, error)
        return
    yield Finding("kafka", "ok", f"{where} answers")
    yield Finding("kafka login", "ok", settings.kafka.protocol)
    yield from _topics(settings, admin, topics)
    yield _group(settings, admin)


def _no_kafka(where: str, errors: list[KafkaError], error: KafkaException) -> Finding:
    refused = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}  # noqa: SLF001
    for reported in errors:
        if reported.code() in refused:
            hint = "check security.protocol, sasl.* and ssl.* in kafka.properties"
            return Finding("kafka login", "failed", reported.str(), hint)
    hint = "check kafka.bootstrap_servers, the network, security.protocol (a TLS port hangs up on plain text)"
    return Finding("kafka", "failed", f"{where} does not answer: {_said(error)}", hint)


def _topics(settings: Settings, admin: AdminClient, existing: dict[str, Any]) -> Findings:
    dead_letters = settings.kafka.dead_letter_topic
    for wanted in settings.kafka.topics:
        names = [name for name in existing if settings.kafka.reads(wanted, name)]
        if not names and wanted.startswith("^"):
            yield Finding(f"topic {wanted}", "warning", "matches no topic yet", "check kafka.topics")
        elif not names:
            hint = "create it, let us describe it, or correct kafka.topics"
            yield Finding(f"topic {wanted}", "failed", "does not exist, or we may not see it", hint)
        for name in names:
            yield _topic(settings, admin, name, len(existing[name].partitions))
    if dead_letters in existing:
        yield Finding("dead letters", "ok", dead_letters)
    else:
        hint = "create it, with a max.message.bytes not below that of the topics"
        yield Finding("dead letters", "failed", f"{dead_letters} does not exist, or we may not see it", hint)


def _topic(settings: Settings, admin: AdminClient, name: str, partitions: int) -> Finding:
    resource = ConfigResource(ResourceType.TOPIC, name)
    counted = f"{partitions} partition" + "s" * (partitions != 1)
    try:
        config = admin.describe_configs([resource], request_timeout=ANSWER_S_MAX)[resource].result()
    except KafkaException as error:
        hint = "the service runs without: give it DescribeConfigs to see retention and size here"
        return Finding(f"topic {name}", "warning", f"{counted}; its configuration: {_said(error)}", hint)
    bytes_max = int(config["max.message.bytes"].value)
    detail = f"{counted}, {_kept(int(config['retention.ms'].value))}, messages up to {bytes_max} bytes"
    if bytes_max > settings.limits.message_bytes_max:
        hint = "larger messages would become dead letters: raise limits.message_bytes_max"
        return Finding(f"topic {name}", "warning", detail, hint)
    return Finding(f"topic {name}", "ok", detail)


def _kept(retention_ms: int) -> str:
    return "kept for ever" if retention_ms < 0 else f"kept {retention_ms / 3_600_000:g} h"


def _group(settings: Settings, admin: AdminClient) -> Finding:
    name = settings.kafka.group_id
    try:
        found = _described(admin, name)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return Finding("group", "ok", f"{name}: new")
        return Finding("group", "failed", f"{name}: {_said(error)}", "let us read and describe the group")
    if found.state == ConsumerGroupState.DEAD:
        return Finding("group", "ok", f"{name}: new")
    members = f"{len(found.members)} member" + "s" * (len(found.members) != 1)
    return Finding("group", "ok", f"{name}: {found.state.name.lower()}, {members}")


def _described(admin: AdminClient, group: str) -> Any:
    """Ask for a group; again while its coordinator is only just being chosen, as on a fresh broker."""
    until = time.monotonic() + ANSWER_S_MAX
    while True:
        try:
            return admin.describe_consumer_groups([group], request_timeout=ANSWER_S_MAX)[group].result()
        except KafkaException as error:
            if error.args[0].code() not in COORDINATOR_MOVES or time.monotonic() > until:
                raise
        time.sleep(ASK_AGAIN_S)


def _said(error: KafkaException) -> str:
    reason = error.args[0]
    if not isinstance(reason, KafkaError):
        return str(reason)
    return f"{reason.name()} {reason.str()}".strip()


# ---------------------------------------------------------------- Tiled


def _tiled(settings: Settings) -> Findings:
    key = settings.tiled.api_key
    try:
        session = Session.at(
            settings.tiled.uri, key.get_secret_value() if key else None, timeout_s=settings.tiled.timeout_s
        )
    except Forbidden as error:
        yield Finding("tiled", "failed", str(error), "correct tiled.uri or tiled.api_key")
        return
    try:
        yield from _asked(session, settings.tiled.uri)
    finally:
        session.close()


def _asked(session: Session, uri: str) -> Findings:
    version = server_version(session)
    if not isinstance(version, Done):
        yield Finding("tiled", "failed", f"{uri}: {_detail(version)}", "check tiled.uri, the network, a proxy")
        return
    yield Finding("tiled", "ok", f"{uri}, version {version.value}")
    yield _skew(session)
    found = probe(session)
    if not isinstance(found, Done):
        yield _no_entry(found)
        return
    yield _scopes(key_scopes(session))
    yield from _trial(session)


def _no_entry(outcome: Outcome) -> Finding:
    if isinstance(outcome, Denied) and outcome.status == 426:
        return Finding("tiled version", "failed", outcome.detail, f"update it to {'.'.join(map(str, VERSION_MIN))}")
    hint = "check tiled.api_key, and that the node of tiled.uri exists"
    return Finding("tiled login", "failed", _detail(outcome), hint)


def _scopes(outcome: Outcome) -> Finding:
    told = outcome.value if isinstance(outcome, Done) else None
    if told is None:
        return Finding("tiled login", "ok", "accepted; the server does not tell the key's scopes")
    missing = ", ".join(sorted(SCOPES_NEEDED - told))
    if missing:
        return Finding("tiled login", "failed", f"the key lacks {missing}", "make a key with these scopes")
    return Finding("tiled login", "ok", "accepted, all scopes there")


def _skew(session: Session) -> Finding:
    answer = session.server_info()
    date = answer.headers.get("date", "") if isinstance(answer, httpx.Response) else ""
    try:
        skew_s = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):
        return Finding("clock", "warning", "Tiled's answer tells no time", "let the proxy pass its Date header")
    detail = f"ours and Tiled's differ by {abs(skew_s):.0f} s"
    if abs(skew_s) > SKEW_S_MAX:
        return Finding("clock", "warning", detail, "latencies will be wrong: synchronise the clocks (NTP)")
    return Finding("clock", "ok", detail)


# ---------------------------------------------------------------- the trial


class _RefusedError(Exception):
    """A step of the trial did not succeed."""


def _trial(session: Session) -> Findings:
    name = f"tiled-ingest-check-{secrets.token_hex(8)}"
    try:
        source = _written(session, name)
    except _RefusedError as error:
        hint = "give the key the scopes " + ", ".join(sorted(SCOPES_NEEDED)) + ", and Tiled storage for tables"
        yield Finding("tiled writing", "failed", str(error), hint)
    else:
        yield Finding("tiled writing", "ok", "created, appended, read back, switched")
        yield _storage(source)
    yield from _removed(session, name)


def _written(session: Session, name: str) -> TableSource:
    """Do in small what `run` does, and return what the table points to.

    Raises
    ------
    _RefusedError
        Tiled did not confirm a step.
    """

    def ask(step: str, request: Any) -> Any:
        outcome = perform(session, request)
        if not isinstance(outcome, Done):
            raise _RefusedError(f"{step}: {_detail(outcome)}")
        return outcome.value

    table = pa.table({"seq_num": [1], "time": [0.0], name.replace("-", "_"): [0]})
    path: Path = (name, "internal")
    ask("create a container", CreateContainer((), name, {}, (), None))
    ask("create a table", CreateTable((name,), "internal", table.schema, {}, None, _note()))
    ask("append", Append(path, table))
    if len(ask("read back", ReadKeys(path)).seq_num) != 1:
        raise _RefusedError("read back: the appended row is not there")
    source: TableSource = ask("read the data source", GetNode(path)).source
    ask("switch the data source", PutSource(path, source))
    return source


def _note() -> Json:
    return {"tiled_ingest": {"check": True}}


def _storage(source: TableSource) -> Finding:
    if source.storage in EMBEDDED:
        detail = f"{source.storage}, embedded: for one client at a time"
        hint = "two at once have lost confirmed rows: use PostgreSQL for anything but trying out"
        return Finding("tiled storage", "warning", detail, hint)
    return Finding("tiled storage", "ok", source.storage or "Tiled does not tell")


def _removed(session: Session, name: str) -> Findings:
    # Only this name, which nobody else can have, and only if it is there.
    if not isinstance(perform(session, GetNode((name,))), Done):
        return
    params: Params = {"recursive": "true", "external_only": "false"}
    answer = session.request("DELETE", "metadata", (name,), params=params)
    if not isinstance(answer, httpx.Response):
        hint = f"remove {name} by hand; the scope delete:node would let `check` do it, `run` needs it never"
        yield Finding("tiled clean-up", "warning", _detail(answer), hint)


def _detail(outcome: object) -> str:
    return str(getattr(outcome, "detail", "") or type(outcome).__name__.lower())
