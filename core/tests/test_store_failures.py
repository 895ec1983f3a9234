"""Workers whose store fails: they don't begin what they couldn't end, and say what they left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
from boost_core import App
from boost_core.builtin.memory_store import MemoryStore
from boost_core.plugin import StoreSpec, StoreUnavailable
from plugged import importable


class AwayStore(MemoryStore):
    """A store that can't be opened."""

    def open(self) -> None:
        raise StoreUnavailable("away", "it is away")


class FullStore(MemoryStore):
    """A store that takes nothing."""

    asked: ClassVar[threading.Event]

    def put(self, items: Mapping[str, bytes], ttl: float) -> None:
        self.asked.set()
        raise StoreUnavailable("full", "it is full")


@pytest.fixture
def app_with(request: pytest.FixtureRequest) -> Callable[[type[MemoryStore]], App]:
    """Return what makes an app on a memory broker with a store of this class."""

    def make(kind: type[MemoryStore]) -> App:
        app = App("test", broker="memory", store=StoreSpec(name="frail", factory=importable(kind)))
        request.addfinalizer(app.close)
        return app

    return make


def test_a_worker_without_its_store_doesnt_start(app_with: Callable[[type[MemoryStore]], App]) -> None:
    """A job whose result can't be kept would run again at each start; it isn't fetched."""
    app, ran = app_with(AwayStore), []
    kept = app.boost("kept", results=True)(ran.append)
    kept.push(1)

    with pytest.raises(StoreUnavailable, match="it is away"):
        app.worker().start()

    assert (ran, kept.depth().ready) == ([], 1)


def test_a_worker_without_results_needs_no_store(app_with: Callable[[type[MemoryStore]], App]) -> None:
    """A store that can't be opened keeps nobody from work that has nothing to store."""
    app, ran = app_with(AwayStore), threading.Event()
    plain = app.boost("plain")(ran.set)
    plain.push()

    with app.worker():
        assert ran.wait(20)

    assert plain.depth().ready == 0


def test_what_couldnt_be_settled_is_told_at_the_end(
    app_with: Callable[[type[MemoryStore]], App], caplog: pytest.LogCaptureFixture
) -> None:
    """A job that ended, but whose result can't be stored, is left over: it goes back, and ``stop`` counts it."""
    caplog.set_level(logging.INFO, "boost.worker")
    FullStore.asked = threading.Event()
    app = app_with(FullStore)
    kept = app.boost("kept", results=True)(abs)
    kept.push(-1)
    worker = app.worker()
    worker.start()
    assert FullStore.asked.wait(20)

    left_over = worker.stop(0.0)

    assert (left_over, kept.depth().ready) == (1, 1)
    assert caplog.messages[-1].endswith(" stopped: 1 ended but not settled, to run again")
