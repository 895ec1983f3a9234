"""What becomes of a message: run, retried, dead, parked, given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from boost_core import App, Drop, RateLimited, Reject, Requeue, Retry, current
from boost_core.errors import BadOption, JobFailed, JobTimeout, ResultTimeout
from boost_core.testing import FakeClock
from letters import dead_letters, eventually


def test_a_pushed_job_runs_and_gives_its_result(app: App) -> None:
    """What the function returns comes back from job.get()."""

    @app.boost(results=True)
    def add(a: int, b: int = 1) -> int:
        return a + b

    job = add.push(2, b=40)

    with app.worker():
        assert job.get(timeout=10) == 42


def test_a_plain_call_runs_here(app: App) -> None:
    """Calling a task runs the function at once, without any broker."""

    @app.boost(broker="no-such-broker")
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3


def test_many_jobs_all_run_once(app: App) -> None:
    """Ten thousand jobs pushed in batches each run exactly once."""
    seen: list[int] = []

    @app.boost("many")
    def note(number: int) -> None:
        seen.append(number)

    note.push_many(note.call(number) for number in range(10_000))
    with app.worker() as worker:
        eventually(worker.is_idle)

    assert sorted(seen) == list(range(10_000))


def test_coroutine_functions_run_on_asyncio(app: App) -> None:
    """A coroutine function gets the asyncio pool by itself and may await."""
    import asyncio

    @app.boost(results=True)
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    with app.worker():
        assert add.push(1, 2).get(timeout=10) == 3
    assert add.plan.pool.name == "asyncio"


def test_solo_runs_one_at_a_time_in_order(app: App) -> None:
    """The solo pool runs all jobs in one thread, in the order they were pushed."""
    seen: list[tuple[int, int]] = []

    @app.boost("ordered", pool="solo")
    def note(number: int) -> None:
        seen.append((number, threading.get_ident()))

    note.push_many((number,) for number in range(200))
    with app.worker() as worker:
        eventually(worker.is_idle)

    assert [number for number, _ in seen] == list(range(200))
    assert len({thread for _, thread in seen}) == 1


def test_concurrency_bounds_what_runs_at_once(app: App) -> None:
    """Two tasks share the pool's threads, each within its own concurrency."""
    lock, running, most = threading.Lock(), {"a": 0, "b": 0}, {"a": 0, "b": 0}

    def work(name: str) -> None:
        with lock:
            running[name] += 1
            most[name] = max(most[name], running[name])
        threading.Event().wait(0.002)
        with lock:
            running[name] -= 1

    @app.boost("a", concurrency=2)
    def a() -> None:
        work("a")

    @app.boost("b", concurrency=3)
    def b() -> None:
        work("b")

    a.push_many(() for _ in range(40))
    b.push_many(() for _ in range(40))
    with app.worker() as worker:
        eventually(worker.is_idle)

    assert most == {"a": 2, "b": 3}


def test_a_failing_job_is_retried_then_dead(app: App) -> None:
    """retries=2 means three runs; then the dead letter has the reason, each attempt and the traceback."""
    attempts: list[int] = []

    @app.boost("failing", retries=2, results=True)
    def fail() -> None:
        attempts.append(current.attempt)
        raise RuntimeError("broken wheel")

    job = fail.push()
    with app.worker(), pytest.raises(JobFailed, match="broken wheel") as caught:
        job.get(timeout=10)

    assert attempts == [1, 2, 3]
    assert (caught.value.state, caught.value.reason) == ("failed", "failed")
    (letter,) = dead_letters(fail)
    assert (letter.id, letter.reason, letter.attempt) == (job.id, "failed", 3)
    assert [failure.attempt for failure in letter.failures] == [1, 2, 3]
    assert letter.error == "RuntimeError: broken wheel"
    assert "in fail" in (letter.traceback or "")


@pytest.mark.parametrize("how", ["task", "message"])
def test_retries_zero_means_none(app: App, how: str) -> None:
    """retries=0 is no retry, said for the task or for one message."""
    attempts: list[int] = []

    @app.boost("once", **({"retries": 0} if how == "task" else {}))
    def fail() -> None:
        attempts.append(current.attempt)
        raise RuntimeError

    (fail if how == "task" else fail.options(retries=0)).push()
    with app.worker():
        eventually(lambda: dead_letters(fail))

    assert attempts == [1]


