"""The automaton of a run: its states, and what each document or event does in each of them.

A run is born by its start document (`OPENING`, while its node is made in Tiled), lives (`OPEN`) and ends by its stop
document: `CLOSING`, while its last rows are written and counted, then `FINISHED`. Three ways lead off this road:

- Nobody hears of it for long: `ABANDONING` closes it like a stop would, without inventing a stop document. What comes
  meanwhile waits: a successor that finds the run open takes it. Then the run is `DORMANT`, until there are too many of
  these, or its publisher speaks again. If the log still holds its beginning then, it is `REOPENING`: what comes waits
  until a successor would go on with it, and its node says that it is open; then it goes on where it was. Else it is
  late.
- It may not be written: its node belongs to someone else, or Tiled refuses its data. `CONDEMNED`: everything it has
  said so far, and will say, goes to the dead letters, from its start and in order; then it is `FINISHED`.
- Tiled holds it complete already, written by an earlier claim: `REDELIVERED`. Its documents are recognised as
  repetitions up to the last offset that Tiled's copy covers; what comes after is late.

A `FINISHED` run is remembered for a while, so that what still arrives can be called late and not an orphan.

Documents that a run holds back or refuses never change its state by themselves: the `Action` says what to do with
the document; the rest of the code only looks things up here. A pair that is not in the table is a bug.
"""

from enum import StrEnum, auto
from typing import NamedTuple


class State(StrEnum):
    """Where a run is on its way."""

    OPENING = auto()
    OPEN = auto()
    CLOSING = auto()
    ABANDONING = auto()
    DORMANT = auto()
    REOPENING = auto()
    CONDEMNED = auto()
    REDELIVERED = auto()
    FINISHED = auto()


class Trigger(StrEnum):
    """What can happen to a run: a document arrives, or something became known about it."""

    # documents
    START = auto()
    DESCRIPTOR = auto()
    EVENT = auto()
    STOP = auto()
    EXTERNAL = auto()
    # facts
    CREATED = auto()  # its node is in Tiled, ours
    FOUND_FINISHED = auto()  # its node is in Tiled, ours, and was closed by an earlier claim
    REFUSED = auto()  # it may not be written: foreign, conflicting, or rejected by Tiled
    IDLE = auto()  # nothing was heard of it for longer than the limit
    LOGGED = auto()  # something new came of it, and the log still holds its beginning
    REOPENED = auto()  # its node says that it is open, again
    CLOSED = auto()  # everything of it is in Tiled, its final metadata too
    EMITTED = auto()  # everything of it is in the dead letters, or all that came since it was given up


class Action(StrEnum):
    """What is done with the document (facts have `NOTHING`)."""

    NOTHING = auto()
    COMPARE_START = auto()  # a start again: a repetition, or another run under the same uid
    ADD_STREAM = auto()
    ADD_ROWS = auto()
    CLOSE = auto()
    COMPARE_STOP = auto()  # a stop again: a repetition, or late
    ADD_ASSETS = auto()  # resources, datums, stream_datums: what external data the run's events speak of
    LATE = auto()
    DEFER = auto()  # it waits until the run goes on, or cannot
    WAKE = auto()  # the same, unless it is a repetition
    CONDEMN = auto()
    RECOGNISE = auto()


class Move(NamedTuple):
    """One entry of the table."""

    action: Action
    state: State


DOCUMENTS = (Trigger.START, Trigger.DESCRIPTOR, Trigger.EVENT, Trigger.STOP, Trigger.EXTERNAL)

S, T, A = State, Trigger, Action

