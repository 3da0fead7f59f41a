"""No row twice, whatever becomes of replies: a real Tiled, on the way to which requests and replies get lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from tests.differential.compose import Composer, key
from tests.differential.recorder import Documents
from tiled_ingest.core.errors import TiledUnavailable
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.writes import Append, CreateContainer, CreateTable, Outcome, Request, Unknown, Unprocessed
from tiled_ingest.inprocess.driver import Driver
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session

from .documents import facts, give, rows, run_of, uid_of

Perform = Callable[[Request], Outcome]
LOST = Unknown("the reply was lost")


class Road:
    """The way to Tiled: the n-th request of a kind (from 0) meets a fault, the others none.

    `reply_lost`: done, but nobody hears of it. `late`: done only when a later request of any kind has passed.
    `never`: it gets lost, and so does the reply.
    """

    def __init__(self, client: Any, kind: type, number: int, fault: str) -> None:
        self._perform: Perform = partial(perform, Session.from_context(client.context, tuple(client.path_parts)))
        self._kind, self._number, self._fault = kind, number, fault
        self._seen = 0
        self._held: list[Request] = []
        self._countdown = 0
        self.late_answers: list[Outcome] = []

    def __call__(self, request: Request) -> Outcome:
        self._release()
        if not isinstance(request, self._kind):
            return self._perform(request)
        self._seen += 1
        if self._seen - 1 != self._number:
            return self._perform(request)
        return self._meet(request)

    def _meet(self, request: Request) -> Outcome:
        if self._fault == "reply_lost":
            self._perform(request)
        elif self._fault == "late":
            self._held.append(request)
            self._countdown = 12  # far into the switch that follows
        return LOST

    def _release(self) -> None:
        self._countdown -= 1
        if self._countdown == 0:
            self.late_answers += [self._perform(request) for request in self._held]
            self._held.clear()


def policy(**limits: Any) -> Policy:
    base: dict[str, Any] = {
        "rows_max": 2,
        "age_s_max": math.inf,
        "commit_interval_s": 0.0,
        "idle_s_max": math.inf,
        "late_write_s_max": 0.1,
        "backoff_s_min": 0.01,
        "backoff_s_max": 0.1,
        "log_holds_runs": False,
    }
    return Policy(**{**base, **limits})


def driver_on(road: Perform, wait_s_max: float = 30.0, **limits: Any) -> Callable[[str, Any], None]:
    return Driver(road, policy(**limits), wait_s_max).take


@pytest.mark.parametrize("fault", ["reply_lost", "late", "never"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_append_whose_fate_is_unknown(client: Any, fault: str, number: int) -> None:
    documents = run_of("integer", [1, 2, 3, 4, 5])
    give(driver_on(Road(client, Append, number, fault)), documents)
    assert rows(client, uid_of(documents)) == [1, 2, 3, 4, 5]
    assert facts(client, uid_of(documents))["state"] == "complete"


@pytest.mark.parametrize("kind", [CreateContainer, CreateTable])
@pytest.mark.parametrize("number", [0, 1])
def test_a_creation_whose_reply_is_lost_is_ours(client: Any, kind: type, number: int) -> None:
    documents = run_of("integer", [1, 2, 3])
    give(driver_on(Road(client, kind, number, "reply_lost")), documents)
    assert rows(client, uid_of(documents)) == [1, 2, 3]
    assert facts(client, uid_of(documents))["state"] == "complete"


class Away:
    """A Tiled that can be sent away."""

    def __init__(self, client: Any) -> None:
        self._perform: Perform = partial(perform, Session.from_context(client.context, ()))
        self.away = False

    def __call__(self, request: Request) -> Outcome:
        return Unprocessed("connection refused") if self.away else self._perform(request)


def test_while_tiled_is_away_a_document_is_raised_but_kept(client: Any) -> None:
    documents = run_of("integer", [1, 2, 3, 4])
    road = Away(client)
    take = driver_on(road, wait_s_max=0.2)
    give(take, documents[:4])
    road.away = True
    with pytest.raises(TiledUnavailable):
        give(take, documents[4:])  # the second batch is full at the last event
    with pytest.raises(TiledUnavailable):
        give(take, documents[-1:])
    road.away = False
    take(*documents[-1])  # a repetition: but the stop that came first is written now
    assert rows(client, uid_of(documents)) == [1, 2, 3, 4]
    assert facts(client, uid_of(documents))["state"] == "complete"


# ---------------------------------------------------------------- widening, from Tiled's own rows


def _with_strange_neighbours(values: Sequence[Any]) -> Documents:
    """`x` beside columns of all kinds, nulls among them."""
    run = Composer()
    keys = {
        "x": key("integer"),
        "text": key("string"),
        "flag": key("boolean"),
        "line": key("array", [2]),
        "count": key("integer"),
        "seldom": key(),
    }
    run.descriptor(keys, object_keys={"dev": list(keys)})
    for number, value in enumerate(values):
        seldom = {"seldom": 0.5} if number == 1 else {}
        text = None if number == 2 else f"row {number}; 'ü'"
        count = None if number == 0 else 2**40 + number
        data = {"x": value, "text": text, "flag": number % 2 == 0, "line": [number, 0.5], "count": count, **seldom}
        run.event(data)
    return run.stop()


@pytest.mark.parametrize("rows_max", [1, 3])
def test_a_column_that_proves_too_narrow_keeps_all_its_rows(client: Any, rows_max: int) -> None:
    documents = _with_strange_neighbours([1, 2, 3, 4.5, 5])
    give(driver_on(Road(client, Append, -1, ""), rows_max=rows_max), documents)
    uid = uid_of(documents)
    assert rows(client, uid) == [1, 2, 3, 4.5, 5]
    texts = rows(client, uid, "text")
    assert [texts[number] for number in (0, 1, 3, 4)] == [f"row {number}; 'ü'" for number in (0, 1, 3, 4)]
    assert not isinstance(texts[2], str), "null"
    assert rows(client, uid, "flag") == [True, False, True, False, True]
    assert [list(line) for line in rows(client, uid, "line")] == [[number, 0.5] for number in range(5)]
    assert rows(client, uid, "count")[1:] == [2**40 + number for number in range(1, 5)]
    assert math.isnan(rows(client, uid, "count")[0])
    assert [value for value in rows(client, uid, "seldom") if not math.isnan(value)] == [0.5]
    assert facts(client, uid)["state"] == "complete"


@pytest.mark.parametrize("fault", ["reply_lost", "late", "never"])
@pytest.mark.parametrize("number", [2, 3])
def test_a_loss_in_the_middle_of_a_widening(client: Any, fault: str, number: int) -> None:
    """Appends: 0 and 1 to the first table, 2 (and 3) into the wider one's child."""
    documents = run_of("integer", [1, 2, 3, 4, 5.5, 6])
    give(driver_on(Road(client, Append, number, fault)), documents)
    assert rows(client, uid_of(documents)) == [1, 2, 3, 4, 5.5, 6]
    assert facts(client, uid_of(documents))["state"] == "complete"


def test_nothing_is_kept_that_tiled_has(client: Any) -> None:
    documents = run_of("integer", range(7))
    driver = Driver(Road(client, Append, -1, ""), policy(), 30.0)
    give(driver.take, documents[:-2])
    assert len(driver._kept) <= 2, "three batches of two rows are confirmed"
