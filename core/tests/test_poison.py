"""Messages whose workers died: one death is nothing special, after two it runs alone, after three it is dead."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import pytest
from boost_core import App, Task, current
from boost_core.builtin.memory import MemoryBroker, MemorySubscription
from boost_core.builtin.memory_store import MemoryStore
from boost_core.errors import JobFailed
from boost_core.plugin import (
    BrokerSpec,
    ConnectionLost,
    Delivery,
    Lost,
    QueueSpec,
    StoreSpec,
    StoreUnavailable,
)
from boost_core.registry.registry import Registry
from letters import dead_letters, eventually
from plugged import importable

MEMORY: BrokerSpec = Registry().broker("memory")
DEATHS = {b'"died once': 1, b'"died twice': 2, b'"died thrice': 3}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let suspects wait for an empty worker only shortly."""
    monkeypatch.setattr("boost_core.bridge.quarantine.ALONE_SECONDS", 0.1)


class Outage:
    """Raises where a worker meets it, until it is mended."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.met, self.mended = threading.Event(), threading.Event()
        self.mended.set()

    def strike(self) -> None:
        """Fail the caller."""
        if not self.mended.is_set():
            self.met.set()
            raise self.error


LINE, STORE = Outage(ConnectionLost("counting", "the line is cut")), Outage(StoreUnavailable("frail", "it is full"))


@pytest.fixture(params=[LINE, STORE], ids=["line", "store"])
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    """Yield what is out while the test runs."""
    outage: Outage = request.param
    outage.met.clear()
    outage.mended.clear()
    yield outage
    outage.mended.set()


class FrailStore(MemoryStore):
    """A store that can be out."""

    def put(self, items: Mapping[str, bytes], ttl: float) -> None:
        STORE.strike()
        super().put(items, ttl)


class CountingSubscription(MemorySubscription):
    """A subscription that tells of deaths, as brokers do that outlive their workers: a job's name says how many."""

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Return what the memory broker has, each with its deaths."""
        deliveries = super().fetch(want, timeout)
        for delivery in deliveries:
            delivery.deaths = max((count for mark, count in DEATHS.items() if mark in delivery.body), default=0)
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Acknowledge what ended, over a line that can be out."""
        LINE.strike()
        return super().ack(deliveries)

    def reconnect(self) -> None:
        """Dial again."""
        LINE.strike()


class CountingBroker(MemoryBroker):
    """A memory broker whose messages have a past."""

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> MemorySubscription:
        """Return a subscription that tells of it."""
        with self.lock:
            subscription = CountingSubscription(self, [queue.name for queue in queues], credit)
            self.subscriptions.append(subscription)
            return subscription


COUNTING = attrs.evolve(MEMORY, name="counting", factory=importable(CountingBroker))


@pytest.fixture
def app() -> Iterator[App]:
    """Yield an app whose messages have a past."""
    app = App("counting", broker=COUNTING, store=StoreSpec(name="frail", factory=importable(FrailStore)))
    yield app
    app.close()


class Jobs:
    """A task whose jobs run until they are let go, and what is running whenever one starts."""

    def __init__(self, app: App, queue: str = "jobs", **options: Any) -> None:
        self.gates: dict[str, threading.Event] = {}
        self.beside: dict[str, set[str]] = {}
        self.running: set[str] = set()
        self.order: list[str] = []
        self.task: Task[[str], str] = app.boost(queue, results=True, **{"concurrency": 4, **options})(self.run)

    def run(self, name: str) -> str:
        self.beside[name] = set(self.running)
        self.running.add(name)
        self.order.append(name)
        assert self.gate(name).wait(20)
        self.running.remove(name)
        return f"{name}, attempt {current.attempt}"

    def gate(self, name: str) -> threading.Event:
        """Return what lets a job end."""
        return self.gates.setdefault(name, threading.Event())


