"""One worker's claim on its queues."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from boost_core.plugin import Closed, Delivery, QueueGone, SyncSubscription
from boost_core.plugin.native import Lock, sleep
from confluent_kafka import Consumer

from boost_broker_kafka.cluster import Partition
from boost_broker_kafka.parts import Parts
from boost_broker_kafka.reader import Reader

_LOOK: Final = 0.02


class KafkaSubscription(SyncSubscription):
    """A member of the consumer group. Its reader's thread fills a buffer, from which ``fetch`` takes."""

    def __init__(self, parts: Parts, queues: Sequence[str]) -> None:
        self._parts = parts
        self._holdings = parts.holdings
        self._queues = tuple(queues)
        self._closing = Lock()
        self._shut: frozenset[str] = frozenset()
        self.closed = False
        self._reader = Reader(parts, self._queues)
        self._reader.start()

    # --- fetching ----------------------------------------------------------------------------------

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Take what was read. Raises ``QueueGone``, ``ConnectionLost``, and ``Closed`` after ``close``."""
        if self.closed:
            raise Closed(f"a subscription of broker {self._parts.name!r}")
        if self._reader.silent:
            raise self._reader.unavailable()
        for queue in want:
            if queue not in self._queues:
                raise QueueGone(self._parts.name, queue)
        if not self._shut.isdisjoint(want):
            self._set_shut(self._shut.difference(want))
        return self._holdings.take(want, timeout)

    def wake(self) -> None:
        """Let a blocked ``fetch`` return."""
        self._holdings.buffer.wake()

    def shut(self, queues: Sequence[str]) -> None:
        """Pause these queues' partitions. What was read of them stays: while it is ours, nobody else can run it."""
        self._set_shut(self._shut.union(queues))

    def _set_shut(self, queues: frozenset[str]) -> None:
        self._shut = queues
        self._reader.shut(queues)

    # --- settling ----------------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Note deliveries as done; their offsets are committed within 100 ms.

        Raises ``ConnectionLost`` while no server answers: what couldn't be committed would be run again unannounced.
        """
        if not self._reader.knows(self._parts.options.timeout) or self._reader.silent:
            raise self._reader.unavailable()
        fenced = self._holdings.done(deliveries)
        self._parts.commits.acked(len(deliveries) - len(fenced))
        return fenced

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Have this worker hand them out again: as long as the partition is ours, nobody else can."""
        return self._holdings.give_back(deliveries)

    # --- inspection --------------------------------------------------------------------------------

    def running(self, queue: str) -> int:
        """Return how many messages of a queue run here."""
        return self._holdings.running(queue)

    def write(self, timeout: float) -> None:
        """Commit everything that is done, unless that takes longer."""
        if not self.closed and not self._reader.silent:
            self._reader.errands.ask(self._parts.commits.write, timeout)

    def purged(self, starts: Mapping[Partition, int]) -> None:
        """Drop what was read ahead and purged."""
        for partition, start in starts.items():
            share = self._holdings.shares.get(partition)
            if share is not None:
                self._holdings.purged(share, start)

    # --- life --------------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Return once a server answers; with a new consumer where the old one broke. Raises ``BrokerUnavailable``."""
        timeout = self._parts.options.timeout
        deadline = time.monotonic() + timeout
        self._parts.cluster.probe(timeout)
        with self._closing:
            if not self.closed and self._reader.broken(timeout):
                self._reader = Reader(self._parts, self._queues)
                self._reader.start()
        self._set_shut(frozenset())
        self._reader.heard_back()
        while self._reader.silent:
            if time.monotonic() > deadline:
                raise self._reader.unavailable()
            sleep(_LOOK)

    def close(self) -> None:
        """Commit, and leave the group; what is unsettled is run again by who gets its partition."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
            self._holdings.buffer.close()
            self._reader.stop(self._parts.options.timeout)

    def forget(self) -> Consumer:
        """Forget the consumer, and return it to whom it may concern."""
        self.closed = True
        return self._reader.consumer
