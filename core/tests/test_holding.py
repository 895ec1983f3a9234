"""How much a worker takes ahead of free slots, how long it holds what it can't start, and what it lets go of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest
from boost_core import App
from boost_core.builtin.memory import MemoryBroker, MemorySubscription
from boost_core.plugin import (
    START,
    Admission,
    BrokerSpec,
    Capability,
    Control,
    Delivery,
    Gate,
    GateStage,
    Hold,
    Lost,
    QueueSpec,
    Run,
)
from boost_core.registry.registry import Registry
from letters import eventually
from plugged import control, importable, plug


class Answering(Gate):
    """A gate that gives one answer to all, and notes how many it is asked for at once."""

    def __init__(self, answer: Callable[[Run], Admission]) -> None:
        self.answer, self.asked = answer, [0]

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        """Answer."""
        self.asked.append(len(runs))
        return [self.answer(run) for run in runs]


class Pacing(Answering):
    """The same, as one that gives out start times."""

    paces = True


def with_gate(app: App, gate: Gate) -> Gate:
    """Let all tasks of an app have a gate."""
    made = type("Gated", (Control,), {"gate": lambda _self, _task: gate})
    plug(app, control("gated", made, gate=GateStage.RATE))
    return gate


def test_nothing_is_taken_ahead_of_long_jobs(app: App) -> None:
    """Where a job takes a tenth of a second, the next ones wait at the broker for whoever is free."""
    second, go = threading.Event(), threading.Event()

    @app.boost("long", concurrency=1)
    def job(number: int) -> None:
        if number:
            second.set()
            assert go.wait(20)
        else:
            threading.Event().wait(0.1)

    job.push_many((number,) for number in range(50))
    with app.worker():
        assert second.wait(10)
        depth = job.depth()
        go.set()

    assert (depth.running, depth.ready) == (1, 48)


def test_what_stands_behind_a_long_job_goes_back(app: App) -> None:
    """It was taken ahead because those before it were quick; a worker with a free slot gets it."""
    reached, go = threading.Event(), threading.Event()
    ended: list[int] = []

    @app.boost("mixed", concurrency=1)
    def job(number: int) -> None:
        if number == 20:
            reached.set()
            assert go.wait(20)
        ended.append(number)

    job.push_many((number,) for number in range(100))
    with app.worker():
        assert reached.wait(10)
        assert job.depth().running > 1
        with app.worker():
            eventually(lambda: len(ended) == 99)
            go.set()

    assert sorted(ended) == list(range(100))


def test_nothing_is_taken_ahead_of_start_times(app: App) -> None:
    """Jobs of a queue with a rate are fetched one by one, however quick they are."""
    pacing = Pacing(lambda _run: START)
    with_gate(app, pacing)
    job = app.boost("paced", concurrency=1)(lambda _number: None)
    job.push_many((number,) for number in range(200))

    with app.worker():
        assert job.wait_idle(20)

    assert max(pacing.asked) == 1


def test_what_must_wait_long_waits_at_the_broker(app: App) -> None:
    """A message that a gate holds for more than a second isn't held here."""
    with_gate(app, Answering(lambda run: Hold(run.clock.monotonic() + 60)))
    job = app.boost("held")(lambda: None)
    job.push()

    with app.worker():
        eventually(lambda: job.depth().delayed == 1)


def test_few_messages_are_held_for_a_gate(app: App) -> None:
    """Sixteen of a queue wait here; what comes beyond them waits at the broker."""
    with_gate(app, Answering(lambda run: Hold(run.clock.monotonic() + 0.9)))
    job = app.boost("held", concurrency=20)(lambda _number: None)
    job.push_many((number,) for number in range(20))

    with app.worker():
        eventually(lambda: job.depth().delayed == 4)


class LeasedBroker(MemoryBroker):
    """A broker in memory whose deliveries must be renewed, as its ``subscription`` does it."""

    subscription: ClassVar[type[MemorySubscription]]

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> MemorySubscription:
        subscription = self.subscription(self, [queue.name for queue in queues], credit)
        self.subscriptions.append(subscription)
        return subscription


def leased(kind: type[LeasedBroker]) -> BrokerSpec:
    """Return what makes such a broker, with a lease of 0.1 s."""
    memory = Registry().broker("memory")
    return attrs.evolve(
        memory,
        factory=importable(kind),
        limits=attrs.evolve(memory.limits, lease=0.1),
        capabilities=memory.capabilities | {Capability.LEASES},
    )


class SleepingSubscription(MemorySubscription):
    """Fails the keeper; tells the truth to whoever settles."""

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        if "keep" in threading.current_thread().name:
            SleepingBroker.unheard.append(0.0)
            raise OSError
        return deliveries


class SleepingBroker(LeasedBroker):
    """A broker that can't be reached for renewals, and has given everything away by the time somebody asks."""

    subscription = SleepingSubscription
    unheard: ClassVar[list[float]] = []


def test_the_outcome_of_a_job_that_was_lost_meanwhile_is_dropped() -> None:
    """A worker that couldn't renew within the lease asks before it settles: neither result nor ack is written."""
    app = App("asleep", broker=leased(SleepingBroker), store="memory")
    go = threading.Event()

    @app.boost("job", results=True)
    def job() -> Any:
        return go.wait(20)

    pushed = job.push()
    with app.worker() as worker:
        eventually(lambda: len(SleepingBroker.unheard) > 6)
        go.set()
        eventually(lambda: worker.counts["lost"])

    assert worker.counts == {"lost": 1}
    assert not pushed.ready()
    app.close()


class ForgetfulSubscription(MemorySubscription):
    """Says of every delivery that it is somebody else's."""

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        ForgetfulBroker.renewals.append(len(deliveries))
        return deliveries


class ForgetfulBroker(LeasedBroker):
    """A broker that has given away whatever a worker asks to keep."""

    subscription = ForgetfulSubscription
    renewals: ClassVar[list[int]] = []


def test_a_lost_run_is_ended_once(caplog: pytest.LogCaptureFixture) -> None:
    """One that needs longer than a renewal for its end isn't cancelled in it again, nor told a second time."""
    app = App("forgetful", broker=leased(ForgetfulBroker), store="memory")
    ended = threading.Event()

    @app.boost("job", pool="asyncio")
    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen = len(ForgetfulBroker.renewals)
            await asyncio.to_thread(eventually, lambda: len(ForgetfulBroker.renewals) >= seen + 3)
            ended.set()

    job.push()
    with app.worker() as worker:
        assert ended.wait(20)
        eventually(lambda: worker.counts["lost"])

    assert caplog.messages.count("1 messages of broker memory were lost to other workers") == 1
    assert sum(ForgetfulBroker.renewals) == 1
    app.close()
