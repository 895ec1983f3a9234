"""The plainest loops on each server's own client, in batches of 100, with the durability that the broker has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

BATCH = 100
QUEUE = "raw"
BODY = b'json\n{"v":1,"id":"0123456789abcdef0123456789abcdef","task":"noop","at":1790000000000000,"args":[12345]}'


class Raw(Protocol):
    """What is compared with."""

    def publish_batches(self, count: int) -> None:
        """Publish, each batch confirmed before the next."""

    def publish_singles(self, count: int) -> None:
        """Publish, each message confirmed before the next."""

    def drain(self, count: int) -> None:
        """Take and acknowledge, batch by batch."""

    def close(self) -> None:
        """Hang up."""


class RawRedis:
    """A list, and a second one of what is being worked on."""

    def __init__(self, url: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(url)
        self._client.delete(QUEUE, "doing")

    def publish_batches(self, count: int) -> None:
        for _ in range(count // BATCH):
            with self._client.pipeline(transaction=False) as pipe:
                for _ in range(BATCH):
                    pipe.rpush(QUEUE, BODY)
                pipe.execute()

    def publish_singles(self, count: int) -> None:
        for _ in range(count):
            self._client.rpush(QUEUE, BODY)

    def drain(self, count: int) -> None:
        for _ in range(count // BATCH):
            with self._client.pipeline(transaction=False) as pipe:
                for _ in range(BATCH):
                    pipe.lmove(QUEUE, "doing")
                bodies = pipe.execute()
                for body in bodies:
                    pipe.lrem("doing", 1, body)
                pipe.execute()

    def close(self) -> None:
        self._client.close()


class RawRabbit:
    """A quorum queue, persistent messages, publisher confirms; acks of a whole batch at once."""

    def __init__(self, url: str) -> None:
        import amqp

        place = urlsplit(url)
        self._amqp = amqp
        self._connection = amqp.Connection(
            host=f"{place.hostname}:{place.port}",
            userid=place.username or "guest",
            password=place.password or "guest",
            virtual_host=unquote(place.path.lstrip("/")) or "/",
        )
        self._connection.connect()
        self._channel = self._connection.channel()
        self._channel.confirm_select()
        self._channel.queue_declare(QUEUE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        self._channel.queue_purge(QUEUE)
        self._published = self._confirmed = 0
        self._channel.events["basic_ack"].add(self._confirm)

    def _confirm(self, tag: int, _multiple: object) -> None:
        self._confirmed = max(self._confirmed, tag)

    def _publish(self, count: int) -> None:
        for _ in range(count):
            message = self._amqp.Message(BODY, delivery_mode=2)
            self._channel.basic_publish(message, exchange="", routing_key=QUEUE, mandatory=True)
        self._published += count
        while self._confirmed < self._published:
            self._connection.drain_events(timeout=10)

    def publish_batches(self, count: int) -> None:
        for _ in range(count // BATCH):
            self._publish(BATCH)

    def publish_singles(self, count: int) -> None:
        for _ in range(count):
            self._publish(1)

    def drain(self, count: int) -> None:
        channel = self._connection.channel()
        channel.basic_qos(0, 2 * BATCH, False)
        taken = 0

        def take(message: Any) -> None:
            nonlocal taken
            taken += 1
            if taken % BATCH == 0:
                channel.basic_ack(message.delivery_tag, multiple=True)

        tag = channel.basic_consume(QUEUE, callback=take)
        while taken < count:
            self._connection.drain_events(timeout=10)
        channel.basic_cancel(getattr(tag, "consumer_tag", tag))
        channel.close()

    def close(self) -> None:
        self._connection.close()


class RawKafka:
    """A topic of one partition; an idempotent producer with acks=all; a committed offset a batch."""

    def __init__(self, url: str) -> None:
        from confluent_kafka import Consumer, Producer
        from confluent_kafka.admin import AdminClient, NewTopic

        servers = {"bootstrap.servers": urlsplit(url).netloc.rpartition("@")[2]}
        for future in AdminClient(servers).create_topics([NewTopic(QUEUE, 1, 1)]).values():
            future.exception(10)  # one that is there is as good
        self._producer = Producer({**servers, "acks": "all", "enable.idempotence": True, "linger.ms": 0})
        self._consumer = Consumer(
            {**servers, "group.id": "raw", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        )
        self._consumer.subscribe([QUEUE])
        self._publish(1)
        self.drain(1)

    def _publish(self, count: int) -> None:
        for _ in range(count):
            self._producer.produce(QUEUE, BODY)
        self._producer.flush(10)

    def publish_batches(self, count: int) -> None:
        for _ in range(count // BATCH):
            self._publish(BATCH)

    def publish_singles(self, count: int) -> None:
        for _ in range(count):
            self._publish(1)

    def drain(self, count: int) -> None:
        taken = 0
        while taken < count:
            found = self._consumer.consume(min(BATCH, count - taken), timeout=10)
            messages = [message for message in found if message.error() is None]
            if messages:
                self._consumer.commit(asynchronous=False)
            taken += len(messages)

    def close(self) -> None:
        self._consumer.close()


class RawNats:
    """A work-queue stream on file; publish acknowledgements gathered; a pull consumer, acks flushed a batch."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open(url))

    async def _open(self, url: str) -> None:
        import nats
        from nats.js.api import RetentionPolicy, StorageType

        self._client = await nats.connect(url)
        self._stream = self._client.jetstream(publish_async_max_pending=4 * BATCH)
        await self._stream.add_stream(
            name=QUEUE, subjects=[QUEUE], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE
        )
        self._pull = await self._stream.pull_subscribe(QUEUE, durable=QUEUE)

    def publish_batches(self, count: int) -> None:
        self._loop.run_until_complete(self._batches(count))

    async def _batches(self, count: int) -> None:
        for _ in range(count // BATCH):
            futures = [await self._stream.publish_async(QUEUE, BODY) for _ in range(BATCH)]
            await asyncio.gather(*futures)

    def publish_singles(self, count: int) -> None:
        async def publish() -> None:
            for _ in range(count):
                await self._stream.publish(QUEUE, BODY)

        self._loop.run_until_complete(publish())

    def drain(self, count: int) -> None:
        async def take() -> None:
            taken = 0
            while taken < count:
                messages = await self._pull.fetch(BATCH, timeout=10)
                for message in messages:
                    await message.ack()
                await self._client.flush()
                taken += len(messages)

        self._loop.run_until_complete(take())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


RAW: dict[str, Callable[[str], Raw]] = {
    "redis": RawRedis,
    "redis-stream": RawRedis,
    "rabbitmq": RawRabbit,
    "kafka": RawKafka,
    "nats": RawNats,
}
"""The plain client of each broker's server."""


def timed(call: Callable[[int], None], count: int) -> float:
    """Return the seconds that ``call(count)`` takes."""
    started = time.perf_counter()
    call(count)
    return time.perf_counter() - started
