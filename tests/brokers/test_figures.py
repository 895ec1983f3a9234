"""What brokers are compared with by ``make bench`` does the work that its figures are about, or fails."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from houses import ServedHouse

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.raw import RAW  # noqa: E402 - found by the line above

COUNT = 300


@pytest.fixture
def raw(own_house: ServedHouse) -> Iterator[Any]:
    """Yield the plain client of a fresh server."""
    raw = RAW[own_house.broker](own_house.server.url)
    yield raw
    raw.close()


def test_a_plain_client_drains_what_it_published(raw: Any) -> None:
    """However it publishes and drains, it takes as many messages as it published."""
    for publish in (raw.publish_batches, raw.publish_singles, *raw.quicker_publishing().values()):
        for drain in (raw.drain, *raw.quicker_draining().values()):
            publish(COUNT)
            drain(COUNT)


def test_a_plain_client_fails_where_the_server_refuses(raw: Any, own_house: ServedHouse) -> None:
    """What the server refuses isn't counted as published."""
    REFUSE[own_house.broker](own_house.server)

    with pytest.raises(Exception, match=REFUSED[own_house.broker]):
        raw.publish_batches(COUNT)


def _fill_redis(server: Any) -> None:
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1")


def _fill_rabbitmq(server: Any) -> None:
    most = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    server.control("set_policy", "full", ".*", most, "--apply-to", "queues")


def _narrow_kafka(server: Any) -> None:
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{server.port}"})
    entry = ConfigEntry("max.message.bytes", "1", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, "raw", incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10)


def _narrow_nats(server: Any) -> None:
    import nats

    async def narrow() -> None:
        client = await nats.connect(server.url)
        stream = client.jetstream()
        config = (await stream.stream_info("raw")).config
        config.max_msg_size = 1
        await stream.update_stream(config)
        await client.close()

    asyncio.run(narrow())


REFUSE = {
    "redis": _fill_redis,
    "redis-stream": _fill_redis,
    "rabbitmq": _fill_rabbitmq,
    "kafka": _narrow_kafka,
    "nats": _narrow_nats,
}
REFUSED = {
    "redis": "OOM|used memory",
    "redis-stream": "OOM|used memory",
    "rabbitmq": "the server refused message",
    "kafka": "messages failed: .*too large|MSG_SIZE_TOO_LARGE",
    "nats": "messages are unconfirmed",
}
