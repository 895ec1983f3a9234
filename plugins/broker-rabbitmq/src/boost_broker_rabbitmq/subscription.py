"""One worker process's claim on its queues: fetching, settling, staying connected."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import amqp
import attrs
from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from boost_core.plugin import (
    BrokerUnavailable,
    Clock,
    ConnectionLost,
    Delivery,
    Depth,
    Lost,
    QueueGone,
    QueueSpec,
    SyncSubscription,
)
from boost_core.plugin.pushbuffer import PushBuffer

from boost_broker_rabbitmq.connection import Connection, OutOfReach
from boost_broker_rabbitmq.custody import Custody, Repost
from boost_broker_rabbitmq.diagnosis import NAME, forbidden, out_of_reach, reason_of
from boost_broker_rabbitmq.line import CONSUMER_TIMEOUT_FROM, Line
from boost_broker_rabbitmq.link import GOODBYE_SECONDS, Link
from boost_broker_rabbitmq.names import server_name

log = logging.getLogger("boost.rabbitmq")

GRACE_SECONDS: Final = 0.02
"""How long a small lack of messages is borne: an acknowledgement may be on its way that makes up for it."""

REFUSED_SECONDS: Final = 30.0
"""How long a queue that may not be read is left alone."""

OUTAGE_SECONDS: Final = 2.0
"""How long a queue whose node is down is left alone."""


@attrs.frozen(kw_only=True)
class Home:
    """What a subscription has of its broker."""

    clock: Clock
    timeout: float
    consumer_timeout: float
    dial: Callable[[], Connection]
    declare: Callable[[Sequence[QueueSpec]], None]
    repost: Repost


class RabbitSubscription(SyncSubscription):
    """Each connection has a buffer and a ``Custody`` of its own: nothing of a dead one gets mixed up with the next."""

    def __init__(self, home: Home, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> None:
        self._home = home
        self._specs = {spec.name: spec for spec in queues}
        self._credit = credit
        self._lost = lost
        self._not_before: dict[str, float] = {}  # when (monotonic) a queue is asked for again
        self._out_of_reach: set[str] = set()
        self._woken = False
        self.closed = False
        self._buffer: PushBuffer
        self._custody: Custody
        self._link: Link
        self._connect()
        try:
            for queue in list(self._specs):
                self._open(queue)
        except BaseException:
            self._link.close()
            raise
        _warn_of_consumer_timeout(queues, self._link.connection.version, home.consumer_timeout)

    # --- connecting ----------------------------------------------------------------------------------

    def _connect(self) -> None:
        buffer = PushBuffer()
        link = Link(self._home.dial, self._home.timeout)
        ordered = frozenset(name for name, spec in self._specs.items() if spec.ordered)
        custody = Custody(link, buffer, self._home.clock, self._home.repost, ordered)
        link.open(custody.settle_down, lambda error: self._died(custody, buffer, error))
        self._buffer, self._custody, self._link = buffer, custody, link

    def _open(self, queue: str) -> Line | None:
        """Begin to consume a queue; return None where its node is down, or where it was refused a short while ago."""
        if time.monotonic() < self._not_before.get(queue, 0.0):
            return None
        link, custody = self._link, self._custody
        credit = self._credit.get(queue, 65535)
        line = Line(queue, server_name(queue), credit, custody.arrived)
        try:
            link.ask(lambda: line.open(link.connection, lambda line, error: self._ended(custody, line, error)))
        except NotFound as error:
            self._specs.pop(queue, None)  # it isn't made again when the connection is
            raise QueueGone(NAME, queue) from error
        except OutOfReach as error:
            self._not_before[queue] = time.monotonic() + OUTAGE_SECONDS
            if queue not in self._out_of_reach:
                self._out_of_reach.add(queue)
                log.error("queue %r is left alone until its node is back: %s", queue, out_of_reach(error))
            return None
        except AccessRefused as error:
            self._not_before[queue] = time.monotonic() + REFUSED_SECONDS
            raise forbidden(error, "read") from error
        except amqp.AMQPError as error:
            raise BrokerUnavailable(NAME, f"queue {queue!r} can't be consumed: {reason_of(error)}") from error
        with custody.lock:
            custody.lines[queue] = line
        if queue in self._out_of_reach:
            self._out_of_reach.discard(queue)
            log.info("queue %r is served again", queue)
        return line

    def reconnect(self) -> None:
        """Dial again and make the queues anew that may be gone; consumers follow at the next fetch."""
        self._link.close()
        self._connect()
        self._not_before.clear()
        try:
            self._home.declare(list(self._specs.values()))
        except BrokerUnavailable as error:
            log.error("after reconnecting: %s", error)  # the others can be served; this one's consumer tells again

    def _died(self, custody: Custody, buffer: PushBuffer, error: ConnectionLost) -> None:
        """The connection ended, and with it what it was sent. The link's thread."""
        lost = custody.end_all()
        if lost and not self.closed:
            self._lost(lost)
        buffer.fail(error)

    def _ended(self, custody: Custody, line: Line, error: Exception) -> None:
        """The server closed a channel or cancelled its consumer: it has its messages back. The link's thread."""
        if not line.alive:
            return
        lost = custody.end(line)
        if isinstance(error, PreconditionFailed) and "timed out" in reason_of(error):
            log.error(
                "queue %r: the server took %d messages back that weren't acknowledged within its consumer_timeout;"
                " they run again elsewhere. Raise consumer_timeout in rabbitmq.conf, or shorten the jobs: %s",
                *(line.queue, len(lost), reason_of(error)),
            )
        else:
            log.warning("queue %r: the server ended its consumer: %s", line.queue, reason_of(error))
        if lost:
            self._lost(lost)
        custody.close(line)
        self._buffer.wake()

    # --- fetching ------------------------------------------------------------------------------------

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Return up to ``want[queue]`` deliveries a queue as soon as any is there; see the contract."""
        end = time.monotonic() + timeout
        patient = True
        while not self.closed:
            lacking = self._tune(want, patient=patient)
            ready = self._custody.due(want)
            if not ready:
                left = end - time.monotonic()
                wait = min(left, GRACE_SECONDS) if lacking else left
                ready = self._take(want, wait)
                patient = not (lacking and not ready)
            if ready or self._woken or time.monotonic() >= end:
                self._woken = False
                return ready
        return []

    def _take(self, want: Mapping[str, int], seconds: float) -> list[Delivery]:
        due = self._custody.seconds_to_due(want)
        taken = self._buffer.take(want, max(0.0, seconds if due is None else min(seconds, due)))
        ready = self._custody.admit(taken) if taken else []
        if len(ready) > 1:
            ready.sort(key=_urgency)  # stable: what is equally urgent stays in its order
        return ready

    def _tune(self, want: Mapping[str, int], *, patient: bool) -> bool:
        """Let the server send what is wanted; return whether it is too little, which an acknowledgement may mend."""
        lacking = False
        custody = self._custody
        for queue, count in want.items():
            line = custody.lines.get(queue) or self._reopen(queue)
            if line is None:
                continue
            lacking |= custody.tune(line, count, patient=patient)
        return lacking

    def _reopen(self, queue: str) -> Line | None:
        try:
            return self._open(queue)
        except (OSError, ConnectionLost):
            self._buffer.take({}, GRACE_SECONDS)  # raises what the connection died of
            return None

    def wake(self) -> None:
        """Let a blocked ``fetch`` return."""
        self._woken = True
        self._buffer.wake()

    def shut(self, queues: Sequence[str]) -> None:
        """Cancel the queues' consumers, and give back what core didn't take."""
        for queue in queues:
            self._custody.shut(queue)

    # --- settling ------------------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """End deliveries as done; return those whose connection is gone."""
        ours, fenced = self._custody.reclaim(deliveries)
        self._custody.settle(ours, done=True)
        return fenced

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give deliveries back; return those whose connection is gone."""
        ours, fenced = self._custody.reclaim(deliveries)
        if ours:
            self._custody.release(ours)
            self._buffer.wake()  # a blocked fetch must ask for more by itself
        return fenced

    # --- what the broker asks -------------------------------------------------------------------------

    def depth(self, queue: str) -> tuple[int, Depth] | None:
        """Return how many the server has ready of a queue, and what is here; None where that can't be told."""
        custody, link = self._custody, self._link
        line = custody.lines.get(queue)
        if line is None or self.closed:
            return None
        try:
            return link.ask(lambda: (line.ready(), custody.depth(line)))
        except (OSError, ConnectionLost, amqp.AMQPError):
            return None

    def remove(self, queue: str) -> int:
        """Remove what was sent here of a queue and core didn't take; return how many."""
        return self._custody.remove(queue)

    # --- ending --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what is unsettled and say goodbye; a blocked ``fetch`` returns."""
        if self.closed:
            return
        self.closed = True
        self._buffer.close()  # lets a blocked fetch return
        self._custody.clear(GOODBYE_SECONDS)
        self._link.close()

    def after_fork(self) -> None:
        """In a forked child: let go of the connection."""
        self._link.after_fork()


def _urgency(delivery: Delivery) -> int:
    priority: int = delivery.receipt.stamp.priority
    return -priority


def _warn_of_consumer_timeout(queues: Sequence[QueueSpec], version: tuple[int, ...], allowed: float) -> None:
    if version >= CONSUMER_TIMEOUT_FROM:
        return  # each consumer says that it takes as long as it takes
    longest = {spec.name: spec.longest_timeout for spec in queues}
    beyond = sorted(name for name, seconds in longest.items() if seconds is None or seconds > allowed)
    if beyond:
        log.warning(
            "jobs of %s may take longer than RabbitMQ %s lets a message be held (consumer_timeout, %g s), and would"
            " then run again elsewhere. Give them a shorter timeout, or raise consumer_timeout in rabbitmq.conf and say"
            " so by the broker's option consumer_timeout.",
            *(", ".join(map(repr, beyond)), ".".join(map(str, version)), allowed),
        )
