"""External data in the core: what documents mean for a plan, in whatever order and however often they come."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_engine import POLICY, World
from tests.core.test_steps import HOME, STAMP_MS, MiniTiled, descriptor_doc, event_doc, start_doc, stop_doc
from tiled_ingest.core import effects as fx
from tiled_ingest.core import writes as w
from tiled_ingest.core.external.assets import AssetPlan, Indexer, Resource, Span, Use, span
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.rows.names import renames
from tiled_ingest.core.writing.datasets import OURS

EXTERNAL = {"dtype": "array", "shape": [2, 3], "source": "s", "external": "FILE:"}
NODE = ("r", "primary", "img")
Documents = list[tuple[str, dict[str, Any]]]
NO_KWARGS: dict[str, Any] = {}


# ---------------------------------------------------------------- documents


def descriptor(uid: str = "d", run: str = "r", name: str = "primary", **more: Any) -> tuple[str, dict[str, Any]]:
    doc = descriptor_doc(uid, run, name, x="number")
    return "descriptor", {**doc, "data_keys": {**doc["data_keys"], "img": EXTERNAL, **more}}


def stream_resource(uid: str = "q", run: str | None = "r", key: str = "img") -> tuple[str, dict[str, Any]]:
    doc = {"uid": uid, "data_key": key, "mimetype": "application/x-hdf5", "uri": f"file://localhost/{uid}.h5",
           "parameters": {"dataset": "/entry/data"}}  # fmt: skip
    return "stream_resource", doc | ({"run_start": run} if run else {})


def stream_datum(start: int, stop: int, of: str = "q", uid: str = "", to: str = "d") -> tuple[str, dict[str, Any]]:
    ranges = {"indices": {"start": start, "stop": stop}, "seq_nums": {"start": start + 1, "stop": stop + 1}}
    return "stream_datum", {"uid": uid or f"{of}/{start}", "stream_resource": of, "descriptor": to, **ranges}


def resource(uid: str = "q", run: str | None = "r") -> tuple[str, dict[str, Any]]:
    doc = {"uid": uid, "spec": "AD_HDF5", "root": "/data", "resource_path": f"{uid}.h5", "resource_kwargs": {}}
    return "resource", doc | ({"run_start": run} if run else {})


def datum(number: int, resource: str = "q", **kwargs: Any) -> tuple[str, dict[str, Any]]:
    return "datum", {"datum_id": f"{resource}/{number}", "resource": resource, "datum_kwargs": kwargs}


def event(seq_num: int, datum_id: str | None, of: str = "d", uid: str = "") -> tuple[str, dict[str, Any]]:
    data = {"x": 0.5} | ({"img": datum_id} if datum_id else {})
    return "event", event_doc(seq_num, uid, of, **data) | {"filled": {"img": False} if datum_id else {}}


def stop(run: str = "r", **counts: int) -> tuple[str, dict[str, Any]]:
    return "stop", stop_doc(run, counts)


def begin(uid: str = "r") -> tuple[str, dict[str, Any]]:
    return "start", start_doc(uid)


def ready(**more: Any) -> World:
    world = World(POLICY, MiniTiled(), **more)
    world.assign()
    return world


def taken(*documents: tuple[str, dict[str, Any]]) -> World:
    world = ready()
    world.publish(*documents)
    world.settle()
    return world


def parts(world: World, path: w.Path = NODE) -> list[tuple[str, int, int]]:
    """What Tiled holds of a key: resource, start and stop of its rows."""
    plan = world.tiled.externals[path].plan
    return [(plan.uses[part.use].resource.uid, *part.indices) for part in plan]


def registrations(world: World) -> list[w.RegisterExternal]:
    return [ask.request for ask in world.kinds(fx.Ask) if isinstance(ask.request, w.RegisterExternal)]


def test_the_way_of_every_document_that_is_written_is_timed() -> None:
    """The service level is one of documents: a beamline of fly scans has hardly an event."""
    files = [stream_resource(), stream_datum(0, 2), stream_datum(2, 3)]
    world = taken(begin(), descriptor(), *files, event(1, None), stop())
    timed = [(each["timestamp_ms"] - STAMP_MS, each["count"]) for each in world.told("latency")]
    # Of a batch: since its oldest was there. A resource is settled by being known, and written with its first datum.
    assert timed == [(0, 1), (1, 1), (3, 3), (5, 1), (6, 1)]
    written = Counter({each["name"]: each["count"] for each in world.told("documents") if each["result"] == "written"})
    assert written == Counter(start=1, descriptor=1, stream_resource=1, stream_datum=2, event=1, stop=1)


# ---------------------------------------------------------------- plans


def use(uid: str = "q") -> Use:
    return Use(Resource("stream_resource", {"uid": uid}, 0), "d")


def test_rows_that_stand_together_are_one_part() -> None:
    plan, one = AssetPlan(), use()
    for start in range(100_000):
        plan.add(one, Span(start, start + 1), Span(start + 1, start + 2))
    assert (plan.rows, len(plan.parts), plan.last_seq_num) == (100_000, 5, 100_000)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 3)), max_size=20))
def test_merging_loses_and_doubles_nothing(ranges: list[tuple[str, int, int]]) -> None:
    plan = AssetPlan()
    for uid, start, length in ranges:
        plan.add(use(uid), Span(start, start + length), Span(start + 1, start + length + 1))
    merged = [(plan.uses[part.use].resource.uid, row) for part in plan for row in range(*part.indices)]
    assert merged == [(uid, row) for uid, start, length in ranges for row in range(start, start + length)]
    assert plan.rows == len(merged)


def test_a_copy_stays_as_it_is() -> None:
    plan = AssetPlan()
    plan.add(use(), Span(0, 2), Span(1, 3))
    copy = plan.copy()
    plan.add(use(), Span(2, 5), Span(3, 6))
    assert (copy.rows, next(iter(copy)).indices, plan.rows) == (2, (0, 2), 5)


@pytest.mark.parametrize(
    "value", [None, 3, {}, {"start": 1}, {"start": -1, "stop": 2}, {"start": 3, "stop": 2}, {"start": 0, "stop": 2**63},
              {"start": "0", "stop": "1"}, {"start": True, "stop": 2}]
)  # fmt: skip
def test_what_is_no_range(value: Any) -> None:
    assert span(value) is None


KWARGS: Any = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"frame": st.integers(0, 6)}),
    st.fixed_dictionaries({"point_number": st.integers(0, 6)}),
    st.fixed_dictionaries({"indices": st.fixed_dictionaries({"start": st.integers(0, 3), "stop": st.integers(4, 9)})}),
)


@given(st.lists(KWARGS, min_size=1, max_size=12))
def test_a_datum_means_the_rows_that_the_librarys_normalizer_says(all_kwargs: list[dict[str, Any]]) -> None:
    normalizer, theirs = RunNormalizer(), []
    normalizer.subscribe(lambda _, doc: theirs.append(tuple(doc["indices"].values())), "stream_datum")
    normalizer(*descriptor())
    normalizer(*resource())
    indexer, ours = Indexer(), []
    for number, kwargs in enumerate(all_kwargs, 1):
        normalizer(*datum(number, **kwargs))
        normalizer(*event(number, f"q/{number}"))
        ours.append(indexer(kwargs, number))
    assert ours == theirs


@pytest.mark.parametrize(
    "kwargs",
    [{"frame": -5}, {"frame": 2**63}, {"point_number": 2**63}, {"indices": {"start": 0, "stop": 2**63}, "frame": -9}],
)
def test_numbers_that_no_detector_has_are_no_rows_and_the_event_is_kept(kwargs: dict[str, Any]) -> None:
    world = taken(begin(), descriptor(), resource(), datum(1, "q", **kwargs), event(1, "q/1"), datum(2),
                  event(2, "q/2"), stop())  # fmt: skip
    assert parts(world) == [("q", 1, 2)]
    assert world.tiled.seq_nums(("r", "primary", "internal")) == [1, 2]
    assert world.tiled.facts(("r",))["state"] == "incomplete"


@pytest.mark.parametrize("value", [3, [1, 2], {"a": 1}, 0.5])
def test_a_value_that_names_no_datum_costs_only_itself(value: Any) -> None:
    world = taken(begin(), descriptor(), event(1, value), stop())
    assert world.tiled.seq_nums(("r", "primary", "internal")) == [1]
    assert world.tiled.facts(("r",))["state"] == "incomplete"


# ---------------------------------------------------------------- stream_datums


def test_stream_datums_go_into_one_node_in_few_requests() -> None:
    frames = [stream_datum(start, start + 1) for start in range(500)]
    world = taken(begin(), descriptor(), stream_resource(), *frames, stop(primary=500))
    assert parts(world) == [("q", 0, 500)]
    assert len(registrations(world)) <= 3
    assert world.tiled.facts(("r",))["state"] == "complete"
    assert world.committed == 504
    assert NODE in world.tiled.closed


def test_ten_detectors_at_a_hundred_hertz_cost_few_requests() -> None:
    keys: dict[str, Any] = {f"cam{number}": EXTERNAL for number in range(10)}
    world = ready()
    world.publish(begin(), descriptor(**keys))
    world.publish(*(stream_resource(key, key=key) for key in keys))
    for frame in range(300):
        world.publish(*(stream_datum(frame, frame + 1, key) for key in keys))
        world.tick(0.01)
    world.settle()
    assert len(registrations(world)) / (300 * len(keys)) <= 0.05


@pytest.mark.parametrize(
    ("kind", "doc"),
    [
        ("datum_page", {"datum_id": [{}], "resource": "q", "datum_kwargs": {}}),
        ("datum_page", {"datum_id": ["q/1"], "resource": "q", "datum_kwargs": {"frame": 3}}),
        ("bulk_datum", {"datum_ids": ["q/1"], "resource": "q", "datum_kwarg_list": [3]}),
        ("bulk_datum", {"datum_ids": [["q"]], "resource": "q", "datum_kwarg_list": [{}]}),
    ],
)
def test_pages_of_what_are_no_datums_break_the_schema(kind: str, doc: dict[str, Any]) -> None:
    """Found by the fuzzer: event-model's rules let them pass."""
    world = taken(begin(), descriptor(), resource(), (kind, doc), stop())
    assert world.codes == [(3, "schema")]


