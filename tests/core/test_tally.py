"""A tally tells multisets of rows apart, whatever their order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.writes import Keys

ROWS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats()), max_size=20)
Row = tuple[int, float]
DIGEST = 11_343_253_593_626_648_424  # it is compared with what an older version may have written


def tally(rows: list[Row]) -> Tally:
    return Tally.of(
        Keys(np.array([seq for seq, _ in rows], np.int64), np.array([time for _, time in rows], np.float64))
    )


@given(ROWS, st.randoms())
def test_order_does_not_matter(rows: list[Row], dice: "np.random.Generator") -> None:
    shuffled = rows.copy()
    dice.shuffle(shuffled)
    assert tally(shuffled) == tally(rows)


@given(ROWS, ROWS)
def test_parts_add_up(one: list[Row], other: list[Row]) -> None:
    assert tally(one) + tally(other) == tally(one + other)
    assert tally(one + other) - tally(other) == tally(one)
    assert tally(one) + Tally() == tally(one)


@given(ROWS, st.tuples(st.integers(0, 100), st.floats(0, 100)))
def test_a_row_more_or_twice_makes_a_difference(rows: list[Row], row: Row) -> None:
    assert tally([*rows, row]) != tally(rows)
    assert tally([*rows, row, row]) != tally([*rows, row])


def test_small_differences_make_a_difference() -> None:
    rows = [(seq, 1e9 + seq) for seq in range(1000)]
    assert tally(rows) != tally([(seq + 1, time) for seq, time in rows])
    assert tally([(1, 2.0), (2, 1.0)]) != tally([(1, 1.0), (2, 2.0)])
    assert tally([(1, 1.0)]) != tally([(1, np.nextafter(1.0, 2.0))])
    assert len({tally([(seq, 0.0)]).digest for seq in range(100_000)}) == 100_000


def test_spellings_of_one_number_make_none() -> None:
    other_nan = np.array([0xFFF8000000000001], np.uint64).view(np.float64)[0]
    assert tally([(1, -0.0)]) == tally([(1, 0.0)])
    assert tally([(1, float("nan"))]) == tally([(1, float(other_nan))])


def test_the_digest_never_changes_between_versions() -> None:
    assert tally([(1, 1.5), (2, 2.5)]) == Tally(2, tally([(2, 2.5)]).digest + tally([(1, 1.5)]).digest & 2**64 - 1)
    assert tally([(1, 1.5)]).digest == DIGEST
