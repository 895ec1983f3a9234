"""Brokers written in coroutines, through the public API: their own loop, called by batches from core's threads."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import loopbroker
import pytest
from boost_core import App
from boost_core.bridge.portal import Portal
from boost_core.errors import UnsupportedCapability
from boost_core.plugin import Capability, Closed, ConnectionLost, Frame, Limits, PublishError, QueueSpec, option
from plugged import importable


@pytest.fixture
def app() -> Iterator[App]:
    """Yield an app on a broker written in coroutines."""
    app = App("loop", broker=loopbroker.SPEC, store="memory")
    yield app
    app.close()


def test_jobs_travel_through_a_broker_in_coroutines(app: App) -> None:
    """Pushed from blocking code in a batch, run on threads, each exactly once, results and all."""

    @app.boost("double", results=True, concurrency=8)
    def double(number: int) -> int:
        return number * 2

    jobs = double.push_many((number,) for number in range(2500))
    with app.worker():
        assert [job.get(timeout=30) for job in jobs] == [number * 2 for number in range(2500)]


def test_an_asyncio_task_on_a_broker_in_coroutines(app: App) -> None:
    """Apush from a running loop, a coroutine function as task, await of its result: three loops, none in the way."""

    @app.boost("triple", results=True)
    async def triple(number: int) -> int:
        await asyncio.sleep(0)
        return number * 3

    async def main() -> list[int]:
        async with app.worker():
            jobs = await triple.apush_many((number,) for number in range(100))
            return [await job for job in jobs]

    assert asyncio.run(main()) == [number * 3 for number in range(100)]


def test_retries_and_dead_letters(app: App) -> None:
    """Next attempts and dead letters replace what failed, as on any broker."""
    ran: list[int] = []

    @app.boost("bad", retries=2)
    def bad() -> None:
        ran.append(1)
        raise ValueError

    bad.push()
    with app.worker():
        assert bad.wait_idle(20)

    assert (len(ran), bad.depth().dead) == (3, 1)


def test_a_blocked_loop_of_the_users_is_not_in_the_way(app: App) -> None:
    """A coroutine that blocks its loop, and with it all others of the pool, doesn't keep the broker from its work."""
    blocked, go = threading.Event(), threading.Event()

    @app.boost("block")
    async def block() -> None:
        blocked.set()
        assert go.wait(20)

    block.push()
    with app.worker():
        assert blocked.wait(20)
        other = app.boost("other")(lambda: None)
        other.push()  # stored while the user's loop is blocked
        assert other.depth().ready == 1
        go.set()


def test_what_the_broker_lacks_is_refused(app: App) -> None:
    """An undeclared capability is refused before anything is sent, whatever colour the broker is written in."""
    task: Any = app.boost("later", delay=5)(lambda: None)

    with pytest.raises(UnsupportedCapability, match="asks for delay=5, but broker 'loop' has no capability 'delay'"):
        task.push()


def test_a_call_without_an_answer_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its time-out and a margin a call is cancelled; the error names the broker, whose connection counts as lost."""
    monkeypatch.setattr("boost_core.bridge.portal.MARGIN_SECONDS", 0.05)
    portal = Portal("deaf")
    portal.open()
    cancelled = threading.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ConnectionLost, match=r"broker 'deaf': gave no answer within 0\.1 s"):
        portal.call(never, 0.05)
    assert cancelled.wait(20)
    portal.close()


def test_a_method_that_is_no_coroutine_is_told_at_once() -> None:
    """Also what it raises by itself: nobody waits for an answer that can't come."""
    portal = Portal("plain")
    portal.open()

    def plain(argument: int) -> Any:
        return {"known": argument}["unknown"]

    with pytest.raises(TypeError, match="await"):
        portal.call(lambda: 42, 600.0)  # type: ignore[arg-type,return-value]
    with pytest.raises(KeyError, match="unknown"):
        portal.call(lambda: plain(42), 600.0)
    portal.close()


WITHOUT_DESCRIPTORS = """
import os, resource
from boost_core.bridge.portal import Portal
from boost_core.errors import BrokerUnavailable

portal, taken = Portal("crowded"), []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    portal.open()
except BrokerUnavailable as error:
    for number in taken:
        os.close(number)
    print(error)
portal.open()
portal.close()
"""


def test_a_loop_that_cannot_be_had_is_told() -> None:
    """Where the process has no descriptor left opening says so, and works once it has."""
    told = subprocess.run([sys.executable, "-c", WITHOUT_DESCRIPTORS], capture_output=True, text=True, timeout=30)

    assert told.stdout == (
        "broker 'crowded': there can be no event loop: [Errno 24] Too many open files\n"
        "  Raise the limit of open files (ulimit -n), or look for what keeps so many open.\n"
    )
    assert told.returncode == 0


