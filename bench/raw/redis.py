"""On Redis: a list, and a stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis

from bench.raw.rival import BATCH, BODY, QUEUE, Raw

_DOING: Final = "doing"
_TAKE: Final = """
local bodies = redis.call('LPOP', KEYS[1], ARGV[1])
if bodies then redis.call('RPUSH', KEYS[2], unpack(bodies)) end
return bodies
"""
_GROUP: Final = "group"
_ALONG: Final = "ack and next 100 at once"


class _Client(Raw):
    def __init__(self, url: str) -> None:
        self._client: Any = redis.Redis.from_url(url)

    def publish(self, count: int) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for _ in range(count):
                self._add(pipe)
            pipe.execute()

    def publish_singles(self, count: int) -> None:
        for _ in range(count):
            self._add(self._client)

    def drain(self, count: int) -> None:
        while count > 0:
            taken = self._taken(self._take(self._client))
            with self._client.pipeline(transaction=False) as pipe:
                self._ack(pipe, taken)
                pipe.execute()
            count -= len(taken)

    def quicker_draining(self) -> Mapping[str, Callable[[int], None]]:
        return {_ALONG: self._drain_along}

    def _drain_along(self, count: int) -> None:
        found = self._take(self._client)
        while count > 0:
            taken = self._taken(found)
            with self._client.pipeline(transaction=False) as pipe:
                self._ack(pipe, taken)
                self._take(pipe)
                found = pipe.execute()[-1]
            count -= len(taken)

    @abstractmethod
    def _add(self, client: Any) -> None:
        """Publish a message."""

    @abstractmethod
    def _take(self, client: Any) -> Any:
        """Ask for a batch."""

    @abstractmethod
    def _taken(self, found: Any) -> list[Any]:
        """Return what to acknowledge of an answer; raise where it is nothing."""

    @abstractmethod
    def _ack(self, pipe: Any, taken: list[Any]) -> None:
        """Acknowledge a batch."""

    def close(self) -> None:
        self._client.close()


class RawList(_Client):
    """A list, and a second one of what is being worked on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._script = self._client.register_script(_TAKE)

    def quicker_publishing(self) -> Mapping[str, Callable[[int], None]]:
        return {"pushes of 100 values": self._publish_values}

    def _publish_values(self, count: int) -> None:
        for _ in range(count // BATCH):
            self._client.rpush(QUEUE, *[BODY] * BATCH)

    def _add(self, client: Any) -> None:
        client.rpush(QUEUE, BODY)

    def _take(self, client: Any) -> Any:
        return self._script(keys=[QUEUE, _DOING], args=[BATCH], client=client)

    def _taken(self, found: Any) -> list[Any]:
        assert found, "the list is empty"
        return found  # type: ignore[no-any-return]

    def _ack(self, pipe: Any, taken: list[Any]) -> None:
        pipe.ltrim(_DOING, len(taken), -1)


class RawStream(_Client):
    """A stream with a consumer group; what was acknowledged is deleted."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._client.xgroup_create(QUEUE, _GROUP, mkstream=True)

    def _add(self, client: Any) -> None:
        client.xadd(QUEUE, {"body": BODY})

    def _take(self, client: Any) -> Any:
        return client.xreadgroup(_GROUP, "worker", {QUEUE: ">"}, count=BATCH)

    def _taken(self, found: Any) -> list[Any]:
        assert found, "the stream is empty"
        return [one for one, _ in found[0][1]]

    def _ack(self, pipe: Any, taken: list[Any]) -> None:
        pipe.xack(QUEUE, _GROUP, *taken)
        pipe.xdel(QUEUE, *taken)