def test_a_repeated_stream_datum_changes_nothing() -> None:
    world = taken(begin(), descriptor(), stream_resource(), stream_datum(0, 2), stream_resource(), stream_datum(0, 2),
                  stream_datum(2, 3), stream_datum(0, 2), stop())  # fmt: skip
    assert parts(world) == [("q", 0, 3)]
    assert world.letters == []


def test_the_offset_of_a_stream_datum_is_held_until_tiled_has_its_rows() -> None:
    world = ready(keeps=lambda effect: isinstance(getattr(effect, "request", None), w.RegisterExternal))
    world.publish(begin(), descriptor(), stream_resource(), stream_datum(0, 2), stream_datum(2, 4))
    world.settle()
    assert world.committed == 3
    world.let_go()
    world.settle()
    assert world.committed == 5


def test_a_stream_resource_is_settled_by_being_known_and_the_resume_point_stays() -> None:
    world = taken(begin(), descriptor(), stream_resource())
    assert world.committed == 3
    assert world.commits[-1][2].start == 0


def test_several_resources_of_a_key_follow_each_other() -> None:
    world = taken(begin(), descriptor(), stream_resource("a"), stream_resource("b"), stream_datum(0, 2, "a"),
                  stream_datum(0, 3, "b"), stream_datum(2, 3, "a"), stop())  # fmt: skip
    assert parts(world) == [("a", 0, 2), ("b", 0, 3), ("a", 2, 3)]


