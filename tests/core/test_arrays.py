"""Rows of an array go in exactly once, whatever becomes of the replies, and readers see no row before its values."""

from typing import Any

import pyarrow as pa
import pytest

from tests.core.test_steps import MiniTiled, always, drive, event_doc, once
from tests.core.test_tables import Desk
from tiled_ingest.core import writes as w
from tiled_ingest.core.errors import TiledRejected
from tiled_ingest.core.runs.documents import normalise_descriptor
from tiled_ingest.core.runs.stream import Stream

NODE = ("r", "primary", "a")


class ArrayDesk(Desk):
    """A stream with an array of three integers that has a node of its own."""

    def __init__(self, *seq_nums: int, fresh: bool = True, shape: list[int | None] | None = None) -> None:
        super().__init__(*seq_nums, fresh=fresh)
        keys = {"a": {"dtype": "array", "shape": shape or [30], "dtype_numpy": "<i8", "source": "s"}}
        doc = {"uid": "d", "time": 1.0, "run_start": "r", "name": "primary", "data_keys": keys}
        stream = Stream(("r", "primary"), normalise_descriptor(doc), fresh=fresh)
        self.run.streams["primary"] = stream
        self.values = type(self.values)(self.around, self.run, stream)

    def add(self, tiled: MiniTiled, *values: Any) -> set[int]:
        first = self.run.acceptance.distinct("primary") + 1
        events = [event_doc(number, a=value) for number, value in enumerate(values, first)]
        misfits: set[int] = drive(self.values.append(self.batch(*events)), tiled, self.log).result
        return misfits


def patches(tiled: MiniTiled) -> list[tuple[str, int]]:
    return [(ask.path[-1], ask.offset) for ask in tiled.asked if isinstance(ask, w.PatchArray)]


def test_rows_go_to_a_store_and_the_node_shows_them() -> None:
    desk, tiled = ArrayDesk(), Desk().empty_tiled()
    desk.add(tiled, [1, 2, 3], [4, 5, 6])
    desk.add(tiled, [7, 8, 9])
    assert tiled.values_at(NODE) == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert patches(tiled) == [("rebuild-3-n1", 0), ("rebuild-3-n1", 2)]
    assert all(ask.path != NODE for ask in tiled.asked if isinstance(ask, w.PatchArray))


def test_a_patch_whose_reply_was_lost_is_found() -> None:
    desk, tiled = ArrayDesk(), Desk().empty_tiled()

    def lost(request: w.Request) -> w.Outcome | None:
        if isinstance(request, w.PatchArray) and not tiled.stored:
            tiled.apply(request)
            return w.Unknown("read timeout")
        return None

    tiled.faults.append(lost)
    desk.add(tiled, [1, 2, 3])
    assert (tiled.values_at(NODE), patches(tiled)) == ([[1, 2, 3]], [("rebuild-3-n1", 0)])


def test_a_patch_that_stays_absent_is_never_repeated_in_its_store() -> None:
    desk, tiled = ArrayDesk(), Desk().empty_tiled()
    desk.add(tiled, [1, 2, 3])
    tiled.faults.append(once(w.PatchArray, w.Unknown("reset")))
    desk.add(tiled, [4, 5, 6])
    assert tiled.values_at(NODE) == [[1, 2, 3], [4, 5, 6]]
    stores = [store for store, _ in patches(tiled)]
    assert stores == ["rebuild-3-n1", "rebuild-3-n1", *[stores[-1]] * 2]
    assert stores[-1] != "rebuild-3-n1"


@pytest.mark.parametrize("shape", [[30], [None]], ids=["zarr", "ragged"])
def test_what_is_too_large_for_a_proxy_goes_in_parts(shape: list[int | None]) -> None:
    desk, tiled = ArrayDesk(shape=shape), Desk().empty_tiled()

    def limited(request: w.Request) -> w.Outcome | None:
        patch = request.array.nbytes if isinstance(request, w.PatchArray) else 0
        chunk = (
            request.table.nbytes if isinstance(request, w.Append) and "node1-data" in request.table.schema.names else 0
        )
        return w.Rejected("413", 413) if max(patch, chunk) > 200 else None

    tiled.faults.append(limited)
    desk.add(tiled, [1, 2, 3])
    desk.add(tiled, *[[number, 2, 3] for number in range(2, 30)])
    assert desk.run.streams["primary"].arrays["a"].rows == 29
    if shape == [30]:
        assert tiled.values_at(NODE) == [[number, 2, 3] for number in range(1, 30)]


