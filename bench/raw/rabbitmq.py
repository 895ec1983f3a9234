"""On RabbitMQ."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from bench.raw.rival import BATCH, BODY, PATIENCE, QUEUE, Raw


class RawRabbit(Raw):
    """A quorum queue, persistent messages, publisher confirms; acks of a whole batch at once."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._connection = amqp.Connection(
            host=f"{place.hostname}:{place.port}",
            userid=place.username or "guest",
            password=place.password or "guest",
            virtual_host=unquote(place.path.lstrip("/")) or "/",
        )
        self._connection.connect()
        self._channel: Any = self._connection.channel()
        self._channel.confirm_select()
        self._channel.queue_declare(QUEUE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        self._published = 0
        self._unconfirmed: set[int] = set()
        self._refused: list[int] = []
        self._channel.events["basic_ack"].add(self._confirm)
        self._channel.events["basic_nack"].add(self._refuse)  # a message that comes back is raised by the client

    def _confirm(self, tag: int, multiple: object) -> None:
        done = {one for one in self._unconfirmed if one <= tag} if multiple else {tag}
        self._unconfirmed -= done

    def _refuse(self, tag: int, multiple: object) -> None:
        self._confirm(tag, multiple)
        self._refused.append(tag)

    def publish(self, count: int) -> None:
        for _ in range(count):
            message = amqp.Message(BODY, delivery_mode=2)
            self._channel.basic_publish(message, exchange="", routing_key=QUEUE, mandatory=True)
            self._published += 1
            self._unconfirmed.add(self._published)
        while self._unconfirmed:
            self._connection.drain_events(timeout=PATIENCE)
        assert not self._refused, f"the server refused message {self._refused[0]}"

    def drain(self, count: int) -> None:
        channel = self._connection.channel()
        channel.basic_qos(0, 2 * BATCH, False)
        taken = 0

        def take(message: Any) -> None:
            nonlocal taken
            taken += 1
            if taken % BATCH == 0 or taken == count:
                channel.basic_ack(message.delivery_tag, multiple=True)

        channel.basic_consume(QUEUE, callback=take)
        while taken < count:
            self._connection.drain_events(timeout=PATIENCE)
        channel.close()

    def close(self) -> None:
        self._connection.close()
