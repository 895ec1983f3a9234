"""Which store results go to, and on which server it is."""

from __future__ import annotations

from typing import Any

import pytest
from boost_core import App
from boost_core.contracts.store import Store
from sites import Site, site_fixture  # noqa: F401 - a fixture

PLUGIN = """
    import attrs
    from boost_core.plugin import BrokerSpec, Capability, Limits, Secret, StoreSpec, hookimpl, option

    @attrs.frozen(kw_only=True)
    class Options:
        url: Secret | None = option(None, help="Where the server is.")

    @attrs.frozen(kw_only=True)
    class FileOptions:
        path: str | None = option(None, help="Where the file is.")

    BROKER = "boost_core.builtin.memory:MemoryBroker"
    STORE = "boost_core.builtin.memory_store:MemoryStore"

    @hookimpl
    def boost_brokers():
        return [
            BrokerSpec(name="near", factory=BROKER, options=Options, store="near"),
            BrokerSpec(name="filed", factory=BROKER, options=Options, store="file"),
        ]

    @hookimpl
    def boost_stores():
        return [
            StoreSpec(name="near", factory=STORE, options=Options),
            StoreSpec(name="file", factory=STORE, options=FileOptions),
        ]
"""


@pytest.fixture
def app_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes an app that finds brokers ``near`` and ``filed``, and stores ``near`` and ``file``."""
    for name in ("BOOST_BROKER", "BOOST_STORE", "BOOST_STORE_NEAR__URL", "BOOST_BROKER_NEAR__URL"):
        monkeypatch.delenv(name, raising=False)
    site.install("acme", text=PLUGIN, points=["brokers:near", "brokers:filed", "stores:near", "stores:file"])

    def app(**given: Any) -> App:
        app = App("test", **given)
        app.registry = site.registry(alone=False)
        return app

    return app


def url_of(store: Store) -> str | None:
    """Return the URL that a store was opened with."""
    url: Any = store.options.url
    return url and url.reveal()  # type: ignore[no-any-return]


def test_a_store_that_goes_with_the_broker_is_on_its_server(app_on: Any) -> None:
    """Where the broker's spec says the store, the broker's URL is the store's."""
    app = app_on(broker="near://host:1")

    assert url_of(app.services.store()) == "near://host:1"


def test_a_store_of_that_name_alone_is_on_the_brokers_server_too(app_on: Any) -> None:
    """The same store chosen by its name, without a place, is where it would be unchosen."""
    assert url_of(app_on(broker="near://host:1", store="near").services.store()) == "near://host:1"


def test_the_brokers_url_may_come_from_its_options(app_on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts wherever it was said: here in the environment."""
    monkeypatch.setenv("BOOST_BROKER_NEAR__URL", "near://host:2")

    assert url_of(app_on(broker="near").services.store()) == "near://host:2"


def test_what_the_store_is_told_wins(app_on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL as the store, or among the store's own options, goes before the broker's."""
    assert url_of(app_on(broker="near://host:1", store="near://other").services.store()) == "near://other"

    monkeypatch.setenv("BOOST_STORE_NEAR__URL", "near://third")
    assert url_of(app_on(broker="near://host:1").services.store()) == "near://third"


def test_a_store_of_another_kind_is_told_nothing_of_the_broker(app_on: Any) -> None:
    """A store that doesn't go with the broker is where it is by itself; one without a URL takes none."""
    assert url_of(app_on(broker="filed://host:1", store="near").services.store()) is None
    assert app_on(broker="filed://host:1").services.store().options.path is None


def test_each_tasks_results_are_beside_its_own_broker(app_on: Any) -> None:
    """Tasks on two servers have a store on each, opened once; a task without a broker has the app's."""
    app = app_on(broker="near://host:1")
    one, same, other = (
        app.boost(name, broker=url, results=True)(lambda: None)
        for name, url in (("one", "near://host:2"), ("same", "near://host:2"), ("other", None))
    )

    stores = [app.services.store(task.plan) for task in (one, same, other)]

    assert list(map(url_of, stores)) == ["near://host:2", "near://host:2", "near://host:1"]
    assert stores[0] is stores[1]
    assert app.waiters.of(one.plan) is app.waiters.of(same.plan) is not app.waiters.of(other.plan)
