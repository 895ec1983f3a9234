"""Messages that came from one step of the delay ladder and go to the next: they are nobody's work yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from boost_core.plugin import Delivery
from boost_core.plugin.native import Condition, Thread

BATCH: Final = 500


class Passage:
    """Sends messages on, many at once, in a thread that lives while there are some: ready ones don't wait for that.

    Thread-safe. ``send`` deals with each batch, and keeps what it couldn't send.
    """

    def __init__(self, send: Callable[[Sequence[Delivery]], None]) -> None:
        self._send = send
        self._waiting: list[Delivery] = []
        self._sending: list[Delivery] = []
        self._runs = False
        self._changed = Condition()

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Have messages sent on soon."""
        with self._changed:
            self._waiting.extend(deliveries)
            if not self._runs:
                self._runs = True
                Thread(target=self._run, name="boost-rabbitmq-delays").start()

    def count(self, queue: str) -> int:
        """Return how many messages of a queue are here."""
        with self._changed:
            return sum(delivery.queue == queue for delivery in (*self._waiting, *self._sending))

    def drop(self, queue: str | None = None) -> list[Delivery]:
        """Remove and return what isn't being sent yet: all of it, or of one queue."""
        with self._changed:
            dropped = [delivery for delivery in self._waiting if queue in (None, delivery.queue)]
            self._waiting = [delivery for delivery in self._waiting if queue not in (None, delivery.queue)]
        return dropped

    def wait(self, seconds: float) -> None:
        """Return once nothing is being sent, or after ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._runs, seconds)

    def _run(self) -> None:
        while batch := self._next():
            self._send(batch)

    def _next(self) -> Sequence[Delivery]:
        with self._changed:
            self._sending, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._sending:
                self._runs = False
                self._changed.notify_all()
            return self._sending
