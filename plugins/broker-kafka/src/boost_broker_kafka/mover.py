"""Sends delayed messages on when they are due."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable
from typing import Final

import attrs
from boost_core.plugin import Clock
from boost_core.plugin.native import Empty, SimpleQueue
from confluent_kafka import KafkaError, Message

from boost_broker_kafka.holdings import Holdings, Share
from boost_broker_kafka.ladder import Rung, Waiting, rung_of
from boost_broker_kafka.outbox import Outbox, Record
from boost_broker_kafka.spread import Spread
from boost_broker_kafka.topics import delay_topic, topic_of

log = logging.getLogger("boost.broker.kafka")

DUE: Final = "boost-due"
"""The header that says when a message is due, in microseconds since the epoch."""

MICROSECONDS: Final = 1_000_000
AT_ONCE: Final = 500
AGAIN_SECONDS: Final = 1.0


def delayed(queue: str, body: bytes, key: bytes | None, due: float, now: float) -> Record:
    """Return the record of a message that is due at ``due``."""
    headers: list[tuple[str, str | bytes | None]] = [(DUE, b"%d" % math.ceil(due * MICROSECONDS))]
    return delay_topic(queue), body, key, rung_of(due - now), headers


class Mover:
    """Looks after the rungs of one worker: the reader's thread calls it, delivery reports come from any."""

    def __init__(self, holdings: Holdings, outbox: Outbox, spread: Spread, clock: Clock) -> None:
        self._holdings = holdings
        self._outbox = outbox
        self._spread = spread
        self._clock = clock
        self._reports: SimpleQueue[tuple[Share, Waiting, KafkaError | None]] = SimpleQueue()
        self._moving = 0
        self._occupied: set[Share] = set()

    def add(self, share: Share, rung: Rung, message: Message) -> None:
        """Take a message of a delay topic in sight."""
        self._occupied.add(share)
        _, stamp = message.timestamp()
        now = self._clock.time()
        offset = message.offset()
        assert offset is not None
        rung.add(
            Waiting(
                offset=offset,
                due=_due(message, now),
                since=stamp / 1000 if stamp > 0 else now,
                key=message.key(),
                body=message.value() or b"",
            )
        )

    @property
    def busy(self) -> bool:
        """Whether reports of what was sent on are to come."""
        return self._moving > 0

    def pause(self) -> float:
        """Return how many seconds it takes until something is due."""
        times = [share.rung.next_time() for share in self._occupied if share.rung is not None]
        return max(0.0, min(times, default=math.inf) - self._clock.time())

    def step(self) -> None:
        """Send on what is due, and take note of what arrived."""
        now = self._clock.time()
        for share in list(self._occupied):
            if share.rung is None or share.rung.empty:
                self._occupied.discard(share)
            elif share.rung.next_time() <= now:
                self._send(share, share.rung.take(now, AT_ONCE), now)
        if self._moving:
            self._outbox.nudge()
            self._hear()

    def drop(self, shares: Iterable[Share]) -> None:
        """Send on nothing more of these; what is on its way is still heard of."""
        self._occupied.difference_update(shares)

    def _send(self, share: Share, due: list[Waiting], now: float) -> None:
        ready = [one for one in due if one.offset >= share.floor]
        for one in due:
            if one.offset < share.floor:
                self._holdings.ledger.done(share.partition, one.offset, share.generation)
        topic = topic_of(share.queue)
        for one, partition in zip(ready, self._spread.deal(topic, len(ready)), strict=True):
            record: Record = (
                (topic, one.body, one.key, partition if one.key is None else -1, None)
                if one.due <= now
                else delayed(share.queue, one.body, one.key, one.due, now)
            )
            self._moving += 1
            share.moving += 1
            self._outbox.post(record, functools.partial(self._report, share, one))

    def _report(self, share: Share, waiting: Waiting, error: KafkaError | None, _: Message | None) -> None:
        self._reports.put((share, waiting, error))

    def _hear(self) -> None:
        while True:
            try:
                share, waiting, error = self._reports.get_nowait()
            except Empty:
                return
            self._moving -= 1
            share.moving -= 1
            if error is None:
                self._holdings.ledger.done(share.partition, waiting.offset, share.generation)
            elif share.rung is not None:
                log.warning("a delayed message of %s could not be sent on yet: %s", share.queue, error.str())
                again = self._clock.time() + AGAIN_SECONDS
                share.rung.add(attrs.evolve(waiting, due=max(waiting.due, again), gone=False))
                if self._holdings.shares.get(share.partition) is share:
                    self._occupied.add(share)


def _due(message: Message, now: float) -> float:
    """Return when a message is due; one that doesn't say so isn't of ours, and due now."""
    value = dict(message.headers() or ()).get(DUE)
    try:
        return int(value or b"") / MICROSECONDS
    except ValueError:
        return now
