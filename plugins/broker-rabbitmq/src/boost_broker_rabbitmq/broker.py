"""The broker: a RabbitMQ server or cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from boost_core.plugin import (
    Capability,
    Closed,
    Depth,
    Frame,
    Lost,
    PublishError,
    QueueSpec,
    SyncBroker,
)

from boost_broker_rabbitmq.address import Address
from boost_broker_rabbitmq.connection import Connection
from boost_broker_rabbitmq.diagnosis import NAME
from boost_broker_rabbitmq.dialling import Dialler
from boost_broker_rabbitmq.ladder import Ladder
from boost_broker_rabbitmq.names import server_name
from boost_broker_rabbitmq.plugin import RabbitOptions
from boost_broker_rabbitmq.publishing import Publishing
from boost_broker_rabbitmq.queues import Queues
from boost_broker_rabbitmq.session import Answer
from boost_broker_rabbitmq.sessions import Sessions
from boost_broker_rabbitmq.stamp import Stamp
from boost_broker_rabbitmq.subscription import Home, RabbitSubscription


class RabbitBroker(SyncBroker):
    """Publishes over connections of its own, one for each thread that publishes at the time."""

    options: RabbitOptions

    def __init__(self, options: RabbitOptions) -> None:
        super().__init__(options)
        self.address = Address.of(options)
        self.queues_there = Queues(options)
        self.sessions: Sessions
        self._dialler: Dialler
        self._publishing: Publishing
        self._ladder = Ladder(self.queues_there)
        self._specs: dict[str, QueueSpec] = {}
        self._subscriptions: list[RabbitSubscription] = []
        self._open = False

    def where(self) -> str:
        """Return the URL without its password."""
        return self.address.shown

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Log in. Raises ``BrokerUnavailable`` with the remedy."""
        if self._open:
            return
        self._dialler = Dialler(self.address, self.options)
        self.sessions = Sessions(self._dialler)
        self._publishing = Publishing(
            self.clock, self.sessions, self.queues_there, self._ladder, self._specs, self.declare
        )
        with self.sessions.lend(self._deadline()):
            self._open = True

    def close(self) -> None:
        """Say goodbye; idempotent."""
        if self._open:
            self._open = False
            for subscription in self._subscriptions:
                subscription.close()
            self.sessions.close()

    def after_fork(self) -> None:
        """In a forked child: let go of the connections, on which the parent's messages hang."""
        if self._open:
            self._open = False
            for subscription in self._subscriptions:
                subscription.after_fork()
            self.sessions.after_fork()

    def _deadline(self) -> float:
        return time.monotonic() + self.options.timeout

    def _check_open(self) -> None:
        if not self._open:
            raise Closed(f"broker {NAME!r}")

    def _dial_worker(self) -> Connection:
        return self._dialler.dial("worker", self._deadline(), owned=True)

    # --- queues ----------------------------------------------------------------------------------

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make queues exist. Raises ``BrokerUnavailable`` for those that exist with other arguments, naming each."""
        self._check_open()
        until = self._deadline()
        for spec in queues:
            with self.sessions.lend(until) as session:
                self.queues_there.declare(session, spec, until)
            self._specs[spec.name] = spec

    def depth(self, queue: str) -> Depth:
        """Return how many messages a queue has; of those that run, or are held for their time, only this process's."""
        self._check_open()
        name, until = server_name(queue), self._deadline()
        told = [answer for one in self._living() if (answer := one.depth(queue)) is not None]
        with self.sessions.lend(until) as session:
            counts = [count for count, _ in told] or [self.queues_there.count(session, name, until) or 0]
            delayed = self._ladder.count(session, name, until)
        return Depth(  # what changes hands between two answers counts twice rather than not at all
            ready=max(counts) + sum(here.ready for _, here in told),
            delayed=delayed + sum(here.delayed for _, here in told),
            running=sum(here.running for _, here in told),
        )

    def purge(self, queue: str) -> int:
        """Remove what waits and what is delayed, except what other processes' workers hold; return how many."""
        self._check_open()
        name, until = server_name(queue), self._deadline()
        removed = sum(subscription.remove(queue) for subscription in self._living())
        with self.sessions.lend(until) as session:
            removed += self.queues_there.purge(session, name, until)
            return removed + self._ladder.purge(session, name, until)

    # --- publishing and fetching --------------------------------------------------------------------

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store all frames, confirmed by the server. Raises ``PublishError`` that names the others."""
        self._check_open()
        now = self.clock.time()
        misfits = self._misfits(frames)
        fit = [index for index in range(len(frames)) if index not in misfits]
        fitting = [frames[index] for index in fit]
        messages = [(server_name(frame.queue), Stamp.of(frame, now), frame.body) for frame in fitting]
        answer = self._publishing.store(messages, time.monotonic() + timeout) if messages else Answer()
        failed = {fit[index]: problem for index, problem in answer.failed.items()} | misfits
        unsure = {fit[index]: problem for index, problem in answer.unsure.items()}
        if failed or unsure:
            problem = next(iter((unsure or failed).values()))
            raise PublishError(NAME, problem, failed=sorted(failed), unsure=sorted(unsure))

    def _misfits(self, frames: Sequence[Frame]) -> dict[int, str]:
        """Return which frames can't be stored, and why. Raises ``UnsupportedCapability`` for what isn't there."""
        largest, levels = self.options.max_body, self.spec.limits.priorities
        has_levels = Capability.PRIORITY in self.spec.capabilities
        found: dict[int, str] = {}
        for index, frame in enumerate(frames):
            if frame.key is not None:
                raise self.refuse("key_ordered", f"key={frame.key!r}")
            if frame.priority and not has_levels:
                raise self.refuse("priority", f"priority={frame.priority}")
            if len(frame.body) > largest:
                found[index] = f"its body has {len(frame.body):,} bytes; the option max_body is {largest:,}"
            elif not 0 <= frame.priority < levels:
                found[index] = f"its priority {frame.priority} isn't 0 to {levels - 1}"
        return found

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> RabbitSubscription:
        """Return a subscription with a connection of its own."""
        self._check_open()
        home = Home(
            clock=self.clock,
            timeout=self.options.timeout,
            consumer_timeout=self.options.consumer_timeout,
            dial=self._dial_worker,
            declare=self.declare,
            repost=self._publishing.repost,
        )
        subscription = RabbitSubscription(home, queues, credit, lost)
        self._subscriptions = [*self._living(), subscription]
        return subscription

    def _living(self) -> list[RabbitSubscription]:
        return [subscription for subscription in self._subscriptions if not subscription.closed]
