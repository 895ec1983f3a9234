"""Every test here runs on each broker, on its real server: one server a broker and run, or one of the test's own.

What is about servers runs on each broker that has one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from houses import BROKERS, SERVERS, House, ProxiedHouse, ServedHouse, Stage, build, missing  # noqa: E402 - found by the line above

PROVEN = [broker for broker in BROKERS if missing(broker) is None]
SERVED = [broker for broker in PROVEN if broker in SERVERS]
_houses: dict[str, House] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a house on each broker that can live in it."""
    for name, brokers in (("house", PROVEN), ("own_house", SERVED), ("proxied_house", SERVED)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, brokers, indirect=True)


@pytest.fixture(scope="session", autouse=True)
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """End the servers that were started."""
    yield
    for house in _houses.values():
        house.close()
    _houses.clear()


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> House:
    """Return where a broker lives; its server is shared by all tests that don't harm it."""
    broker = request.param
    if broker not in _houses:
        _houses[broker] = build(broker, tmp_path_factory.mktemp(broker))
    if broker == "sqlite":
        monkeypatch.setenv("BOOST_SQLITE_PATH", str(_houses[broker].folder / "queue.db"))
    return _houses[broker]


@pytest.fixture
def own_house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedHouse]:
    """Yield where a broker lives, with a server that the test may harm."""
    house = ServedHouse(request.param, tmp_path)
    yield house
    house.close()


@pytest.fixture
def proxied_house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProxiedHouse]:
    """Yield where a broker's server is reached through a proxy, which the test may cut."""
    house = ProxiedHouse(request.param, tmp_path)
    yield house
    house.close()


@pytest.fixture
def stage(house: House) -> Iterator[Stage]:
    """Yield an opened broker."""
    stage = Stage(house)
    yield stage
    stage.close()


assert os.environ.get("CI") != "true" or PROVEN == list(BROKERS), (
    "with CI every broker must be proven: tools/servers install"
)