def test_give_up_on_and_retry_on_choose_what_is_retried(app: App) -> None:
    """Exceptions of give_up_on, or outside of retry_on, are dead letters at once."""
    runs: list[str] = []

    @app.boost("picky", retry_on=(OSError,), give_up_on=(PermissionError,), retries=1)
    def fail(kind: str) -> None:
        runs.append(kind)
        raise {"os": OSError, "permission": PermissionError, "value": ValueError}[kind](kind)

    fail.push_many([("os",), ("permission",), ("value",)])
    with app.worker():
        eventually(lambda: len(dead_letters(fail)) == 3)

    assert sorted(runs) == ["os", "os", "permission", "value"]


@pytest.mark.parametrize(
    ("steer", "state", "reason"),
    [(Reject("no such customer"), "dead", "no such customer"), (Drop("not today"), "dropped", "not today")],
)
def test_raising_reject_or_drop_ends_the_job(app: App, steer: Exception, state: str, reason: str) -> None:
    """Reject makes a dead letter without retries, Drop leaves only the result; both say why."""

    @app.boost("steered", results=True)
    def steered() -> None:
        raise steer

    job = steered.push()
    with app.worker(), pytest.raises(JobFailed) as caught:
        job.get(timeout=10)

    assert (caught.value.state, caught.value.reason) == (state, reason)
    assert [letter.reason for letter in dead_letters(steered)] == ([reason] if state == "dead" else [])


@pytest.mark.parametrize("steer", [Requeue(), RateLimited(0.0)])
def test_requeue_and_rate_limited_come_back_uncounted(app: App, steer: Exception) -> None:
    """A requeued job runs again with the same attempt number."""
    attempts: list[int] = []

    @app.boost("again", results=True, retries=0)
    def again() -> str:
        attempts.append(current.attempt)
        if len(attempts) < 4:
            raise steer
        return "done"

    with app.worker():
        assert again.push().get(timeout=10) == "done"

    assert attempts == [1, 1, 1, 1]


def test_raising_retry_counts(app: App) -> None:
    """Retry runs the job again as a new attempt, within retries."""
    attempts: list[int] = []

    @app.boost("retried", results=True, retries=1)
    def retried() -> None:
        attempts.append(current.attempt)
        raise Retry(delay=0)

    with app.worker(), pytest.raises(JobFailed):
        retried.push().get(timeout=10)

    assert attempts == [1, 2]


def test_get_times_out(app: App) -> None:
    """A result that doesn't come in time is a ResultTimeout naming job and time."""

    @app.boost("slow", results=True)
    def slow() -> None: ...

    job = slow.push()
    with pytest.raises(ResultTimeout) as caught:
        job.get(timeout=0.01)

    assert str(caught.value) == f"job {job.id} has no result after 0.01 s."


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that only the test moves."""
    return FakeClock()


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[App]:
    """Yield an app whose time is the fake clock's."""
    app = App("timed", broker="memory", store="memory", clock=clock)
    yield app
    app.close()


def test_a_delayed_retry_waits_in_the_broker(timed: App, clock: FakeClock) -> None:
    """While a retry waits, its message is the broker's, and no slot of the worker is taken."""
    attempts: list[int] = []

    @timed.boost("later", retry_delay=30, retries=1, results=True, pool="solo")
    def later(fail: bool) -> str:
        attempts.append(current.attempt)
        if fail and current.attempt == 1:
            raise RuntimeError
        return "done"

    job = later.push(True)
    with timed.worker() as worker:
        eventually(lambda: worker.counts["retried"] == 1)
        assert later.depth().delayed == 1
        assert later.push(False).get(timeout=10) == "done"
        clock.advance(29)
        assert not job.ready()
        clock.advance(2)
        assert job.get(timeout=10) == "done"

    assert attempts == [1, 1, 2]


