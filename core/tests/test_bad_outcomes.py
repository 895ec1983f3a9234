"""What a job may come to that nobody wants: it is the job's own end, told exactly, and harms no neighbour."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from boost_core import App, Drop, RateLimited, Reject, Requeue, Retry
from boost_core.errors import BadOption, JobFailed, ResultsOff
from letters import dead_letters, eventually
from plugged import task_in, worlds


class Silent(Exception):
    """An error whose text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Shy(Exception):
    """An error that is false, as one with a length of 0 is."""

    def __bool__(self) -> bool:
        return False


def raising(error: BaseException) -> Callable[[str], Any]:
    """Return a function that raises."""

    def function(text: str) -> Any:
        raise error

    return function


def recursing(text: str) -> Any:
    """Never come to an end."""
    return recursing(text)


def endless(text: str) -> Any:
    """Return a list that contains itself."""
    made: list[Any] = []
    made.append(made)
    return made


ERRORS = {
    "KeyboardInterrupt": (raising(KeyboardInterrupt()), "KeyboardInterrupt: "),
    "sys.exit": (raising(SystemExit(3)), "SystemExit: 3"),
    "GeneratorExit": (raising(GeneratorExit()), "GeneratorExit: "),
    "BaseException": (raising(BaseException("bare")), "BaseException: bare"),
    "a cancellation of its own": (raising(asyncio.CancelledError("me")), "CancelledError: me"),
    "an error without a text": (
        raising(Silent()),
        "Silent: <Silent without a text: its __str__ raised RuntimeError>",
    ),
    "an error that is false": (raising(Shy("shy")), "Shy: shy"),
    "an error about a name that is no text": (raising(ValueError("menu\udce9")), "ValueError: menu\\udce9"),
    "an error of great length": (raising(ValueError("x" * 5000)), f"ValueError: {'x' * 5000}"),
    "recursion": (recursing, "RecursionError: maximum recursion depth exceeded"),
}
VALUES = {
    "an object": (
        lambda text: object(),
        (
            "value is of type object; without an annotation only None, bool, int, float, str, list and dict are carried:"
            " annotate it with its type, or convert it."
        ),
    ),
    "nan": (lambda text: float("nan"), "value is nan, a number that JSON doesn't have; give None or text instead."),
    "keys that are no text": (
        lambda text: [{1: 2}],
        (
            "value[0] has a key of type int; without an annotation keys are str:"
            " annotate it (such as dict[int, str]), or give str keys."
        ),
    ),
    "itself": (endless, "value is nested deeper than 64 levels, or contains itself."),
    "text that is none": (
        lambda text: "menu\udce9",
        "value contains text with a lone surrogate ('\\udce9'), which is not valid Unicode.",
    ),
}


NEIGHBOURS = [f"neighbour {number}" for number in range(6)]


def end_beside_neighbours(app: App, world: str, function: Callable[[str], Any], **options: Any) -> JobFailed:
    """Run one odd job of ``function`` among good ones, which are settled with it; return its failure."""
    job = task_in(app, world, lambda text: function(text) if text == "odd" else text, **options)
    good = [job.push(text) for text in NEIGHBOURS[:3]]
    odd = job.push("odd")
    good += [job.push(text) for text in NEIGHBOURS[3:]]
    with app.worker() as worker:
        with pytest.raises(JobFailed) as caught:
            odd.get(timeout=20)
        assert [one.get(timeout=10) for one in good] == NEIGHBOURS
        eventually(worker.is_idle)

    assert caught.value.job_id == odd.id
    assert [letter.id for letter in dead_letters(job)] == ([] if caught.value.state == "dropped" else [odd.id])
    return caught.value