def test_one_death_is_nothing_special(app: App) -> None:
    """A worker may die for any reason: the message runs among others, and its attempt isn't counted."""
    jobs = Jobs(app)
    neighbour, suspect = jobs.task.push("neighbour"), jobs.task.push("died once")

    with app.worker():
        eventually(lambda: jobs.running == {"neighbour", "died once"})
        jobs.gate("neighbour").set()
        jobs.gate("died once").set()

        assert neighbour.get(timeout=10) == "neighbour, attempt 1"
        assert suspect.get(timeout=10) == "died once, attempt 1"


def test_after_two_deaths_a_message_runs_alone(app: App) -> None:
    """What runs beside it ends first, nothing new is fetched, and then it has the worker for itself.

    So that no innocent neighbour is counted with it, should it kill once more.
    """
    jobs, others = Jobs(app), Jobs(app, "others")
    jobs.task.push("neighbour")
    others.task.push("far neighbour")

    with app.worker():
        eventually(lambda: jobs.running | others.running == {"neighbour", "far neighbour"})
        suspect = jobs.task.push("died twice")
        eventually(lambda: jobs.task.depth().running == 2)
        later, far = jobs.task.push("later"), others.task.push("far and later")
        jobs.gate("neighbour").set()
        eventually(lambda: jobs.task.depth().running == 1)
        assert jobs.order == ["neighbour"]
        others.gate("far neighbour").set()
        eventually(lambda: jobs.running == {"died twice"})

        assert others.running == set()
        assert (jobs.task.depth().ready, others.task.depth().ready) == (1, 1)
        jobs.gate("died twice").set()
        assert suspect.get(timeout=10) == "died twice, attempt 1"
        jobs.gate("later").set()
        others.gate("far and later").set()
        assert later.get(timeout=10) == "later, attempt 1"
        assert far.get(timeout=10) == "far and later, attempt 1"

    assert jobs.beside["died twice"] == set()
    assert jobs.order == ["neighbour", "died twice", "later"]
    assert others.order == ["far neighbour", "far and later"]


def test_several_suspects_run_one_after_another(app: App) -> None:
    """Each runs with nothing beside it; those that wait for their turn are held by nobody who could die with them."""
    jobs = Jobs(app, concurrency=16)
    names = [f"died twice {number}" for number in range(16)]
    pushed = [jobs.task.push(name) for name in names]

    with app.worker():
        for count in range(1, 17):
            eventually(lambda wanted=count: len(jobs.order) == wanted)
            assert jobs.task.depth().running == 1
            assert len(jobs.running) == 1
            jobs.gate(jobs.order[-1]).set()
        assert [job.get(timeout=10) for job in pushed] == [f"{name}, attempt 1" for name in names]

    assert all(beside == set() for beside in jobs.beside.values())


def test_a_suspect_is_alone_whatever_the_broker(app: App) -> None:
    """What the worker runs of another broker ends first, and nothing is fetched from there meanwhile."""
    jobs, others = Jobs(app), Jobs(app, "others", broker=MEMORY)
    others.running = jobs.running
    others.task.push("far neighbour")

    with app.worker():
        eventually(lambda: others.running == {"far neighbour"})
        suspect = jobs.task.push("died twice")
        eventually(lambda: jobs.task.depth().running == 1)
        later = others.task.push("far and later")
        others.gate("far neighbour").set()
        eventually(lambda: "died twice" in jobs.running)
        assert others.task.depth().ready == 1
        jobs.gate("died twice").set()
        others.gate("far and later").set()
        assert suspect.get(timeout=10) == "died twice, attempt 1"
        assert later.get(timeout=10) == "far and later, attempt 1"

    assert jobs.beside["died twice"] == others.beside["far and later"] == set()


