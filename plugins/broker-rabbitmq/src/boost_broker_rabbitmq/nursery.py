"""What tells all processes that some of the server's queues are young: a queue with a note for each, while it is.

A server tells nobody how old a queue is. A note is there before its queue is, and longer than that is young: where no
note is, no queue that boost made is young.
"""

from __future__ import annotations

import time
from typing import Final

from amqp.exceptions import AccessRefused, NotFound
from boost_core.plugin import BrokerUnavailable

from boost_broker_rabbitmq.connection import Channel
from boost_broker_rabbitmq.diagnosis import NAME
from boost_broker_rabbitmq.session import Posting, Session

NURSERY: Final = "~young"
"""The queue of notes; tasks' queues have no ``~`` on the server."""

_TRANSIENT: Final = 1


def announce(session: Session, lasting: float, until: float) -> None:
    """Leave a note that a queue is made by ``until`` (monotonic), and is young for ``lasting`` seconds from then.

    Who may not, or whose note has no place as its node is down, leaves none: others learn no more there, and wait.
    """
    try:
        session.ask(_declare, until)
    except (AccessRefused, NotFound):
        return
    milliseconds = int((lasting + max(0.0, until - time.monotonic())) * 1000)
    note = Posting(NURSERY, b"", {"delivery_mode": _TRANSIENT, "expiration": str(milliseconds)})
    answer = session.publish([note], until)
    for problem in (*answer.failed.values(), *answer.unsure.values()):
        raise BrokerUnavailable(NAME, f"others can't be told that a queue is made: {problem}")


def is_empty(session: Session, until: float) -> bool:
    """Return whether no queue is young; False where that can't be told."""
    try:
        return session.seek(_declare, until) == 0
    except AccessRefused:
        return session.seek(_look, until) == 0


def _declare(channel: Channel) -> int:
    answer = channel.queue_declare(NURSERY, durable=True, auto_delete=False, arguments={"x-queue-type": "classic"})
    return int(answer.message_count)


def _look(channel: Channel) -> int:
    return int(channel.queue_declare(NURSERY, passive=True).message_count)
