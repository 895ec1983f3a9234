"""Storing messages: in their queues or on the way there, and what becomes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import attrs
from boost_core.plugin import BrokerUnavailable, Clock, QueueSpec

from boost_broker_rabbitmq.ladder import Ladder, step_for
from boost_broker_rabbitmq.names import server_name, step_name
from boost_broker_rabbitmq.queues import Queues
from boost_broker_rabbitmq.session import Answer, Posting, Session
from boost_broker_rabbitmq.sessions import Sessions
from boost_broker_rabbitmq.stamp import Stamp

Outgoing = tuple[str, Stamp, bytes | memoryview]
"""A message for a queue, by its name on the server."""


@attrs.define(eq=False)
class Publishing:
    """Publishes for all threads of a broker. ``specs`` are the queues that were declared, by name."""

    clock: Clock
    sessions: Sessions
    queues: Queues
    ladder: Ladder
    specs: dict[str, QueueSpec]
    declare: Callable[[Sequence[QueueSpec]], None]

    def store(self, messages: Sequence[Outgoing], until: float) -> Answer:
        """Publish to the queues, or to their delay ladders; make queues anew that turn out to be gone, once."""
        answer = self._try(messages, until)
        if not answer.homeless:
            return answer
        again = sorted(answer.homeless)
        gone = {messages[index][0] for index in again}
        for name in gone:
            self.ladder.forget(name)
        try:
            self.declare([spec for name, spec in list(self.specs.items()) if server_name(name) in gone])
        except BrokerUnavailable as error:
            problem = f"{error.problem}. {error.fix}" if error.fix else error.problem
            answer.failed.update((index, problem) for index in again)
            return answer
        for index in again:
            del answer.failed[index]
        answer.take(self._try([messages[index] for index in again], until), again)
        return answer

    def repost(self, messages: Sequence[Outgoing], until: float) -> Answer:
        """Publish what a worker holds again; what a young ladder can't take yet fails, and the worker holds on."""
        return self._try(messages, until, holding=True)

    def _try(self, messages: Sequence[Outgoing], until: float, *, holding: bool = False) -> Answer:
        answer = Answer()
        postings: dict[int, Posting] = {}
        try:
            with self.sessions.lend(until) as session:
                now = self.clock.time()
                for index, (queue, stamp, body) in enumerate(messages):
                    step = None if stamp.due is None else step_for(stamp.due - now)
                    if step is not None and not self._takes(session, queue, step, until):
                        if holding:
                            answer.failed[index] = "its delay's queue was made just now"
                            continue
                        step = None  # the first worker that gets it holds it, or sends it on
                    key = queue if step is None else step_name(queue, step)
                    postings[index] = Posting(key, body, stamp.properties(now, waits=step is not None))
                if postings:
                    answer.take(session.publish(list(postings.values()), until), list(postings))
        except BrokerUnavailable as error:
            return Answer(failed=dict.fromkeys(range(len(messages)), error.problem))
        self._await_settled(postings, answer, until)
        return answer

    def _takes(self, session: Session, queue: str, step: int, until: float) -> bool:
        """Make a step of the ladder exist; return whether the server surely keeps it."""
        self.ladder.ensure(session, queue, step, until)
        return not self.queues.seconds_to_settle([step_name(queue, step)])

    def _await_settled(self, postings: dict[int, Posting], answer: Answer, until: float) -> None:
        """Wait until the server surely keeps the queues too: only then is a message stored that it confirmed."""
        stored = {index: posting.key for index, posting in postings.items() if index not in answer.failed}
        wait = self.queues.seconds_to_settle(stored.values())
        if wait:
            left = max(0.0, until - time.monotonic())
            time.sleep(min(wait, left))
            if wait > left:
                problem = f"its queue was made just now, and is sure to be kept in {wait - left:.1f} s only"
                answer.unsure.update(dict.fromkeys(stored, problem))
