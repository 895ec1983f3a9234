"""Delays: queues that hold messages for a fixed time each and pass them on to their work queue.

The server expires messages at the head of a queue only, so there is a queue for each step. A delay takes the longest
step that fits; the worker that gets the message too early sends it on by the next one, and holds it itself for the last
second (see ``custody``). So any delay is kept to the millisecond by few queues, however long it is.

Between two steps a message passes its work queue, where ready ones stand behind it: workers send thousands on a second,
beside their work. But what is held counts against a queue's credit: once that many are due within the second, or the
next step's queue is young, those behind wait until the first of them leave.
"""

from __future__ import annotations

import time
from typing import Final

from boost_core.plugin.native import Lock

from boost_broker_rabbitmq.names import step_name
from boost_broker_rabbitmq.queues import Queues
from boost_broker_rabbitmq.session import Session

STEPS: Final = (1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600)
"""Seconds. Under the first one a message goes to its work queue at once, and waits in a worker."""

_FRESH_SECONDS: Final = 60.0
"""How long a queue is relied on without being declared again; it expires an hour after its longest message."""

_ABSENT_SECONDS: Final = 1.0
"""How long a queue that isn't there isn't asked for again: the server logs each such question as an error."""


def step_for(seconds: float) -> int | None:
    """Return the longest step within a delay; None where there is none."""
    return next((step for step in reversed(STEPS) if step <= seconds), None)


class Ladder:
    """Knows which steps of which queues are there. Thread-safe; queues by their names on the server."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._made: dict[str, float] = {}
        self._absent: dict[str, float] = {}
        self._lock = Lock()

    def ensure(self, session: Session, queue: str, step: int, until: float) -> None:
        """Make a step's queue exist for the messages that are put there now.

        The longest step is made along with any other, as it outlives them all: where it is missing nothing is delayed.
        """
        for seconds in {step, STEPS[-1]}:
            name = step_name(queue, seconds)
            now = time.monotonic()
            if now - self._made.get(name, -_FRESH_SECONDS) < _FRESH_SECONDS:
                continue
            self._queues.declare_step(session, queue, seconds, until)
            with self._lock:
                self._made[name] = now
                self._absent.pop(name, None)

    def forget(self, queue: str) -> None:
        """Rely on no step of a queue any more: one of them turned out to be gone."""
        with self._lock:
            for seconds in STEPS:
                self._made.pop(step_name(queue, seconds), None)

    def count(self, session: Session, queue: str, until: float) -> int:
        """Return how many messages wait in the ladder for a queue."""
        return sum(self._waiting(session, queue, until).values())

    def purge(self, session: Session, queue: str, until: float) -> int:
        """Remove what waits in the ladder for a queue; return how many."""
        return sum(self._queues.purge(session, name, until) for name in self._waiting(session, queue, until))

    def _waiting(self, session: Session, queue: str, until: float) -> dict[str, int]:
        found: dict[str, int] = {}
        for seconds in reversed(STEPS):
            name = step_name(queue, seconds)
            count = self._count(session, name, until)
            if count is not None:
                found[name] = count
            elif seconds == STEPS[-1]:
                break
        return found

    def _count(self, session: Session, name: str, until: float) -> int | None:
        now = time.monotonic()
        if self._absent.get(name, 0.0) > now:
            return None
        count = self._queues.count(session, name, until)
        if count is None:
            with self._lock:
                self._absent[name] = now + _ABSENT_SECONDS
        return count
