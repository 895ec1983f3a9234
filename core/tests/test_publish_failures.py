"""Publishing to a broker that fails: what is repeated, and what the caller learns is stored and what isn't."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
from boost_core import App, Task
from boost_core.builtin.memory import MemoryBroker
from boost_core.errors import BrokerUnavailable, ConnectionLost, PublishError
from boost_core.plugin import BrokerSpec, Capability
from boost_core.registry.registry import Registry
from boost_core.types import Frame
from plugged import importable

MEMORY: BrokerSpec = Registry().broker("memory")


class FrailBroker(MemoryBroker):
    """A memory broker whose publishes go as they are told: ``steps`` are taken one a publish, then all goes well.

    A step is ``(failed, unsure)``: indexes that are not stored, or stored without the publisher's knowing; an exception,
    or a function of the frames that returns such a pair.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.steps: list[Any] = []
        self.always: Any = None
        self.batches: list[list[Frame]] = []
        self.hold: Callable[[], Any] = lambda: None

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store what the step lets through, and say what not."""
        assert timeout > 0
        self.batches.append(list(frames))
        self.hold()
        step = self.steps.pop(0) if self.steps else self.always
        if isinstance(step, Exception):
            raise step
        failed, unsure = (step(frames) if callable(step) else step) or ((), ())
        super().publish([frame for index, frame in enumerate(frames) if index not in failed], timeout)
        if failed or unsure:
            raise PublishError(self.spec.name, "the server hiccuped", failed, unsure)


FRAIL = attrs.evolve(MEMORY, name="frail", factory=importable(FrailBroker))


def numbers(app: App, name: str = "job", **options: Any) -> Task[[int], None]:
    """Declare a task that takes a number."""

    def job(number: int) -> None: ...

    return app.boost(name, **options)(job)


def stored(task: Task[..., Any]) -> list[int]:
    """Return the numbers that stand on a task's queue."""
    services = task.app.services
    messages = [services.codec("json").decode_message(f.body[5:]) for f in task.broker.peek(task.queue, 10_000)]
    return [task.plan.binder.decode(message)[0][0] for message in messages]


