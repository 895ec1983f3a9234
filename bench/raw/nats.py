"""On NATS JetStream."""

from __future__ import annotations

import asyncio
from typing import Any

import nats
from nats.js.api import RetentionPolicy, StorageType

from bench.raw.rival import BATCH, BODY, PATIENCE, QUEUE, Raw


class RawNats(Raw):
    """A work-queue stream on file; publish acknowledgements gathered; a pull consumer, acks flushed a batch."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open(url))

    async def _open(self, url: str) -> None:
        self._client: Any = await nats.connect(url)
        self._stream = self._client.jetstream(publish_async_max_pending=4 * BATCH)
        await self._stream.add_stream(
            name=QUEUE, subjects=[QUEUE], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE
        )
        self._pull = await self._stream.pull_subscribe(QUEUE, durable=QUEUE)

    def publish(self, count: int) -> None:
        async def publish() -> None:
            futures = [await self._stream.publish_async(QUEUE, BODY) for _ in range(count)]
            _, left = await asyncio.wait(futures, timeout=PATIENCE)  # one that is refused is never answered
            assert not left, f"{len(left)} messages are unconfirmed after {PATIENCE:g} s"

        self._loop.run_until_complete(publish())

    def publish_singles(self, count: int) -> None:
        async def publish() -> None:
            for _ in range(count):
                await self._stream.publish(QUEUE, BODY)

        self._loop.run_until_complete(publish())

    def drain(self, count: int) -> None:
        async def take() -> None:
            taken = 0
            while taken < count:
                messages = await self._pull.fetch(BATCH, timeout=PATIENCE)
                for message in messages:
                    await message.ack()
                await self._client.flush()
                taken += len(messages)
            while (await self._pull.consumer_info()).num_ack_pending:
                pass  # an ack is only written by then

        self._loop.run_until_complete(take())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
