"""The thread that owns a worker's consumer: reads ahead, hears of rebalances, pauses and commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from boost_core.plugin import ConnectionLost, Delivery, QueueGone
from boost_core.plugin.native import Event, Thread, sleep
from boost_core.plugin.offsetledger import read_commit
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from boost_broker_kafka.brake import Brake
from boost_broker_kafka.cluster import NOT_YET, Partition
from boost_broker_kafka.commits import STALE
from boost_broker_kafka.config import consumer_config, heartbeat
from boost_broker_kafka.errands import Errands
from boost_broker_kafka.farewell import GOODBYE_SECONDS, leave
from boost_broker_kafka.holdings import Share
from boost_broker_kafka.housekeeping import Housekeeping, low_mark
from boost_broker_kafka.ladder import RUNGS, Rung
from boost_broker_kafka.parts import Parts
from boost_broker_kafka.topics import delay_topic, topic_of
from boost_broker_kafka.trouble import Trouble, refusal

log = logging.getLogger("boost.broker.kafka")

IDLE_TICK, BUSY_TICK = 0.1, 0.02
"""How long acks and other threads may wait for the consumer: it can't be woken."""

AT_ONCE: Final = 500
_LAST_REPORTS, _LAST_COMMIT = 0.5, 1.0
_NOT_YET_SECONDS, _HANDOVER_TICK = 0.1, 0.02
_UNKNOWN: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