class DeafBroker(loopbroker.LoopBroker):
    """Stores what is published, and never hears that it did."""

    async def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store, then wait for ever."""
        await super().publish(frames, timeout)
        await asyncio.Event().wait()


class RudeBroker(loopbroker.LoopBroker):
    """Stores what is published, and ends the call as clients do when a connection ends below them."""

    async def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store, then be cancelled."""
        await super().publish(frames, timeout)
        raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("kind", "problem"),
    [(DeafBroker, r"gave no answer within 0\.1\d* s"), (RudeBroker, "the call was cancelled")],
)
def test_a_publish_without_an_answer_is_unsure(monkeypatch: pytest.MonkeyPatch, kind: type, problem: str) -> None:
    """Whether the portal or the client gave it up: the caller learns that the messages may be stored, as they are."""
    monkeypatch.setattr("boost_core.app.publish.PUBLISH_SECONDS", 0.1)
    monkeypatch.setattr("boost_core.bridge.portal.MARGIN_SECONDS", 0.05)
    app = App("unsure", broker=attrs.evolve(loopbroker.SPEC, factory=importable(kind)), store="memory")
    task: Any = app.boost("task")(lambda: None)

    with pytest.raises(PublishError, match=problem) as caught:
        task.push_many([()] * 3)

    assert (list(caught.value.failed), list(caught.value.unsure)) == ([], [0, 1, 2])
    assert task.depth().ready == 3
    app.close()


def test_what_a_client_leaves_behind_ends_with_the_loop() -> None:
    """A task that nobody awaits is cancelled and hears it before the loop is closed."""
    portal = Portal("untidy")
    portal.open()
    heard = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            heard.set()

    async def leave() -> asyncio.Task[None]:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task

    left = portal.call(leave, 20.0)
    portal.close()

    assert heard.is_set()
    assert left.cancelled()


def test_a_call_that_its_client_cancels_is_a_lost_connection() -> None:
    """Core's threads would end by the bare CancelledError, which is no Exception."""
    portal = Portal("rude")
    portal.open()

    async def cancelled() -> None:
        awaited = asyncio.get_running_loop().create_future()
        awaited.cancel()
        await awaited

    with pytest.raises(ConnectionLost, match="broker 'rude': the call was cancelled"):
        portal.call(cancelled, 20.0)
    portal.close()


def test_a_closed_broker_says_so(app: App) -> None:
    """Whatever is asked of it or of its subscription afterwards raises Closed, as with any broker; waking does nothing."""
    task: Any = app.boost("task")(lambda: None)
    broker = task.broker
    subscription = broker.subscribe([QueueSpec(name="task")], {"task": 1}, list)
    app.close()

    for late in (
        lambda: broker.publish([], 1.0),
        lambda: broker.depth("task"),
        lambda: subscription.fetch({"task": 1}, 0.0),
    ):
        with pytest.raises(Closed, match="broker 'loop' is closed"):
            late()
    subscription.wake()
    broker.close()


def test_no_call_is_left_waiting_by_a_close() -> None:
    """Calls that meet a close end by it: cancelled where they were under way, closed where they come too late."""
    ends = []

    def call(portal: Portal) -> None:
        try:
            while True:
                portal.call(lambda: asyncio.sleep(0), 20.0)
        except Exception as error:
            ends.append(type(error))

    for _ in range(50):
        portal = Portal("busy")
        portal.open()
        threads = [threading.Thread(target=call, args=(portal,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        portal.close()
        for thread in threads:
            thread.join(10)

    assert len(ends) == 200
    assert set(ends) <= {Closed, ConnectionLost}


def test_a_forked_child_builds_a_loop_of_its_own(tmp_path: Path, app: App) -> None:
    """The parent's loop thread isn't in the child; the child's first push opens a broker of its own."""
    task: Any = app.boost("fork")(lambda: None)
    task.push()
    child = os.fork()
    if child == 0:
        try:
            task.push()
            os._exit(0 if task.depth().ready == 1 else 3)
        finally:
            os._exit(4)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert task.depth().ready == 1


@attrs.frozen(kw_only=True)
class Sized:
    """Options that decide what the broker can."""

    ordered: bool = option(True, help="Keep the order.")

    def effective(self, spec: Any) -> tuple[frozenset[Capability], Limits]:
        """Without an order there are no priorities either."""
        lost = frozenset() if self.ordered else frozenset({Capability.PRIORITY})
        return spec.capabilities - lost, attrs.evolve(spec.limits, max_body=4096)


def test_options_decide_what_a_broker_can() -> None:
    """Where the options class has ``effective``, its capabilities and limits count, and nothing else."""
    from boost_core.errors import BodyTooLarge

    spec = attrs.evolve(loopbroker.SPEC, options=Sized)
    full, lesser = App("full", broker=spec), App("lesser", broker=spec)
    important: Any = full.boost("important", priority=3)(lambda text="": None)
    unimportant: Any = lesser.boost("important", priority=3, broker_options={"ordered": False})(lambda: None)

    important.push()
    with pytest.raises(BodyTooLarge, match="takes at most 3,840"):
        important.push("x" * 5000)
    with pytest.raises(UnsupportedCapability, match="priority=3, but broker 'loop' has no capability 'priority'"):
        unimportant.push()
    full.close()


def test_importing_core_brings_no_asyncio_for_blocking_brokers() -> None:
    """The portal is imported with the first broker that needs it."""
    text = (
        "import sys; from boost_core import App; app = App(broker='memory'); t = app.boost('t')(lambda: None);"
        "t.push(); sys.exit('asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
