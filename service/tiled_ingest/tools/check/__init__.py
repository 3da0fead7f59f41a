"""Everything the service needs, asked of the real parts: one finding for each, with a hint when it is not so.

First Kafka (`kafka`: who answers, the group; `topics`: their limits; `rights`: what the access lists let us do;
`records`: a sample of what they hold), then Tiled (`tiled`: who answers, the login; `trial`: a write in small;
`readers`: what they will miss).
"""

from tiled_ingest.settings import Settings

from . import kafka, tiled
from .findings import Finding, Verdict

__all__ = ["Finding", "Verdict", "check", "passed"]


def check(settings: Settings) -> list[Finding]:
    """Look at everything, the more basic first; what cannot be asked any more is left out.

    Nothing is committed or produced, and no group is joined. In Tiled trial nodes are created and removed.
    """
    said = [Finding("settings", "ok", f"beamline {settings.beamline}")]
    found, topics = kafka.look(settings)
    return [*said, *found, *tiled.look(settings, topics)]


def passed(findings: list[Finding]) -> bool:
    """Tell whether the service can work: warnings do not stop it."""
    return all(finding.verdict != "failed" for finding in findings)
