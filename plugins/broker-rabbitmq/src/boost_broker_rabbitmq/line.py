"""One queue of a subscription: its channel, its consumers, and what was delivered and isn't settled."""

from __future__ import annotations

from collections.abc import Callable, Collection
from struct import unpack_from
from typing import Any, Final

import attrs
from amqp import spec
from amqp.exceptions import ConsumerCancelled, RecoverableConnectionError
from boost_core.plugin import Delivery

from boost_broker_rabbitmq.connection import Channel, Connection
from boost_broker_rabbitmq.stamp import Stamp
from boost_broker_rabbitmq.window import Window

CONSUMER_TIMEOUT_FROM: Final = (3, 11, 15)
"""The first version on which a consumer says for itself how long its messages may take."""

_MOST_QUESTIONS: Final = 5
_A_YEAR_MS: Final = 365 * 24 * 3600 * 1000


@attrs.define(eq=False)
class Receipt:
    """What a delivery is settled by; ``taken`` (monotonic) is when core got it, 0 before."""

    line: Line
    tag: int
    stamp: Stamp
    taken: float = 0.0


Arrived = Callable[["Line", Delivery, int], None]
"""Takes a delivery, with the number of its consumer."""


Ended = Callable[["Line", Exception], None]
"""Told when the server sends no more over a line, and why."""


class Line:
    """Methods in the first part are for the link's thread only; fields are for who holds the subscription's lock."""

    def __init__(self, queue: str, name: str, credit: int, arrived: Arrived) -> None:
        self.queue = queue
        self.name = name
        self.window = Window(credit)
        self.taken: dict[int, Delivery] = {}
        self.alive = True
        self._arrived = arrived
        self._end: Ended | None = None
        self._channel: Channel | None = None
        self._arguments: dict[str, Any] = {}

    # --- the link's thread -----------------------------------------------------------------------------

    def open(self, connection: Connection, on_end: Ended) -> None:
        """Begin to consume, waiting for the server's word. Raises ``ChannelError`` where it refuses."""
        if connection.version >= CONSUMER_TIMEOUT_FROM:
            self._arguments = {"x-consumer-timeout": _A_YEAR_MS}
        channel = self._channel = connection.new_channel()
        channel.on_delivery = self._take
        number, size = self.window.renew(0, 0)
        channel.basic_qos(0, size, False)
        channel.basic_consume(self.name, str(number), on_cancel=self._cancelled, arguments=self._arguments)
        self._end = on_end
        channel.on_end = self._ended

    def consume(self, number: int, size: int) -> None:
        """Let a new consumer begin; the server's word isn't waited for."""
        channel = self._channel
        if channel is None or not self.alive:
            return
        channel.send_method(spec.Basic.Qos, "lBb", (0, size, False))
        tag = str(number)
        channel.basic_consume(self.name, tag, nowait=True, on_cancel=self._cancelled, arguments=self._arguments)

    def cancel(self, number: int) -> None:
        """Have the server send no more to a consumer, 0 for none; return when all that it sent has arrived."""
        if self._channel is not None and self.alive and number:
            self._channel.cancel_callbacks.pop(str(number), None)
            try:
                self._channel.basic_cancel(str(number), nowait=False)
            except RecoverableConnectionError:
                if self.alive:  # else the server closed the channel meanwhile, and that was dealt with
                    raise

    def settle(self, upto: int, above: Collection[int], *, done: bool) -> None:
        """Acknowledge messages, or give them back: all up to a tag, 0 for none, and those above."""
        channel = self._channel
        if channel is None or not self.alive:
            return
        if upto:
            channel.basic_ack(upto, multiple=True) if done else channel.nack(upto, multiple=True)
        for tag in above:
            channel.basic_ack(tag) if done else channel.nack(tag)

    def ready(self) -> int:
        """Return how many messages the server has ready, and have received what it isn't counting any more.

        What it sent us before one answer has arrived by the next; so it is asked until two are the same.
        """
        before, now = -1, 0
        for _ in range(_MOST_QUESTIONS):
            if self._channel is None or not self.alive or before == now:
                break
            before, now = now, int(self._channel.queue_declare(self.name, passive=True).message_count)
        return now

    def close(self) -> None:
        """Close the channel; the server has back what isn't settled."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.connection is not None:
            channel.close()

    def _take(self, arguments: bytes, header: bytes, body: bytes) -> None:
        size = arguments[4]
        consumer = int(arguments[5 : 5 + size])
        (tag,) = unpack_from(">Q", arguments, 5 + size)
        delivery = Delivery(self.queue, body, Receipt(self, tag, Stamp.read(header)))
        self._arrived(self, delivery, consumer)

    def _cancelled(self, consumer: str) -> None:
        self._ended(ConsumerCancelled(f"the server cancelled consumer {consumer}"))

    def _ended(self, error: Exception) -> None:
        if self._end is not None:
            self._end(self, error)