def test_a_resource_of_two_streams_has_a_node_in_each() -> None:
    world = taken(begin(), descriptor(), descriptor("e", name="dark"), stream_resource(), stream_datum(0, 2),
                  stream_datum(0, 4, uid="other", to="e"), stop())  # fmt: skip
    assert parts(world) == [("q", 0, 2)]
    assert parts(world, ("r", "dark", "img")) == [("q", 0, 4)]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (stream_datum(0, 1, "unknown"), "orphan"),
        (stream_datum(0, 1, to="unknown"), "orphan"),
        (stream_datum(5, 2), "schema"),
        (stream_datum(0, 2**40), "too_many_rows"),
        (stream_datum(0, 1, "elsewhere"), "unknown_data_key"),
        (datum(1, "unknown"), "orphan"),
    ],
)
def test_a_document_that_means_nothing_is_a_dead_letter_by_itself(document: Any, code: str) -> None:
    world = taken(begin(), descriptor(), stream_resource(), stream_resource("elsewhere", key="none"),
                  stream_datum(0, 2), document, stream_datum(2, 3), stop())  # fmt: skip
    assert world.codes == [(5, code)]
    assert parts(world) == [("q", 0, 3)]


def test_what_comes_after_the_stop_is_late() -> None:
    world = taken(begin(), descriptor(), stream_resource(), stop(), stream_datum(0, 1), stream_resource("b"))
    assert world.codes == [(4, "late"), (5, "late")]


