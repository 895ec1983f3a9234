"""What push makes of a call: arguments, options of one message, names, batches, and what is too large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from boost_core import App
from boost_core.errors import BadArgument, BadName, BadOption, BodyTooLarge, BoostError, UnsupportedCapability
from boost_core.plugin import BrokerSpec, Capability
from boost_core.registry.registry import Registry
from boost_core.testing import FakeClock
from boost_core.types import Frame
from letters import dead_letters, eventually

MEMORY: BrokerSpec = Registry().broker("memory")


def waiting(app: App, queue: str) -> list[Frame]:
    """Return the frames that stand on a queue of the app's own broker."""
    return list(app.services.broker(MEMORY, MEMORY.options()).peek(queue, 10_000))


# --- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "job() missing a required argument: 'a'"),
        ((1, 2, 3), {}, "job() too many positional arguments"),
        ((1,), {"c": 2}, "job() got an unexpected keyword argument 'c'"),
        ((1,), {"a": 2}, "job() multiple values for argument 'a'"),
    ],
)
def test_arguments_that_dont_fit_are_refused_at_push(
    app: App, args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    """Push raises TypeError as the call itself would, and publishes nothing."""

    @app.boost("job")
    def job(a: Any, b: int = 1) -> None: ...

    with pytest.raises(TypeError) as caught:
        job.push(*args, **kwargs)

    assert str(caught.value) == text
    assert job.depth().ready == 0


@pytest.mark.parametrize(
    ("value", "where"),
    [(math.nan, "value is nan"), ([{"rate": math.nan}], "value[0]['rate'] is nan"), (-math.inf, "value is -inf")],
)
def test_a_number_that_json_doesnt_have_is_named_at_push(app: App, value: Any, where: str) -> None:
    """Nan and infinities are refused with task, parameter and place, also deep inside."""

    @app.boost("job")
    def job(a: Any, b: Any = None) -> None: ...

    with pytest.raises(BadArgument) as caught:
        job.push(1, b=value)

    text = f"task 'job', argument 'b': {where}, a number that JSON doesn't have; give None or text instead."
    assert str(caught.value) == text
    assert job.depth().ready == 0


# --- what is too large -----------------------------------------------------------------------------------


@pytest.fixture
def narrow() -> Iterator[App]:
    """Yield an app on a memory broker that takes bodies of 32 KiB; a sixteenth is kept for dead letters."""
    spec = attrs.evolve(MEMORY, name="narrow", limits=attrs.evolve(MEMORY.limits, max_body=32 * 1024))
    app = App("narrow", broker=spec, store="memory")
    yield app
    app.close()


def test_a_body_over_the_limit_is_refused_at_push(narrow: App) -> None:
    """The largest body allowed is stored; one byte more is an error with both sizes and a remedy."""

    @narrow.boost("job")
    def job(text: str) -> None: ...

    job.push("")
    (empty,) = job.broker.peek("job", 1)
    room = 30_720 - len(empty.body)
    job.push("x" * room)
    with pytest.raises(BodyTooLarge) as caught:
        job.push("x" * (room + 1))

    assert str(caught.value) == (
        "task 'job': the message is 30,721 bytes; broker 'narrow' takes at most 30,720.\n"
        "  Push a reference (a path, a key) instead of the data."
    )
    assert [len(frame.body) for frame in job.broker.peek("job", 10)] == [len(empty.body), 30_720]


def test_the_largest_message_fits_on_the_dead_queue(narrow: App) -> None:
    """A message of the largest size can fail: its dead letter carries all of its bytes."""

    @narrow.boost("job", retries=0)
    def job(text: str) -> None:
        raise RuntimeError("too much" * 100)

    job.push("")
    (empty,) = job.broker.peek("job", 1)
    job.clear()
    job.push("x" * (30_720 - len(empty.body)))
    (frame,) = job.broker.peek("job", 1)
    with narrow.worker():
        (letter,) = eventually(lambda: dead_letters(job))

    assert (letter.reason, letter.body) == ("failed", frame.body)


def test_a_batch_with_a_message_that_is_too_large_isnt_published(narrow: App) -> None:
    """Push_many encodes a batch of 1,000 before any of it is published; the batches before it are stored."""

    @narrow.boost("job")
    def job(text: str) -> None: ...

    with pytest.raises(BodyTooLarge):
        job.push_many(("x" * (40_000 if number == 999 else 1),) for number in range(1500))
    assert job.depth().ready == 0
    with pytest.raises(BodyTooLarge):
        job.push_many(("x" * (40_000 if number == 1200 else 1),) for number in range(1500))
    assert job.depth().ready == 1000


# --- options of one message --------------------------------------------------------------------------------


def test_a_message_carries_its_own_options() -> None:
    """Delay, priority and job_id hold for the messages pushed through options(...), not for others."""
    clock = FakeClock()
    app = App("own", broker="memory", store="memory", clock=clock)

    @app.boost("job", results=True, priority=1)
    def job(number: int) -> int:
        return number

    own = job.options(delay="2s", priority=9, job_id="order-7")
    pushed = own.push(7)
    job.push(1)
    assert (pushed.id, job.depth().delayed, job.depth().ready) == ("order-7", 1, 1)
    clock.advance(2.0)
    frames = waiting(app, "job")
    assert [(frame.id == "order-7", frame.priority) for frame in frames] == [(True, 9), (False, 1)]
    with app.worker():
        assert pushed.get(timeout=10) == 7
    app.close()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"dleay": 1}, BadOption, "a task has no option 'dleay'. Did you mean 'delay'?"),
        ({"delay": -1}, BadOption, "task 'job': option delay=-1 can't be used: -1 is no duration of 0 seconds or more"),
        (
            {"priority": -1},
            BadOption,
            "task 'job': option priority=-1 can't be used: it must be 0 or more; higher ones are run first",
        ),
        (
            {"priority": 256},
            BadOption,
            "task 'job': priority=256 is too high for broker 'memory'.\n  Its priorities are 0 to 255.",
        ),
        (
            {"qps": 5},
            BadOption,
            "'qps' is an option of the control 'rate', which is not installed.\n  Install it:        pip install boost-",
        ),
        ({"job_id": ""}, BadName, "job name '' is empty; give 1 to 180 characters."),
        ({"concurrency": 2}, BadOption, "option 'concurrency' belongs to the whole task 'job'; a single message can't"),
    ],
)
def test_bad_options_of_a_message_are_refused_at_once(
    app: App, given: dict[str, Any], error: type[BoostError], text: str
) -> None:
    """options(...) itself raises, before anything is pushed."""

    @app.boost("job")
    def job() -> None: ...

    with pytest.raises(error) as caught:
        job.options(**given)

    assert str(caught.value).startswith(text)