class Reader:
    """Reads the topics of queues from ``start`` to ``stop``. What goes wrong is raised by the next ``fetch``."""

    def __init__(self, parts: Parts, queues: Sequence[str]) -> None:
        self._parts = parts
        self._options = parts.options
        self._holdings = parts.holdings
        self._queues = {topic_of(queue): queue for queue in queues}
        self._delays = {delay_topic(queue): queue for queue in queues}
        self._trouble = Trouble(parts.options)
        self._given_up = False
        self._housekeeping = Housekeeping(parts.cluster, parts.holdings, parts.options, self._read_anew)
        self._stop = Event()
        self._broke = False
        self._brake = Brake(parts.holdings, queues)
        self._missing: dict[str, float] = {}
        self.errands = Errands()
        self._beat = time.monotonic()
        self.consumer = Consumer(
            {
                **consumer_config(parts.options),
                "group.instance.id": parts.member,
                "error_cb": self._trouble.hear,
                "on_commit": parts.commits.heard,
            }
        )
        parts.commits.forget()
        parts.commits.consumer = self.consumer
        self._thread = Thread(target=self._serve, name=f"boost-read-{parts.name}")

    # --- any thread ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End: commit what is done, and leave the group; a goodbye that no server answers is left to itself."""
        started = time.monotonic()
        self._stop.set()
        with self._holdings.settled:
            self._holdings.settled.notify_all()
        while self._thread.is_alive():
            hopeless = self.silent or self._given_up
            if time.monotonic() - started > (GOODBYE_SECONDS if hopeless else timeout):
                return
            self._thread.join(_HANDOVER_TICK)

    def broken(self, timeout: float) -> bool:
        """Return whether it ended by itself, after it let go of everything."""
        if not self._broke:
            return False
        self._thread.join(timeout)
        return True

    @property
    def silent(self) -> bool:
        """Whether no server answers, as far as is known: what is acknowledged now might be run again."""
        return self._trouble.down or self._parts.commits.silent

    def unavailable(self) -> ConnectionLost:
        """Return the error for servers that don't answer."""
        return ConnectionLost(self._parts.name, f"no server answers: {self._trouble.reason()}")

    def knows(self, timeout: float) -> bool:
        """Return whether it knows what is ours; after a standstill it looks again, within so many seconds."""
        return not self._stood_still or self.errands.ask(lambda: True, timeout) is True or self.errands.over

    @property
    def _stood_still(self) -> bool:
        """Whether it hasn't turned for so long that the group may have gone on without it."""
        return time.monotonic() - self._beat > heartbeat(self._options)

    def shut(self, queues: frozenset[str]) -> None:
        """Read no more of these queues, and of all others again."""
        self._brake.shut = queues

    def heard_back(self) -> None:
        """Note that the servers answer again: a later outage is news."""
        self._trouble.over()

    # --- the thread --------------------------------------------------------------------------------

    def _serve(self) -> None:
        problem = None
        try:
            self._subscribe()
            while not self._stop.is_set():
                self._turn()
        except Exception as error:
            log.debug("reading ended", exc_info=True)
            problem = f"the consumer broke: {_shown(error)}"
            self._broke = True
        self._leave()
        if problem is not None:
            self._fail(ConnectionLost(self._parts.name, problem))

    def _subscribe(self) -> None:
        topics = [topic for topic, queue in self._queues.items() if queue not in self._parts.gone]
        if topics:
            self.consumer.subscribe(topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)
        else:
            self.consumer.unsubscribe()

    def _turn(self) -> None:
        self._live()
        touched = self._take(self._read())
        self._parts.mover.step()
        self._brake.steer(self.consumer, touched)
        self._parts.commits.tick()
        self._housekeeping.tick(self.consumer)
        self._look_for_missing()
        if self.silent:  # whoever waits for messages is to hear of it
            self._holdings.buffer.wake()

    def _live(self) -> None:
        """Look whether everything is still ours, after a standstill, and then do what other threads wait for."""
        if self._stood_still:
            self._ask_whether_ours()
        self._beat = time.monotonic()
        self.errands.run()

    def _read(self) -> Sequence[Message]:
        if self._brake.rests():
            self._holdings.await_room(BUSY_TICK)
            return []
        mover = self._parts.mover
        tick = BUSY_TICK if self._holdings.busy else IDLE_TICK
        first = self.consumer.poll(0.0 if mover.busy else min(tick, mover.pause()))
        return [] if first is None else [first, *self.consumer.consume(AT_ONCE - 1, 0.0)]

    def _take(self, messages: Sequence[Message]) -> set[Partition]:
        """Sort what was read; return the partitions it is of."""
        fresh: list[Delivery] = []
        touched: set[Partition] = set()
        ledger, shares = self._holdings.ledger, self._holdings.shares
        for message in messages:
            if message.error() is not None:
                self._hear(message)
                continue
            partition: Any = (message.topic(), message.partition())
            offset: Any = message.offset()
            share = shares.get(partition)
            if share is None:
                continue
            if offset < share.next:  # what is read now was written after what we read there
                share = self._begin_anew(share, offset)
            touched.add(partition)
            share.next = offset + 1
            if not ledger.begin(partition, offset):  # its last owner did it
                continue
            if offset < share.floor:
                ledger.done(partition, offset, share.generation)
            elif share.rung is not None:
                self._parts.mover.add(share, share.rung, message)
            else:
                fresh.append(Delivery(share.queue, message.value() or b"", (partition, offset, share.generation)))
        if fresh:
            self._holdings.stock(fresh)
        return touched

    # --- rebalances --------------------------------------------------------------------------------

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take partitions over, each from where its last owner was."""
        committed, logs = self._committed(consumer, self._with_delays(partitions))
        fresh = [self._take_over(one, logs[one.topic]) for one in committed]
        places = [TopicPartition(*share.partition, share.next) for share in fresh]
        consumer.incremental_assign(places)
        if places:
            consumer.resume(places)  # librdkafka keeps a partition paused that was paused here before it went elsewhere
        self._brake.look_again()

    def _with_delays(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Return partitions, and all of a queue's delay topic for who has its first one.

        The group knows nothing of delay topics: it counts partitions, and would hold one of them as good as one with
        work on it.
        """
        delays = [delay_topic(self._queues[one.topic]) for one in partitions if one.partition == 0]
        return [*partitions, *(TopicPartition(topic, number) for topic in delays for number in range(RUNGS))]

    def _committed(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> tuple[list[TopicPartition], dict[str, str]]:
        """Return what is committed of partitions, as soon as the group's coordinator knows it, and then their logs."""
        deadline = time.monotonic() + self._options.timeout
        while True:
            try:
                found = consumer.committed(partitions, self._options.timeout) if partitions else []
                for one in found:
                    if one.error is not None:
                        raise KafkaException(one.error)
                logs = self._parts.cluster.logs({one.topic for one in found})
            except KafkaException as error:
                if error.args[0].code() not in NOT_YET or time.monotonic() > deadline:
                    raise
                sleep(_NOT_YET_SECONDS)
            else:
                return found, logs

    def _take_over(self, one: TopicPartition, topic_log: str) -> Share:
        partition = (one.topic, one.partition)
        committed = max(one.offset, 0)
        base, _ = read_commit(committed, one.metadata or "", topic_log)
        queue = self._queues.get(one.topic)
        share = self._holdings.shares[partition] = Share(
            partition=partition,
            queue=queue or self._delays[one.topic],
            log=topic_log,
            generation=self._holdings.ledger.assign(partition, committed, one.metadata, topic_log),
            next=base or OFFSET_BEGINNING,
            mark=low_mark(self.consumer, partition),
            committed=base,
            metadata=one.metadata or "" if base == committed else "",
            rung=Rung(one.partition) if queue is None else None,
        )
        return share

    def _begin_anew(self, share: Share, offset: int) -> Share:
        """Take a partition over again, from ``offset`` on: its topic was made anew, or servers lost the log's end.

        What was done of the former messages says nothing of those that have their offsets now.
        """
        topic, number = share.partition
        topic_log = self._parts.cluster.logs([topic])[topic]
        log.warning("partition %d of topic %s is another log by now, and is read from offset %d", number, topic, offset)
        self._parts.mover.drop([share])
        self._report(self._holdings.give_up([share]))
        fresh = self._take_over(TopicPartition(*share.partition, offset), topic_log)
        fresh.paused = share.paused
        return fresh

    def _read_anew(self, share: Share) -> None:
        """Read a topic from its beginning that was deleted and made again."""
        self._begin_anew(share, 0)
        self.consumer.seek(TopicPartition(*share.partition, OFFSET_BEGINNING))

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Hand partitions over: let what runs end, commit, and fence what still runs."""
        partitions = self._with_delays(partitions)
        shares = self._shares(partitions)
        self._parts.mover.drop(shares)
        self._holdings.unread(shares)
        self._await(shares, self._options.handover)
        self._finish(shares, lambda: self._parts.commits.write([share.partition for share in shares]))
        consumer.incremental_unassign(partitions)

    def _lose(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Let go of partitions that are somebody else's already."""
        partitions = self._with_delays(partitions)
        shares = self._shares(partitions)
        self._parts.mover.drop(shares)
        self._report(self._holdings.give_up(shares))
        consumer.incremental_unassign(partitions)

    def _ask_whether_ours(self) -> None:
        """Break off if the group went on without us, which lets go of everything."""
        shares = list(self._holdings.shares.values())
        error = self._parts.commits.prove(shares[0]) if shares else None
        if error is not None and error.code() in STALE:
            raise KafkaException(error)

    def _await(self, shares: Sequence[Share], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        settled = self._holdings.settled
        while any(share.busy for share in shares) and not self._stop.is_set() and time.monotonic() < deadline:
            self._live()
            self._parts.mover.step()
            with settled:
                settled.wait(_HANDOVER_TICK)

    def _finish(self, shares: Sequence[Share], commit: Callable[[], KafkaError | None]) -> None:
        """Commit and give up, with no ack in between."""
        with self._holdings.settled:
            error = commit()
            unsure = self._parts.commits.unsure
            gone = self._holdings.give_up(shares)
        if error is not None:
            log.warning("up to %d acknowledged messages run again, not being committed: %s", unsure, error.str())
        self._report(gone)

    def _report(self, gone: Sequence[Delivery]) -> None:
        if gone and not self._stop.is_set():
            self._parts.lost(gone)

    def _shares(self, partitions: Sequence[TopicPartition]) -> list[Share]:
        found = (self._holdings.shares.get((one.topic, one.partition)) for one in partitions)
        return [share for share in found if share is not None]

    # --- what goes wrong -----------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        error, topic = message.error(), message.topic()
        assert error is not None
        refused = refusal(error, topic, self._options)
        if refused is not None:
            self._fail(refused)
        elif error.code() in _UNKNOWN and topic in self._queues:
            self._missing.setdefault(topic, time.monotonic())
        elif error.fatal():
            raise KafkaException(error)
        else:
            log.debug("librdkafka: %s", error)

    def _look_for_missing(self) -> None:
        """Ask about topics that weren't found: a new one is known to some servers a moment later."""
        if not self._missing:
            return
        now = time.monotonic()
        due = [topic for topic, since in self._missing.items() if now - since >= 1.0]
        if due:
            for topic, found in self._parts.cluster.describe(due).items():
                if isinstance(found, KafkaError) and found.code() not in _UNKNOWN:
                    continue
                del self._missing[topic]
                if isinstance(found, KafkaError):
                    self._go_without(self._queues[topic])

    def _go_without(self, queue: str) -> None:
        """Tell that a queue is gone; should its topic come again it is the others', for this worker won't serve it."""
        self._parts.gone.add(queue)
        self._subscribe()
        self._fail(QueueGone(self._parts.name, queue))

    def _fail(self, error: Exception) -> None:
        if not self._stop.is_set():
            self._holdings.buffer.fail(error)

    def _leave(self) -> None:
        """Commit, leave the group, and delete what is done. What is unsettled stays undone."""
        try:
            self._wind_up()
        except Exception as error:
            log.warning("leaving broker %s: %s", self._parts.name, _shown(error))
        finally:
            self.errands.end()
            if not self._given_up:
                leave(self.consumer)
            self._given_up = True  # no answer is worth waiting for any more
            self.consumer.close()

    def _wind_up(self) -> None:
        shares = list(self._holdings.shares.values())
        self._parts.mover.drop(shares)
        self._holdings.unread(shares)
        deadline = time.monotonic() + _LAST_REPORTS
        while self._parts.mover.busy and time.monotonic() < deadline:
            self._parts.mover.step()
        self._finish(shares, self._commit_last)
        if not self._given_up:
            self._housekeeping.finish(shares)

    def _commit_last(self) -> KafkaError | None:
        error = self._parts.commits.flush(0.0 if self.silent else _LAST_COMMIT)
        self._given_up = self.silent or (error is not None and error.code() == KafkaError._TIMED_OUT)
        return error


def _shown(error: Exception) -> str:
    return error.args[0].str() if isinstance(error, KafkaException) else f"{type(error).__name__}: {error}"
