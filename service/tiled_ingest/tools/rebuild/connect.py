"""What building needs of the settings: a way to Tiled, and the limits, with what a site adds to both."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tiled_ingest.core.policy import Policy
from tiled_ingest.core.writes import Outcome, Request
from tiled_ingest.settings import Settings
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.plugins import load
from tiled_ingest.tiled.session import Session


@dataclass(frozen=True, slots=True)
class Connected:
    """Tiled, and how it is written to."""

    perform: Callable[[Request], Outcome]
    policy: Policy


@contextmanager
def connected(settings: Settings) -> Iterator[Connected]:
    """Yield a way to Tiled; nothing is asked of it yet.

    Raises
    ------
    Forbidden
        The address cannot be used, or a plugin is not there.
    """
    formats, patches = load(settings.tiled.plugins)
    session = Session.at(settings.tiled.uri, settings.tiled.key, timeout_s=settings.tiled.timeout_s)
    try:
        yield Connected(partial(perform, session, formats=formats), settings.policy().patched(patches))
    finally:
        session.close()
