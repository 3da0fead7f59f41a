"""The oracle by itself, where a history that shows it is too rare for the suite."""

import random
from itertools import pairwise

import pytest

from tiled_ingest.core.external.assets import AssetPlan, Resource, Span, Use
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.writes import CreateContainer, Path, RegisterExternal

from .documents import Item, Json, Plan, Role, Run
from .kafka_model import DeadLetterTopic, Letter
from .oracle import Oracle
from .tiled_model import TiledModel

HOME = Home("documents", 0)
FLY: Path = ("run", "fly")
LAST_BEGUN = 4  # where the run ends that the repeated start began anew


def published() -> list[Item]:
    start = {"uid": "run"}
    before, after = (("stream_datum", datum(first, stop)) for first, stop in pairwise((0, 1, 3)))
    docs: list[tuple[str, Json]] = [
        ("start", start),
        ("descriptor", {"uid": "d"}),
        ("stream_resource", {"uid": "file"}),
        before,
        ("start", start),
        after,
    ]
    roles = [Role.DUPLICATE if at == LAST_BEGUN else Role.RUN for at in range(len(docs))]
    return [Item(role, None, "run", name, doc) for role, (name, doc) in zip(roles, docs, strict=True)]


def datum(first: int, stop: int) -> Json:
    numbers = {"indices": {"start": first, "stop": stop}, "seq_nums": {"start": first + 1, "stop": stop + 1}}
    return {"uid": f"datum-{first}", "stream_resource": "file", "descriptor": "d", **numbers}


def given_up_after_it_was_begun_anew() -> tuple[Oracle, TiledModel]:
    """Its last claim met it in the repeated start, and refused the stream_datum after that: it knew no such stream."""
    items = published()
    run = Run("run", items, {"d": "fly"})
    tiled, letters = TiledModel("postgresql", random.Random(1)), DeadLetterTopic()
    oracle = Oracle(Plan({"run": run}, {"run": HOME}, {HOME: items}), tiled, letters, (), idle_s_max=1.0)
    for offset, item in enumerate(items):
        record = Record(HOME.topic, HOME.partition, offset, 10_000 * offset, None, b"")
        oracle.published(record, item)
        if offset > LAST_BEGUN:
            letters.write(Letter(record, "InvalidDocument", "orphan", "run"), owned=True)
    facts = {"state": "abandoned", "source": {"first_offset": LAST_BEGUN, "last_offset": LAST_BEGUN}}
    tiled.perform(CreateContainer((), "run", {"start": run.start, "tiled_ingest": facts}, (), None))
    tiled.perform(CreateContainer(("run",), "fly", {"uid": "d"}, (), None))
    return oracle, tiled


def register(tiled: TiledModel, *spans: tuple[int, int]) -> None:
    plan = AssetPlan()
    for indices in spans:
        at = Span(*indices)
        plan.add(Use(Resource("stream_resource", {"uid": "file"}, 2), "d"), at, Span(at.start + 1, at.stop + 1))
    tiled.perform(RegisterExternal((*FLY, "img"), {}, plan, None))


@pytest.mark.parametrize("spans", [[(0, 1)], [(0, 1), (1, 3)]])
def test_what_earlier_claims_wrote_of_a_run_whose_beginning_is_lost_may_be_refused_too(
    spans: list[tuple[int, int]],
) -> None:
    oracle, tiled = given_up_after_it_was_begun_anew()
    register(tiled, *spans)
    oracle.cut(HOME, LAST_BEGUN)
    oracle.judge_end()
    assert oracle.violations == []


@pytest.mark.parametrize("spans", [[(0, 1), (0, 1)], [(1, 3), (0, 1)], [(0, 4)]])
def test_also_of_a_run_whose_beginning_is_lost_frames_are_there_once_and_in_order(spans: list[tuple[int, int]]) -> None:
    oracle, tiled = given_up_after_it_was_begun_anew()
    register(tiled, *spans)
    oracle.cut(HOME, LAST_BEGUN)
    oracle.judge_end()
    assert len(oracle.violations) == 1
    assert "('run', 'fly', 'img') of 3 frames" in oracle.violations[0]


def test_while_the_log_holds_a_run_what_was_refused_after_its_end_is_not_in_tiled() -> None:
    oracle, tiled = given_up_after_it_was_begun_anew()
    register(tiled, (0, 3))
    oracle.judge_end()
    assert oracle.violations == ["('run', 'fly', 'img') of 1 frames: [] lost, [('file', 1), ('file', 2)] too many"]


@pytest.mark.parametrize(("refused", "wrong"), [(True, 0), (False, 1)])
def test_a_run_whose_beginning_is_lost_lacks_only_descriptors_that_were_refused(*, refused: bool, wrong: int) -> None:
    oracle, _ = given_up_after_it_was_begun_anew()
    oracle._plan.runs["run"].streams["later"] = "fly"
    page: Json = {"uid": ["1"], "descriptor": "later", "data": {}, "timestamps": {}, "seq_num": [1], "time": [1.0]}
    docs: list[tuple[str, Json]] = [("descriptor", {"uid": "later"}), ("event_page", page)]
    for offset, (name, doc) in enumerate(docs, 9):
        record = Record(HOME.topic, HOME.partition, offset, 10_000 * offset, None, b"")
        oracle.published(record, Item(Role.RUN, None, "run", name, doc))
        if refused or name == "event_page":
            oracle._dead_letters.write(Letter(record, "InvalidDocument", "orphan", "run"), owned=True)
    oracle.cut(HOME, LAST_BEGUN)
    oracle.judge_end()
    assert [line for line in oracle.violations if "descriptors" in line] == oracle.violations
    assert len(oracle.violations) == wrong
