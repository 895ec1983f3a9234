"""The contract between core and a messaging system. A plugin is written in one colour: ``Sync...`` or ``Async...``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from boost_core.contracts.specs import BrokerSpec
from boost_core.errors import UnsupportedCapability
from boost_core.types import Clock, Delivery, Depth, Frame, QueueSpec, SystemClock

Lost = Callable[[Sequence[Delivery]], None]
"""Called from any thread with deliveries that are no longer ours: core drops or fences them."""


class SyncSubscription:
    """One worker process's claim on its queues of one broker.

    Core owns one per broker and worker process and calls it from three threads of its own: FETCH,
    SETTLE and KEEPER. Whatever blocks obeys the broker's option ``timeout`` unless it takes one.
    Raise ``ConnectionLost`` for a broken connection, ``SettleError`` for a partial failure.
    """

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Return up to ``want[queue]`` deliveries a queue as soon as any is there, ``[]`` after ``timeout`` seconds.

        FETCH thread, in a loop. Never more than wanted; queues absent from ``want`` yield nothing.
        A broker with PRIORITY yields higher ones first, within and between its queues' wants.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Let a blocked ``fetch`` return now with what it has. Any thread; cheap; never blocks."""
        raise NotImplementedError

    def shut(self, queues: Sequence[str]) -> None:
        """Have the server send no more of these queues, and give back what it sent ahead of a fetch.

        FETCH thread, once a queue has been absent from ``want`` for a second; the next ``want`` that names it opens it
        again. Brokers that are asked for each message leave this as it is: it does nothing.
        """

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """End deliveries as done; return those that were no longer ours. SETTLE thread, beside ``fetch``."""
        raise NotImplementedError

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give deliveries back at once, uncounted; return those no longer ours. SETTLE thread."""
        raise NotImplementedError

    def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        """End each delivery and store its frame instead, atomically; return those no longer ours.

        SETTLE thread, only with REPLACE. The frame of a fenced delivery is not stored. One that can't be stored fails
        alone, by ``SettleError``: all others of the call take effect.
        """
        raise NotImplementedError

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew the lease of what is held; return those no longer ours. May swap ``delivery.receipt``.

        KEEPER thread, only with LEASES, every third of the lease while open, also with nothing held; SETTLE thread for
        what is overdue. Never beside a settle.
        """
        raise NotImplementedError

    def reconnect(self) -> None:
        """Dial again. FETCH thread, after ``ConnectionLost``, with back-off between calls."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what is unsettled and end; a blocked ``fetch`` returns within 1 s. Any thread; idempotent."""
        raise NotImplementedError


class AsyncSubscription:
    """``SyncSubscription`` in coroutines; see there for what each does and may raise.

    Every method runs on the broker's own event loop, where core calls it from its FETCH, SETTLE and KEEPER threads,
    one call a batch; so calls of the three overlap at each ``await``.
    """

    async def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Return up to ``want[queue]`` deliveries a queue as soon as any is there, ``[]`` after ``timeout`` seconds."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let a blocked ``fetch`` return now with what it has. On the loop; cheap."""
        raise NotImplementedError

    async def shut(self, queues: Sequence[str]) -> None:
        """Have the server send no more of these queues, and give back what it sent ahead of a fetch."""

    async def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """End deliveries as done; return those that were no longer ours."""
        raise NotImplementedError

    async def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give deliveries back at once, uncounted; return those no longer ours."""
        raise NotImplementedError

    async def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        """End each delivery and store its frame instead, atomically; return those no longer ours. With REPLACE."""
        raise NotImplementedError

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew the lease of what is held; return those no longer ours. With LEASES."""
        raise NotImplementedError

    async def reconnect(self) -> None:
        """Dial again after ``ConnectionLost``."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give back what is unsettled and end; a blocked ``fetch`` returns within 1 s. Idempotent."""
        raise NotImplementedError


class Broker:
    """A configured connection to one messaging system. ``spec`` and ``clock`` are set by core before ``open``."""

    spec: BrokerSpec
    clock: Clock = SystemClock()

    def __init__(self, options: Any) -> None:
        self.options = options

    def where(self) -> str:
        """Return where this broker's messages live, fit for a log line: a path, a masked URL."""
        return self.spec.name

    def refuse(self, capability: str, asks: str) -> UnsupportedCapability:
        """Return the error for something that this broker can't do; raise it before any side effect."""
        return UnsupportedCapability("a caller", asks, self.spec.name, capability)


