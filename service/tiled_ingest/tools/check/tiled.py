"""Tiled itself: who answers, the login, the clocks, and whether we may write where the routes lead."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from tiled_ingest.core.errors import Forbidden, InvalidDocument
from tiled_ingest.core.runs.routes import fixed_parents
from tiled_ingest.core.writes import Denied, Done, Missing, Outcome, Path
from tiled_ingest.settings import Settings
from tiled_ingest.tiled.layout import find_container
from tiled_ingest.tiled.probe import VERSION_MIN, Found, probe, server_version
from tiled_ingest.tiled.session import Session

from . import files, readers, tags, trial
from .findings import Finding, Findings, Seen

SKEW_S_MAX = 5.0
PARENTS_MAX = 20  # of the routes: each is tried


def look(settings: Settings, seen: Seen) -> Findings:
    """Look at Tiled, and at the nodes in which the runs of these topics would be created."""
    try:
        session = Session.at(settings.tiled.uri, settings.tiled.key, timeout_s=settings.tiled.timeout_s)
    except Forbidden as error:
        yield Finding("tiled", "failed", str(error), "correct tiled.uri or tiled.api_key")
        return
    try:
        yield from _asked(session, settings, seen)
    finally:
        session.close()


def _asked(session: Session, settings: Settings, seen: Seen) -> Findings:
    uri = settings.tiled.uri
    version = server_version(session)  # needs no login
    if not isinstance(version, Done):
        yield Finding("tiled", "failed", f"{uri}: {trial.told(version)}", "check tiled.uri, the network, a proxy")
        return
    yield Finding("tiled", "ok", f"{uri}, version {version.value}")
    yield _skew(session)
    found = probe(session)
    if not isinstance(found, Done):
        yield _no_entry(found)
        return
    yield _scopes(found.value)
    made = trial.Trial(session, found.value.scopes)
    yield from made.writing()
    if made.is_there:
        yield from readers.live(session, made.path)
        yield from files.look(session, made.path, seen.files)
        yield from made.removed()
    yield from tags.look(session, (), seen.tags_asked, seen.tags)
    yield from _routes(session, settings, seen.topics)


def _no_entry(outcome: Outcome) -> Finding:
    if isinstance(outcome, Denied) and outcome.status == 426:
        return Finding("tiled version", "failed", outcome.detail, f"update it to {'.'.join(map(str, VERSION_MIN))}")
    hint = "check tiled.api_key, and that the node of tiled.uri exists"
    return Finding("tiled login", "failed", trial.told(outcome), hint)


def _scopes(found: Found) -> Finding:
    if found.scopes is None:
        return Finding("tiled login", "ok", "accepted; the server does not tell the key's scopes")
    if found.scopes_missing:
        missing = ", ".join(sorted(found.scopes_missing))
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


# ---------------------------------------------------------------- routes


def _routes(session: Session, settings: Settings, topics: Sequence[str]) -> Findings:
    routes = settings.policy().routes
    parents: set[Path] = set()
    for topic in topics:
        try:
            parents.update(fixed_parents(routes, topic))
        except InvalidDocument as error:
            yield Finding(f"tiled route of {topic}", "failed", error.detail, "correct tiled.routes")
    for parent in sorted(parents - {()})[:PARENTS_MAX]:
        yield from _parent(session, parent)
    yield from readers.look(session, sorted(parents)[:PARENTS_MAX])
    for pattern, path in routes:
        if topics and not any(re.fullmatch(pattern, topic) for topic in topics):
            hint = "a route's expression must match the whole name of a topic: perhaps .+ is missing at its end"
            yield Finding(f"tiled route {pattern}", "warning", "matches none of the topics that exist", hint)
        elif "{start" in path:
            yield Finding(f"tiled route {pattern}", "ok", f"{path}: known only with a run's start, not tried")


def _parent(session: Session, parent: Path) -> Findings:
    title = f"tiled node {'/'.join(parent)}"
    for length in range(len(parent), -1, -1):
        outcome = find_container(session, parent[:length])
        if isinstance(outcome, Done):
            detail = "is there" if length == len(parent) else "is not there yet: `run` will create it"
            yield from trial.creating(session, title, parent[:length], f"{detail}; we may create nodes")
            return
        if not isinstance(outcome, Missing):
            yield Finding(
                title,
                "failed",
                trial.told(outcome),
                "let the key read there, move what stands in the way, or correct tiled.routes",
            )
            return
