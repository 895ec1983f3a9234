"""What the tests of this package share: real servers, and brokers on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NEEDING = {"launch", "server", "broker", "proxy"}

sys.path.insert(0, str(HERE))


def pytest_configure(config: pytest.Config) -> None:
    """Let the launcher of servers be imported, which lies in the repository also where these tests are copied from it."""
    sys.path.insert(0, str(Path(str(config.inipath)).parent / "tools"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests of a server that can't be had: a test of its own says so."""
    from launcher import available

    if available("nats"):
        gone = [item for item in items if item.path.parent == HERE and NEEDING & set(item.fixturenames)]
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a running server."""
    from launcher import start

    with start("nats", tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Yield what starts a server of this test's own."""
    from launcher import start

    started: list[Any] = []

    def launched(**variant: Any) -> Any:
        started.append(start("nats", tmp_path / f"nats{len(started)}", **variant))
        return started[-1]

    yield launched
    for each in started:
        each.kill()


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Yield what opens a broker, and closes it after the test."""
    from nats_stage import make_broker

    opened: list[Any] = []

    def built(url: str, **options: Any) -> Any:
        broker = make_broker(url, **options)
        broker.open()
        opened.append(broker)
        return broker

    yield built
    for each in opened:
        each.close()


@pytest.fixture
def broker(server: Any, build: Callable[..., Any]) -> Any:
    """Return an opened broker."""
    return build(server.url)


@pytest.fixture
def queue() -> str:
    """Return the name of a queue that no other test uses."""
    from boost_core.plugin import new_id

    return f"q.{new_id()}"


@pytest.fixture
def subscription(broker: Any, queue: str) -> Iterator[Any]:
    """Yield a subscription to the queue."""
    from nats_stage import subscribe

    subscription = subscribe(broker, queue)
    yield subscription
    subscription.close()


@pytest.fixture
def proxy() -> Iterator[Any]:
    """Yield a proxy; its target is to be set."""
    from launcher import Proxy

    with Proxy() as proxy:
        yield proxy
