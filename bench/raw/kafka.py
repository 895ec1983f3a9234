"""On Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.raw.rival import BATCH, BODY, PATIENCE, QUEUE, Raw


class RawKafka(Raw):
    """A topic of one partition; an idempotent producer with acks=all; an offset committed for each batch.

    Nothing is read ahead while nobody drains.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url).netloc.rpartition("@")[2]
        servers: dict[str, str | int | float | bool] = {
            "bootstrap.servers": address,
            "socket.nagle.disable": True,
            "log_level": 0,
        }
        admin = AdminClient(servers)  # its answers end with it
        for made in admin.create_topics([NewTopic(QUEUE, 1, 1)]).values():
            made.result(PATIENCE)
        self._failed: list[object] = []
        self._producer = Producer({**servers, "acks": "all", "enable.idempotence": True})
        self._consumer: Any = Consumer(
            {**servers, "group.id": "raw", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        )
        self._next = 0
        self.publish(1)
        self.drain(1)

    def publish(self, count: int) -> None:
        for _ in range(count):
            self._producer.produce(QUEUE, BODY, on_delivery=self._report)
        left = self._producer.flush(PATIENCE)
        assert not left, f"{left} messages are unconfirmed after {PATIENCE:g} s"
        assert not self._failed, f"{len(self._failed)} messages failed: {self._failed[0]}"

    def _report(self, error: object, _: object) -> None:
        if error is not None:
            self._failed.append(error)

    def drain(self, count: int) -> None:
        self._drain(count)

    def quicker_draining(self) -> Mapping[str, Callable[[int], None]]:
        return {"commits waited for last": lambda count: self._drain(count, waits=False)}

    def _drain(self, count: int, *, waits: bool = True) -> None:
        self._consumer.assign([TopicPartition(QUEUE, 0, self._next)])
        taken, end = 0, time.monotonic() + PATIENCE
        while taken < count:
            found = self._consumer.consume(min(BATCH, count - taken), timeout=1)
            messages = sum(message.error() is None for message in found)  # what it has to say comes the same way
            taken += messages
            if messages:
                self._consumer.commit(asynchronous=taken < count and not waits)
            assert time.monotonic() < end, f"{count - taken} messages are missing after {PATIENCE:g} s"
        self._consumer.unassign()
        self._next += count

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