@worlds
@pytest.mark.parametrize("what", ERRORS)
def test_whatever_a_job_raises_ends_the_job_and_not_the_worker(app: App, what: str, world: str) -> None:
    """Also what would end a thread, a process or a loop; the waiter and the dead letter learn what it was."""
    function, text = ERRORS[what]

    failed = end_beside_neighbours(app, world, function, retries=0)

    assert (failed.state, failed.reason) == ("failed", "failed")
    assert f"{failed.error_type}: {failed.error_message}" == text
    (letter,) = dead_letters(app.task("job"))
    assert letter.error == text[:1024]
    assert letter.traceback.startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), BaseException()])
def test_what_is_no_exception_isnt_retried(app: App, error: BaseException) -> None:
    """Unless retry_on says so: whoever raises it means the end."""
    runs: list[str] = []

    def function(text: str) -> None:
        runs.append(text)
        raise error

    job = task_in(app, "threads", function, retries=2)
    stubborn = app.boost("stubborn", retries=2, retry_on=BaseException, results=True)(function)
    with app.worker():
        for task in (job, stubborn):
            with pytest.raises(JobFailed):
                task.push(task.name).get(timeout=10)

    assert sorted(runs) == ["job", "stubborn", "stubborn", "stubborn"]


@worlds
@pytest.mark.parametrize("what", VALUES)
def test_a_value_that_cant_be_carried_fails_without_retry(app: App, what: str, world: str) -> None:
    """The function has run: its side effects are done, so it isn't run again; the error names the value's place."""
    function, text = VALUES[what]
    runs: list[str] = []

    failed = end_beside_neighbours(app, world, lambda text: (runs.append(text), function(text))[1], retries=3)

    assert runs == ["odd"]
    assert failed.error_type == "TypeError"
    assert failed.error_message == f"task 'job', return value: {text}"


async def coroutine() -> None:
    """Never run by whoever only calls it."""
    raise AssertionError


def generator() -> Iterator[int]:
    """Never run by whoever only calls it."""
    yield 1


async def asynchronous_generator() -> AsyncIterator[int]:
    """Never run by whoever only calls it."""
    yield 1


@worlds
@pytest.mark.parametrize(
    ("function", "what"),
    [
        (coroutine, "a coroutine"),
        (generator, "a generator"),
        (asynchronous_generator, "an asynchronous generator"),
    ],
)
@pytest.mark.parametrize("results", [True, False])
def test_what_only_promises_to_run_is_no_success(
    app: App, function: Callable[[], Any], what: str, world: str, results: bool
) -> None:
    """A function that a decorator hides behind a plain one has not run: a dead letter at once, with the fix."""
    job = task_in(app, world, lambda text: function(), retries=3)

    job.options(results=results).push("odd")
    with app.worker() as worker:
        eventually(lambda: worker.counts["dead"] == 1)

    (letter,) = dead_letters(job)
    assert (letter.reason, letter.attempt) == ("failed", 1)
    assert letter.error == (
        f"BadOption: task 'job' returned {what}: what is in it didn't run.\n"
        "  Have the function and each decorator around it run to their end: await the coroutine, loop over items."
    )


@pytest.mark.parametrize("function", [generator, asynchronous_generator])
def test_a_generator_function_is_no_task(app: App, function: Callable[[], Any]) -> None:
    """Calling it runs nothing of it: it is refused where it is declared, not when its first job does nothing."""
    with pytest.raises(BadOption) as caught:
        app.boost("job")(function)

    place = f"{__file__}:{function.__code__.co_firstlineno}"
    assert str(caught.value) == (
        f"task 'job' at {place} is a generator function: calling it runs nothing of it.\n"
        "  Return a list instead of yielding, or push a job for each item."
    )
    assert app.tasks == {}


def test_a_value_that_nobody_asked_for_may_be_anything(app: App) -> None:
    """Without results the value needn't be one that can be carried."""
    job = app.boost("job")(lambda: object())

    job.push()
    with app.worker() as worker:
        eventually(lambda: worker.counts["done"] == 1)

    assert dead_letters(job) == []