# ---------------------------------------------------------------- resources and datums


def test_events_and_their_datums_make_rows_whichever_comes_first() -> None:
    world = taken(begin(), descriptor(), resource(), datum(1), event(1, "q/1"), event(2, "q/2"), datum(2),
                  event(3, "q/3"), datum(3), stop(primary=3))  # fmt: skip
    assert parts(world) == [("q", 0, 3)]
    assert world.tiled.seq_nums(("r", "primary", "internal")) == [1, 2, 3]
    assert world.tiled.facts(("r",))["state"] == "complete"


def test_pages_of_datums_and_the_old_bulk_kinds() -> None:
    page = ("datum_page", {"datum_id": ["q/1", "q/2"], "resource": "q", "datum_kwargs": {"point_number": [0, 1]}})
    kwargs = [{"point_number": 2}, {"point_number": 3}]
    bulk = ("bulk_datum", {"datum_ids": ["q/3", "q/4"], "resource": "q", "datum_kwarg_list": kwargs})
    rows = [event(number, f"q/{number}")[1] for number in (3, 4)]
    world = taken(begin(), descriptor(), resource(), page, bulk, event(1, "q/1"), event(2, "q/2"),
                  ("bulk_events", {"primary": rows}), stop(primary=4))  # fmt: skip
    assert parts(world) == [("q", 0, 4)]
    assert world.tiled.seq_nums(("r", "primary", "internal")) == [1, 2, 3, 4]


def test_bulk_events_of_several_streams() -> None:
    rows = {"primary": [event_doc(1), event_doc(2)], "other": [event_doc(1, descriptor="e")]}
    world = taken(begin(), ("descriptor", descriptor_doc()), ("descriptor", descriptor_doc("e", name="other")),
                  ("bulk_events", rows), stop(primary=2, other=1))  # fmt: skip
    assert world.tiled.seq_nums(("r", "primary", "internal")) == [1, 2]
    assert world.tiled.seq_nums(("r", "other", "internal")) == [1]


def test_bulk_events_with_an_orphan_count_not_at_all() -> None:
    rows = {"primary": [event_doc(1), event_doc(2, descriptor="unknown")]}
    world = taken(begin(), ("descriptor", descriptor_doc()), ("bulk_events", rows), stop())
    assert world.codes == [(2, "orphan")]
    assert ("r", "primary", "internal") not in world.tiled.nodes


def test_a_datum_that_never_comes_is_noted_and_its_event_kept() -> None:
    world = taken(begin(), descriptor(), resource(), datum(1), event(1, "q/1"), event(2, "q/2"), stop(primary=2))
    assert world.tiled.seq_nums(("r", "primary", "internal")) == [1, 2]
    assert parts(world) == [("q", 0, 1)]
    metadata = world.tiled.nodes["r",].metadata
    assert metadata["notes"] == ["External data primary/img: 1 events name a datum that never came."]
    assert metadata[OURS]["state"] == "incomplete"
    assert world.committed == 7


def test_a_datum_that_several_events_name_is_a_row_of_each() -> None:
    world = taken(begin(), descriptor(), resource(), datum(1, point_number=0), event(1, "q/1"), event(2, "q/1"), stop())
    assert parts(world) == [("q", 0, 1), ("q", 0, 1)]


def test_a_filled_value_is_an_array_and_no_datum() -> None:
    loaded = event_doc(1, x=0.5, img=[[1, 2, 3], [4, 5, 6]]) | {"filled": {"img": True}}
    world = taken(begin(), descriptor(), ("event", loaded), stop(primary=1))
    assert registrations(world) == []
    assert world.tiled.values_at(NODE) == [[[1, 2, 3], [4, 5, 6]]], "not every storage has lists of lists"


def test_an_external_key_with_a_slash_has_a_node_under_its_new_name() -> None:
    """A slash ends a node's key: documents of both kinds go on naming the data key as it was."""
    keys: dict[str, Any] = {"img/raw": EXTERNAL, "img/sum": EXTERNAL}
    named = event_doc(1, "", x=0.5, **{"img/sum": "o/1"}) | {"filled": {"img/sum": False}}
    world = taken(begin(), descriptor(**keys), stream_resource(key="img/raw"), stream_datum(0, 2), resource("o"),
                  datum(1, "o"), ("event", named), stop())  # fmt: skip
    raw, total = (("r", "primary", renames(keys)[key]) for key in keys)
    assert set(world.tiled.externals) == {raw, total}
    assert parts(world, raw) == [("q", 0, 2)]
    assert parts(world, total) == [("o", 0, 1)]
    assert world.letters == []