class SyncBroker(Broker):
    """A broker written in blocking calls. Core makes one a process and configuration; publishing threads share it."""

    def open(self) -> None:
        """Connect and check the server; idempotent. Raises ``BrokerUnavailable`` within the option ``timeout``.

        Any thread, before anything else is called.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Flush and disconnect; idempotent. Later calls raise ``Closed``. Subscriptions are closed before."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """In a forked child: ``os.close`` raw descriptors that ownership hangs on. No client call, no destructor.

        The child's core forgets this object afterwards and builds a new broker.
        """
        raise NotImplementedError

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make queues exist as described; idempotent. Once a process and queue, companions included, before use.

        Raises ``TaskConflict`` where the broker records origins and another one owns the queue.
        """
        raise NotImplementedError

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store all frames and return, or raise ``PublishError`` with the indexes that failed or are unsure.

        Any thread, any number at once, on a connection of its own. At most ``timeout`` seconds. ``BrokerUnavailable``
        says that none is stored, ``ConnectionLost`` that all are unsure.
        """
        raise NotImplementedError

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> SyncSubscription:
        """Return this process's subscription; ``credit`` bounds the unsettled deliveries a queue."""
        raise NotImplementedError

    def depth(self, queue: str) -> Depth:
        """Return how many messages ``queue`` has (``dead`` is left to core). With DEPTH."""
        raise self.refuse("depth", f"the depth of {queue!r}")

    def purge(self, queue: str) -> int:
        """Remove all waiting and delayed messages, not the running ones; return how many. With PURGE."""
        raise self.refuse("purge", f"purging {queue!r}")

    def peek(self, queue: str, n: int) -> Sequence[Frame]:
        """Return up to ``n`` waiting messages, next first, leaving them there. With PEEK."""
        raise self.refuse("peek", f"peeking at {queue!r}")

    def queues(self) -> Sequence[str]:
        """Return the names of all queues known, companions included, sorted. With PEEK."""
        raise self.refuse("peek", "the list of queues")


class AsyncBroker(Broker):
    """A broker written in coroutines; see ``SyncBroker`` for what each method does and may raise.

    Core gives it an event loop on a thread of its own, and calls every coroutine there: neither a blocked loop of the
    user's nor a closed one can hurt it. ``subscribe`` is a coroutine too; ``lost`` may be called on the loop.
    """

    async def open(self) -> None:
        """Connect and check the server; idempotent. Raises ``BrokerUnavailable`` within the option ``timeout``."""
        raise NotImplementedError

    async def close(self) -> None:
        """Flush and disconnect; idempotent. Later calls raise ``Closed``."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """In a forked child: ``os.close`` raw descriptors that ownership hangs on. No client call, no coroutine."""
        raise NotImplementedError

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make queues exist as described; idempotent."""
        raise NotImplementedError

    async def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store all frames and return, or raise ``PublishError`` with the indexes that failed or are unsure."""
        raise NotImplementedError

    async def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> AsyncSubscription:
        """Return this process's subscription; ``credit`` bounds the unsettled deliveries a queue."""
        raise NotImplementedError

    async def depth(self, queue: str) -> Depth:
        """Return how many messages ``queue`` has (``dead`` is left to core). With DEPTH."""
        raise self.refuse("depth", f"the depth of {queue!r}")

    async def purge(self, queue: str) -> int:
        """Remove all waiting and delayed messages, not the running ones; return how many. With PURGE."""
        raise self.refuse("purge", f"purging {queue!r}")

    async def peek(self, queue: str, n: int) -> Sequence[Frame]:
        """Return up to ``n`` waiting messages, next first, leaving them there. With PEEK."""
        raise self.refuse("peek", f"peeking at {queue!r}")

    async def queues(self) -> Sequence[str]:
        """Return the names of all queues known, companions included, sorted. With PEEK."""
        raise self.refuse("peek", "the list of queues")