def test_a_row_that_is_too_large_for_a_proxy_is_a_rejection() -> None:
    desk, tiled = ArrayDesk(), Desk().empty_tiled()
    tiled.faults.append(always(w.PatchArray, w.Rejected("413", 413)))
    with pytest.raises(TiledRejected, match="cannot be divided"):
        desk.add(tiled, [1, 2, 3], [4, 5, 6])


def test_a_value_that_asks_for_another_type_gets_a_new_store() -> None:
    desk, tiled = ArrayDesk(), Desk().empty_tiled()
    desk.add(tiled, [1, 2, 3])
    assert desk.add(tiled, [0.5, 2, 3], "OFF") == {1}
    assert str(tiled.values_at(NODE)) == "[[1.0, 2.0, 3.0], [0.5, 2.0, 3.0], [nan, nan, nan]]"
    assert tiled.nodes[NODE].metadata["dtype_numpy"] == "float64"


def test_the_audit_puts_our_store_back() -> None:
    desk, tiled = ArrayDesk(), Desk().empty_tiled()
    desk.add(tiled, [1, 2, 3])
    node = tiled.nodes[NODE]
    assert node.array is not None
    theirs = w.ArraySource(
        node.array.id, "array", node.array.dtype, (0, 3), ((1,), (3,)), node.array.dims,
        assets=(w.Asset("elsewhere", "a0"),), properties={"tiled_ingest": {"epoch": 2}},
    )  # fmt: skip
    tiled.nodes[NODE] = w.Node(node.metadata, None, theirs)
    drive(desk.audit(), tiled, desk.log)
    assert tiled.values_at(NODE) == [[1, 2, 3]]


def test_a_refused_patch_fails_the_run() -> None:
    desk, tiled = ArrayDesk(), Desk().empty_tiled()
    tiled.faults.append(always(w.PatchArray, w.Rejected("no", 422)))
    with pytest.raises(TiledRejected):
        desk.add(tiled, [1, 2, 3])


@pytest.mark.parametrize("is_ours", [True, False], ids=["of this claim", "of an earlier one"])
def test_the_audit_writes_a_ragged_array_anew_whose_chunk_duckdb_lost(is_ours: bool) -> None:
    desk, tiled = ArrayDesk(shape=[None]), Desk().empty_tiled()
    desk.add(tiled, [1, 2, 3], [4])
    desk.add(tiled, [5, 6])
    first = tiled.nodes[NODE].array
    assert first is not None
    del tiled.rows[first.dataset][0]
    state = desk.run.streams["primary"].arrays["a"]
    if not is_ours:
        state.store = state.shown = state.node = None
    drive(desk.audit(), tiled, desk.log)
    shown = tiled.nodes[NODE].array
    assert shown is not None
    assert shown.dataset != first.dataset
    chunks = pa.concat_tables(tiled.rows[shown.dataset])
    assert [value for row in chunks["node1-data"].to_pylist() for value in row or ()] == [1, 2, 3, 4, 5, 6]
    assert len(chunks) == len(shown.chunks[0] or ())


def test_the_audit_of_a_whole_ragged_array_reads_one_column_and_writes_nothing() -> None:
    desk, tiled = ArrayDesk(shape=[None]), Desk().empty_tiled()
    desk.add(tiled, [1, 2, 3], [4])
    before = len(tiled.asked)
    drive(desk.audit(), tiled, desk.log)
    assert [type(ask) for ask in tiled.asked[before:]][:2] == [w.GetNode, w.CountRows]
    assert not any(isinstance(ask, w.Append | w.PutArray) for ask in tiled.asked[before:])


def test_the_audit_writes_a_ragged_array_anew_whose_chunks_cannot_be_read() -> None:
    desk, tiled = ArrayDesk(shape=[None]), Desk().empty_tiled()
    desk.add(tiled, [1, 2, 3], [4])
    first = tiled.nodes[NODE].array
    assert first is not None
    store = (*NODE, first.properties["tiled_ingest"]["child"])
    tiled.faults.append(
        once(w.CountRows, *[w.Unknown("boom", 500)] * 99, where=lambda ask: ask.path[: len(store)] == store)
    )
    drive(desk.audit(), tiled, desk.log)
    shown = tiled.nodes[NODE].array
    assert shown is not None
    assert shown.dataset != first.dataset
