"""What the tests of this package share: real servers, and brokers on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
KINDS = ("redis", "valkey")
SETTLED_SECONDS = 4

sys.path.insert(0, str(HERE))


def pytest_configure(config: pytest.Config) -> None:
    """Let the launcher of servers be imported, which lies in the repository also where these tests are copied from it."""
    sys.path.insert(0, str(Path(str(config.inipath)).parent / "tools"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests of servers that can't be had: a test of its own says so."""
    from launcher import available

    missing = {kind for kind in KINDS if available(kind)}
    gone = [item for item in items if item.path.parent == HERE and _needs(item) & missing]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def _needs(item: Any) -> set[str]:
    given = getattr(item, "callspec", None)
    named = {str(value).partition(" ")[0] for value in given.params.values()} & set(KINDS) if given else set()
    return named or ({"redis"} if {"launch", "server", "broker"} & set(item.fixturenames) else set())


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Yield what returns a running server of a kind, always the same one."""
    from launcher import start
    from redis_stage import client, until

    running: dict[str, Any] = {}

    def server(kind: str) -> Any:
        if kind not in running:
            # What outlives a server is proven on servers of their own: this one needn't wait for the disk.
            running[kind] = start(
                kind, tmp_path_factory.mktemp(kind), socket=True, settings={"appendfsync": "everysec"}
            )
            # In its first seconds it can't be told whether a worker has renewed since.
            with client(running[kind].url) as asking:
                until(lambda: asking.info("server")["uptime_in_seconds"] >= SETTLED_SECONDS)
        return running[kind]

    yield server
    for each in running.values():
        each.kill()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Yield what starts a server of this test's own."""
    from launcher import start

    started: list[Any] = []

    def launched(kind: str = "redis", **variant: Any) -> Any:
        started.append(start(kind, tmp_path / f"{kind}{len(started)}", **variant))
        return started[-1]

    yield launched
    for each in started:
        each.kill()


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], Any]) -> Any:
    """Return a running server, of each kind in turn."""
    return servers(request.param)


@pytest.fixture(params=[f"{kind} {name}" for kind in KINDS for name in ("redis", "redis-stream")])
def broker(request: pytest.FixtureRequest, servers: Callable[[str], Any]) -> Iterator[Any]:
    """Yield an opened broker: both, on each kind of server."""
    from redis_stage import build_broker

    kind, name = request.param.split()
    broker = build_broker(name, servers(kind).url)
    yield broker
    broker.close()


@pytest.fixture(params=["redis", "redis-stream"])
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of each broker in turn."""
    return str(request.param)


@pytest.fixture
def queue() -> str:
    """Return the name of a queue that no other test uses."""
    from boost_core.plugin import new_id

    return f"q{new_id()}"


@pytest.fixture
def subscription(broker: Any, queue: str) -> Iterator[Any]:
    """Yield a subscription to the queue."""
    from redis_stage import subscribe

    subscription = subscribe(broker, queue)
    yield subscription
    subscription.close()


@pytest.fixture
def proxy() -> Iterator[Any]:
    """Yield a proxy; its target is to be set."""
    from launcher import Proxy

    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def children() -> Iterator[Callable[..., Any]]:
    """Yield what starts Python processes that end with the test."""
    from redis_stage import Children

    with Children() as children:
        yield children.start
