"""Connections to the server, for threads of any kind."""

from __future__ import annotations

from typing import Any

from boost_core.plugin import redisurl
from boost_core.plugin.native import RLock, has_patched_select, own_socket
from redis import Connection, ConnectionPool, SSLConnection
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError as Unreachable
from redis.retry import Retry


def pool_of(url: str, timeout: float) -> ConnectionPool:
    """Return a pool for a URL. The client's own retries are off."""
    facts: dict[str, Any] = parse_url(redisurl.client_url(url))  # type: ignore[no-untyped-call]
    pool = ConnectionPool(
        connection_class=_owning(facts.pop("connection_class", Connection)),
        # RESP2 on purpose: what is subscribed to and what is asked have the same shapes on every server.
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        driver_info=None,
        **facts,
    )
    pool._lock = RLock()  # its own is one of greenlets where gevent has patched, and native threads take it too
    return pool


def _owning(kind: type[Any]) -> type[Any]:
    """Return a class of connections whose sockets any thread may use, also where gevent has patched the process."""

    class Owning(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            if issubclass(kind, SSLConnection) and has_patched_select():
                message = "TLS isn't possible in a process that gevent or eventlet has patched; use a tunnel"
                raise Unreachable(message)
            return own_socket(super()._connect())

    return Owning
