"""Deletes what is done, and notices what others purged, or deleted and made again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from boost_broker_kafka.cluster import Cluster, Partition, Topic
from boost_broker_kafka.holdings import Holdings, Share
from boost_broker_kafka.plugin import KafkaOptions

log = logging.getLogger("boost.broker.kafka")

TRIM_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
LOG_SECONDS: Final = 5.0
_LAST_SECONDS: Final = 0.5

_Asked = Mapping[TopicPartition, "Future[Any]"]


class Housekeeping:
    """What the reader does now and then; it waits for no answer."""

    def __init__(
        self, cluster: Cluster, holdings: Holdings, options: KafkaOptions, read_anew: Callable[[Share], None]
    ) -> None:
        self._cluster = cluster
        self._holdings = holdings
        self._trims = options.trim
        self._read_anew = read_anew
        self._deleted: _Asked = {}
        self._starts: _Asked = {}
        self._starts_of: dict[Partition, Share] = {}
        self._topics: Mapping[str, Future[Any]] = {}
        self._next_trim = time.monotonic() + TRIM_SECONDS
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._next_logs = time.monotonic() + LOG_SECONDS

    def tick(self, consumer: Consumer) -> None:
        """Do what is due."""
        now = time.monotonic()
        shares = list(self._holdings.shares.values())
        if self._topics and all(answer.done() for answer in self._topics.values()):
            self._hear_of_topics(shares, now)
        elif now >= self._next_logs and not self._topics:
            self._next_logs = now + LOG_SECONDS
            self._topics = self._ask_for_topics(shares)
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look(consumer)

    def finish(self, shares: Sequence[Share]) -> None:
        """Delete what is done of these for the last time, if the servers answer within a moment."""
        self._trim(shares, self._cluster.described(self._ask_for_topics(shares), _LAST_SECONDS))
        self._cluster.outcomes(self._deleted, _LAST_SECONDS)

    # --- topics that aren't what they were -------------------------------------------------------------

    def _ask_for_topics(self, shares: Sequence[Share]) -> Mapping[str, Future[Any]]:
        return self._cluster.ask_for(list({share.partition[0] for share in shares}))

    def _hear_of_topics(self, shares: Sequence[Share], now: float) -> None:
        topics, self._topics = self._cluster.described(self._topics), {}
        if now >= self._next_trim:
            self._next_trim = now + TRIM_SECONDS
            self._trim(shares, topics)
        for share in shares:
            topic = topics.get(share.partition[0])
            if isinstance(topic, Topic) and topic.log != share.log:
                self._read_anew(share)

    # --- what is done --------------------------------------------------------------------------------

    def _trim(self, shares: Sequence[Share], topics: Mapping[str, Topic | KafkaError]) -> None:
        """Have the servers delete what is committed of partitions, so that nobody ever does it again.

        They go by names: hence of topics that were asked for a moment ago, and are those that we read.
        """
        if not self._trims:
            return
        self._check_deleted()
        fresh = [share for share in shares if share.committed > share.trimmed and _is_still(share, topics)]
        if fresh and self._trims:
            self._deleted = self._cluster.delete_before({share.partition: share.committed for share in fresh})
            for share in fresh:
                share.trimmed = share.committed

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
            share = self._starts_of[one.topic, one.partition]
            if not isinstance(answer, KafkaError):
                self._purged(share, answer.offset)
        paused: dict[Partition, Share] = {}
        for share in list(self._holdings.shares.values()):
            if share.paused and self._holdings.buffer.waiting(share.queue):
                paused[share.partition] = share
            elif not share.paused:
                mark = low_mark(consumer, share.partition)
                if mark != share.mark:  # else it may be older than the share
                    share.mark = mark
                    self._purged(share, mark)
        if paused and not self._starts:
            self._starts, self._starts_of = self._cluster.ask_starts(paused), paused

    def _answers(self) -> dict[TopicPartition, Any]:
        if not self._starts or not all(future.done() for future in self._starts.values()):
            return {}
        answers, self._starts = self._cluster.outcomes(self._starts, 0.0), {}
        return answers

    def _purged(self, share: Share, start: int) -> None:
        if start > share.floor and self._holdings.shares.get(share.partition) is share:
            self._holdings.purged(share, start)


def low_mark(consumer: Consumer, partition: Partition) -> int:
    """Return the first offset of a partition that its last fetch, whenever that was, told of."""
    try:
        marks = consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
    except KafkaException:  # it was never fetched
        marks = None
    return OFFSET_INVALID if marks is None else marks[0]


def _is_still(share: Share, topics: Mapping[str, Topic | KafkaError]) -> bool:
    topic = topics.get(share.partition[0])
    return isinstance(topic, Topic) and topic.log == share.log
