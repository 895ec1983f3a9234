"""Deletes what is done, and notices what others purged."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from boost_broker_kafka.cluster import Cluster, Partition
from boost_broker_kafka.holdings import Holdings, Share
from boost_broker_kafka.plugin import KafkaOptions

log = logging.getLogger("boost.broker.kafka")

TRIM_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
_LAST_SECONDS: Final = 1.0

_Asked = Mapping[TopicPartition, "Future[Any]"]


class Housekeeping:
    """What the reader does now and then; it waits for no answer."""

    def __init__(self, cluster: Cluster, holdings: Holdings, options: KafkaOptions) -> None:
        self._cluster = cluster
        self._holdings = holdings
        self._trims = options.trim
        self._trimmed: dict[Partition, int] = {}
        self._deleted: _Asked = {}
        self._starts: _Asked = {}
        self._next_trim = time.monotonic() + TRIM_SECONDS
        self._next_look = time.monotonic() + LOOK_SECONDS

    def tick(self, consumer: Consumer) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now >= self._next_trim:
            self._next_trim = now + TRIM_SECONDS
            self.trim(list(self._holdings.shares.values()))
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look(consumer)

    # --- what is done --------------------------------------------------------------------------------

    def trim(self, shares: Iterable[Share]) -> None:
        """Have the servers delete what is committed of partitions, so that nobody ever does it again."""
        if not self._trims:
            return
        self._check_deleted()
        fresh = {
            share.partition: share.committed
            for share in shares
            if share.committed > self._trimmed.get(share.partition, 0)
        }
        if fresh and self._trims:
            self._deleted = self._cluster.delete_before(fresh)
            self._trimmed |= fresh

    def finish(self) -> None:
        """Give what was asked for a moment."""
        self._cluster.outcomes(self._deleted, _LAST_SECONDS)

    def _check_deleted(self) -> None:
        for one, answer in self._cluster.outcomes(self._deleted, 0.0).items():
            if isinstance(answer, KafkaError) and answer.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                self._trims = False
                log.warning(
                    "what is done stays on topic %s: no permission to delete it. Allow Delete on it, or set trim=False",
                    one.topic,
                )
                return

    # --- what was purged -----------------------------------------------------------------------------

    def _look(self, consumer: Consumer) -> None:
        """Drop what was read ahead and purged since. Fetching tells, but for partitions that are paused."""
        for one, answer in self._answers().items():
            share = self._holdings.shares.get((one.topic, one.partition))
            if share is not None and not isinstance(answer, KafkaError):
                self._purged(share, answer.offset)
        paused = []
        for share in list(self._holdings.shares.values()):
            if share.paused and self._holdings.buffer.waiting(share.queue):
                paused.append(share.partition)
            elif not share.paused:
                marks = consumer.get_watermark_offsets(TopicPartition(*share.partition), cached=True)
                if marks is not None:
                    self._purged(share, marks[0])
        if paused and not self._starts:
            self._starts = self._cluster.ask_starts(paused)

    def _answers(self) -> dict[TopicPartition, Any]:
        if not self._starts or not all(future.done() for future in self._starts.values()):
            return {}
        answers, self._starts = self._cluster.outcomes(self._starts, 0.0), {}
        return answers

    def _purged(self, share: Share, start: int) -> None:
        if start > share.floor:
            self._holdings.purged(share, start)
