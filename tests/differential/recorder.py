"""Documents as a RunEngine emits them, kept."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from typing import Any

from bluesky import RunEngine
from bluesky.utils import DuringTask, RunEngineInterrupted

Document = tuple[str, dict[str, Any]]
Documents = list[Document]


def renewed(documents: Documents) -> Documents:
    """Return the documents as those of another run: another uid, here and wherever it is named."""
    old, new = documents[0][1]["uid"], str(uuid.uuid4())
    fresh = copy.deepcopy(documents)
    for _, doc in fresh:
        for name, value in doc.items():
            doc[name] = new if isinstance(value, str) and value == old else value
    return fresh


class Recorder:
    """A RunEngine without a terminal; `documents` is what it emitted."""

    def __init__(self, *, interruptions: bool = False) -> None:
        self.documents: Documents = []
        self.engine = RunEngine({}, context_managers=[], during_task=DuringTask(), call_returns_result=False)
        self.engine.record_interruptions = interruptions
        self.engine.subscribe(lambda name, doc: self.documents.append((name, copy.deepcopy(doc))))

    def run(self, plan: Any, when_paused: Callable[[Any], None] | None = None) -> Documents:
        """Run a plan to its end, however it ends; where it pauses, `when_paused(engine)`, or just go on."""
        self._until_interrupted(lambda: self.engine(plan))
        while self.engine.state == "paused":
            self._until_interrupted(lambda: (when_paused or _resume)(self.engine))
        return self.documents

    def _until_interrupted(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except (RunEngineInterrupted, PlanError):
            return


class PlanError(Exception):
    """Raised by plans that shall fail."""


def _resume(engine: Any) -> None:
    engine.resume()


def record(plan: Any, when_paused: Callable[[Any], None] | None = None, *, interruptions: bool = False) -> Documents:
    """Return the documents of one plan."""
    return Recorder(interruptions=interruptions).run(plan, when_paused)
