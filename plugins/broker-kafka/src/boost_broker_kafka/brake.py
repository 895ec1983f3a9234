"""Keeps a consumer from reading more than is wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from boost_broker_kafka.cluster import Partition
from boost_broker_kafka.holdings import Holdings, Share

log = logging.getLogger("boost.broker.kafka")

PATIENCE: Final = 1.0
"""A consumer that nobody polls for longer has its partitions paused, and is polled again: rebalances wait for that."""

MOST_GAP: Final = 100_000
"""A partition is paused when so much of it was read beyond a message that isn't done."""


class Brake:
    """Pauses partitions whose queue is shut or has more than enough read ahead, or that are too far ahead themselves.

    While enough was read of everything, the consumer is simply left alone for a moment: a paused partition takes up to
    half a second to come again. The reader's thread, but for ``shut``.
    """

    def __init__(self, holdings: Holdings, queues: Iterable[str]) -> None:
        self._holdings = holdings
        self._queues = frozenset(queues)
        self._full: frozenset[str] = frozenset()
        self._blocked: frozenset[str] = frozenset()
        self._resting_since: float | None = None
        self.shut: frozenset[str] = frozenset()

    def rests(self) -> bool:
        """Return whether to leave the consumer alone."""
        self._full = self._holdings.full()
        if not self._queues <= (self._full | self.shut):
            self._resting_since = None
            return False
        if self._resting_since is None:
            self._resting_since = time.monotonic()
        return not self._waited

    @property
    def _waited(self) -> bool:
        return self._resting_since is not None and time.monotonic() - self._resting_since >= PATIENCE

    def look_again(self) -> None:
        """Look at each partition next time: there are new ones."""
        self._blocked = frozenset()

    def steer(self, consumer: Consumer, touched: set[Partition]) -> None:
        """Pause the partitions of which no more is to come, and let the others go on."""
        blocked = self._holdings.overfull() | self.shut | (self._full if self._waited else frozenset())
        everywhere = blocked != self._blocked
        self._blocked = blocked
        pause: list[Share] = []
        resume: list[Share] = []
        for partition, share in list(self._holdings.shares.items()):
            if everywhere or share.paused or partition in touched:
                wanted = self._is_blocked(share)
                if wanted != share.paused:
                    share.paused = wanted
                    (pause if wanted else resume).append(share)
        if pause:
            consumer.pause([TopicPartition(*share.partition) for share in pause])
        if resume:
            consumer.resume([TopicPartition(*share.partition) for share in resume])
            _hurry(consumer, resume)

    def _is_blocked(self, share: Share) -> bool:
        if share.rung is not None:
            return share.rung.full
        return share.queue in self._blocked or self._holdings.ledger.gap(share.partition) > MOST_GAP


def _hurry(consumer: Consumer, shares: Sequence[Share]) -> None:
    """Have resumed partitions fetched now: left alone, librdkafka looks at them once a second."""
    for share in shares:
        try:
            consumer.seek(TopicPartition(*share.partition, share.next))
        except KafkaException as error:
            log.debug("partition %s goes on by itself: %s", share.partition, error)
