"""Access tags: whether the server has a policy that heeds them, and whether those of our runs are allowed."""

import secrets
from collections.abc import Iterable

from tiled_ingest.core.writes import Denied, Done, Path
from tiled_ingest.tiled.session import Session

from .findings import Finding, Findings, Verdict
from .trial import told, would_create

TAGS_MAX = 20


def look(session: Session, parent: Path, asked: Iterable[str], found: Iterable[str]) -> Findings:
    """Look at access tags, by nodes that are not made.

    Parameters
    ----------
    asked
        Tags that a person names.
    found
        Tags of the last runs in the topics.
    """
    asked = frozenset(asked)
    tags = sorted(asked | set(found))[:TAGS_MAX]
    unknown = would_create(session, parent, (f"tiled-ingest-check-{secrets.token_hex(8)}",))
    if isinstance(unknown, Denied) and unknown.is_about_tags:
        yield Finding(
            "tiled access tags", "ok", "the server has an access policy, and refuses a tag that it does not know"
        )
        for tag in tags:
            yield _tag(session, parent, tag, "failed" if tag in asked else "warning")
    elif isinstance(unknown, Done):
        yield _unheeded(tags)
    else:
        yield Finding("tiled access tags", "warning", told(unknown), "let the key create and register nodes there")


def _unheeded(tags: list[str]) -> Finding:
    detail = "the server has no access policy: a run's tags are dropped, and whoever may read there reads all"
    if not tags:
        return Finding("tiled access tags", "ok", detail)
    hint = "give the server an access_control policy that defines these tags, or leave them out of start documents"
    return Finding("tiled access tags", "warning", f"{detail}; {', '.join(tags)} would be", hint)


def _tag(session: Session, parent: Path, tag: str, bad: Verdict) -> Finding:
    outcome = would_create(session, parent, (tag,))
    if isinstance(outcome, Done):
        return Finding(f"tiled access tag {tag}", "ok", "may be given to runs")
    hint = "define the tag, and let our user apply it; until then runs with it go to the dead letters"
    return Finding(f"tiled access tag {tag}", bad, told(outcome), hint)
