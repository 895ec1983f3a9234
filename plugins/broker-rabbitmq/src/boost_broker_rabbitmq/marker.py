"""What tells all processes that a queue is young: a second queue beside it, which the server deletes soon.

A server tells nobody how old a queue is. Its marker is there before it is, and for a while after: a queue without one
is old. Nothing is published, so an alarm of the server doesn't matter.
"""

from __future__ import annotations

import contextlib
from typing import Final

from amqp.exceptions import AccessRefused

from boost_broker_rabbitmq.connection import Channel, OutOfReach
from boost_broker_rabbitmq.names import marker_name
from boost_broker_rabbitmq.session import Session

LASTING_SECONDS: Final = 4.0
"""How long a marker is there: twice as long as a queue is young, as making the queue takes time too."""


def leave(session: Session, queue: str, until: float) -> None:
    """Mark a queue, by its name on the server, as young from now on; a marker that is there begins anew.

    Who may not, or whose marker has no place as its node is down, leaves none.
    """
    with contextlib.suppress(AccessRefused, OutOfReach):
        session.ask(lambda channel: _declare(channel, marker_name(queue)), until)


def is_there(session: Session, queue: str, until: float) -> bool:
    """Return whether a queue that exists is young; True where nobody can tell, as the marker's node is down."""
    try:
        return bool(session.seek(lambda channel: _look(channel, marker_name(queue)), until))
    except OutOfReach:
        return True


def _declare(channel: Channel, name: str) -> None:
    arguments = {"x-queue-type": "classic", "x-expires": int(LASTING_SECONDS * 1000)}
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)


def _look(channel: Channel, name: str) -> bool:
    """Return True; ``NotFound`` is raised where there is no such queue.

    An answer to queue.declare would count as use, and keep the marker: so none is asked for but that of what follows.
    """
    channel.queue_declare(name, passive=True, nowait=True)
    channel.basic_qos(0, 1, False)
    return True
