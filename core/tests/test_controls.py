"""Generator controls: one definition, driven around the call in every world."""

from __future__ import annotations

from typing import Any

import pytest
from boost_core import App, Drop, Requeue, current
from boost_core.errors import BrokerUnavailable, JobFailed
from boost_core.plugin import (
    PROCEED,
    Around,
    Done,
    Failed,
    Run,
    Sleep,
    TimedOut,
    WrapStage,
)
from letters import dead_letters
from plugged import around, control, plug, task_in, worlds

USER = WrapStage.USER


# --- generators ------------------------------------------------------------------------------------------


@worlds
def test_a_generator_control_runs_around_the_call(app: App, world: str) -> None:
    """PROCEED runs the job between what stands before and after it; the control sees the call and its outcome."""
    seen: list[Any] = []

    def body(call: Run) -> Around:
        seen.append(("before", call.task.name, call.message.id, call.attempt))
        outcome = yield PROCEED
        seen.append(("after", outcome.value))
        return outcome

    plug(app, control("watch", around(body), wrap=USER))
    job = task_in(app, world, lambda text: seen.append(("run", text)) or text.upper())
    with app.worker():
        pushed = job.push("quiet")
        assert pushed.get(timeout=10) == "QUIET"

    assert seen == [("before", "job", pushed.id, 1), ("run", "quiet"), ("after", "QUIET")]


@worlds
def test_a_generator_control_may_wait(app: App, world: str) -> None:
    """Sleep waits in the run's own world, before and after the call, by the app's clock at least so long."""
    waits: list[float] = []
    answers: list[Any] = []

    def body(call: Run) -> Around:
        begun = call.clock.monotonic()
        answers.append((yield Sleep(0.02)))
        outcome = yield PROCEED
        yield Sleep(0.02)
        waits.append(call.clock.monotonic() - begun)
        return outcome

    plug(app, control("slow", around(body), wrap=USER))
    job = task_in(app, world, str)
    with app.worker():
        assert job.push("x").get(timeout=10) == "x"

    assert waits[0] > 0.038
    assert answers == [None]


def test_a_waiting_control_doesnt_block_the_loop(app: App) -> None:
    """While one job's control sleeps on asyncio, other jobs of the same loop run; a stop cuts the sleep short."""

    def body(call: Run) -> Around:
        if call.attempt == 1 and not call.message.options:
            yield Sleep(3600)
        return (yield PROCEED)

    plug(app, control("slow", around(body), wrap=USER))
    job = task_in(app, "asyncio", str)
    sleeping = job.push("sleeping")
    with app.worker(drain_timeout=0):
        assert job.options(priority=1, retries=0).push("running").get(timeout=10) == "running"

    assert not sleeping.ready()
    assert job.depth().ready == 1


@worlds
@pytest.mark.parametrize("proceed", [True, False])
def test_a_generator_control_may_choose_another_outcome(app: App, world: str, proceed: bool) -> None:
    """What around() returns is the outcome, whether the job ran or not: a value, a drop, a requeue."""
    ran: list[str] = []
    requeued: list[str] = []

    def body(call: Run) -> Around:
        text = call.task.binder.decode(call.message)[0][0]
        if proceed:
            yield PROCEED
        if text == "requeue" and not requeued:
            requeued.append(text)
            return Requeue()
        return Drop("not wanted") if text == "drop" else Done(f"instead of {text}")

    plug(app, control("chooser", around(body), wrap=USER))
    job = task_in(app, world, ran.append)
    with app.worker():
        value, dropped, again = (job.push(text) for text in ("value", "drop", "requeue"))
        assert value.get(timeout=10) == "instead of value"
        with pytest.raises(JobFailed) as caught:
            dropped.get(timeout=10)
        assert again.get(timeout=10) == "instead of requeue"

    assert (caught.value.state, caught.value.reason) == ("dropped", "not wanted")
    assert sorted(ran) == (["drop", "requeue", "requeue", "value"] if proceed else [])


def test_an_outer_control_may_replace_a_result_that_is_encoded_already(app: App) -> None:
    """A value put in place outside of the control ``result`` reaches the waiter like any other."""

    def body(call: Run) -> Around:
        yield PROCEED
        return Done({"replaced": [1, 2]})

    plug(app, control("outer", around(body), wrap=WrapStage.TRACE))
    job = task_in(app, "threads", str)
    with app.worker():
        assert job.push("x").get(timeout=10) == {"replaced": [1, 2]}


def raises_before(call: Run) -> Around:
    """Fail before the call."""
    raise LookupError("no such thing")
    yield PROCEED


def raises_after(call: Run) -> Around:
    """Fail after the call."""
    yield PROCEED
    raise LookupError("no such thing")


def exits(call: Run) -> Around:
    """Leave by an exception that is no Exception."""
    yield PROCEED
    raise SystemExit(3)


def returns_nothing(call: Run) -> Around:
    """Forget to return the outcome."""
    yield PROCEED


def returns_a_value(call: Run) -> Around:
    """Return a bare value instead of an outcome."""
    yield PROCEED
    return 42


