"""Which transitions of a run's automaton happened after which faults had struck, counted in histories."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tiled_ingest.core.runs import run as run_module
from tiled_ingest.core.runs.states import DOCUMENTS, TABLE, Move, State, Trigger, move

from .faults import Fault, Faults

Transition = tuple[State, Trigger]
Cell = tuple[State, Trigger, Fault]

_OPENED = "a run is open because its node is known to be ours: nobody asks again (`jobs.next_job`)"
_FORGOTTEN = "a finished run is forgotten in the same moment: what still comes is answered by its name (`late`)"
_NOT_REFUSED = "the model refuses neither a look at a run's node nor our own facts in it (`tests/core` does)"
IMPOSSIBLE: dict[Transition, str] = {
    (State.DORMANT, Trigger.REFUSED): _NOT_REFUSED,
    (State.REOPENING, Trigger.REFUSED): _NOT_REFUSED,
    **{(State.FINISHED, document): _FORGOTTEN for document in DOCUMENTS},
    (State.OPEN, Trigger.CREATED): _OPENED,
    (State.OPEN, Trigger.FOUND_FINISHED): _OPENED,
}


class Coverage:
    """Cells that one history met."""

    def __init__(self) -> None:
        self.met: set[Cell] = set()
        self.transitions: set[Transition] = set()
        self._struck: Counter[Fault] = Counter()

    def begin(self, faults: Faults) -> None:
        """A history begins, with these faults."""
        self.met, self.transitions = set(), set()
        self._struck = faults.hit

    def happened(self, state: State, trigger: Trigger) -> None:
        """A run met the trigger in the state; faults that struck before it count."""
        self.transitions.add((state, trigger))
        self.met.update((state, trigger, fault) for fault in self._struck)


@contextmanager
def watched() -> Iterator[Coverage]:
    """Yield what hears of every transition, as the automaton really makes it."""
    coverage = Coverage()

    def heard(state: State, trigger: Trigger) -> Move:
        coverage.happened(state, trigger)
        return move(state, trigger)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "move", heard)
        yield coverage


def possible() -> list[Transition]:
    """The transitions that a history can make, in the order of the table."""
    return [transition for transition in TABLE if transition not in IMPOSSIBLE]
