"""A replay as lines, and as JSON."""

import json
from collections.abc import Iterator

from tiled_ingest.tools.rebuild.tell import case_lines, cases_json, printable, stranger_json, stranger_lines, verdicts

from .replaying import Replayed


def told(done: Replayed, *, as_json: bool) -> str:
    """Return what is to be done with each run, and what became of it."""
    if as_json:
        said = {"runs": cases_json(done), "without_run": done.strangers, "absent": done.absent}
        return json.dumps({**said, "strangers": list(map(stranger_json, done.strangers_told))}, indent=2)
    return "\n".join(_lines(done))


def _lines(done: Replayed) -> Iterator[str]:
    yield from case_lines(done)
    for uid in done.absent:
        yield printable(f"leave    {uid}: it is not in the sources")
    if done.strangers:
        yield f"leave    {done.strangers} documents that are of no run here, or cannot be read"
        yield from stranger_lines(done.strangers_told, done.strangers)
    yield f"runs: {verdicts(done.cases)}"
