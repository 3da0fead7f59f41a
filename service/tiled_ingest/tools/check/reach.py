"""Whether the logs still hold what the group wants next: what was deleted before it was read stops `run`."""

from collections.abc import Mapping

from tiled_ingest.core.errors import IngestError
from tiled_ingest.core.offsets import out_of_range
from tiled_ingest.core.record import Home
from tiled_ingest.kafka.topics import Topics
from tiled_ingest.settings import Settings, revealed

from .findings import ANSWER_S_MAX, Finding, Findings

SHOWN_MAX = 3  # partitions of a topic
LOST = (
    "documents are lost to us: note topic and offsets, then `tiled-ingest run --accept-gap` once "
    "(docs/runbooks/TiledIngestAbsent.md)"
)


def look(settings: Settings, partitions: Mapping[str, int]) -> Findings:
    """Compare the group's commits with the ends of the logs, topic by topic; no offset moves."""
    kafka = settings.kafka
    asked = Topics(kafka.bootstrap_servers, revealed(kafka.properties), ANSWER_S_MAX)
    for name, number in partitions.items():
        homes = [Home(name, partition) for partition in range(number)]
        try:
            commits, lows, highs = asked.commits(kafka.group_id, homes), asked.lows(homes), asked.highs(homes)
        except IngestError as error:
            yield Finding(f"offsets of {name}", "warning", f"cannot be asked now: {error}", "ask again")
            continue
        yield _judged(name, commits, lows, highs)


def _judged(
    topic: str, commits: Mapping[Home, int | None], lows: Mapping[Home, int], highs: Mapping[Home, int]
) -> Finding:
    title = f"offsets of {topic}"
    known = {home: offset for home, offset in commits.items() if offset is not None}
    out = [
        f"{home}: the group wants {offset}, the log holds {lows[home]} to {highs[home]}"
        for home, offset in known.items()
        if out_of_range(home, offset, lows[home], highs[home])
    ]
    if out:
        more = f" and {len(out) - SHOWN_MAX} more" if len(out) > SHOWN_MAX else ""
        return Finding(title, "failed", "; ".join(out[:SHOWN_MAX]) + f"{more}: `run` stops (OffsetOutOfRange)", LOST)
    if not known:
        return Finding(title, "ok", "nothing is committed yet")
    return Finding(title, "ok", "the log holds what comes next")
