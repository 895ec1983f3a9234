"""Where results go, and how they are waited for."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import attrs
import pytest
from boost_core import App, Task
from boost_core.builtin.memory_store import MemoryStore
from boost_core.errors import StoreNotFound
from boost_core.plugin import BrokerSpec, StoreSpec
from boost_core.registry.registry import Registry
from plugged import built_ins, importable

MEMORY: BrokerSpec = Registry().broker("memory")
STORE: StoreSpec = Registry().store("memory")


def on(**given: Any) -> App:
    """Return an app that finds nothing but what core brings."""
    app = App("results", **given)
    app.registry = Registry((), built_ins())
    return app


def test_results_go_to_the_store_of_the_tasks_own_broker() -> None:
    """Where no store is chosen, a task's broker says it, whatever the app's default broker is."""
    app = on()

    @app.boost("double", broker="memory", results=True)
    def double(number: int) -> int:
        return 2 * number

    with app.worker():
        assert double.push(21).get(timeout=10) == 42
    app.close()


@pytest.fixture
def storeless() -> Task[[], None]:
    """Return a task whose broker says a store that isn't installed."""
    app = on(broker=attrs.evolve(MEMORY, name="storeless", store="acme"))

    @app.boost("job")
    def job() -> None: ...

    return job


MISSING = "no store named 'acme' is installed.\n  Installed stores: memory"


def test_results_without_their_store_are_refused_at_push(storeless: Task[[], None]) -> None:
    """Both where the task says results=True and where a message does; nothing is published."""
    asking = storeless.app.boost("asking", results=True)(lambda: None)

    with pytest.raises(StoreNotFound) as of_task:
        asking.push()
    with pytest.raises(StoreNotFound) as of_message:
        storeless.options(results=True)

    assert str(of_task.value) == str(of_message.value) == MISSING
    assert storeless.depth().ready == 0


def test_results_without_their_store_keep_a_worker_from_starting(storeless: Task[[], None]) -> None:
    """A worker that could never settle what it runs doesn't begin to."""
    storeless.app.boost("asking", results=True)(lambda: None)

    with pytest.raises(StoreNotFound) as missing:
        storeless.app.worker().start()

    assert str(missing.value) == MISSING


class SlowStore(MemoryStore):
    """A memory store that opens once it is told to."""

    entered, go_on = threading.Event(), threading.Event()

    def open(self) -> None:
        """Wait, then open."""
        self.entered.set()
        assert self.go_on.wait(10)
        super().open()


@pytest.fixture
def slow() -> tuple[Any, type[SlowStore]]:
    """Return a task whose store is slow to open, and that store's class with its events."""
    made = type("Slow", (SlowStore,), {"entered": threading.Event(), "go_on": threading.Event()})
    app = on(broker="memory", store=attrs.evolve(STORE, name="slow", factory=importable(made)))
    return app.boost("job", results=True)(lambda: None), made


def awaited_and_given_up(task: Any, store: type[SlowStore]) -> None:
    """Await a job on a loop of its own, give it up while the store opens, and close the loop."""

    async def main() -> None:
        waiting = asyncio.ensure_future(task.push())
        await asyncio.to_thread(store.entered.wait, 10)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        store.go_on.set()

    asyncio.run(main())


def test_a_wait_that_was_given_up_leaves_nothing_behind(slow: tuple[Any, type[SlowStore]]) -> None:
    """A job awaited on a loop that is gone costs nobody their result."""
    task, store = slow
    awaited_and_given_up(task, store)

    with task.app.worker():
        assert task.push().get(timeout=10) is None

    task.app.close()


def test_a_loop_that_closes_under_a_wait_costs_nobody_their_result(slow: tuple[Any, type[SlowStore]]) -> None:
    """A result for a loop that was closed without cancelling what ran on it is dropped; others arrive."""
    task, store = slow
    store.go_on.set()
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(task.push()._wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.to_thread(store.entered.wait, 10))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

    with task.app.worker():
        assert task.push().get(timeout=10) is None

    assert not abandoned.done()
    abandoned.get_coro().close()
    task.app.close()