@pytest.fixture
def app() -> Iterator[App]:
    """Yield an app on a frail broker."""
    app = App("frail", broker=FRAIL, store="memory")
    yield app
    app.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let publishing give up after a fraction of a second."""
    monkeypatch.setattr("boost_core.app.publish.PUBLISH_SECONDS", 0.2)


def test_what_surely_failed_is_published_again(app: App) -> None:
    """Only the frames that were not stored are repeated, until all are; each is stored once."""
    job = numbers(app)
    job.broker.steps = [((1, 3), ()), ((0,), ()), None]

    jobs = job.push_many((number,) for number in range(5))

    assert [len(batch) for batch in job.broker.batches] == [5, 2, 1]
    assert sorted(stored(job)) == [0, 1, 2, 3, 4]
    assert len(jobs) == 5


def test_what_goes_on_failing_is_named_at_the_deadline(app: App, impatient: None) -> None:
    """After the deadline PublishError says how many are missing and which; the others are stored, once."""
    job = numbers(app)
    job.broker.steps = [((1, 3), ())]
    job.broker.always = lambda frames: ((len(frames) - 1,), ())

    with pytest.raises(PublishError) as caught:
        job.push_many((number,) for number in range(5))

    assert (list(caught.value.failed), list(caught.value.unsure)) == ([3], [])
    assert str(caught.value) == (
        "broker 'frail': the server hiccuped (1 not stored, 0 unsure; every other message of the batch is stored)"
    )
    assert len(job.broker.batches) > 2
    assert sorted(stored(job)) == [0, 1, 2, 4]


def test_what_is_unsure_isnt_repeated_where_it_could_double(app: App) -> None:
    """A frame that may be stored is not published again; the caller learns of it at once."""
    job = numbers(app)
    job.broker.steps = [((0,), (2,))]

    with pytest.raises(PublishError) as caught:
        job.push_many((number,) for number in range(4))

    assert (list(caught.value.failed), list(caught.value.unsure)) == ([0], [2])
    assert len(job.broker.batches) == 1
    assert stored(job) == [1, 2, 3]


def test_what_is_unsure_is_repeated_on_a_broker_that_deduplicates() -> None:
    """With DEDUP the same dedup id goes out again, so that the broker stores the message once."""
    able = FRAIL.capabilities | {Capability.DEDUP}
    app = App("dedup", broker=attrs.evolve(FRAIL, capabilities=able), store="memory")
    job = numbers(app)
    job.broker.steps = [((), (2,)), None]

    jobs = job.push_many((number,) for number in range(4))

    first, second = job.broker.batches
    assert [frame.dedup_id for frame in first] == [f"{job.id}:1:0" for job in jobs]
    assert [frame.dedup_id for frame in second] == [f"{jobs[2].id}:1:0"]
    app.close()


def test_a_connection_lost_under_way_leaves_all_unsure(app: App) -> None:
    """Also where a whole push went by it, the caller hears that it may be stored, and not only of the connection."""
    job = numbers(app)
    job.broker.steps = [ConnectionLost("frail", "cut"), ConnectionLost("frail", "cut")]

    with pytest.raises(PublishError) as one:
        job.push(1)
    with pytest.raises(PublishError) as many:
        job.push_many([(2,), (3,)])

    assert (list(one.value.failed), list(one.value.unsure)) == ([], [0])
    assert (list(many.value.failed), list(many.value.unsure)) == ([], [0, 1])
    assert str(one.value).startswith("broker 'frail': cut (0 not stored, 1 unsure;")


@pytest.mark.parametrize(
    ("second", "failed", "unsure"),
    [
        (((0, 1), ()), [1], [2]),
        (((0,), ()), [1], []),
        (BrokerUnavailable("frail", "away"), [1], [2]),
        (ConnectionLost("frail", "cut"), [], [1, 2]),
    ],
)
def test_what_was_unsure_once_stays_so_until_it_is_stored(
    impatient: None, second: Any, failed: list[int], unsure: list[int]
) -> None:
    """However surely the repeats fail, the first attempt may have stored it; only a success settles that."""
    able = FRAIL.capabilities | {Capability.DEDUP}
    app = App("dedup", broker=attrs.evolve(FRAIL, capabilities=able), store="memory")
    job = numbers(app)
    job.broker.steps = [((1,), (2,)), second]
    job.broker.always = lambda frames: (range(len(frames)), ())

    with pytest.raises(PublishError) as caught:
        job.push_many((number,) for number in range(4))

    assert (list(caught.value.failed), list(caught.value.unsure)) == (failed, unsure)
    app.close()


def test_places_count_all_calls_of_push_many(app: App) -> None:
    """A failure in the second batch is named by its place among all calls; the first batch is stored."""
    job = numbers(app)
    job.broker.steps = [None, ((), (5,))]

    with pytest.raises(PublishError) as caught:
        job.push_many((number,) for number in range(2500))

    assert (list(caught.value.failed), list(caught.value.unsure)) == ([], [1005])
    assert len(stored(job)) == 2000


@pytest.mark.parametrize(
    ("step", "failed", "unsure"),
    [
        (((), (1,)), [2, 5, 8], [4]),
        (BrokerUnavailable("frail", "away"), [1, 2, 4, 5, 7, 8], []),
        (ConnectionLost("frail", "cut"), [2, 5, 8], [1, 4, 7]),
    ],
)
def test_places_are_right_where_a_batch_goes_to_several_brokers(
    step: Any, failed: list[int], unsure: list[int]
) -> None:
    """What one broker failed to store, and what others weren't asked for any more, isn't stored; the rest is."""
    app = App("several", store="memory")
    specs = [attrs.evolve(FRAIL, name=name) for name in ("first", "frail", "last")]
    tasks = [numbers(app, f"job-{spec.name}", broker=spec) for spec in specs]
    tasks[1].broker.steps = [step]

    with pytest.raises(PublishError) as caught:
        app.push_many(tasks[number % 3].call(number) for number in range(9))

    assert (sorted(caught.value.failed), list(caught.value.unsure)) == (failed, unsure)
    assert (stored(tasks[0]), stored(tasks[2])) == ([0, 3, 6], [])
    app.close()


def test_a_broker_that_is_away_is_said_to_be_away(app: App) -> None:
    """Where nothing was stored the broker's own error comes through, from push and from push_many."""
    job = numbers(app)
    job.broker.always = BrokerUnavailable("frail", "nobody listens", "Start it.")

    for push in (lambda: job.push(1), lambda: job.push_many([(1,), (2,)])):
        with pytest.raises(BrokerUnavailable) as caught:
            push()
        assert str(caught.value) == "broker 'frail': nobody listens\n  Start it."
    assert stored(job) == []


