"""A client of an application of Tiled in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tiled.client import from_context

from tests.rig.application import application


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with application(tmp_path_factory.mktemp("tiled")) as context:
        yield from_context(context)
