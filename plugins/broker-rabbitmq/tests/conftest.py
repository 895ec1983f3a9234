"""What the tests of this package share: a real server, and brokers on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NEEDING = {"server", "proxy", "cluster"}

sys.path.insert(0, str(HERE))


def pytest_configure(config: pytest.Config) -> None:
    """Let the launcher of servers be imported, which lies in the repository also where these tests are copied from it."""
    sys.path.insert(0, str(Path(str(config.inipath)).parent / "tools"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests of a server that can't be had: a test of its own says so."""
    from launcher import available

    if available("rabbitmq"):
        gone = [item for item in items if item.path.parent == HERE and NEEDING & set(item.fixturenames)]
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a running server: a second port speaks TLS, ``stranger`` may do nothing, a message has 50 MiB at most."""
    from launcher import free_ports, start
    from launcher.certificates import Certificates
    from rabbitmq_stage import MOST

    folder = tmp_path_factory.mktemp("rabbitmq")
    files = Certificates(folder / "tls")
    files.make()
    port = free_ports(1)[0]
    settings = {
        "max_message_size": MOST,
        "listeners.ssl.default": f"127.0.0.1:{port}",
        "ssl_options.verify": "verify_none",
        "ssl_options.certfile": files.certificate,
        "ssl_options.keyfile": files.key,
    }
    with start("rabbitmq", folder, strangers={"stranger": "danger"}, settings=settings) as server:
        server.secure_url = f"amqps://guest:guest@127.0.0.1:{port}/"
        server.authority = files.ca
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield two nodes of one cluster, of which the second may be killed and started."""
    from launcher import start

    with start("rabbitmq", tmp_path_factory.mktemp("one")) as first:
        with start("rabbitmq", tmp_path_factory.mktemp("two"), joins=first) as second:
            yield first, second


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> float:
    """Trust queues as soon as they are made, since few tests kill the server; return how long that takes otherwise."""
    from boost_broker_rabbitmq import queues

    seconds = queues.SETTLED_SECONDS
    monkeypatch.setattr(queues, "SETTLED_SECONDS", 0.0)
    return seconds


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, hurry: float) -> float:
    """Wait as long for queues that were made as the broker does; return how long."""
    monkeypatch.setattr("boost_broker_rabbitmq.queues.SETTLED_SECONDS", hurry)
    return hurry


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """Yield what opens a broker, and closes it after the test."""
    from rabbitmq_stage import make_broker

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
def subscription(broker: Any, queue: str) -> Any:
    """Return a subscription to the queue."""
    from rabbitmq_stage import subscribe

    return subscribe(broker, queue)


@pytest.fixture
def channel(server: Any) -> Iterator[Any]:
    """Yield a channel of py-amqp's own, as a stranger to boost would use it."""
    from rabbitmq_stage import foreign_channel

    with foreign_channel(server) as channel:
        yield channel


@pytest.fixture
def proxy(server: Any) -> Iterator[Any]:
    """Yield a proxy in front of the server."""
    from launcher import Proxy

    with Proxy(server.port) as proxy:
        proxy.url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
        yield proxy
