"""Names that Tiled takes, whatever the keys are called; each key keeps its own wherever that is possible."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiled.adapters.sql import COLUMN_NAME_PATTERN, is_safe_identifier

from tiled_ingest.core.rows.names import beside, renames

NUMBER = {"dtype": "number", "shape": [], "source": "s"}
EXTERNAL = {**NUMBER, "external": "EXTERNAL:"}
ODD = st.sampled_from(
    ["time", "TIME", "seq_num", "ts_x", "TS_x", "x", "X", "a(b)", "a/b", "ü" * 40, "internal", "", ".", "ctid"]
)
KEYS = st.dictionaries(st.text(max_size=70) | ODD, st.sampled_from([NUMBER, EXTERNAL]), max_size=12)


def stored(data_keys: dict[str, Any]) -> dict[str, str]:
    found = renames(data_keys)
    return {key: found.get(key, key) for key in data_keys}


@given(KEYS)
def test_tiled_takes_every_name_and_no_two_share_a_column(data_keys: dict[str, Any]) -> None:
    names = stored(data_keys)
    columns = ["seq_num", "time"]
    for key, name in names.items():
        assert name
        assert "/" not in name
        if "external" not in data_keys[key]:
            columns += [name, f"ts_{name}"]
            assert all(is_safe_identifier(column, COLUMN_NAME_PATTERN) for column in (name, f"ts_{name}"))
    assert len({column.lower() for column in columns}) == len(columns)
    assert len(set(names.values())) == len(names)


@given(KEYS)
def test_names_depend_on_the_keys_alone(data_keys: dict[str, Any]) -> None:
    assert renames(data_keys) == renames(dict(data_keys))


@pytest.mark.parametrize(
    "name", ["x", "det1_stats-total", "a b", "a.b", "select", "ts_alone", "x" * 60, "motor:position"]
)
def test_a_name_that_tiled_takes_stays(name: str) -> None:
    assert renames({name: NUMBER}) == {}


@pytest.mark.parametrize("name", ["a(b", "a%b", "100k", "é", "_a", "x" * 61, "a\nb", "..", "", "rowid", "half \ud800"])
def test_a_name_that_tiled_refuses_is_made_anew(name: str) -> None:
    assert set(renames({name: NUMBER})) == {name}


def test_the_field_s_rule_for_reserved_names() -> None:
    assert renames({"time": NUMBER, "seq_num": NUMBER}) == {"time": "time_", "seq_num": "seq_num_"}
    assert renames({"ts_x": NUMBER, "x": NUMBER}) == {"ts_x": "key_ts_x_a3f4fa32"}
    assert renames({"internal": {**NUMBER, "dtype": "array"}}) == {"internal": "internal_"}
    assert renames({"internal": NUMBER}) == {}


def test_of_two_that_differ_in_case_the_first_keeps_its_name() -> None:
    assert set(renames({"X": NUMBER, "x": NUMBER})) == {"x"}
    assert set(renames({"x": NUMBER, "X": NUMBER})) == {"X"}


def test_names_of_external_data_may_differ_in_case_alone() -> None:
    """They are nodes' names: only SQL's columns do not tell case apart."""
    assert renames({"Cam": EXTERNAL, "cam": EXTERNAL}) == {}
    assert renames({"Cam": NUMBER, "cam": EXTERNAL}) == {}
    assert renames({"Cam": EXTERNAL, "cam": NUMBER, "Time": EXTERNAL}) == {}
    assert set(renames({"Cam": EXTERNAL, "x": NUMBER, "X": NUMBER})) == {"X"}


def test_a_later_key_stands_beside_the_known_ones() -> None:
    known = {"a": NUMBER, "Cam": EXTERNAL}
    assert beside("b", NUMBER, known) == "b"
    assert beside("A", NUMBER, known) != "A"
    assert beside("ts_a", NUMBER, known) != "ts_a"
    assert beside("cam", NUMBER, known) == "cam"
    assert beside("A", EXTERNAL, known) == "A"
    assert beside("ts_a", EXTERNAL, known) != "ts_a"