@worlds
@pytest.mark.parametrize(
    ("steer", "text"),
    [
        (
            Retry("soon"),
            "Retry(delay='soon'), which can't be used: 'soon' is no duration; give seconds or text such as",
        ),
        (Requeue(1e20), "Requeue(delay=1e+20), which can't be used: 1e+20 is longer than 100 years, the longest"),
        (Retry(-1), "Retry(delay=-1), which can't be used: -1 is no duration of 0 seconds or more"),
        (Requeue(float("nan")), "Requeue(delay=nan), which can't be used: nan is no duration of 0 seconds or more"),
        (Requeue(None), "Requeue(delay=None), which can't be used: it is a number of seconds"),
        (RateLimited(-0.5), "RateLimited(retry_after=-0.5), which can't be used: -0.5 is no duration of 0 seconds"),
    ],
    ids=lambda it: type(it).__name__ if isinstance(it, Exception) else "",
)
def test_a_steer_with_an_impossible_delay_is_a_failure(app: App, steer: Exception, text: str, world: str) -> None:
    """It fails like any mistake of the function, and says with which delay."""
    failed = end_beside_neighbours(app, world, raising(steer), retries=0)

    assert failed.error_type == "BadOption"
    assert failed.error_message.startswith(f"task 'job' raised {text}")


@pytest.mark.parametrize("delay", ["10ms", datetime.timedelta(milliseconds=10), 0.01])
def test_a_steer_takes_its_delay_in_every_form(app: App, delay: Any) -> None:
    """As options do: seconds, text or a timedelta."""
    steers = [Retry(delay), Requeue(delay), RateLimited(delay)]
    left = list(steers)

    @app.boost("job", results=True, retries=1)
    def job() -> str:
        if left:
            raise left.pop()
        return "done"

    with app.worker():
        assert job.push().get(timeout=10) == "done"


@pytest.mark.parametrize(
    ("steer", "state", "reason"),
    [
        (Reject("menu\udce9"), "dead", "menu\\udce9"),
        (Reject(Silent()), "dead", "<Silent without a text: its __str__ raised RuntimeError>"),
        (Drop("menu\udce9"), "dropped", "menu\\udce9"),
        (Drop(Silent()), "dropped", "<Silent without a text: its __str__ raised RuntimeError>"),
    ],
    ids=["reject text", "reject object", "drop text", "drop object"],
)
def test_whatever_a_reason_is_it_is_told_as_text(app: App, steer: Exception, state: str, reason: str) -> None:
    """Reject and Drop take any reason; the waiter and the dead letter get one that can be carried."""
    failed = end_beside_neighbours(app, "threads", raising(steer))

    assert (failed.state, failed.reason) == (state, reason)
    assert [letter.reason for letter in dead_letters(app.task("job"))] == ([reason] if state == "dead" else [])


# --- results that are off ----------------------------------------------------------------------------------------


def test_asking_for_a_result_where_they_are_off_is_an_immediate_error(app: App) -> None:
    """In every way of asking: nobody waits for what can never come, and the error says how to turn results on."""
    silent = app.boost("silent")(lambda: None)
    loud = app.boost("loud", results=True)(lambda: None)

    async def awaited() -> None:
        await (await silent.apush())

    asked = [
        ("silent", lambda: silent.push().get()),
        ("silent", lambda: silent.push().get(timeout=60)),
        ("silent", lambda: silent.push().ready()),
        ("silent", lambda: silent.push_many([()])[0].get()),
        ("silent", lambda: asyncio.run(awaited())),
        ("loud", lambda: loud.options(results=False).push().get()),
    ]
    for name, ask in asked:
        with pytest.raises(ResultsOff) as caught:
            ask()
        assert str(caught.value) == (
            f"task '{name}' stores no results, so job.get() would never return.\n  Turn them on: @boost(results=True)"
        )
    with app.worker():
        assert silent.options(results=True).push().get(timeout=10) is None
