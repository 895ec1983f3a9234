"""The broker: a RabbitMQ server or cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from boost_core.plugin import (
    BrokerUnavailable,
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
from boost_broker_rabbitmq.ladder import Ladder, step_for
from boost_broker_rabbitmq.names import server_name, step_name
from boost_broker_rabbitmq.plugin import RabbitOptions
from boost_broker_rabbitmq.queues import Queues
from boost_broker_rabbitmq.session import Answer, Posting, Session
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
        found = next((depth for one in self._living() if (depth := one.depth(queue)) is not None), None)
        with self.sessions.lend(until) as session:
            if found is None:
                found = Depth(ready=self.queues_there.count(session, name, until) or 0)
            delayed = self._ladder.count(session, name, until)
        return Depth(ready=found.ready, delayed=found.delayed + delayed, running=found.running)

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
        wanted = [(server_name(frames[index].queue), Stamp.of(frames[index], now), frames[index].body) for index in fit]
        answer = self._store(wanted, time.monotonic() + timeout)
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

    def _store(self, wanted: Sequence[tuple[str, Stamp, bytes | memoryview]], until: float) -> Answer:
        """Publish to the queues, or to their delay ladders; make queues anew that turn out to be gone, once."""
        answer = self._try(wanted, until)
        if not answer.homeless:
            return answer
        again = sorted(answer.homeless)
        gone = {wanted[index][0] for index in again}
        for name in gone:
            self._ladder.forget(name)
        try:
            self.declare([spec for name, spec in list(self._specs.items()) if server_name(name) in gone])
        except BrokerUnavailable as error:
            answer.failed.update((index, error.problem) for index in again)
            return answer
        second = self._try([wanted[index] for index in again], until)
        for index in again:
            del answer.failed[index]
        answer.failed.update((again[number], problem) for number, problem in second.failed.items())
        answer.unsure.update((again[number], problem) for number, problem in second.unsure.items())
        return answer

    def _try(self, wanted: Sequence[tuple[str, Stamp, bytes | memoryview]], until: float) -> Answer:
        if not wanted:
            return Answer()
        try:
            with self.sessions.lend(until) as session:
                now = self.clock.time()
                postings = [self._posting(session, *message, now, until) for message in wanted]
                answer = session.publish(postings, until)
        except BrokerUnavailable as error:
            return Answer(failed=dict.fromkeys(range(len(wanted)), error.problem))
        self._await_settled(postings, answer, until)
        return answer

    def _await_settled(self, postings: Sequence[Posting], answer: Answer, until: float) -> None:
        """Wait until the server surely keeps the queues too: only then is a message stored that it confirmed."""
        stored = {posting.key for index, posting in enumerate(postings) if index not in answer.failed}
        wait = self.queues_there.seconds_to_settle(stored)
        if wait:
            left = max(0.0, until - time.monotonic())
            time.sleep(min(wait, left))
            if wait > left:
                young = {index for index, posting in enumerate(postings) if posting.key in stored}
                problem = f"its queue was made just now, and is sure to be kept in {wait - left:.1f} s only"
                answer.unsure.update((index, problem) for index in young - answer.failed.keys())

    def _posting(
        self, session: Session, queue: str, stamp: Stamp, body: bytes | memoryview, now: float, until: float
    ) -> Posting:
        step = None if stamp.due is None else step_for(stamp.due - now)
        if step is None:
            return Posting(queue, body, stamp.properties(now))
        self._ladder.ensure(session, queue, step, until)
        return Posting(step_name(queue, step), body, stamp.properties(now, waits=True))

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> RabbitSubscription:
        """Return a subscription with a connection of its own."""
        self._check_open()
        home = Home(
            clock=self.clock,
            timeout=self.options.timeout,
            consumer_timeout=self.options.consumer_timeout,
            dial=self._dial_worker,
            declare=self.declare,
            repost=self._store,
        )
        subscription = RabbitSubscription(home, queues, credit, lost)
        self._subscriptions = [*self._living(), subscription]
        return subscription

    def _living(self) -> list[RabbitSubscription]:
        return [subscription for subscription in self._subscriptions if not subscription.closed]
