"""The store: a string a key on the server, which forgets it by its own clock and tells who awaits it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import redis
from boost_core.plugin import Closed, Store, StoreUnavailable, mask_url, redisurl
from boost_core.plugin.native import Lock
from redis import exceptions

from boost_store_redis.listener import Listener
from boost_store_redis.plugin import RedisStoreOptions
from boost_store_redis.pool import pool_of
from boost_store_redis.troubles import explain

log = logging.getLogger("boost.store.redis")

PREFIX: Final = "boost:store:"
"""What keys begin with, and the channels on which their puts are told."""

PUT: Final = """
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1])
  redis.pcall('PUBLISH', key, '')
end
"""
"""Writes all or none: a full server refuses the first SET of a script, and those behind it no more."""

_KEYS_AT_ONCE: Final = 1000
_WAIT_ENDS_SECONDS: Final = 0.5


class RedisStore(Store):
    """Keyed bytes on a server. Any thread; ``wait`` from one at a time."""

    options: RedisStoreOptions

    def __init__(self, options: RedisStoreOptions) -> None:
        super().__init__(options)
        url = options.url.reveal() if options.url else redisurl.DEFAULT
        self.where = mask_url(url)
        self._pool = pool_of(url, options.timeout)
        self._client = redis.Redis(connection_pool=self._pool)
        self._put = self._client.register_script(PUT)
        self._listener = Listener(self._dial, PREFIX, options.timeout)
        self._waiting = Lock()
        self._open = self._woken = False

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and check the server. Raises ``StoreUnavailable`` with the remedy."""
        if self._open:
            return
        self._asked(self._client.publish, f"{PREFIX}nobody", b"")
        try:
            policy = self._client.info("memory").get("maxmemory_policy", "noeviction")
        except exceptions.RedisError:  # a user may not ask, and needn't
            policy = "noeviction"
        if policy != "noeviction":
            log.warning(
                "the server at %s may drop results before they are read (maxmemory-policy %s)", self.where, policy
            )
        self._open = True

    def close(self) -> None:
        """Disconnect; idempotent. A blocked ``wait`` returns first."""
        if not self._open:
            return
        self._open = False
        self._listener.wake()
        idle = self._waiting.acquire(timeout=_WAIT_ENDS_SECONDS)
        if not idle:
            self._listener.cut()
            idle = self._waiting.acquire(timeout=_WAIT_ENDS_SECONDS)
        self._listener.close()
        self._pool.disconnect()
        if idle:
            self._waiting.release()

    def after_fork(self) -> None:
        """In a forked child: close the parent's socket, so that it ends with it."""
        self._open = False
        self._listener.after_fork()

    # --- keys and values -------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of the keys that exist and haven't expired."""
        self._check_open()
        found: dict[str, bytes] = {}
        for some in _chunks(keys):
            values = self._asked(self._client.mget, [f"{PREFIX}{key}" for key in some])
            found.update((key, value) for key, value in zip(some, values, strict=True) if value is not None)
        return found

    def put(self, items: Mapping[str, bytes], ttl: float) -> None:
        """Write all items in one step, and tell who awaits them."""
        self._check_open()
        if items:
            milliseconds = max(1, math.ceil(ttl * 1000))
            self._asked(self._put, [f"{PREFIX}{key}" for key in items], [milliseconds, *items.values()])

    def delete(self, keys: Sequence[str]) -> int:
        """Remove keys; return how many existed."""
        self._check_open()
        return sum(self._asked(self._client.unlink, *(f"{PREFIX}{key}" for key in some)) for some in _chunks(keys))

    # --- waiting ---------------------------------------------------------------------------------

    def wait(self, keys: Sequence[str], timeout: float) -> Mapping[str, bytes]:
        """Return as soon as any key exists, with all that do; ``{}`` after ``timeout`` seconds, or when woken.

        Keys are followed from one call to the next: what stays costs nothing.
        """
        self._check_open()
        deadline = time.monotonic() + timeout
        with self._waiting:
            try:
                found = self.get(self._asked(self._listener.follow, keys))
                while not found and not self._woken and (remaining := deadline - time.monotonic()) > 0:
                    found = self.get([*self._asked(self._listener.wait, remaining)])
            except BaseException:
                self._listener.cut()  # nobody knows what was put meanwhile: the next call asks for everything
                if not self._open:
                    return {}
                raise
            self._woken = False
            self._listener.hand_over(found)
            return found

    def wake(self) -> None:
        """Let a blocked ``wait`` return now."""
        self._woken = True
        self._listener.wake()

    # --- the parts ---------------------------------------------------------------------------------

    def _dial(self) -> Any:
        connection: Any = self._pool.make_connection()
        connection.connect()
        return connection

    def _asked(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return ask(*arguments)
        except (exceptions.RedisError, OSError) as error:
            problem, fix = explain(error, self.options.timeout)
            raise StoreUnavailable(self.spec.name, f"the server at {self.where} {problem}", fix) from error

    def _check_open(self) -> None:
        if not self._open:
            raise Closed(f"store {self.spec.name!r}")


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))
