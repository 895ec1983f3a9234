"""What a worker does when its broker's connection is cut, a queue vanishes, or it wants nothing of a queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest
from boost_core import App
from boost_core.builtin.memory import MemoryBroker, MemorySubscription
from boost_core.builtin.plugin import MEMORY
from boost_core.plugin import (
    BrokerUnavailable,
    Capability,
    ConnectionLost,
    Delivery,
    Frame,
    Lost,
    PublishError,
    QueueGone,
    QueueSpec,
)
from letters import eventually
from plugged import importable


class CutBroker(MemoryBroker):
    """A broker on a line that a test cuts, mends and watches."""

    current: ClassVar[CutBroker]

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        CutBroker.current = self
        self.cut = False
        self.dials: list[str] = []
        self.acked = 0
        self.refuse_dials = 0
        self.gone: set[str] = set()
        self.shut_off: list[str] = []
        self.unsure = 0

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> MemorySubscription:
        subscription = CutSubscription(self, [queue.name for queue in queues], credit)
        self.subscriptions.append(subscription)
        return subscription

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        if self.unsure:
            self.unsure -= 1
            super().publish(frames[1:], timeout)
            raise PublishError("cut", "the line broke", unsure=[0])
        super().publish(frames, timeout)

    def break_line(self) -> None:
        """Cut it: whoever uses it next notices."""
        self.cut = True
        for subscription in self.subscriptions:
            subscription.wake()


class CutSubscription(MemorySubscription):
    """Raises while the line is cut."""

    _broker: CutBroker

    def _line(self) -> None:
        if self._broker.cut:
            raise ConnectionLost("cut", "the line is cut")

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        self._line()
        for queue in want:
            if queue in self._broker.gone:
                raise QueueGone("cut", queue)
        return super().fetch(want, timeout)

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        self._line()
        self._broker.acked += len(deliveries)
        return super().ack(deliveries)

    def shut(self, queues: Sequence[str]) -> None:
        self._broker.shut_off += queues

    def reconnect(self) -> None:
        self._broker.dials.append(threading.current_thread().name)
        if self._broker.refuse_dials:
            self._broker.refuse_dials -= 1
            raise BrokerUnavailable("cut", "nobody answers")
        self._broker.cut = False


SPEC = attrs.evolve(MEMORY, name="cut", factory=importable(CutBroker))


@pytest.fixture
def app() -> Iterator[App]:
    """Yield an app on the line."""
    app = App("cut", broker=SPEC, store="memory")
    yield app
    app.close()


def test_the_fetch_thread_dials_until_it_succeeds(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Attempts follow each other with back-off; loss and return are said once each; jobs run as before."""
    caplog.set_level(logging.INFO, "boost.worker")
    ran: list[int] = []
    task: Any = app.boost("work")(ran.append)
    with app.worker():
        task.push(1)
        assert eventually(lambda: ran == [1])
        CutBroker.current.refuse_dials = 3
        CutBroker.current.break_line()
        assert eventually(lambda: len(CutBroker.current.dials) == 4)
        task.push(2)
        assert eventually(lambda: ran == [1, 2])

    assert set(CutBroker.current.dials) == {"boost-fetch-cut"}
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said[0] == "broker 'cut': the line is cut: dialling again; settling waits"
    assert said[1].startswith("broker cut is back after ")
    assert len(said) == 2


def test_what_ended_meanwhile_is_settled_after_the_return(app: App) -> None:
    """A job that ends while the line is cut keeps its outcome; its ack comes with the new connection, and it runs once."""
    started, go, ran = threading.Event(), threading.Event(), []

    @app.boost("work", results=True)
    def work() -> str:
        ran.append(1)
        started.set()
        assert go.wait(20)
        return "done"

    job = work.push()
    with app.worker() as worker:
        assert started.wait(20)
        CutBroker.current.refuse_dials = 5
        CutBroker.current.break_line()
        assert eventually(lambda: CutBroker.current.dials)
        go.set()
        assert job.get(timeout=20) == "done"
        assert eventually(lambda: worker.counts["done"] == 1)

    assert (ran, CutBroker.current.acked) == ([1], 1)
    assert work.depth().ready == 0


def test_an_ack_that_meets_the_cut_is_repeated(app: App) -> None:
    """The settle thread may be the first to notice; its batch waits, and nothing is run twice."""
    go, ran = threading.Event(), []

    @app.boost("work", concurrency=4)
    def work(number: int) -> None:
        ran.append(number)
        assert go.wait(20)

    work.push_many((number,) for number in range(4))
    with app.worker() as worker:
        assert eventually(lambda: len(ran) == 4)
        CutBroker.current.cut = True  # nobody is told: the fetch thread is blocked
        go.set()
        assert eventually(lambda: worker.counts["done"] == 4)

    assert sorted(ran) == [0, 1, 2, 3]


def test_a_vanished_queue_stops_alone(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """QueueGone ends the service of that queue, loudly; the worker's other queues go on."""
    ran: list[str] = []
    gone = "broker 'cut': queue 'one' no longer exists. It is served no longer."
    one: Any = app.boost("one")(lambda: ran.append("one"))
    two: Any = app.boost("two")(lambda: ran.append("two"))
    with app.worker():
        one.push()
        assert eventually(lambda: ran == ["one"])
        CutBroker.current.gone.add("one")
        CutBroker.current.subscriptions[0].wake()
        assert eventually(lambda: gone in caplog.messages)
        one.push()
        two.push()
        assert eventually(lambda: "two" in ran)

    assert ran == ["one", "two"]
    assert one.depth().ready == 1


def test_a_queue_that_nothing_is_wanted_of_is_shut_off_after_a_second(app: App) -> None:
    """While all slots are busy the broker is told to send no more of that queue; others stay open."""
    go, busy = threading.Event(), threading.Event()

    @app.boost("busy", concurrency=1)
    def occupied() -> None:
        busy.set()
        assert go.wait(20)

    free: Any = app.boost("free")(lambda: None)
    occupied.push()
    with app.worker():
        assert busy.wait(20)
        assert eventually(lambda: CutBroker.current.shut_off)
        go.set()
        free.push()
        assert free.wait_idle(20)

    assert CutBroker.current.shut_off == ["busy"]


def test_next_attempts_that_are_unsure_keep_their_deliveries(app: App) -> None:
    """Without REPLACE a frame is published, then the delivery acked; where that is unsure it is repeated, never lost."""
    bare = attrs.evolve(SPEC, capabilities=frozenset(set(SPEC.capabilities) - {Capability.REPLACE}))
    app = App("bare", broker=bare, store="memory")
    ran: list[int] = []

    @app.boost("fails", retries=0)
    def fails(number: int) -> None:
        ran.append(number)
        raise ValueError(number)

    fails.push_many((number,) for number in range(4))
    CutBroker.current.unsure = 1
    with app.worker() as worker:
        assert eventually(lambda: worker.counts["dead"] == 4)

    assert sorted(ran) == [0, 1, 2, 3]
    assert (fails.depth().ready, fails.depth().dead) == (0, 4)
    app.close()
