"""docs/tutorial.md, as it stands: its code is run in order, then what a reader should have seen is checked."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real
TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _run(block: str, names: dict[str, Any]) -> Any:
    """Run a block as a notebook would: the value of a last line that is an expression is what it shows."""
    code = ast.parse(block)
    last = code.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(code, str(TUTORIAL), "exec"), names)
        return None
    exec(compile(ast.Module(code.body[:-1], []), str(TUTORIAL), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(TUTORIAL), "eval"), names)


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown: list[tuple[str, Any]] = []
    try:
        for block in BLOCK.findall(TUTORIAL.read_text()):
            value = _run(block, names)
            shown.append((block.splitlines()[-1], repr(value)))
            if block.startswith("event_data"):
                frame = value
    finally:
        if "server" in names:
            names["server"].stop()

    assert len(shown) >= 15
    events = [doc for name, doc in names["docs"] if name == "event"]
    assert len(events) == 10
    keys = ["det", "motor", "motor_setpoint"]
    wanted = [[event["data"][key] for key in keys] for event in events]
    assert names["dataset"].to_dataframe()[keys].values.tolist() == wanted
    assert frame[keys].values.tolist() == wanted
    assert frame["ts_motor"].tolist() == [event["timestamps"]["motor"] for event in events]
    assert names["rows"][keys].values.tolist() == wanted, "the rows as they are stored"
    assert ("nodes",) in names["catalog_tables"]
    assert any("tables.duckdb" in uri for (uri,) in names["assets"])
