"""Pushing from threads, event loops and forked children, all at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
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


def test_an_app_can_be_used_after_its_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """close() publishes what was handed over; pushing again opens the broker anew, from threads and loops."""
    monkeypatch.setenv("BOOST_SQLITE_PATH", str(tmp_path / "queue.db"))
    app = App("again", broker="sqlite", store="sqlite")

    @app.boost("job")
    def job(number: int) -> None: ...

    for number in range(3):
        job.push(number)
        asyncio.run(job.apush(number))
        app.close()

    assert job.depth().ready == 6
    app.close()


# --- forks -------------------------------------------------------------------------------------------------

FORKING = """
import asyncio, json, os, sys, threading, warnings
from boost_core import App

warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: what is forked here is made for it
app = App("forking", broker=sys.argv[1], store=sys.argv[1])

@app.boost("job", results=True)
def job(text: str) -> str:
    return f"{os.getpid() == parent} {text}"

@app.boost("untouched")
def untouched() -> None: ...

def in_child(work):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        answer = json.load(file)
    os.waitpid(pid, 0)
    return answer

parent = os.getpid()
"""


def forked(tmp_path: Path, broker: str, script: str) -> Any:
    """Run a script that forks, in a process of its own, and return what it prints as JSON."""
    code = FORKING + textwrap.dedent(script)
    environ = {"BOOST_SQLITE_PATH": str(tmp_path / "queue.db"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, broker],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_forked_child_pushes_to_the_same_queue(tmp_path: Path) -> None:
    """With SQLite a child pushes after its parent did, from sync code and loops, with ids of its own; both are run."""
    script = """
        mine = [job.push("parent").id, asyncio.run(job.apush("parent async")).id]
        theirs = in_child(lambda: [job.push("child").id, asyncio.run(job.apush("child async")).id])
        again = job.push("parent again").id
        depth = job.depth().ready
        from boost_core import Job
        with app.worker(job):
            results = [Job(id, job, True).get(timeout=20) for id in [*mine, *theirs, again]]
        app.close()
        print(json.dumps([depth, len({*mine, *theirs, again}), results]))
    """
    texts = ["parent", "parent async", "child", "child async", "parent again"]

    assert forked(tmp_path, "sqlite", script) == [5, 5, [f"True {text}" for text in texts]]


def test_a_forked_child_may_work_itself(tmp_path: Path) -> None:
    """A child of a pushing process runs a worker of its own on the parent's jobs and waits for their results."""
    script = """
        pushed = job.push("pushed by the parent")

        def work():
            with app.worker(job):
                return [pushed.get(timeout=20), job.push("its own").get(timeout=20)]

        theirs = in_child(work)
        print(json.dumps([theirs, pushed.get(timeout=20), job.depth().ready]))
    """

    theirs = ["False pushed by the parent", "False its own"]
    assert forked(tmp_path, "sqlite", script) == [theirs, theirs[0], 0]


def test_a_fork_of_a_process_with_a_memory_broker_starts_empty(tmp_path: Path) -> None:
    """Memory is the process's own: a child has its own empty queues and can work on them, the parent keeps its jobs."""
    script = """
        job.push("parent")

        def work():
            empty = job.depth().ready
            pushed = job.push("child")
            with app.worker(job):
                return [empty, pushed.get(timeout=20)]

        theirs = in_child(work)
        print(json.dumps([theirs, job.depth().ready]))
    """

    assert forked(tmp_path, "memory", script) == [[0, "False child"], 1]


def test_a_fork_beside_a_thread_that_assembles_doesnt_hang(tmp_path: Path) -> None:
    """A child can push a task for the first time though another thread of the parent was resolving one at the fork."""
    script = """
        resolving, go_on = threading.Event(), threading.Event()
        resolve = type(app.resolver).resolve

        def slowly(self, declared, overrides):
            if os.getpid() == parent and declared.name == "untouched":
                resolving.set()
                assert go_on.wait(20)
            return resolve(self, declared, overrides)

        type(app.resolver).resolve = slowly
        job.push("parent")
        thread = threading.Thread(target=untouched.push)
        thread.start()
        assert resolving.wait(20)
        theirs = in_child(lambda: len(untouched.push().id))
        go_on.set()
        thread.join()
        print(json.dumps([theirs, untouched.depth().ready]))
    """

    assert forked(tmp_path, "sqlite", script) == [32, 2]
