"""The topic of completed runs: a record for each run that is over, so that analysis can start on it.

Key: the run's uid. Value: JSON of the uid, the node's path below `tiled.uri` (a list of keys), the state and the rows
of each stream, as in the run's metadata, and the beamline. At least once: who reads it asks whether it has seen the
uid before.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from tiled_ingest.core.effects import Announce, Announced

from .confirmed import ConfirmedProducer, Refusal

VERSION = 1  # grows when a field changes its meaning; new ones may come at any time


class Announcements:
    """The topic's producer; used by one thread, which calls `poll` often."""

    def __init__(self, bootstrap_servers: str, topic: str, properties: Mapping[str, str], beamline: str) -> None:
        self._topic, self._beamline = topic, beamline
        self._answers: list[Announced] = []
        # A full queue is a reason to try again later, not to stand still.
        self._producer = ConfirmedProducer(bootstrap_servers, properties, full_s_max=0.0)

    def send(self, announce: Announce) -> None:
        """Hand over an announcement; its answer comes out of `poll`, exactly once."""
        value = json.dumps(said(announce, self._beamline)).encode()
        self._producer.produce(self._topic, announce.run.encode(), value, partial(self._heard, announce.ticket))

    def poll(self) -> list[Announced]:
        """Return what was confirmed or refused since the last call; does not wait."""
        self._producer.poll()
        answers, self._answers = self._answers, []
        return answers

    def close(self, limit_s: float = 5.0) -> None:
        """Flush, then drop what is unanswered: no stop was settled without its answer."""
        self._producer.close(limit_s)

    def _heard(self, ticket: int, refusal: Refusal | None) -> None:
        self._answers.append(Announced(ticket, str(refusal or "")))


def said(announce: Announce, beamline: str) -> dict[str, Any]:
    """Return what other people's scripts read."""
    return {
        "version": VERSION,
        "beamline": beamline,
        "uid": announce.run,
        "path": list(announce.path),
        "state": announce.state,
        "rows": dict(announce.rows),
    }