def test_what_a_broker_cant_do_is_refused(app: App) -> None:
    """Delay and priority on a broker without them are errors that name the installed brokers that have them."""
    able = frozenset({Capability.ACK, Capability.REPLACE, Capability.DEPTH})
    plain = attrs.evolve(MEMORY, name="plain", capabilities=able)

    @app.boost("job", broker=plain)
    def job() -> None: ...

    @app.boost("urgent", broker=plain, priority=3)
    def urgent() -> None: ...

    @app.boost("later", broker=plain, retry_delay=30)
    def later() -> None: ...

    refused = [
        (lambda: job.options(delay=60), "'job' asks for delay=60", "delay"),
        (lambda: job.options(priority=3), "'job' asks for priority=3", "priority"),
        (urgent.push, "'urgent' asks for priority=3", "priority"),
        (later.push, "'later' asks for retry_delay=30.0", "delay"),
    ]
    for ask, asks, capability in refused:
        with pytest.raises(UnsupportedCapability) as caught:
            ask()
        assert str(caught.value) == (
            f"task {asks}, but broker 'plain' has no capability {capability!r}.\n"
            "  Installed brokers that have it: memory."
        )
    job.push()
    assert [job.depth().ready, len(job.broker.queues())] == [1, 2]


# --- names -----------------------------------------------------------------------------------------------


