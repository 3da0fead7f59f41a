"""These tests run when they are asked for (`make test-deploy`), not with `make test`: they need tools of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.image import Build, missing
from tests.deploy.live import Live, running
from tiled_ingest.demo.broker import Broker

HERE = Path(__file__).parent
IMAGE_TESTS = HERE / "test_image.py"
IMAGE = "localhost/tiled-ingest:test"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore them unless an argument lies in this folder."""
    asked = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in asked) else collection_path.is_relative_to(HERE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the image's tests last: it is built while the others run."""
    items.sort(key=lambda item: item.path == IMAGE_TESTS)


@pytest.fixture(scope="session", autouse=True)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build | None]:
    """The image's build, under way from the first test on; `None` where it is not tested, or cannot be built."""
    wanted = any(item.path == IMAGE_TESTS for item in request.session.items)
    if not wanted or missing():
        yield None
        return
    under_way = Build(IMAGE, tmp_path_factory.mktemp("image") / "build.log")
    yield under_way
    under_way.close()


@pytest.fixture(scope="session")
def live(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The live scene, for all tests of it, in the order of their files."""
    with running(broker, tmp_path_factory.mktemp("live")) as made:
        yield made
