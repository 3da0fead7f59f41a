"""A run: what waits for Tiled, and what becomes of it when the run may not be written."""

from typing import Any

import pytest

from tiled_ingest.core.decoding.events import Event
from tiled_ingest.core.offsets import Hold, Ledger
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home
from tiled_ingest.core.runs.documents import content_hash, normalise_descriptor
from tiled_ingest.core.runs.run import Chore, Run, Verdict
from tiled_ingest.core.runs.states import State, Trigger
from tiled_ingest.core.runs.stream import Stream

START: dict[str, Any] = {"uid": "r", "time": 1.0}
DESCRIPTOR: dict[str, Any] = {
    "uid": "d", "time": 1.0, "run_start": "r", "name": "primary",
    "data_keys": {"x": {"dtype": "number", "shape": [], "source": "s"}},
}  # fmt: skip
OURS = Verdict("TiledRejected", "run_failed", "no", ours=True)
THEIRS = Verdict("InvalidDocument", "foreign_run", "no", ours=False)


def run_of(*, first_offset: int = 5, inherited: bool = False) -> Run:
    return Run(Home("t", 0), ("raw",), START, content_hash(START), first_offset, inherited=inherited)


class Loaded:
    """A run that has one of everything that can wait, in a ledger."""

    def __init__(self, *, stopped: bool = True) -> None:
        self.ledger = Ledger(0)
        self.run = run = run_of()
        self.holds: list[Hold] = []
        run.start_hold = self._held(5)
        normalised = normalise_descriptor(DESCRIPTOR)
        run.streams["primary"] = stream = Stream(("raw", "r", "primary"), normalised, fresh=True)
        run.chores.append(Chore(stream, normalised.doc, False, self._held(6)))
        run.in_hand.append(self._held(7))
        for offset in (8, 9, 10):
            if stream.empty:
                stream.begin(self._held(offset), 0.0, 0)
            stream.add(Event("d", f"u{offset}", 1.0, offset, {"x": 1.0}, {}), offset, 100)
            stream.seal_if_full(Policy(rows_max=2))
        if stopped:
            run.meet(Trigger.STOP)
            run.stop_hold = self._held(11)

    def _held(self, offset: int) -> Hold:
        self.ledger.received(offset)
        self.holds.append(self.ledger.hold(offset))
        return self.holds[-1]


def test_a_run_is_born_in_its_place() -> None:
    run = run_of()
    assert (run.uid, run.path, run.state, run.opened, run.ending) == ("r", ("raw", "r"), State.OPENING, False, False)
    assert (run.first_offset, run.last_offset, run.emitted_to, run.known_to) == (5, 5, 5, -1)
    assert (run.rows, run.nbytes, list(run.waiting_streams)) == ({}, 0, [])


def test_it_counts_as_opened_once_its_node_was_seen_even_while_it_ends() -> None:
    run = run_of()
    run.meet(Trigger.STOP)
    assert (run.ending, run.opened) == (True, False)
    run.meet(Trigger.CREATED)
    assert (run.ending, run.opened) == (True, True)


def test_what_waits_is_counted() -> None:
    run = Loaded().run
    assert [stream.name for stream in run.waiting_streams] == ["primary"]
    assert run.nbytes == 300
    run.streams["primary"].under_way = 50
    assert run.nbytes == 350


@pytest.mark.parametrize("verdict", [OURS, THEIRS])
@pytest.mark.parametrize("stopped", [True, False])
def test_a_condemned_run_gives_up_all_its_holds_exactly_once(verdict: Verdict, stopped: bool) -> None:
    loaded = Loaded(stopped=stopped)
    loaded.run.condemn(verdict)
    assert sorted(loaded.run.holds) == loaded.holds
    assert loaded.run.let_go() == []
    for hold in loaded.run.holds:
        loaded.ledger.release(hold)  # a second time would be an error
    assert loaded.ledger.settled


def test_a_condemned_run_waits_for_nothing_in_tiled_and_holds_no_memory() -> None:
    run = Loaded().run
    run.streams["primary"].under_way = 50  # of the batch that Tiled refused
    run.condemn(OURS)
    assert (run.state, run.verdict) == (State.CONDEMNED, OURS)
    assert (list(run.waiting_streams), list(run.chores), run.start_hold, run.stop_hold) == ([], [], None, None)
    assert run.nbytes == 0


def test_holds_of_later_documents_join_those_of_the_condemnation() -> None:
    loaded = Loaded(stopped=False)
    later = Hold(20, 99)
    loaded.run.holds.append(later)
    loaded.run.condemn(THEIRS)
    assert sorted(loaded.run.holds) == [*loaded.holds, later]


def test_a_run_of_ours_goes_out_wholly_one_of_others_only_from_where_it_was_settled() -> None:
    ours, theirs = run_of(inherited=True), run_of(inherited=True)
    ours.emitted_to = theirs.emitted_to = 40  # the rebuild ended here
    ours.condemn(OURS)
    theirs.condemn(THEIRS)
    assert (ours.emitted_to, theirs.emitted_to) == (5, 40)


def test_a_run_that_is_over_cannot_be_condemned() -> None:
    run = run_of()
    run.meet(Trigger.FOUND_FINISHED)
    with pytest.raises(LookupError):
        run.condemn(OURS)