def test_an_old_resource_is_of_the_run_whose_event_uses_it() -> None:
    world = taken(begin("a"), begin("b"), descriptor("da", "a"), descriptor("db", "b"), resource("q", None),
                  datum(1), datum(2), event(1, "q/1", "da"), event(1, "q/2", "db"), stop("a"), stop("b"))  # fmt: skip
    assert parts(world, ("a", "primary", "img")) == [("q", 0, 1)]
    assert parts(world, ("b", "primary", "img")) == [("q", 0, 1)]


def test_a_resource_of_a_run_that_is_over_serves_a_later_one_and_the_log_is_kept_for_it() -> None:
    world = taken(begin("a"), descriptor("da", "a"), resource("q", "a"), datum(1), event(1, "q/1", "da"), stop("a"),
                  begin("b"), descriptor("db", "b"), datum(2), event(1, "q/2", "db"))  # fmt: skip
    assert parts(world, ("b", "primary", "img")) == [("q", 0, 1)]
    assert world.commits[-1][2].start == 2


def test_an_old_resource_without_any_run_is_an_orphan() -> None:
    world = taken(resource("q", None), begin(), stop())
    assert world.codes == [(0, "orphan")]


@pytest.mark.parametrize("run", ["r", None])
def test_a_datum_of_a_foreign_run_is_a_dead_letter_though_the_log_has_lost_its_resource(run: str | None) -> None:
    """The log that is read again for the dead letters does not say any more whose the datum is."""
    world = ready()
    world.tiled.nodes["r",] = w.Node({"start": start_doc()})
    world.publish(begin(), descriptor(), resource("q", run), datum(1))
    world.settle()
    world.lows[HOME] = 3
    world.publish(datum(2), event(1, "q/2"), stop())
    world.settle()
    assert world.codes == [(offset, "foreign_run") for offset in range(7)]
    assert world.committed == 7


def test_a_datum_that_names_an_earlier_runs_resource_is_a_dead_letter_with_the_foreign_run_it_came_in() -> None:
    world = taken(begin("a"), descriptor("da", "a"), resource("q", "a"), datum(1), event(1, "q/1", "da"), stop("a"))
    world.tiled.nodes["r",] = w.Node({"start": start_doc()})
    world.publish(begin(), datum(2), datum(3), stop())
    world.settle()
    assert world.codes == [(offset, "foreign_run") for offset in range(6, 10)]


def test_so_is_one_whose_resource_came_before_the_start_because_the_log_was_cut() -> None:
    """The resource names a run of the same uid, whose start was deleted."""
    before = taken(begin(), descriptor(), resource(), datum(1))
    before.tiled.nodes["r",] = w.Node({"start": start_doc()})
    heir = World(POLICY, before.tiled, logs=before.logs)
    heir.assign(committed=4, point=before.commits[-1][2], low=2)
    heir.publish(datum(2), ("start", start_doc() | {"plan_name": "other"}), datum(3), datum(4), stop())
    heir.settle()
    assert heir.codes == [(4, "late"), *((offset, "foreign_run") for offset in range(5, 9))]


# ---------------------------------------------------------------- one uid, two contents


def test_another_resource_of_the_same_uid_is_refused_and_the_first_one_counts() -> None:
    name, doc = resource()
    other = name, {**doc, "resource_path": "other.h5"}
    world = taken(begin(), descriptor(), resource(), other, resource(), datum(1), event(1, "q/1"), stop())
    assert world.codes == [(3, "conflicting_resource")]
    assert parts(world) == [("q", 0, 1)]
    assert world.committed == 8


def test_a_resource_may_come_again_in_another_run_that_it_names_then() -> None:
    world = taken(begin(), descriptor(), resource(), datum(1), event(1, "q/1"), stop())
    world.publish(begin("b"), descriptor("db", "b"), resource(run="b"), datum(2), event(1, "q/2", "db"), stop("b"))
    world.settle()
    assert world.codes == []
    assert parts(world, ("b", *NODE[1:])) == [("q", 0, 1)]