def test_send_pushes_by_name(app: App) -> None:
    """app.send pushes a declared task with its own options, and one that only others declare to its queue."""

    @app.boost("sums", name="add", results=True)
    def add(a: int, b: int = 0) -> int:
        return a + b

    declared = app.send("add", [1], {"b": 2}, priority=4)
    app.send("elsewhere", [1, "two"], queue="far", delay=0)
    app.send("nowhere")

    assert [(frame.priority, frame.queue) for frame in waiting(app, "sums")] == [(4, "sums")]
    assert [len(waiting(app, queue)) for queue in ("far", "elsewhere", "nowhere")] == [1, 0, 1]
    with app.worker():
        assert declared.get(timeout=10) == 3


def test_send_refuses_what_doesnt_fit(app: App) -> None:
    """Arguments of undeclared tasks are checked as unannotated ones, and a queue that contradicts the declaration."""

    @app.boost("sums", name="add")
    def add(a: int) -> None: ...

    with pytest.raises(BadArgument, match=r"task 'far', argument 'args\[1\]': value is nan"):
        app.send("far", [1, math.nan])
    with pytest.raises(BadArgument, match="task 'add', argument 'a'"):
        app.send("add", ["one"])
    with pytest.raises(BadOption) as caught:
        app.send("add", [1], queue="other")

    assert str(caught.value) == "task 'add' is declared here with the queue 'sums', not 'other'."
    assert [len(waiting(app, queue)) for queue in ("sums", "other", "far")] == [0, 0, 0]


def test_a_namespace_prefixes_queues() -> None:
    """Two apps of different namespaces share a broker without sharing a queue."""
    app = App("spaced", broker="memory", store="memory", namespace="staging")

    @app.boost("job", results=True)
    def job() -> str:
        return "ran"

    pushed = job.push()

    assert [len(waiting(app, queue)) for queue in ("staging.job", "job")] == [1, 0]
    with app.worker():
        assert pushed.get(timeout=10) == "ran"
    app.close()


# --- batches -----------------------------------------------------------------------------------------------


def test_push_many_takes_calls_tuples_and_dicts_of_any_task(app: App) -> None:
    """Jobs come back in the order of the calls, whatever tasks they are of; options(...) hold for the whole batch."""

    @app.boost("double", results=True)
    def double(number: int) -> int:
        return 2 * number

    @app.boost("negate", results=True)
    def negate(number: int) -> int:
        return -number

    mixed = app.push_many((double, negate)[number % 2].call(number) for number in range(2500))
    forms = double.options(priority=5).push_many([double.call(1), (2,), {"number": 3}, [4]])
    assert [frame.priority for frame in waiting(app, "double")[:4]] == [5, 5, 5, 0]
    with app.worker():
        results = [job.get(timeout=20) for job in mixed]
        assert [job.get(timeout=10) for job in forms] == [2, 4, 6, 8]

    assert results == [-number if number % 2 else 2 * number for number in range(2500)]
    assert len({job.id for job in [*mixed, *forms]}) == 2504
    assert double.push_many([]) == []


@pytest.mark.parametrize("odd", [5, "ab", None])
def test_push_many_refuses_what_is_no_call(app: App, odd: Any) -> None:
    """Something else than calls, tuples and dicts is a TypeError that says what is wanted; nothing is published."""

    @app.boost("job")
    def job(a: Any) -> None: ...

    kind = type(odd).__name__
    with pytest.raises(TypeError, match=f"push_many of task 'job' takes task.call.*not {kind}"):
        job.push_many([(1,), odd])
    with pytest.raises(TypeError, match=rf"app.push_many takes task.call\(\.\.\.\), not {kind}"):
        app.push_many([job.call(1), odd])

    assert job.depth().ready == 0
