"""A broker in coroutines: queues in this process, as a plugin's author would write one over an asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from boost_core.builtin.memory import MemoryBroker, MemorySubscription
from boost_core.builtin.plugin import MEMORY
from boost_core.plugin import (
    AsyncBroker,
    AsyncSubscription,
    BrokerSpec,
    Capability,
    Delivery,
    Depth,
    Flavour,
    Frame,
    Lost,
    NoOptions,
    QueueSpec,
)


class LoopBroker(AsyncBroker):
    """Keeps its messages in a memory broker, and awaits where a client would."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._messages = MemoryBroker(options)
        self._subscriptions: list[LoopSubscription] = []

    async def open(self) -> None:
        await asyncio.sleep(0)
        self._messages.spec, self._messages.clock = self.spec, self.clock
        self._messages.open()

    async def close(self) -> None:
        self._messages.close()

    def after_fork(self) -> None:
        """Nothing to let go of."""

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        self._messages.declare(queues)

    async def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        await asyncio.sleep(0)
        self._messages.publish(frames, timeout)
        for subscription in self._subscriptions:
            subscription.wake()

    async def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> LoopSubscription:
        subscription = LoopSubscription(self._messages.subscribe(queues, credit, lost))
        self._subscriptions.append(subscription)
        return subscription

    async def depth(self, queue: str) -> Depth:
        return self._messages.depth(queue)

    async def purge(self, queue: str) -> int:
        return self._messages.purge(queue)

    async def peek(self, queue: str, n: int) -> Sequence[Frame]:
        return self._messages.peek(queue, n)

    async def queues(self) -> Sequence[str]:
        return self._messages.queues()


class LoopSubscription(AsyncSubscription):
    """Fetches when something is there, until then it waits on the loop."""

    def __init__(self, messages: MemorySubscription) -> None:
        self._messages = messages
        self._changed = asyncio.Event()
        self.shut_off: list[str] = []

    async def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        found = self._messages.fetch(want, 0.0)
        if not found:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), timeout)
            except TimeoutError:
                return []
            found = self._messages.fetch(want, 0.0)
        return found

    def wake(self) -> None:
        self._changed.set()

    async def shut(self, queues: Sequence[str]) -> None:
        self.shut_off += queues

    async def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return self._messages.ack(deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        self._changed.set()
        return self._messages.release(deliveries)

    async def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        self._changed.set()
        return self._messages.replace(pairs)

    async def reconnect(self) -> None:
        """Nothing to dial."""

    async def close(self) -> None:
        self._messages.close()


SPEC = BrokerSpec(
    name="loop",
    factory="loopbroker:LoopBroker",
    options=NoOptions,
    flavour=Flavour.ASYNC,
    capabilities=MEMORY.capabilities - {Capability.LEASES, Capability.DELAY},
    limits=MEMORY.limits,
    store="memory",
)