def test_a_suspect_that_cant_be_settled_stops_nobody(app: App, outage: Outage) -> None:
    """Its turn is over once its job has ended: other queues don't wait until its broker or its store is back."""
    jobs, ran = Jobs(app), threading.Event()
    other = app.boost("other", broker=MEMORY)(ran.set)
    suspect = jobs.task.push("died twice")

    with app.worker():
        eventually(lambda: jobs.running == {"died twice"})
        other.push()
        jobs.gate("died twice").set()
        assert outage.met.wait(20)
        assert ran.wait(20)
        outage.mended.set()
        assert suspect.get(timeout=20) == "died twice, attempt 1"


def test_after_three_deaths_a_message_is_dead(app: App) -> None:
    """It never runs again; its letter and whoever waits for it learn why, and its neighbours run."""
    jobs = Jobs(app)
    poison, neighbour = jobs.task.push("died thrice"), jobs.task.push("neighbour")
    jobs.gate("neighbour").set()

    with app.worker():
        with pytest.raises(JobFailed) as caught:
            poison.get(timeout=10)
        assert neighbour.get(timeout=10) == "neighbour, attempt 1"
        (letter,) = eventually(lambda: dead_letters(jobs.task))

    assert jobs.order == ["neighbour"]
    assert (letter.id, letter.reason, letter.attempt) == (poison.id, "worker_lost", 1)
    assert letter.error == "3 workers died while they held it"
    assert str(caught.value) == f"job {poison.id} of task 'jobs' ended dead: worker_lost"


@pytest.mark.parametrize("state", ["running", "waiting"])
def test_a_suspect_at_the_stop_goes_back(app: App, state: str) -> None:
    """A worker that stops while a suspect runs lets it end; one that waits for its turn is given back, uncounted."""
    jobs = Jobs(app)
    if state == "waiting":
        jobs.task.push("neighbour")
    worker = app.worker()
    worker.start()
    eventually(lambda: state == "running" or jobs.running)
    suspect = jobs.task.push("died twice")
    eventually(lambda: jobs.running == {"died twice"} if state == "running" else jobs.task.depth().running == 2)

    worker.drain()
    for name in ("neighbour", "died twice"):
        jobs.gate(name).set()
    assert worker.stop() == 0

    assert jobs.task.depth().ready == (1 if state == "waiting" else 0)
    assert suspect.ready() == (state == "running")


@pytest.mark.usefixtures("impatient")
def test_a_suspect_doesnt_hold_up_a_busy_worker(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """One that isn't alone soon goes back for an idle worker, other queues are served; at last it runs in company."""
    jobs = Jobs(app)
    neighbour = jobs.task.push("neighbour")
    other = app.boost("other", results=True)(lambda: "served")

    with app.worker():
        eventually(lambda: jobs.running == {"neighbour"})
        suspect = jobs.task.push("died twice")
        assert other.push().get(timeout=10) == "served"
        eventually(lambda: jobs.running == {"neighbour", "died twice"})
        jobs.gate("neighbour").set()
        jobs.gate("died twice").set()
        assert neighbour.get(timeout=10) == "neighbour, attempt 1"
        assert suspect.get(timeout=10) == "died twice, attempt 1"

    assert f"job {suspect.id} runs in company: no worker is free to run it alone" in caplog.messages


@pytest.mark.usefixtures("impatient")
def test_suspects_have_no_company_of_each_other(app: App) -> None:
    """Where no worker is free, one at a time runs beside what is innocent; others wait at the broker."""
    jobs = Jobs(app)
    names = {"died twice", "died twice as well"}
    neighbour = jobs.task.push("neighbour")
    other = app.boost("other", results=True)(lambda: "served")

    with app.worker():
        eventually(lambda: jobs.running == {"neighbour"})
        suspects = [jobs.task.push(name) for name in names]
        eventually(lambda: jobs.running & names, 30)
        assert other.push().get(timeout=10) == "served"
        assert len(jobs.running & names) == 1
        for name in ("neighbour", *names):
            jobs.gate(name).set()
        for job in (neighbour, *suspects):
            assert job.get(timeout=10).endswith(", attempt 1")

    assert not any(jobs.beside[name] & names for name in names)
