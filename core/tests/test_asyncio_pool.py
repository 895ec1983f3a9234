"""What jobs on an event loop can do to each other, and what they can't."""

from __future__ import annotations

import asyncio
import threading

import pytest
from boost_core import App
from boost_core.errors import JobFailed


def test_a_plain_function_that_doesnt_hear_its_timeout_holds_nobody_up(app: App) -> None:
    """Its thread goes on, its slot doesn't: the next job starts at once and not behind it with its own clock running."""
    go_on = threading.Event()

    @app.boost(pool="asyncio", sync="thread", concurrency=1, timeout=0.1, timeout_grace=0, retries=0, results=True)
    def job(deaf: bool) -> str:
        return "late" if deaf and go_on.wait(30) else "in time"

    with app.worker():
        for _ in range(3):
            with pytest.raises(JobFailed, match="timed_out"):
                job.push(True).get(timeout=10)
        in_time = job.options(timeout=10).push(False).get(timeout=10)
        go_on.set()

    assert in_time == "in time"


def test_plain_functions_run_in_threads_that_are_used_again(app: App) -> None:
    """One after the other needs one thread, which isn't the loop's."""
    threads = []

    @app.boost(pool="asyncio", sync="thread", results=True)
    def job() -> None:
        threads.append(threading.current_thread())

    with app.worker():
        for _ in range(10):
            job.push().get(timeout=10)

    assert {thread.name for thread in threads} == {"boost-side"}
    assert len(set(threads)) < 10


def test_a_job_that_stops_the_event_loop_stops_nothing(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """The loop that all jobs share is started again, and the log says so."""

    @app.boost(results=True)
    async def job(stop: bool) -> str:
        if stop:
            asyncio.get_running_loop().stop()
        return "done"

    with app.worker():
        results = [job.push(stop).get(timeout=10) for stop in (True, False, True, False)]

    assert results == ["done"] * 4
    assert caplog.text.count("a job stopped the event loop") == 2


def test_a_job_cancelled_before_its_first_step_has_failed(app: App) -> None:
    """It ends like one that is cancelled later by what isn't boost, and gives its slot to the next."""

    @app.boost(concurrency=2, retries=0, results=True)
    async def job(cancels: bool) -> str:
        me = asyncio.current_task()
        for task in asyncio.all_tasks() if cancels else ():
            if task is not me:
                task.cancel()
        return "ended"

    jobs = job.push_many((number == 0,) for number in range(4))
    with app.worker():
        for number in (0, 2, 3):
            assert jobs[number].get(timeout=10) == "ended"
        with pytest.raises(JobFailed, match="CancelledError"):
            jobs[1].get(timeout=10)