def test_another_datum_of_the_same_id_is_refused_with_all_of_its_page() -> None:
    columns = {"datum_id": ["q/2", "q/1"], "datum_kwargs": {"label": [2, 9]}}
    page = "datum_page", {"resource": "q", **columns}
    one = datum(1, label=1)
    world = taken(begin(), descriptor(), resource(), one, page, one, event(1, "q/1"), datum(1, label=3), stop())
    assert world.codes == [(4, "conflicting_datum"), (7, "conflicting_datum")]
    assert parts(world) == [("q", 0, 1)]


# ---------------------------------------------------------------- refusals


def refusing(key: str, outcome: w.Outcome) -> Any:
    def fault(request: w.Request) -> w.Outcome | None:
        return outcome if isinstance(request, w.RegisterExternal) and request.path[-1] == key else None

    return fault


def test_a_key_that_is_refused_costs_only_its_own_documents() -> None:
    world = ready()
    world.tiled.faults.append(refusing("bad", w.Rejected("no such format", 422)))
    world.publish(begin(), descriptor(bad=EXTERNAL), stream_resource(), stream_resource("p", key="bad"),
                  stream_datum(0, 1), stream_datum(0, 1, "p"), event(1, None))  # fmt: skip
    world.settle()
    world.publish(stream_datum(1, 2), stream_datum(1, 2, "p"), stop(primary=2))
    world.settle()
    assert sorted(world.codes) == [(3, "external_refused"), (5, "external_refused"), (8, "external_refused")]
    assert parts(world) == [("q", 0, 2)]
    metadata = world.tiled.nodes["r",].metadata
    assert metadata[OURS]["state"] == "incomplete"
    assert "no such format" in metadata["notes"][0]
    assert world.committed == 10


def test_a_missing_package_stops_the_service() -> None:
    world = ready()
    world.tiled.faults.append(refusing("img", w.Denied("install it", 0)))
    world.publish(begin(), descriptor(), stream_resource(), stream_datum(0, 1))
    world.settle()
    assert world.stop == fx.Stop("Forbidden", "install it")
    assert world.letters == []


def test_a_run_that_is_refused_takes_its_external_documents_along() -> None:
    world = ready()
    world.tiled.faults.append(lambda request: w.Rejected("no", 422) if isinstance(request, w.CreateTable) else None)
    documents = [begin(), descriptor(), resource("q", None), datum(1), event(1, "q/1"), stream_resource("p"),
                 stream_datum(0, 1, "p"), stop()]  # fmt: skip
    world.publish(*documents)
    world.settle()
    assert sorted(set(world.codes)) == [(offset, "run_failed") for offset in range(len(documents))]
    assert world.committed == len(documents)


def test_a_run_that_is_refused_takes_along_what_was_read_ahead_of_its_order() -> None:
    """Events of one layout are taken all at once: before a document that stands between them."""
    world = World(replace(POLICY, layout_rows_min=1), MiniTiled())
    world.assign()
    world.tiled.faults.append(lambda request: w.Rejected("no", 422) if isinstance(request, w.CreateTable) else None)
    baseline = [("event", event_doc(number, "", "db")) for number in range(1, 9)]
    documents = [begin(), descriptor(), ("descriptor", descriptor_doc("db", "r", "baseline")), resource(), datum(1),
                 *baseline[:4], event(1, "q/1"), *baseline[4:]]  # fmt: skip
    world.publish(*documents)
    world.settle()
    assert sorted(set(world.codes)) == [(offset, "run_failed") for offset in range(len(documents))]


def test_a_rebuild_does_not_take_the_resource_of_a_run_that_is_over_for_one_of_the_run_that_fails() -> None:
    log = [
        begin("a"),
        begin("b"),
        descriptor("da", "a"),
        resource("q", "a"),
        datum(1),
        event(1, "q/1", "da"),
        stop("a"),
    ]
    before = taken(*log)
    heir = World(POLICY, before.tiled, logs=before.logs)
    heir.assign(committed=7, point=before.commits[-1][2])
    heir.tiled.faults.append(lambda request: w.Rejected("no", 422) if isinstance(request, w.CreateContainer) else None)
    heir.publish(descriptor("db", "b"))
    heir.settle()
    assert before.commits[-1][2].start == 1
    assert sorted(set(heir.codes)) == [(1, "run_failed"), (7, "run_failed")]


