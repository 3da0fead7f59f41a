"""Everything the service needs, asked of the real parts: one finding for each, with a hint when it is not so.

First Kafka (`kafka`: who answers, the group; `topics`: their limits; `rights`: what the access lists let us do;
`records`: a sample of what they hold; `reach`: whether the log still holds what we want), then Tiled (`tiled`: who
answers, the login; `trial`: a write in small; `files`: detectors'; `tags`: access tags; `readers`: what they will
miss).
"""

from collections.abc import Iterable

from tiled_ingest.core.errors import Forbidden
from tiled_ingest.settings import Settings
from tiled_ingest.tiled import plugins

from . import files, kafka, tiled
from .findings import Finding, Seen, Verdict

__all__ = ["Finding", "Verdict", "check", "passed"]


def check(settings: Settings, named: Iterable[str] = (), tags: Iterable[str] = ()) -> list[Finding]:
    """Look at everything, the more basic first; what cannot be asked any more is left out.

    Nothing is committed or produced, and no group is joined. In Tiled one small node is made, and removed if the key
    may.

    Parameters
    ----------
    named
        Detectors' files, paths or addresses as documents have them, beside those that the last documents name.
    tags
        Access tags, beside those of the last runs.
    """
    policy = settings.policy()
    said = [Finding("settings", "ok", f"beamline {settings.beamline}")]
    try:
        policy = policy.patched(plugins.load(settings.tiled.plugins)[1])
    except Forbidden as error:
        said.append(Finding("plugins", "failed", str(error), "install the plugin, or correct tiled.plugins"))
    seen = Seen(files=[files.wanted(text, policy.patches) for text in named], tags_asked=frozenset(tags))
    said += kafka.look(settings, policy, seen)
    return [*said, *tiled.look(settings, seen)]


def passed(findings: list[Finding]) -> bool:
    """Tell whether the service can work: warnings do not stop it."""
    return all(finding.verdict != "failed" for finding in findings)
