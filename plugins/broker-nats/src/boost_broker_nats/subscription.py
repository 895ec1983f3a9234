"""One worker process's claim on its queues: pulls in, acknowledgements out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from boost_core.plugin import AsyncSubscription, BrokerUnavailable, Closed, ConnectionLost, Delivery, QueueGone

from boost_broker_nats.place import Place
from boost_broker_nats.pull import Pull
from boost_broker_nats.receipt import ACK, EXTEND, RELEASE
from boost_broker_nats.releases import Releases
from boost_broker_nats.streams import Streams

log = logging.getLogger("boost.broker.nats")

PULL_SECONDS: Final = 10.0
"""How long a request for messages stays open, or half the lease if that is less.

Less than the lease: what comes back from a dead worker must not go to a request that it has left behind.
"""

GOODBYE_SECONDS: Final = 1.0
"""How long a closing subscription waits for a sign of life."""


class NatsSubscription(AsyncSubscription):
    """A pull for each queue, and what was handed out and isn't settled.

    Receipts outlive a connection: they are subjects. But the server doesn't say whether an acknowledgement came too
    late, so this side keeps the time: what wasn't extended within the lease is somebody else's.
    """

    def __init__(self, streams: Streams, made: Mapping[str, str], credit: Mapping[str, int]) -> None:
        self._streams, self._connection = streams, streams.connection
        self._releases = Releases(streams, made)
        self._lease = streams.options.lease
        self._credit = credit
        self._changed = asyncio.Event()
        self._woken = self._closed = False
        self._generation = self._connection.generation
        self._held: dict[int, Delivery] = {}
        self._counts: Counter[str] = Counter()
        seconds = min(PULL_SECONDS, self._lease / 2)
        self._pulls = {name: Pull(self._connection, name, self._lease, seconds, self._changed.set) for name in made}
        self._connection.on_loss.append(self._changed.set)

    # --- fetching -------------------------------------------------------------------------------------

    async def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Take what the pulls have brought, and ask for more where they have brought nothing."""
        ends = time.monotonic() + timeout
        while True:
            self._check()
            wanted = self._within_credit(want)
            found = [one for pull, count in wanted for one in pull.take(count)]
            if found:
                self._hold(found)
                await self._releases.count_deaths(found)
                return found
            self._changed.clear()
            await self._connection.bounded(self._ask(wanted))
            if self._woken or time.monotonic() >= ends:
                self._woken = False
                return []
            await self._wait(min([ends, *(pull.due() for pull, _ in wanted if pull.due())]))

    def wake(self) -> None:
        """Let a blocked ``fetch`` return."""
        self._woken = True
        self._changed.set()

    async def shut(self, queues: Sequence[str]) -> None:
        """Take the requests for these queues back, and give back what came for them."""
        self._check()
        pulls = [self._pulls[queue] for queue in queues]
        boxes = await asyncio.gather(*(pull.stop() for pull in pulls))
        await self._give_back([one for box in boxes for one in box])

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"a subscription of broker {self._connection.name!r}")
        if self._generation != self._connection.generation:
            raise ConnectionLost(self._connection.name, f"the connection was lost ({self._connection.where})")

    def _within_credit(self, want: Mapping[str, int]) -> list[tuple[Pull, int]]:
        wanted = []
        for queue, count in want.items():
            if queue not in self._pulls:
                raise QueueGone(self._connection.name, queue)
            room = count if queue not in self._credit else min(count, self._credit[queue] - self._counts[queue])
            if room > 0:
                wanted.append((self._pulls[queue], room))
        return wanted

    async def _ask(self, wanted: Sequence[tuple[Pull, int]]) -> None:
        for pull, count in wanted:
            if pull.refused:
                await self._see(pull)
            await pull.ask(count)

    async def _see(self, pull: Pull) -> None:
        """Find out whether a consumer that can't be asked is gone, or only not ready (a restart, a new leader)."""
        if await self._streams.consumer(Place.of(pull.queue)) is None:
            raise QueueGone(self._connection.name, pull.queue)
        pull.pause()

    async def _wait(self, until: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _hold(self, found: Sequence[Delivery]) -> None:
        for delivery in found:
            self._held[id(delivery)] = delivery
            self._counts[delivery.queue] += 1

    # --- settling -------------------------------------------------------------------------------------

    async def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """End deliveries as done, in one go."""
        ours, lost = self._sorted_out(deliveries)
        await self._connection.tell([*((one.receipt.reply, ACK, None) for one in ours), *self._releases.forget(ours)])
        self._let_go(deliveries)
        return lost

    async def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give deliveries back."""
        ours, lost = self._sorted_out(deliveries)
        await self._give_back(ours)
        self._let_go(deliveries)
        return lost

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Give back in the old order: the server hands out first what was given back first."""
        if deliveries:
            await self._releases.note(deliveries)
            ordered = sorted(deliveries, key=lambda one: one.receipt.number)
            await self._connection.tell([(one.receipt.reply, RELEASE, None) for one in ordered])

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew the leases of what is held; give back what nobody has taken out of the boxes in time."""
        ours, lost = self._sorted_out(deliveries)
        asked = time.monotonic()
        await self._connection.tell([(one.receipt.reply, EXTEND, None) for one in ours])
        for delivery in ours:
            delivery.receipt.until = asked + self._lease
        self._let_go(lost)
        fresh = asked + self._lease * 2 / 3
        await self._give_back([one for pull in self._pulls.values() for one in pull.take_older(fresh)])
        return lost

    def _sorted_out(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        now = time.monotonic()
        ours: list[Delivery] = []
        lost: list[Delivery] = []
        for one in deliveries:
            (ours if id(one) in self._held and one.receipt.until > now else lost).append(one)
        return ours, lost

    def _let_go(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._held.pop(id(delivery), None) is not None:
                self._counts[delivery.queue] -= 1

    # --- the end --------------------------------------------------------------------------------------

    async def reconnect(self) -> None:
        """Wait for nats-py's new connection, or dial; then give back what had come over the old one."""
        await self._connection.ready()
        self._generation = self._connection.generation
        boxes = [await pull.drop() for pull in self._pulls.values()]
        await self._give_back([one for box in boxes for one in box])

    async def close(self) -> None:
        """Give back all that is unsettled, where there is a connection; else it comes back when the lease is over."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        self._connection.on_loss.remove(self._changed.set)
        if self._connection.up:
            try:
                await self._say_goodbye()
            except BrokerUnavailable as error:
                log.warning("what was unsettled comes back when its lease is over: %s", error)
        self._held.clear()

    async def _say_goodbye(self) -> None:
        """Give all back; a server that hangs isn't waited for long, since the end of a lease does the same."""
        await self._connection.bounded(self._connection.client.flush(), GOODBYE_SECONDS)
        boxes = await asyncio.gather(*(pull.stop() for pull in self._pulls.values()))
        await self._give_back([*self._held.values(), *(one for box in boxes for one in box)])
