"""The broker: one connection, one stream a queue, everything in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from boost_core.plugin import AsyncBroker, BrokerUnavailable, Capability, Closed, Depth, Frame, Lost, QueueSpec
from nats.js.errors import APIError

from boost_broker_nats import inspection, trouble
from boost_broker_nats.connection import Connection, addresses
from boost_broker_nats.permissions import proofs
from boost_broker_nats.plugin import NatsOptions
from boost_broker_nats.publication import Publication
from boost_broker_nats.releases import make_notes
from boost_broker_nats.streams import Streams
from boost_broker_nats.subscription import NatsSubscription

OLDEST, OLDEST_WITH_DELAYS = (2, 9), (2, 12)
"""The server's versions that have all that is used here; message schedules came with the second."""


class NatsBroker(AsyncBroker):
    """Queues on JetStream. Everything happens on one event loop, core's, over one connection."""

    options: NatsOptions

    def __init__(self, options: NatsOptions) -> None:
        super().__init__(options)
        self._connection: Connection | None = None
        self._streams: Streams | None = None
        self._ahead: dict[str, float] = {}  # by how many seconds the server's clock is ahead, by queue
        self._subscriptions: list[NatsSubscription] = []

    def where(self) -> str:
        """Return the servers' addresses, without logins."""
        return addresses(self.options)

    # --- life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and check that the server can what the options ask for."""
        if self._connection is not None:
            return
        connection = Connection(self.spec.name, self.options)
        try:
            await connection.open()
            await self._check(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection, self._streams = connection, Streams(connection, self.options)

    async def _check(self, connection: Connection) -> None:
        version, needed = connection.version, OLDEST_WITH_DELAYS if self.options.delays else OLDEST
        if version < needed:
            problem = f"NATS {version[0]}.{version[1]} at {connection.where}; "
            if version < OLDEST:
                raise self._unavailable(f"{problem}it must be 2.9 or later", "Upgrade the server.")
            raise self._unavailable(f"{problem}delays need 2.12", "Upgrade the server, or set delays=False.")
        if connection.max_payload < self.options.max_payload:
            problem = f"the server takes {connection.max_payload:,} bytes, not {self.options.max_payload:,}"
            fix = f"Set max_payload there, or the option max_payload={connection.max_payload} here."
            raise self._unavailable(problem, fix)
        try:
            await connection.api("INFO")
        except APIError as error:
            raise self._unavailable(f"{error.description} ({connection.where})", trouble.NO_JETSTREAM) from error

    def _unavailable(self, problem: str, fix: str) -> BrokerUnavailable:
        return BrokerUnavailable(self.spec.name, problem, fix)

    async def close(self) -> None:
        """Hang up; what was confirmed is the server's."""
        for subscription in self._subscriptions:
            await subscription.close()
        if self._connection is not None:
            await self._connection.close()

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's connection."""
        if self._connection is not None:
            self._connection.after_fork()

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Have a stream for each queue, all at once."""
        await self._opened.ready()
        names = [queue.name for queue in queues]
        found = await asyncio.gather(*(self.streams.make(name) for name in names))
        self._ahead.update(zip(names, found, strict=True))

    # --- messages -------------------------------------------------------------------------------------

    async def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Send windows of messages, and return once each is confirmed."""
        for frame in frames:
            self._check_asked(frame)
        connection, ends = self._opened, time.monotonic() + timeout
        await connection.ready(timeout)
        now = self.clock.time()
        publication = Publication(self.spec.name, self.spec.limits.max_body)
        publication.write(frames, [now + self._ahead.get(frame.queue, 0.0) for frame in frames])
        await publication.send(connection, ends)
        publication.check()

    def _check_asked(self, frame: Frame) -> None:
        capabilities = self.spec.capabilities
        if frame.priority:
            raise self.refuse("priority", f"priority={frame.priority}")
        if frame.key is not None:
            raise self.refuse("key_ordered", f"key={frame.key!r}")
        if frame.delay > 0 and Capability.DELAY not in capabilities:
            raise self.refuse("delay", f"delay={frame.delay:g}")
        if frame.ttl is not None and Capability.TTL not in capabilities:
            raise self.refuse("ttl", f"ttl={frame.ttl:g}")

    async def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> NatsSubscription:
        """Have a consumer for each queue, and return this process's claim on them."""
        await self._opened.ready()
        names = [queue.name for queue in queues]
        _, *made = await asyncio.gather(make_notes(self.streams), *(self.streams.consume(name) for name in names))
        await self._opened.tell(proofs(names))
        subscription = NatsSubscription(self.streams, dict(zip(names, made, strict=True)), credit)
        self._subscriptions.append(subscription)
        return subscription

    # --- looking at queues ----------------------------------------------------------------------------

    async def depth(self, queue: str) -> Depth:
        """Return how many messages wait, are due later, and are with workers (or were given back by them)."""
        await self._opened.ready()
        return await inspection.depth(self.streams, queue)

    async def purge(self, queue: str) -> int:
        """Remove what waits and what is due later."""
        await self._opened.ready()
        return await inspection.purge(self.streams, queue)

    async def peek(self, queue: str, n: int) -> Sequence[Frame]:
        """Return the next messages that no worker has had."""
        await self._opened.ready()
        return await inspection.peek(self.streams, queue, n)

    async def queues(self) -> Sequence[str]:
        """Return the names of all queues with a stream."""
        await self._opened.ready()
        return await inspection.queues(self.streams)

    @property
    def streams(self) -> Streams:
        """The streams, for those who look at them: ``boost doctor``."""
        assert self._streams is not None, "the broker isn't open"
        return self._streams

    @property
    def _opened(self) -> Connection:
        if self._connection is None:
            raise Closed(f"broker {self.spec.name!r}")
        return self._connection
