"""Pushing from threads and event loops, all at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from boost_core import App, Task
from boost_core.builtin.memory import MemoryBroker
from boost_core.plugin import BrokerSpec
from boost_core.registry.registry import Registry
from plugged import importable

MEMORY: BrokerSpec = Registry().broker("memory")


@pytest.fixture
def job(app: App) -> Task[[int], int]:
    """Return a task that gives its number back."""

    @app.boost("job", results=True)
    def job(number: int) -> int:
        return number

    return job


def in_threads(*work: Callable[[], Any]) -> None:
    """Run all of it at once, and to the end; fail with what any raises."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], Any]) -> None:
        try:
            barrier.wait(10)
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


def test_threads_push_at_once(app: App, job: Task[[int], int]) -> None:
    """Eight threads push without losing or doubling anything, also where their first push opens the broker."""
    jobs: list[Any] = []

    def push(first: int) -> None:
        jobs.extend(job.push(first + number) for number in range(50))
        jobs.extend(job.push_many((first + 50 + number,) for number in range(50)))

    in_threads(*(lambda first=thread * 100: push(first) for thread in range(8)))
    with app.worker():
        results = [job.get(timeout=20) for job in jobs]

    assert sorted(results) == list(range(800))
    assert len({job.id for job in jobs}) == 800


def test_threads_that_use_an_app_first_together_share_what_it_opens() -> None:
    """Where the very first pushes come at once, all go to one broker, and none that returned is gone."""
    ready = []

    for _ in range(20):
        app = App("fresh", broker="memory")
        task = app.boost("job")(lambda: None)
        in_threads(*[task.push] * 8)
        ready.append(task.depth().ready)
        app.close()

    assert ready == [8] * 20


def test_loops_push_at_once_and_beside_threads(app: App, job: Task[[int], int]) -> None:
    """Event loops in several threads share one publisher; each awaits its own jobs and results."""
    results: list[int] = []

    async def main(first: int) -> None:
        single = await asyncio.gather(*(job.apush(first + number) for number in range(40)))
        batch = await job.apush_many((first + 40 + number,) for number in range(40))
        results.extend([await one for one in [*single, *batch]])

    def plain() -> None:
        results.extend([job.push(number).get(timeout=20) for number in range(160, 170)])

    with app.worker():
        in_threads(lambda: asyncio.run(main(0)), lambda: asyncio.run(main(80)), plain)

    assert sorted(results) == list(range(170))


class SlowBroker(MemoryBroker):
    """A memory broker that opens and publishes once it is told to."""

    entered = threading.Event()
    go_on = threading.Event()

    def open(self) -> None:
        """Wait, then open."""
        self._wait()
        super().open()

    def publish(self, frames: Any, timeout: float) -> None:
        """Wait, then publish."""
        self._wait()
        super().publish(frames, timeout)

    def _wait(self) -> None:
        self.entered.set()
        assert self.go_on.wait(10)
        self.go_on.clear()


@pytest.fixture
def slow() -> Any:
    """Yield a task on a slow broker, and the events of that."""
    made = type("Slow", (SlowBroker,), {"entered": threading.Event(), "go_on": threading.Event()})
    app = App("slow", broker=attrs.evolve(MEMORY, name="slow", factory=importable(made)), store="memory")

    @app.boost("job")
    def job(number: int) -> None: ...

    yield job, made.entered, made.go_on
    app.close()


def test_apush_doesnt_block_the_loop(slow: Any) -> None:
    """While a broker connects and publishes, the loop that awaits apush runs on: here it lets the broker go on."""
    job, entered, go_on = slow

    async def main() -> int:
        pushing = asyncio.create_task(job.apush(1))
        turns = 0
        while not pushing.done():
            if entered.is_set():
                turns += 1
                entered.clear()
                go_on.set()
            await asyncio.sleep(0.001)
        await pushing
        return turns

    assert asyncio.run(main()) == 2
    assert job.depth().ready == 1


def test_a_loop_that_ends_early_harms_no_other(slow: Any) -> None:
    """A push whose loop is gone when it is stored is stored all the same, and later ones of other loops work."""
    job, entered, go_on = slow
    go_on.set()
    assert job.broker is not None
    entered.clear()

    async def leave() -> None:
        pushing = asyncio.create_task(job.apush(1))
        assert await asyncio.to_thread(entered.wait, 10)
        pushing.cancel()

    asyncio.run(leave())
    entered.clear()
    go_on.set()

    async def stay() -> None:
        pushing = asyncio.create_task(job.apush(2))
        assert await asyncio.to_thread(entered.wait, 10)
        go_on.set()
        await pushing

    asyncio.run(stay())

    assert job.depth().ready == 2
