"""What becomes of outcomes where a broker, a policy or a codec fails in the middle of settling them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest
from boost_core import App, Requeue, current
from boost_core.builtin.memory import MemoryBroker, MemorySubscription
from boost_core.builtin.plugin import MEMORY
from boost_core.plugin import (
    START,
    Admission,
    Control,
    Delivery,
    Ended,
    Frame,
    Gate,
    GateStage,
    Lost,
    Policy,
    PolicyStage,
    QueueSpec,
    Run,
    SettleError,
)
from letters import dead_letters, eventually
from plugged import control, importable, plug


class RoughBroker(MemoryBroker):
    """A broker that a test lets refuse, or keep waiting, what it is told."""

    current: ClassVar[RoughBroker]

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        RoughBroker.current = self
        self.refused_swaps = 0
        self.acks = threading.Event()
        self.acks.set()

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> MemorySubscription:
        subscription = RoughSubscription(self, [queue.name for queue in queues], credit)
        self.subscriptions.append(subscription)
        return subscription


class RoughSubscription(MemorySubscription):
    """Settles when its broker is in the mood."""

    _broker: RoughBroker

    def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        if self._broker.refused_swaps:
            self._broker.refused_swaps -= 1
            raise SettleError("rough", "not now", failed=[delivery for delivery, _ in pairs])
        return super().replace(pairs)

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        assert self._broker.acks.wait(20)
        return super().ack(deliveries)


SPEC = attrs.evolve(MEMORY, name="rough", factory=importable(RoughBroker))


@pytest.fixture
def app() -> Iterator[App]:
    """Yield an app on a broker that may refuse."""
    app = App("rough", broker=SPEC, store="memory")
    yield app
    app.close()


def test_a_step_that_fails_doesnt_take_the_others_of_its_batch_with_it(app: App) -> None:
    """Where replacing fails, the acks of the same batch are sent all the same, and only what failed is repeated."""
    go, ran = threading.Event(), []

    @app.boost("mixed", retries=0, concurrency=4)
    def mixed(number: int) -> None:
        ran.append(number)
        assert go.wait(20)
        if ran.count(0) == 1 and number == 0:
            raise Requeue

    mixed.push_many((number,) for number in range(4))
    with app.worker() as worker:
        eventually(lambda: len(ran) == 4)
        RoughBroker.current.refused_swaps = 1
        go.set()
        eventually(lambda: worker.counts["done"] == 4)  # the requeued one too, once it could be replaced

    assert sorted(ran) == [0, 0, 1, 2, 3]
    assert mixed.depth().ready == mixed.depth().running == 0


def test_a_policy_that_fails_holds_up_its_own_run_only(app: App) -> None:
    """The others of the batch are settled; the one it failed for is decided again later, and nothing is lost."""
    failing = threading.Event()
    failing.set()

    class Moody(Policy):
        def decide(self, ended: Ended) -> None:
            if failing.is_set() and bytes(ended.run.message.args) == b"[0]":
                raise RuntimeError("moody")

    class Ruled(Control):
        def policy(self, task: Any) -> Policy:
            return Moody()

    plug(app, control("moody", Ruled, policy=PolicyStage.CIRCUIT))
    task: Any = app.boost("work", concurrency=4)(lambda number: None)
    task.push_many((number,) for number in range(4))
    with app.worker() as worker:
        eventually(lambda: worker.counts["done"] == 3)
        assert worker.running == 1
        failing.clear()
        eventually(lambda: worker.counts["done"] == 4)

    assert task.depth().ready == 0


def test_what_may_run_twice_after_a_kill_is_bounded(app: App) -> None:
    """While acks don't come through, no more jobs run than the slots and the published number beyond them."""
    ran: list[int] = []
    task: Any = app.boost("small", concurrency=8)(ran.append)
    task.push_many((number,) for number in range(3000))
    app.services  # noqa: B018 - opened by the push
    RoughBroker.current.acks.clear()
    with app.worker() as worker:
        eventually(lambda: len(ran) == worker.running > 100)
        held = worker.running
        RoughBroker.current.acks.set()
        eventually(lambda: worker.counts["done"] == 3000)

    assert held <= 8 + 512


def test_a_foreign_body_that_fills_its_message_becomes_a_letter_all_the_same(app: App) -> None:
    """Its bytes are cut to what the broker takes, and the letter says how many are missing."""
    task: Any = app.boost("work")(lambda: None)
    task.push()
    app.publisher.broker(task.plan).publish([Frame("f" * 32, "work", b"\xff" * SPEC.limits.max_body)], 10.0)
    with app.worker():
        (letter,) = eventually(lambda: dead_letters(task))

    assert letter.reason == "bad_payload"
    assert letter.cut > 0
    assert len(letter.body) + letter.cut == SPEC.limits.max_body
    assert set(letter.body) == {0xFF}


def test_a_codec_that_is_broken_harms_its_own_messages_only(app: App) -> None:
    """A body of a codec that can't be loaded is a dead letter with its reason; the neighbours of its batch run."""
    ran: list[int] = []
    task: Any = app.boost("work")(ran.append)
    task.push(1)
    app.publisher.broker(task.plan).publish([Frame("f" * 32, "work", b"nocodec\n{}")], 10.0)
    task.push(2)
    with app.worker():
        (letter,) = eventually(lambda: dead_letters(task))
        eventually(lambda: sorted(ran) == [1, 2])

    assert letter.reason == "bad_payload"
    assert "no codec named 'nocodec' is installed." in letter.error


def test_a_replaced_pump_is_waited_for(app: App) -> None:
    """A task that joins a running worker replaces its pump; what the old one runs is counted and ends within the drain."""
    started, go, ended = threading.Event(), threading.Event(), []

    @app.boost("slow")
    def slow() -> None:
        started.set()
        assert go.wait(20)
        ended.append(1)

    other: Any = app.boost("other")(lambda: None)
    slow.push()
    with app.worker(slow) as worker:
        assert started.wait(20)
        worker.add(other)
        assert worker.running == 1
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        assert not ended
        go.set()
        stopping.join(20)

    assert ended == [1]
    assert worker.counts["done"] == 1
    assert slow.depth().ready == slow.depth().running == 0


class NotingGate(Gate):
    """A gate that lets all start and notes the attempts that it hears have ended."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        return [START] * len(runs)

    def settled(self, ended: Sequence[Ended]) -> None:
        self.ended += [end.run.attempt for end in ended]


def test_a_gate_hears_of_an_end_before_the_next_attempt_is_stored(app: App) -> None:
    """Once, also where storing is refused at first: what a job held is free although its message isn't settled."""
    noting = NotingGate()
    gated = type("Gated", (Control,), {"gate": lambda _self, _task: noting})
    plug(app, control("noting", gated, gate=GateStage.RATE))

    @app.boost("job", retries=1, retry_delay=0, results=True)
    def job() -> int:
        if current.attempt == 1:
            raise ValueError
        return current.attempt

    pushed = job.push()
    RoughBroker.current.refused_swaps = 1
    with app.worker():
        eventually(lambda: noting.ended == [1])
        assert job.depth().running == 1
        assert pushed.get(timeout=10) == 2

    assert noting.ended == [1, 2]
