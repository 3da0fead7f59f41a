"""These tests run when they are asked for (`make test-deploy`), not with `make test`: they need tools of their own."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore them unless an argument lies in this folder."""
    asked = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in asked) else collection_path.is_relative_to(HERE)
