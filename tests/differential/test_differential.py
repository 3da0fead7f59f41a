"""The same documents through TiledWriter and through ours: all of Tiled is compared."""

from __future__ import annotations

import pytest

from .allowed import sorted_out
from .compare import differences
from .conftest import Scene
from .sources import MAKERS, NOT_YET

pytestmark = pytest.mark.real


def _sources() -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.xfail(reason=NOT_YET[name], strict=True)] if name in NOT_YET else [])
        for name in MAKERS
    ]


@pytest.mark.parametrize("source", _sources())
def test_in_process_the_tree_is_the_same(scene: Scene, source: str) -> None:
    found = differences(scene.tree("theirs", source), scene.tree("ours", source))
    met, unlisted = sorted_out(found)
    scene.met |= met
    assert not unlisted, "\n".join(map(str, unlisted))