def test_a_backoff_waits_longer_each_time(timed: App, clock: FakeClock) -> None:
    """A pair is the first and the longest wait: each is between half and all of twice the one before, in the broker."""
    attempts: list[int] = []

    @timed.boost("later", retry_delay=("8s", "20s"), retries=3)
    def later() -> None:
        attempts.append(current.attempt)
        raise RuntimeError

    later.push()
    with timed.worker() as worker:
        for number, longest in enumerate((8.0, 16.0, 20.0), 1):
            eventually(lambda wanted=number: worker.counts["retried"] == wanted)
            clock.advance(longest / 2 - 0.25)
            assert later.depth().delayed == 1
            clock.advance(longest / 2 + 0.25)
        eventually(lambda: dead_letters(later))

    assert attempts == [1, 2, 3, 4]


def test_backoff_doubles_up_to_its_longest_with_jitter() -> None:
    """A pair is an exponential back-off: between half and all of first * 2**n, at most the longest."""
    from boost_core.controls.retry import backoff

    waits = [[backoff((1.0, 60.0), attempt) for _ in range(200)] for attempt in range(1, 12)]

    for attempt, samples in enumerate(waits):
        full = min(60.0, 2.0**attempt)
        assert full / 2 <= min(samples) < max(samples) <= full


def test_delay_holds_a_message_back(timed: App, clock: FakeClock) -> None:
    """options(delay=...) starts a job no earlier."""

    @timed.boost("delayed", results=True)
    def now() -> float:
        return clock.time()

    started = clock.time()
    job = now.options(delay="1m").push()
    with timed.worker():
        assert now.depth().delayed == 1
        clock.advance(61)
        assert job.get(timeout=10) - started >= 60


def test_priority_goes_first(app: App) -> None:
    """Among waiting jobs those of higher priority are run first."""
    seen: list[str] = []

    @app.boost("levels", pool="solo")
    def note(name: str) -> None:
        seen.append(name)

    note.push("plain")
    note.options(priority=9).push("urgent")
    note.options(priority=5).push("middling")
    with app.worker() as worker:
        eventually(worker.is_idle)

    assert seen == ["urgent", "middling", "plain"]


# --- time-outs -----------------------------------------------------------------------------------


def test_a_thread_is_told_of_its_deadline_and_times_out(app: App) -> None:
    """current.check() raises once the time is up, and the job ends timed_out."""

    @app.boost("long", results=True, timeout=0.05, timeout_grace=30, retries=0)
    def long() -> None:
        while True:
            current.check()
            assert (current.remaining() or 0) <= 0.05

    with app.worker(), pytest.raises(JobFailed) as caught:
        long.push().get(timeout=10)

    assert (caught.value.state, caught.value.reason) == ("timed_out", "timed_out")


def test_a_run_that_ignores_its_deadline_is_abandoned(app: App) -> None:
    """After the grace the job is reported and its slot replaced; what the thread does later counts no more."""
    go_on, ended = threading.Event(), threading.Event()

    @app.boost("deaf", results=True, pool="solo", timeout=0.02, timeout_grace=0.02, retries=0)
    def deaf(wait: bool) -> str:
        if wait:
            go_on.wait(30)
            ended.set()
        return "late" if wait else "next"

    with app.worker() as worker:
        stuck = deaf.push(True)
        with pytest.raises(JobFailed, match="timed_out"):
            stuck.get(timeout=10)
        assert deaf.push(False).get(timeout=10) == "next"
        go_on.set()
        assert ended.wait(10)
        eventually(lambda: worker.counts["late"] == 1)
        with pytest.raises(JobFailed, match="timed_out"):
            stuck.get(timeout=10)


def test_a_coroutine_is_cancelled_at_its_deadline(app: App) -> None:
    """On asyncio the time-out is a real cancellation."""
    import asyncio

    ends: list[str] = []

    @app.boost("sleepy", results=True, timeout=0.02, retries=0)
    async def sleepy() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ends.append("cleaned up")

    with app.worker(), pytest.raises(JobFailed) as caught:
        sleepy.push().get(timeout=10)

    assert caught.value.state == "timed_out"
    assert ends == ["cleaned up"]


def test_check_outside_of_its_time_raises_nothing(app: App) -> None:
    """current.check() lets a job go on that has no time-out and wasn't cancelled."""

    @app.boost("calm", results=True)
    def calm() -> tuple[bool, float | None]:
        current.check()
        return current.cancelled, current.remaining()

    with app.worker():
        assert calm.push().get(timeout=10) == (False, None)
    assert issubclass(JobTimeout, Exception)