def yields_none(call: Run) -> Around:
    """Forget what is yielded."""
    yield
    return Done()


def yields_a_number(call: Run) -> Around:
    """Yield seconds instead of Sleep(seconds)."""
    yield 0.5
    return Done()


def is_no_generator(call: Run) -> Around:
    """Return an outcome without ever yielding."""
    return Done()


OUTCOME = "it must return an Outcome"
EFFECTS = "it may yield PROCEED and Sleep(seconds)"


@worlds
@pytest.mark.parametrize(
    ("body", "problem", "runs"),
    [
        (raises_before, "LookupError: no such thing", 0),
        (raises_after, "LookupError: no such thing", 1),
        (exits, "SystemExit: 3", 1),
        (returns_nothing, f"TypeError: its around() returned None; {OUTCOME}", 1),
        (returns_a_value, f"TypeError: its around() returned 42; {OUTCOME}", 1),
        (yields_none, f"TypeError: its around() yielded None; {EFFECTS}", 0),
        (yields_a_number, f"TypeError: its around() yielded 0.5; {EFFECTS}", 0),
        (is_no_generator, "AttributeError: 'Done' object has no attribute 'send'", 0),
    ],
)
def test_a_controls_bug_fails_its_run_and_names_the_control(
    app: App, world: str, body: Any, problem: str, runs: int
) -> None:
    """A control that raises or breaks its contract fails that run, without retries; other jobs and tasks live."""
    ran: list[str] = []

    def sometimes(call: Run) -> Any:
        harmless = call.task.binder.decode(call.message)[0][0] == "neighbour"
        return watching(call) if harmless else body(call)

    def watching(call: Run) -> Around:
        return (yield PROCEED)

    plug(app, control("buggy", around(sometimes), wrap=USER))
    job = task_in(app, world, lambda text: ran.append(text) or text, concurrency=1, retries=5)
    with app.worker():
        broken, neighbour = job.push("victim"), job.push("neighbour")
        with pytest.raises(JobFailed) as caught:
            broken.get(timeout=10)
        assert neighbour.get(timeout=10) == "neighbour"
        (letter,) = dead_letters(job)

    text = f"control 'buggy' (acme-controls) raised: {problem}"
    assert (caught.value.error_type, caught.value.error_message) == ("ControlError", text)
    assert (letter.reason, letter.attempt, letter.error) == ("failed", 1, f"ControlError: {text}")
    assert ran.count("victim") == runs


@worlds
def test_outer_controls_see_an_inner_ones_bug_as_data(app: App, world: str) -> None:
    """A failure inside arrives at the outer control as an outcome, so that what stands after its yield runs."""
    seen: list[Any] = []

    def outer(call: Run) -> Around:
        outcome = yield PROCEED
        seen.append(outcome)
        return outcome

    plug(
        app,
        control("inner", around(raises_before), wrap=USER),
        control("outer", around(outer), wrap=WrapStage.TRACE),
    )
    job = task_in(app, world, str)
    with app.worker(), pytest.raises(JobFailed, match="control 'inner'"):
        job.push("x").get(timeout=10)

    (outcome,) = seen
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error.__cause__, LookupError)


def test_a_control_sees_failures_and_cancelled_coroutines_as_data(app: App) -> None:
    """What a function raises, and the end by a time-out, are outcomes to the control around it."""
    seen: list[Any] = []

    def body(call: Run) -> Around:
        outcome = yield PROCEED
        seen.append(outcome)
        return outcome

    plug(app, control("watch", around(body), wrap=USER))

    @app.boost("slow", results=True, timeout=0.02, retries=0)
    async def slow(fail: bool) -> None:
        import asyncio

        if fail:
            raise RuntimeError("broken")
        await asyncio.sleep(3600)

    with app.worker():
        for fail in (True, False):
            with pytest.raises(JobFailed):
                slow.push(fail).get(timeout=10)

    assert [type(outcome) for outcome in seen] == [Failed, TimedOut]


def test_a_time_out_holds_for_a_control_that_waits(app: App) -> None:
    """On asyncio a run whose control sleeps past the deadline is ended, and its slot is free again."""

    def body(call: Run) -> Around:
        yield Sleep(3600)
        return (yield PROCEED)

    plug(app, control("slow", around(body), wrap=USER))
    job = task_in(app, "asyncio", str, timeout=0.02, retries=0, concurrency=1)
    with app.worker():
        for pushed in [job.push("one"), job.push("two")]:
            with pytest.raises(JobFailed, match="timed_out"):
                pushed.get(timeout=10)


def test_errors_of_boost_that_a_function_raises_are_retried(app: App) -> None:
    """A broker that was away for the function's own push is a reason to try again, unlike a control's bug."""
    attempts: list[int] = []

    def unlucky(text: str) -> str:
        attempts.append(current.attempt)
        if current.attempt == 1:
            raise BrokerUnavailable("far", "away for lunch")
        return text

    job = task_in(app, "threads", unlucky, retries=1)
    with app.worker():
        assert job.push("x").get(timeout=10) == "x"

    assert attempts == [1, 2]
