"""What the tests of this package share: real servers, and brokers on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NEEDING = frozenset({"launch", "server", "broker"})

sys.path.insert(0, str(HERE))


def pytest_configure(config: pytest.Config) -> None:
    """Let the launcher of servers be imported, which lies in the repository also where these tests are copied from it."""
    sys.path.insert(0, str(Path(str(config.inipath)).parent / "tools"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests that need the server where it can't be had: a test of its own says so."""
    from launcher import available

    if available("kafka") is None:
        return
    gone = [item for item in items if item.path.parent == HERE and NEEDING & set(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield the server of all tests that don't harm it."""
    from launcher import start

    with start("kafka", tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Yield what starts a server of this test's own."""
    from launcher import start

    started: list[Any] = []

    def launched(**variant: Any) -> Any:
        started.append(start("kafka", tmp_path / f"kafka{len(started)}", **variant))
        return started[-1]

    yield launched
    for each in started:
        each.kill()


@pytest.fixture
def stage(server: Any) -> Iterator[Any]:
    """Yield what builds brokers of one group of this test's own, and closes them."""
    from kafka_stage import Stage

    stage = Stage(server.url)
    yield stage
    stage.close()


@pytest.fixture
def broker(stage: Any) -> Any:
    """Return an opened broker."""
    return stage.broker()


@pytest.fixture
def queue() -> str:
    """Return the name of a queue that no other test uses."""
    from boost_core.plugin import new_id

    return f"q{new_id()[:12]}"


@pytest.fixture
def children() -> Iterator[Callable[..., Any]]:
    """Yield what starts Python processes that end with the test."""
    from kafka_stage import Children

    with Children() as children:
        yield children.start
