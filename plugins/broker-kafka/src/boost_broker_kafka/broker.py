"""The broker: topics of a Kafka cluster, shared by the workers of one consumer group."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from boost_core.plugin import (
    BrokerUnavailable,
    Closed,
    Depth,
    Frame,
    Lost,
    PublishError,
    QueueSpec,
    SyncBroker,
    mask_url,
)
from confluent_kafka import OFFSET_END, KafkaError

from boost_broker_kafka import backlog
from boost_broker_kafka.cluster import Cluster, Partition, left_until
from boost_broker_kafka.commits import Commits
from boost_broker_kafka.declaration import declare
from boost_broker_kafka.forks import keep
from boost_broker_kafka.holdings import Holdings
from boost_broker_kafka.mover import Mover, delayed
from boost_broker_kafka.outbox import Outbox, Record
from boost_broker_kafka.parts import Parts
from boost_broker_kafka.plugin import KafkaOptions
from boost_broker_kafka.spread import Spread
from boost_broker_kafka.subscription import KafkaSubscription
from boost_broker_kafka.topics import topic_of


class KafkaBroker(SyncBroker):
    """Queues as topics. One producer and one admin client a process, a consumer a subscription."""

    options: KafkaOptions

    def __init__(self, options: KafkaOptions) -> None:
        super().__init__(options)
        self.cluster = Cluster(options)
        self._outbox = Outbox(options, self.cluster.probe)
        self._spread = Spread(self.cluster.partitions)
        self._subscriptions: list[KafkaSubscription] = []
        self._open = False

    def where(self) -> str:
        """Return the servers' addresses, and who logs in there."""
        address = self.options.address
        login = f"{address.username}:***@" if address.username else ""
        return mask_url(f"kafka{'s' if address.tls else ''}://{login}{address.servers}")

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Ask a server for its cluster. Raises ``BrokerUnavailable`` with the reason and the remedy."""
        if self._open:
            return
        try:
            self.cluster.probe(self.options.timeout)
        except BaseException:
            self.cluster.close()
            raise
        self._open = True

    def close(self) -> None:
        """Wait for what is being published, and disconnect; idempotent."""
        if self._open:
            self._open = False
            self._outbox.close(self.options.timeout)
            self.cluster.close()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's clients alone. What Kafka goes by is heartbeats, not connections."""
        self._open = False
        keep(*self.cluster.let_go(), self._outbox.forget(), *(one.forget() for one in self._subscriptions))

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make the queues' topics where they are missing. Raises ``BrokerUnavailable`` for those that can't be used."""
        self._check_open()
        declare(self.cluster, self.options, queues)

    # --- publishing and subscribing -------------------------------------------------------------------

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Return once all in-sync copies have all frames. Raises ``PublishError``; frames over the limit fail alone."""
        self._check_open()
        misfits = self._misfits(frames)
        indexes = [index for index in range(len(frames)) if index not in misfits]
        failed, unsure, problem = list(misfits), [], next(iter(misfits.values()), "")
        if indexes:
            try:
                self._outbox.send(self._records([frames[index] for index in indexes]), timeout)
            except PublishError as error:
                problem = problem or error.problem
                failed += [indexes[number] for number in error.failed]
                unsure = [indexes[number] for number in error.unsure]
            except BrokerUnavailable:
                if not misfits:
                    raise
                failed = list(range(len(frames)))
        if failed or unsure:
            raise PublishError(self.spec.name, problem, sorted(failed), unsure)

    def _misfits(self, frames: Sequence[Frame]) -> dict[int, str]:
        """Return which frames can't be stored, and why. Raises ``UnsupportedCapability`` for what Kafka can't do."""
        found: dict[int, str] = {}
        most = self.options.max_body
        for index, frame in enumerate(frames):
            if frame.priority:
                raise self.refuse("priority", f"priority={frame.priority}")
            if frame.ttl is not None:
                raise self.refuse("ttl", f"ttl={frame.ttl:g}")
            size = len(frame.body) + (len(frame.key.encode()) if frame.key else 0)
            if size > most:
                found[index] = f"a message of {size:,} bytes is over max_body={most:,}"
        return found

    def _records(self, frames: Sequence[Frame]) -> list[Record]:
        now = self.clock.time()
        records: list[Record | None] = [None] * len(frames)
        keyless: defaultdict[str, list[int]] = defaultdict(list)
        for index, frame in enumerate(frames):
            key = None if frame.key is None else frame.key.encode()
            if frame.delay > 0:
                records[index] = delayed(frame.queue, frame.body, key, now + frame.delay, now)
            elif key is not None:
                records[index] = (topic_of(frame.queue), frame.body, key, -1, None)
            else:
                keyless[frame.queue].append(index)
        for queue, indexes in keyless.items():
            topic = topic_of(queue)
            for index, partition in zip(indexes, self._spread.deal(topic, len(indexes)), strict=True):
                records[index] = (topic, frames[index].body, None, partition, None)
        return [record for record in records if record is not None]

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> KafkaSubscription:
        """Return a subscription, a member of the group."""
        self._check_open()
        holdings = Holdings([queue.name for queue in queues], credit)
        parts = Parts(
            name=self.spec.name,
            options=self.options,
            cluster=self.cluster,
            holdings=holdings,
            mover=Mover(holdings, self._outbox, self._spread, self.clock),
            commits=Commits(holdings),
            lost=lost,
        )
        subscription = KafkaSubscription(parts, [queue.name for queue in queues])
        self._subscriptions = [one for one in self._subscriptions if not one.closed]
        self._subscriptions.append(subscription)
        return subscription

    # --- inspection --------------------------------------------------------------------------------

    def depth(self, queue: str) -> Depth:
        """Return how many messages a queue has. What runs in other processes counts as ready: Kafka can't tell it."""
        return self._depth(queue, time.monotonic() + self.options.timeout)

    def _depth(self, queue: str, deadline: float) -> Depth:
        self._check_open()
        for subscription in self._subscriptions:
            subscription.write(left_until(deadline))
        running = sum(subscription.running(queue) for subscription in self._subscriptions if not subscription.closed)
        ready, waiting = backlog.counts(self.cluster, queue, deadline)
        return Depth(ready=max(0, ready - running), delayed=waiting, running=running)

    def purge(self, queue: str) -> int:
        """Delete all that waits and is delayed; return how many. What workers elsewhere read ahead they drop soon."""
        deadline = time.monotonic() + self.options.timeout
        before = self._depth(queue, deadline)
        starts: dict[Partition, int] = {}
        partitions = backlog.partitions(self.cluster, queue, deadline)
        asked = self.cluster.delete_before(dict.fromkeys(partitions, OFFSET_END))
        for one, answer in self.cluster.outcomes(asked, left_until(deadline)).items():
            if isinstance(answer, KafkaError):
                raise BrokerUnavailable(self.spec.name, f"topic {one.topic!r} can't be emptied: {answer.str()}")
            starts[one.topic, one.partition] = answer.low_watermark
        for subscription in self._subscriptions:
            subscription.purged(starts)
        return before.ready + before.delayed

    def _check_open(self) -> None:
        if not self._open:
            raise Closed(f"broker {self.spec.name!r}")