@pytest.mark.parametrize(
    ("error", "failed", "unsure"),
    [(BrokerUnavailable("frail", "away"), [1], []), (ConnectionLost("frail", "cut"), [], [1])],
)
def test_a_broker_that_goes_away_half_way_leaves_a_precise_error(
    app: App, error: Exception, failed: list[int], unsure: list[int]
) -> None:
    """What was stored before the broker went away is not called failed; a cut connection leaves the rest unsure."""
    job = numbers(app)
    job.broker.steps = [((1,), ()), error]

    with pytest.raises(PublishError) as caught:
        job.push_many((number,) for number in range(3))

    assert (list(caught.value.failed), list(caught.value.unsure)) == (failed, unsure)
    assert stored(job) == [0, 2]


def test_no_publish_is_larger_than_the_brokers_largest_batch() -> None:
    """A batch is cut to limits.max_batch; after a failure the rest isn't tried, and counts as not stored."""
    spec = attrs.evolve(FRAIL, limits=attrs.evolve(FRAIL.limits, max_batch=4))
    app = App("cut", broker=spec, store="memory")
    job = numbers(app)

    job.push_many((number,) for number in range(10))
    assert [len(batch) for batch in job.broker.batches] == [4, 4, 2]

    job.broker.steps = [None, ((), (1,))]
    with pytest.raises(PublishError) as caught:
        job.push_many((number,) for number in range(10, 20))

    assert (list(caught.value.failed), list(caught.value.unsure)) == ([8, 9], [5])
    assert stored(job) == list(range(18))
    app.close()


def test_merged_pushes_of_a_loop_learn_of_their_own_part(app: App) -> None:
    """Calls of apush that are published together fail one by one: each caller gets the error of its own message."""
    job = numbers(app)
    busy, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        assert go_on.wait(10)

    job.broker.hold = hold
    job.broker.steps = [None, ((2,), (1,))]

    async def main() -> list[Any]:
        first = asyncio.create_task(job.apush(0))
        assert await asyncio.to_thread(busy.wait, 10)
        others = [asyncio.create_task(job.apush(number)) for number in range(1, 5)]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    outcomes = asyncio.run(main())

    assert [len(batch) for batch in job.broker.batches] == [1, 4]
    assert [type(outcome).__name__ for outcome in outcomes] == ["Job", "Job", "PublishError", "PublishError", "Job"]
    assert [(error.failed, error.unsure) for error in outcomes[2:4]] == [([], [0]), ([0], [])]
    assert stored(job) == [0, 1, 2, 4]


def test_a_broker_that_fails_a_merged_batch_fails_all_of_it(app: App) -> None:
    """What isn't a partial failure reaches each waiting caller, and the publisher goes on."""
    job = numbers(app)
    job.broker.steps = [BrokerUnavailable("frail", "away")]

    async def main() -> list[Any]:
        failed = await asyncio.gather(job.apush(1), return_exceptions=True)
        return [*failed, await job.apush(2), await job.apush_many([(3,), (4,)])]

    error, single, batch = asyncio.run(main())

    assert isinstance(error, BrokerUnavailable)
    assert (len(single.id), len(batch)) == (32, 2)
    assert stored(job) == [2, 3, 4]