# --- stopping ------------------------------------------------------------------------------------


def test_stop_lets_running_jobs_end_and_gives_the_others_back(app: App) -> None:
    """A drain ends what runs; what hasn't started is back on the queue, uncounted."""
    started, go_on = threading.Event(), threading.Event()

    @app.boost("drained", results=True, pool="solo")
    def job(number: int) -> int:
        started.set()
        assert go_on.wait(10)
        return current.attempt

    first, second = job.push(1), job.push(2)
    worker = app.worker()
    worker.start()
    assert started.wait(10)
    worker.drain()
    go_on.set()
    handed_back = worker.stop()

    assert handed_back == 0
    assert first.get(timeout=1) == 1
    assert job.depth().ready == 1
    with app.worker():
        assert second.get(timeout=10) == 1


def test_stop_hands_back_what_doesnt_end_in_time(app: App) -> None:
    """At the end of the drain time-out a running job's message goes back, and its late outcome counts no more."""
    started, go_on = threading.Event(), threading.Event()
    runs: list[int] = []

    @app.boost("stubborn", results=True)
    def stubborn() -> int:
        runs.append(current.attempt)
        if len(runs) == 1:
            started.set()
            while not current.cancelled:
                go_on.wait(0.01)
            current.check()
        return current.attempt

    job = stubborn.push()
    worker = app.worker(drain_timeout=0.05)
    worker.start()
    assert started.wait(10)
    assert worker.stop() == 1
    assert stubborn.depth().ready == 1
    with app.worker():
        assert job.get(timeout=10) == 1

    assert runs == [1, 1]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"drain_timeout": "soon"},
            (
                "a worker: option drain_timeout='soon' can't be used: 'soon' is no duration;"
                " give seconds or text such as '250ms', '1.5s' or '1h30m'"
            ),
        ),
        ({"concurrency": 0}, "a worker: option concurrency=0 can't be used: it must be at least 1"),
        ({"queues": ["b"]}, "no task of this target uses the queue 'b'.\n  Its queues: a"),
    ],
)
def test_what_a_worker_is_given_is_checked(app: App, given: dict[str, Any], text: str) -> None:
    """A worker that could never work as it was told to isn't made."""
    app.boost("a")(lambda: None)

    with pytest.raises(BadOption) as caught:
        app.worker(**given)

    assert str(caught.value) == text


def test_jobs_pushed_from_a_job_know_their_parent(app: App) -> None:
    """A job pushed inside another carries root and parent, whatever the depth."""
    import msgspec

    @app.boost("leaf")
    def leaf() -> None: ...

    @app.boost("root", results=True)
    def root() -> str:
        return leaf.push().id

    with app.worker(root):
        parent = root.push()
        parent.get(timeout=10)
    (frame,) = leaf.broker.peek("leaf", 1)
    envelope = msgspec.json.decode(frame.body.partition(b"\n")[2])

    assert (envelope["root"], envelope["parent"]) == (parent.id, parent.id)


def test_current_outside_of_a_job_says_so() -> None:
    """Asking `current` where no job runs is an error that explains itself."""
    from boost_core.errors import BoostError

    assert not current
    with pytest.raises(BoostError, match="outside of a running job"):
        current.id  # noqa: B018 - the look-up is the test


def test_an_awaited_job_gives_its_result(app: App) -> None:
    """Apush and await work from a running loop, without blocking it."""
    import asyncio

    @app.boost("aio", results=True)
    def double(number: int) -> int:
        return number * 2

    async def main() -> list[int]:
        async with app.worker():
            jobs = await asyncio.gather(*(double.apush(number) for number in range(50)))
            return [await job for job in jobs]

    assert asyncio.run(main()) == [number * 2 for number in range(50)]


def test_a_worker_without_tasks_is_refused() -> None:
    """An app whose tasks nobody imported says so, instead of idling in silence."""
    with pytest.raises(BadOption) as bad:
        App("shop").worker()

    assert str(bad.value) == (
        "app 'shop' declares no task to work on.\n"
        "  Import the modules that declare its tasks first, or name the tasks: app.worker(task)."
    )
