"""A run's automaton: every document in every state has its action, and every run can come to its end."""

from itertools import product

import pytest

from tiled_ingest.core.runs.states import DOCUMENTS, TABLE, Action, State, Trigger, move

S, T, A = State, Trigger, Action

# What each document does, written out once more: rows are states, columns the documents below.
ORDER = (T.START, T.DESCRIPTOR, T.EVENT, T.STOP, T.EXTERNAL)
EXPECTED: dict[State, tuple[Action, ...]] = {
    S.OPENING: (A.COMPARE_START, A.ADD_STREAM, A.ADD_ROWS, A.CLOSE, A.ADD_ASSETS),
    S.OPEN: (A.COMPARE_START, A.ADD_STREAM, A.ADD_ROWS, A.CLOSE, A.ADD_ASSETS),
    S.CLOSING: (A.COMPARE_START, A.LATE, A.LATE, A.COMPARE_STOP, A.LATE),
    S.ABANDONING: (A.DEFER, A.DEFER, A.DEFER, A.DEFER, A.DEFER),
    S.DORMANT: (A.COMPARE_START, A.WAKE, A.WAKE, A.WAKE, A.WAKE),
    S.REOPENING: (A.DEFER, A.DEFER, A.DEFER, A.DEFER, A.DEFER),
    S.CONDEMNED: (A.CONDEMN, A.CONDEMN, A.CONDEMN, A.CONDEMN, A.CONDEMN),
    S.REDELIVERED: (A.RECOGNISE, A.RECOGNISE, A.RECOGNISE, A.RECOGNISE, A.RECOGNISE),
    S.FINISHED: (A.LATE, A.LATE, A.LATE, A.LATE, A.LATE),
}
FACTS: dict[tuple[State, Trigger], State] = {
    (S.OPENING, T.CREATED): S.OPEN,
    (S.OPENING, T.FOUND_FINISHED): S.REDELIVERED,
    (S.OPENING, T.REFUSED): S.CONDEMNED,
    (S.OPENING, T.IDLE): S.ABANDONING,
    (S.OPEN, T.CREATED): S.OPEN,
    (S.OPEN, T.FOUND_FINISHED): S.REDELIVERED,
    (S.OPEN, T.REFUSED): S.CONDEMNED,
    (S.OPEN, T.IDLE): S.ABANDONING,
    (S.CLOSING, T.CREATED): S.CLOSING,
    (S.CLOSING, T.FOUND_FINISHED): S.REDELIVERED,
    (S.CLOSING, T.REFUSED): S.CONDEMNED,
    (S.CLOSING, T.CLOSED): S.FINISHED,
    (S.ABANDONING, T.CREATED): S.ABANDONING,
    (S.ABANDONING, T.FOUND_FINISHED): S.REDELIVERED,
    (S.ABANDONING, T.REFUSED): S.CONDEMNED,
    (S.ABANDONING, T.CLOSED): S.DORMANT,
    (S.DORMANT, T.LOGGED): S.REOPENING,
    (S.DORMANT, T.EMITTED): S.FINISHED,
    (S.DORMANT, T.IDLE): S.FINISHED,
    (S.DORMANT, T.REFUSED): S.CONDEMNED,
    (S.REOPENING, T.REOPENED): S.OPEN,
    (S.REOPENING, T.REFUSED): S.CONDEMNED,
    (S.CONDEMNED, T.IDLE): S.FINISHED,
    (S.CONDEMNED, T.EMITTED): S.FINISHED,
    (S.REDELIVERED, T.IDLE): S.FINISHED,
    (S.REDELIVERED, T.CLOSED): S.FINISHED,
}


def test_the_documents_are_those_of_the_expected_table() -> None:
    assert DOCUMENTS == ORDER
    assert EXPECTED.keys() == set(State)


@pytest.mark.parametrize(("state", "trigger"), list(product(State, DOCUMENTS)))
def test_every_document_in_every_state(state: State, trigger: Trigger) -> None:
    assert move(state, trigger).action == EXPECTED[state][ORDER.index(trigger)]


@pytest.mark.parametrize(("state", "trigger"), list(product(State, DOCUMENTS)))
def test_only_a_stop_changes_the_state(state: State, trigger: Trigger) -> None:
    closes = trigger is T.STOP and state in {S.OPENING, S.OPEN}
    assert move(state, trigger).state == (S.CLOSING if closes else state)


@pytest.mark.parametrize(("state", "trigger"), list(product(State, [t for t in Trigger if t not in DOCUMENTS])))
def test_every_fact_is_listed_or_a_bug(state: State, trigger: Trigger) -> None:
    if (state, trigger) in FACTS:
        assert move(state, trigger) == (A.NOTHING, FACTS[state, trigger])
    else:
        with pytest.raises(LookupError, match=f"{state} cannot meet {trigger}"):
            move(state, trigger)


def test_the_table_has_nothing_else() -> None:
    assert TABLE.keys() == set(product(State, DOCUMENTS)) | FACTS.keys()


def reachable(begin: State) -> set[State]:
    found, todo = {begin}, [begin]
    while todo:
        here = todo.pop()
        after = {entry.state for (state, _), entry in TABLE.items() if state is here}
        todo += after - found
        found |= after
    return found


def test_every_state_can_be_reached_and_every_run_can_end() -> None:
    assert reachable(S.OPENING) == set(State)
    assert all(S.FINISHED in reachable(state) for state in State)


def test_finished_is_final() -> None:
    assert reachable(S.FINISHED) == {S.FINISHED}


def test_a_refused_run_is_never_written_again() -> None:
    assert reachable(S.CONDEMNED) == {S.CONDEMNED, S.FINISHED}


def test_whatever_is_not_over_can_be_refused_or_forgotten() -> None:
    for state in set(State) - {S.FINISHED}:
        assert {(state, T.REFUSED), (state, T.IDLE)} & TABLE.keys(), state