def test_a_lost_reply_is_asked_again() -> None:
    world = ready()
    answers = [w.Unknown("read timeout")]

    def lost(request: w.Request) -> w.Outcome | None:
        if isinstance(request, w.RegisterExternal) and answers:
            world.tiled.apply(request)
            return answers.pop()
        return None

    world.tiled.faults.append(lost)
    world.publish(begin(), descriptor(), stream_resource(), stream_datum(0, 1), stop())
    world.settle()
    assert parts(world) == [("q", 0, 1)]
    assert world.committed == 5


def test_the_audit_puts_right_what_a_late_request_made_smaller() -> None:
    world = ready()
    world.publish(begin(), descriptor(), stream_resource(), stream_datum(0, 1))
    world.settle()
    (late,) = registrations(world)
    world.publish(stream_datum(1, 5))
    world.settle()
    world.tiled.shrink(late)
    assert parts(world) == [("q", 0, 1)]
    world.publish(stop())
    world.settle()
    assert parts(world) == [("q", 0, 5)]


def test_a_node_does_not_shrink_because_the_log_has_lost_what_its_rows_came_from() -> None:
    first = taken(begin("a"), descriptor("da", "a"), resource("q", "a"), stop("a"), begin("b"), descriptor("db", "b"),
                  datum(1), event(1, "q/1", "db"))  # fmt: skip
    _, committed, point = first.commits[-1]
    assert isinstance(point, ResumePoint)
    assert (committed, point.start) == (8, 2)
    second = World(POLICY, first.tiled, logs={HOME: first.logs[HOME][4:]})
    second.assign(committed=committed, point=point, low=4)
    second.position[HOME] = committed
    second.publish(stop("b", primary=1))
    second.settle()
    assert parts(second, ("b", "primary", "img")) == [("q", 0, 1)]
    assert second.tiled.facts(("b",))["state"] == "incomplete"


# ---------------------------------------------------------------- after a crash


def everything(rng: random.Random) -> Documents:
    """A run with both kinds of external data, in an order that may be."""
    flown = [stream_datum(start, start + 2, "p", to="e") for start in range(0, 20, 2)]
    pairs = [(datum(number, "q", **rng.choice([NO_KWARGS, {"frame": number - 1}])), event(number, f"q/{number}"))
             for number in range(1, 11)]  # fmt: skip
    stepped = [document for pair in pairs for document in (pair if rng.random() < 0.5 else pair[::-1])]
    body = [*flown, *stepped]
    turns = sorted(range(len(body)), key=lambda at: (rng.random() if at < len(flown) else at, at))
    mixed = [*flown, *stepped] if rng.random() < 0.3 else [body[at] for at in turns]
    mixed.insert(rng.randrange(len(mixed)), flown[3])  # once more
    return [begin(), descriptor(), descriptor("e", name="fly"), resource("q", rng.choice(["r", None])),
            stream_resource("p"), *mixed]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_who_reads_the_log_again_comes_to_the_same_plan(seed: int) -> None:
    rng = random.Random(seed)
    documents = everything(rng)
    steady = taken(*documents, stop())
    cut = rng.randint(1, len(documents))
    dead = ready()
    for document in documents[:cut]:
        dead.publish(document)
        dead.tick(rng.choice((0.0, 0.3, 1.0)))
    _, committed, point = dead.commits[-1] if dead.commits else (HOME, 0, None)
    heir = World(POLICY, dead.tiled, logs=dead.logs)
    heir.assign(committed=committed, point=point)
    heir.publish(*documents[cut:], stop())
    heir.settle()
    for path in (NODE, ("r", "fly", "img")):
        assert parts(heir, path) == parts(steady, path)
    assert heir.letters == steady.letters == []
    assert heir.tiled.facts(("r",))["state"] == "complete"
    assert Counter(type(ask.request) for ask in heir.kinds(fx.Ask))[w.RegisterExternal] > 0


def test_nodes_made_after_a_restart_have_the_tags_too() -> None:
    first = ready()
    first.publish(("start", start_doc(tiled_access_tags="secret")), descriptor(), stream_resource())
    first.settle()
    _, committed, point = first.commits[-1]
    assert isinstance(point, ResumePoint)
    second = World(POLICY, first.tiled, logs=first.logs)
    second.assign(committed=committed, point=point)
    second.publish(stream_datum(0, 1), stop())
    second.settle()
    assert {request.access_tags for request in registrations(second)} == {("secret",)}
    assert parts(second) == [("q", 0, 1)]
