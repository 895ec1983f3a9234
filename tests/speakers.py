"""What the plain clients of each server are used for in tests of servers: to keep a text there, and to read it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

NOTE = "note"


class RedisSpeaker:
    """Redis and Valkey."""

    greeting = b"PING\r\n"

    @staticmethod
    def _client(server: Any, user: str) -> Any:
        import redis

        trusted = {"ssl_ca_certs": str(server.ca)} if server.ca else {}
        return redis.from_url(server.url_for(user), socket_timeout=5, **trusted)

    def keep(self, server: Any, text: str, user: str = "") -> None:
        with self._client(server, user) as client:
            client.set(NOTE, text)

    def read(self, server: Any) -> str:
        with self._client(server, "") as client:
            return client.get(NOTE).decode()


class RabbitSpeaker:
    """RabbitMQ."""

    greeting = b"AMQP\x00\x00\x09\x01"

    @staticmethod
    @contextmanager
    def _connection(server: Any, user: str) -> Iterator[Any]:
        import amqp

        place = urlsplit(server.url_for(user or "guest"))
        tls = {"ca_certs": str(server.ca), "server_hostname": place.hostname} if server.ca else False
        connection = amqp.Connection(
            f"{place.hostname}:{place.port}",
            userid=place.username,
            password=unquote(place.password),
            virtual_host=unquote(place.path[1:]),
            ssl=tls,
            confirm_publish=True,
        )
        try:
            connection.connect()
            yield connection
            connection.close()
        finally:
            connection.collect()  # where something failed, without asking a server that may not answer

    def keep(self, server: Any, text: str, user: str = "", seconds: float = 5) -> None:
        import amqp

        with self._connection(server, user) as connection:
            channel = connection.channel()
            channel.queue_declare(NOTE, durable=True, auto_delete=False)
            channel.basic_publish(amqp.Message(text, delivery_mode=2), routing_key=NOTE, timeout=seconds)
            server.flush()

    def read(self, server: Any) -> str:
        with self._connection(server, "") as connection:
            return connection.channel().basic_get(NOTE).body

    def never_acknowledge(self, server: Any) -> None:
        """Take a text, and wait for what the server says about that."""
        with self._connection(server, "") as connection:
            connection.channel(1).basic_consume(NOTE, callback=lambda _: None)
            while True:
                connection.drain_events(timeout=20)


class KafkaSpeaker:
    """Kafka."""

    greeting = bytes.fromhex("0000000a 0012 0000 00000001 ffff")  # which versions of requests it knows

    @staticmethod
    def _settings(server: Any, user: str) -> dict[str, Any]:
        settings = {"bootstrap.servers": f"127.0.0.1:{server.port}", "log_level": 0}
        passwords = {**server.users, **server.strangers}
        if user:
            settings |= {"sasl.mechanism": "PLAIN", "sasl.username": user, "sasl.password": passwords[user]}
        if server.ca:
            settings |= {"ssl.ca.location": str(server.ca)}
        protocol = ("SASL_" if user else "") + ("SSL" if server.ca else "PLAINTEXT")
        return settings | {"security.protocol": protocol}

    def keep(self, server: Any, text: str, user: str = "") -> None:
        from confluent_kafka import KafkaException, Producer
        from confluent_kafka.admin import AdminClient, NewTopic

        settings = self._settings(server, user)
        admin = AdminClient(settings)  # kept: its calls end with it
        for created in admin.create_topics([NewTopic(NOTE, 1, 1)]).values():
            created.result(20)
        failures: list[Any] = []
        producer = Producer({**settings, "acks": "all"})
        producer.produce(NOTE, text, on_delivery=lambda error, _: failures.append(error))
        producer.flush(20)
        if failures != [None]:
            raise KafkaException(*failures)

    def read(self, server: Any) -> str:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({**self._settings(server, ""), "group.id": "reader"})
        try:
            consumer.assign([TopicPartition(NOTE, 0, 0)])
            return consumer.consume(1, 20)[0].value().decode()
        finally:
            consumer.close()


class NatsSpeaker:
    """NATS with JetStream."""

    greeting = b"PING\r\n"

    @staticmethod
    @asynccontextmanager
    async def _client(server: Any, user: str) -> AsyncIterator[Any]:
        import nats

        refusals: list[Exception] = []

        async def heard(error: Exception) -> None:
            refusals.append(error)

        trusted = {"tls": ssl.create_default_context(cafile=str(server.ca))} if server.ca else {}
        client = await nats.connect(server.url_for(user), allow_reconnect=False, error_cb=heard, **trusted)
        try:
            yield client
        except nats.errors.TimeoutError as silence:
            raise (refusals or [silence])[0] from None  # the server refuses beside the call, which hears nothing
        finally:
            await client.close()

    def keep(self, server: Any, text: str, user: str = "") -> None:
        async def keep() -> None:
            async with self._client(server, user) as client:
                stream = client.jetstream(timeout=1)
                await stream.add_stream(name=NOTE, subjects=[NOTE])
                await stream.publish(NOTE, text.encode())

        asyncio.run(keep())

    def read(self, server: Any) -> str:
        async def read() -> str:
            async with self._client(server, "") as client:
                return (await client.jetstream().get_last_msg(NOTE, NOTE)).data.decode()

        return asyncio.run(read())


SPEAKERS: dict[str, Any] = {
    "redis": RedisSpeaker(),
    "valkey": RedisSpeaker(),
    "rabbitmq": RabbitSpeaker(),
    "kafka": KafkaSpeaker(),
    "nats": NatsSpeaker(),
}
