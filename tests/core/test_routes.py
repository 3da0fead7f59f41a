"""Where a run goes: the first route that matches, its groups, the start's fields; never a key that is none."""

from typing import Any

import pytest

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.runs.routes import SEGMENT_MAX, fixed_parents, route

Routes = tuple[tuple[str, str], ...]
TOPIC = "bmm.bluesky.runengine.documents"
BY_NAME: Routes = ((r"(?P<beamline>\w+)\.bluesky\..*", "{beamline}/raw"),)
BY_START: Routes = ((".*", "{start[session]}"),)
NESTED: Routes = ((".*", "{start[proposal][id]}"),)


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ((), ()),
        (((".*", ""),), ()),
        (((".*", "raw"),), ("raw",)),
        (((".*", "/a//b/"),), ("a", "b")),
        (((".*", "{0}"),), (TOPIC,)),
        (((r"(\w+)\.(\w+)\..*", "{2}/x-{1}"),), ("bluesky", "x-bmm")),
        (BY_NAME, ("bmm", "raw")),
        (BY_START, ("pass-1",)),
        (((".*", "raw/{start[year]:04d}"),), ("raw", "0026")),
        ((("bmm", "no"), ("bmm.*", "first"), (".*", "second")), ("first",)),
        ((("other", "no"),), ()),
    ],
)
def test_the_first_route_that_matches_the_whole_topic_counts(routes: Routes, expected: tuple[str, ...]) -> None:
    assert route(routes, TOPIC, {"session": "pass-1", "year": 26}) == expected


def refused(routes: Routes, start: dict[str, Any]) -> str:
    with pytest.raises(InvalidDocument) as caught:
        route(routes, TOPIC, start)
    return caught.value.code


def test_a_field_that_is_missing_is_unroutable() -> None:
    assert refused(BY_START, {}) == "unroutable"
    assert refused(NESTED, {"proposal": {}}) == "unroutable"


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "/", "x" * (SEGMENT_MAX + 1)])
def test_a_value_that_cannot_be_a_key_is_unroutable(value: str) -> None:
    assert refused(BY_START, {"session": value}) == "unroutable"


@pytest.mark.parametrize("proposal", ["a string", 7, None, [1]])
def test_a_field_of_another_shape_is_unroutable(proposal: Any) -> None:
    assert refused(NESTED, {"proposal": proposal}) == "unroutable"


def test_a_value_that_the_format_does_not_take_is_unroutable() -> None:
    assert refused(((".*", "{start[year]:04d}"),), {"year": "text"}) == "unroutable"


def test_the_longest_key_is_allowed() -> None:
    assert route(BY_START, TOPIC, {"session": "x" * SEGMENT_MAX}) == ("x" * SEGMENT_MAX,)


# ---------------------------------------------------------------- where open runs are looked for


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ((), ((),)),
        ((("other", "no"),), ((),)),
        (BY_NAME, (("bmm", "raw"),)),
        (((r"bmm.*", "first"), (".*", "second")), (("first",),)),
    ],
)
def test_open_runs_are_looked_for_where_the_topic_leads(routes: Routes, expected: tuple[Any, ...]) -> None:
    assert fixed_parents(routes, TOPIC) == expected
