"""A replay as lines, and as JSON."""

import json
from collections.abc import Iterator

from tiled_ingest.tools.rebuild.tell import case_json, case_lines, printable, verdicts

from .replaying import Replayed


def told(done: Replayed, *, as_json: bool) -> str:
    """Return what is to be done with each run, and what became of it."""
    if as_json:
        runs = [case_json(case, done.built.get(case.spooled.uid)) for case in done.cases]
        return json.dumps({"runs": runs, "without_run": done.strangers, "absent": done.absent}, indent=2)
    return "\n".join(_lines(done))


def _lines(done: Replayed) -> Iterator[str]:
    yield from case_lines(done.cases, done.built)
    for uid in done.absent:
        yield printable(f"leave    {uid}: it is not in the sources")
    if done.strangers:
        yield f"leave    {done.strangers} documents that are of no run here, or cannot be read"
    yield f"runs: {verdicts(done.cases)}"