TABLE: dict[tuple[State, Trigger], Move] = {
    # its node is being made; documents are taken, and wait
    (S.OPENING, T.START): Move(A.COMPARE_START, S.OPENING),
    (S.OPENING, T.DESCRIPTOR): Move(A.ADD_STREAM, S.OPENING),
    (S.OPENING, T.EVENT): Move(A.ADD_ROWS, S.OPENING),
    (S.OPENING, T.STOP): Move(A.CLOSE, S.CLOSING),
    (S.OPENING, T.EXTERNAL): Move(A.ADD_ASSETS, S.OPENING),
    (S.OPENING, T.CREATED): Move(A.NOTHING, S.OPEN),
    (S.OPENING, T.FOUND_FINISHED): Move(A.NOTHING, S.REDELIVERED),
    (S.OPENING, T.REFUSED): Move(A.NOTHING, S.CONDEMNED),
    (S.OPENING, T.IDLE): Move(A.NOTHING, S.ABANDONING),
    # its node is there
    (S.OPEN, T.START): Move(A.COMPARE_START, S.OPEN),
    (S.OPEN, T.DESCRIPTOR): Move(A.ADD_STREAM, S.OPEN),
    (S.OPEN, T.EVENT): Move(A.ADD_ROWS, S.OPEN),
    (S.OPEN, T.STOP): Move(A.CLOSE, S.CLOSING),
    (S.OPEN, T.EXTERNAL): Move(A.ADD_ASSETS, S.OPEN),
    (S.OPEN, T.CREATED): Move(A.NOTHING, S.OPEN),
    (S.OPEN, T.FOUND_FINISHED): Move(A.NOTHING, S.REDELIVERED),
    (S.OPEN, T.REFUSED): Move(A.NOTHING, S.CONDEMNED),
    (S.OPEN, T.IDLE): Move(A.NOTHING, S.ABANDONING),
    # its stop came: its rows are flushed, counted, its metadata finished
    (S.CLOSING, T.START): Move(A.COMPARE_START, S.CLOSING),
    (S.CLOSING, T.DESCRIPTOR): Move(A.LATE, S.CLOSING),
    (S.CLOSING, T.EVENT): Move(A.LATE, S.CLOSING),
    (S.CLOSING, T.STOP): Move(A.COMPARE_STOP, S.CLOSING),
    (S.CLOSING, T.EXTERNAL): Move(A.LATE, S.CLOSING),
    (S.CLOSING, T.CREATED): Move(A.NOTHING, S.CLOSING),
    (S.CLOSING, T.FOUND_FINISHED): Move(A.NOTHING, S.REDELIVERED),
    (S.CLOSING, T.REFUSED): Move(A.NOTHING, S.CONDEMNED),
    (S.CLOSING, T.CLOSED): Move(A.NOTHING, S.FINISHED),
    # nobody spoke of it any more: the same, without a stop document
    **{(S.ABANDONING, document): Move(A.DEFER, S.ABANDONING) for document in DOCUMENTS},
    (S.ABANDONING, T.CREATED): Move(A.NOTHING, S.ABANDONING),
    (S.ABANDONING, T.FOUND_FINISHED): Move(A.NOTHING, S.REDELIVERED),
    (S.ABANDONING, T.REFUSED): Move(A.NOTHING, S.CONDEMNED),
    (S.ABANDONING, T.CLOSED): Move(A.NOTHING, S.DORMANT),
    # it was given up by this claim, which knows it still
    **{(S.DORMANT, document): Move(A.WAKE, S.DORMANT) for document in DOCUMENTS},
    (S.DORMANT, T.START): Move(A.COMPARE_START, S.DORMANT),
    (S.DORMANT, T.LOGGED): Move(A.NOTHING, S.REOPENING),
    (S.DORMANT, T.EMITTED): Move(A.NOTHING, S.FINISHED),
    (S.DORMANT, T.IDLE): Move(A.NOTHING, S.FINISHED),
    (S.DORMANT, T.REFUSED): Move(A.NOTHING, S.CONDEMNED),
    # its publisher spoke again
    **{(S.REOPENING, document): Move(A.DEFER, S.REOPENING) for document in DOCUMENTS},
    (S.REOPENING, T.REOPENED): Move(A.NOTHING, S.OPEN),
    (S.REOPENING, T.REFUSED): Move(A.NOTHING, S.CONDEMNED),
    # it may not be written
    **{(S.CONDEMNED, document): Move(A.CONDEMN, S.CONDEMNED) for document in DOCUMENTS},
    (S.CONDEMNED, T.IDLE): Move(A.NOTHING, S.FINISHED),
    (S.CONDEMNED, T.EMITTED): Move(A.NOTHING, S.FINISHED),
    # it was written before
    **{(S.REDELIVERED, document): Move(A.RECOGNISE, S.REDELIVERED) for document in DOCUMENTS},
    (S.REDELIVERED, T.IDLE): Move(A.NOTHING, S.FINISHED),
    (S.REDELIVERED, T.CLOSED): Move(A.NOTHING, S.FINISHED),
    # it is over
    **{(S.FINISHED, document): Move(A.LATE, S.FINISHED) for document in DOCUMENTS},
}


def move(state: State, trigger: Trigger) -> Move:
    """Look up what `trigger` does to a run in `state`.

    Raises
    ------
    LookupError
        The pair is not in the table: a bug of ours, never of a document.
    """
    try:
        return TABLE[state, trigger]
    except KeyError:
        raise LookupError(f"a run that is {state} cannot meet {trigger}") from None
