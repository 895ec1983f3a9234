"""Brokers written in coroutines, as core calls them: from blocking threads, a call a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from boost_core.bridge.notice import Notice
from boost_core.contracts.broker import AsyncBroker, AsyncSubscription, Lost, SyncBroker, SyncSubscription
from boost_core.errors import BrokerUnavailable, Closed, ConnectionLost
from boost_core.native import Event, RLock, Thread
from boost_core.types import Delivery, Depth, Frame, QueueSpec

T = TypeVar("T")

MARGIN_SECONDS: Final = 5.0
"""What a call may take beyond its own time-out before it is given up: a broker that keeps its own never meets it."""

_NO_LOOP: Final = "Raise the limit of open files (ulimit -n), or look for what keeps so many open."


class Portal:
    """An event loop on a thread of its own, and the way into it from other threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._gate = RLock()  # what passes it before ``close`` is started; re-entrant for signal handlers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._problem: Exception | None = None

    @property
    def is_open(self) -> bool:
        """True from ``open`` to ``close``."""
        return self._loop is not None

    def open(self) -> None:
        """Start the loop; idempotent. Raises ``BrokerUnavailable`` where the process can't have one."""
        if self._loop is None:
            started = Event()
            self._thread = Thread(target=self._serve, args=(started,), name=f"boost-loop-{self._name}", daemon=True)
            self._thread.start()
            started.wait()
            if self._problem is not None:
                problem, self._problem = self._problem, None
                raise BrokerUnavailable(self._name, f"there can be no event loop: {problem}", _NO_LOOP) from problem

    def _serve(self, started: Event) -> None:
        runner = asyncio.Runner()
        try:
            loop = self._loop = runner.get_loop()  # here: patched sockets belong to the thread that makes them
        except Exception as error:
            self._problem = error
            return
        finally:
            started.set()
        with runner:  # its end cancels what a client has left behind, before it closes the loop
            loop.run_forever()

    def call(self, make: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Run a coroutine on the loop and return what it returns, or raise what it raises.

        Past ``timeout`` seconds and a margin it is cancelled. That raises ``ConnectionLost``, since its effect isn't
        known, and so does one that ends cancelled: by its client when a connection ends below it, or by ``close``.
        Raises ``Closed`` after that.
        """
        if _runs_here(self._loop):
            message = f"broker {self._name!r} is called from its own event loop; await its coroutines there"
            raise RuntimeError(message)
        call = _Call(make)
        if not self.call_soon(call.start):
            raise Closed(f"broker {self._name!r}")
        try:
            if not call.ended.wait(timeout + MARGIN_SECONDS):
                raise ConnectionLost(self._name, f"gave no answer within {timeout + MARGIN_SECONDS:g} s")
        except BaseException:  # also what ends a caller that waits, as signal handlers and greenlets' time-outs do
            self.call_soon(call.cancel)
            raise
        try:
            return call.result()  # type: ignore[no-any-return]
        except asyncio.CancelledError as error:
            raise ConnectionLost(self._name, "the call was cancelled") from error

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Have a plain function called on the loop; return False where that is closed. Any thread; never blocks."""
        with self._gate:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)
            return self._loop is not None

    def close(self) -> None:
        """End the loop, and what is under way there; idempotent."""
        with self._gate:
            if self._loop is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
        if self._thread is not None:
            self._thread.join(MARGIN_SECONDS)


def _runs_here(loop: asyncio.AbstractEventLoop | None) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class _Call:
    """One coroutine on its way through a portal."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._make = make
        self._task: asyncio.Task[Any] | None = None
        self.ended = Notice()

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(lambda _: self.ended.give())

    async def _run(self) -> Any:
        return await self._make()  # here: what the plugin raises before there is a coroutine is told as well

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> Any:
        assert self._task is not None
        return self._task.result()


class PortalBroker(SyncBroker):
    """An ``AsyncBroker`` behind its portal."""

    def __init__(self, inner: AsyncBroker) -> None:
        super().__init__(inner.options)
        self.inner = inner
        self.portal = Portal(inner.spec.name)
        self.spec, self.clock = inner.spec, inner.clock
        self.timeout: float = getattr(inner.options, "timeout", None) or 10.0

    def where(self) -> str:
        """Return where the broker's messages live."""
        return self.inner.where()

    def open(self) -> None:
        """Start the loop and connect."""
        self.portal.open()
        try:
            self._call(self.inner.open)
        except BaseException:
            self.portal.close()
            raise

    def close(self) -> None:
        """Disconnect and end the loop; idempotent."""
        if self.portal.is_open:
            try:
                self._call(self.inner.close)
            finally:
                self.portal.close()

    def after_fork(self) -> None:
        """In a forked child: the loop's thread isn't there; let the plugin close its descriptors."""
        self.inner.after_fork()

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make queues exist."""
        self._call(lambda: self.inner.declare(queues))

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store all frames."""
        self.portal.call(lambda: self.inner.publish(frames, timeout), timeout)

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> SyncSubscription:
        """Return the subscription, behind the same portal."""
        return PortalSubscription(self, self._call(lambda: self.inner.subscribe(queues, credit, lost)))

    def depth(self, queue: str) -> Depth:
        """Return how many messages a queue has."""
        return self._call(lambda: self.inner.depth(queue))

    def purge(self, queue: str) -> int:
        """Remove what waits."""
        return self._call(lambda: self.inner.purge(queue))

    def peek(self, queue: str, n: int) -> Sequence[Frame]:
        """Return the next messages, leaving them there."""
        return self._call(lambda: self.inner.peek(queue, n))

    def queues(self) -> Sequence[str]:
        """Return the names of all queues."""
        return self._call(self.inner.queues)

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self.portal.call(make, self.timeout)


class PortalSubscription(SyncSubscription):
    """An ``AsyncSubscription`` behind its broker's portal."""

    def __init__(self, broker: PortalBroker, inner: AsyncSubscription) -> None:
        self._portal, self._timeout, self._inner = broker.portal, broker.timeout, inner

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Fetch on the loop."""
        return self._portal.call(lambda: self._inner.fetch(want, timeout), timeout + self._timeout)

    def wake(self) -> None:
        """Let a blocked fetch return."""
        self._portal.call_soon(self._inner.wake)

    def shut(self, queues: Sequence[str]) -> None:
        """Have the server send no more of these queues."""
        self._call(lambda: self._inner.shut(queues))

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """End deliveries as done."""
        return self._call(lambda: self._inner.ack(deliveries))

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give deliveries back."""
        return self._call(lambda: self._inner.release(deliveries))

    def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        """Store frames in the place of deliveries."""
        return self._call(lambda: self._inner.replace(pairs))

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew what is held."""
        return self._call(lambda: self._inner.extend(deliveries))

    def reconnect(self) -> None:
        """Dial again."""
        self._call(self._inner.reconnect)

    def close(self) -> None:
        """Give back what is unsettled and end."""
        self._call(self._inner.close)

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._portal.call(make, self._timeout)
