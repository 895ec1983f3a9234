"""Where the server is, and how it is dialled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import attrs
from boost_core.plugin import mask_url, redisurl
from boost_core.plugin.native import has_patched_select, own_socket
from redis import Connection, SSLConnection, UnixDomainSocketConnection, exceptions
from redis.connection import DefaultParser, parse_url

from boost_broker_redis.troubles import PatchedTls, SilentTls


@attrs.define(eq=False)
class Broken(Exception):
    """A call that got no answer, or not all: its cause, the answers it got, and whether anything was sent."""

    cause: Exception
    replies: Sequence[Any] = ()
    sent: bool = False

    @property
    def unsure(self) -> bool:
        """Whether the server may have done what it didn't answer; it hasn't where it answered why, as when loading."""
        return self.sent and not getattr(self.cause, "status_code", None)


class PunctualParser(DefaultParser):  # type: ignore[misc, valid-type]
    """One that reads until a deadline, however many pieces an answer comes in: the client's time-out is for each."""

    deadline = 0.0
    is_set = False  # the socket's time-out, for the next read: setting it takes as long as all else of a read

    def wait_until(self, deadline: float, *, is_set: bool = False) -> None:
        """Set until when to read, by ``time.monotonic``; the socket's time-out may be that already."""
        self.deadline, self.is_set = deadline, is_set

    def read_from_socket(self, **facts: Any) -> Any:
        if self.is_set:
            self.is_set = False
        else:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise exceptions.TimeoutError("the answers didn't come in time")
            self._sock.settimeout(left)
        return super().read_from_socket(**facts)


class NativeConnection(Connection):
    """A connection that any thread may use, also where gevent has patched the process."""

    def _connect(self) -> Any:
        return own_socket(super()._connect())  # type: ignore[no-untyped-call]


class NativeUnixConnection(UnixDomainSocketConnection):
    """The same over a Unix socket."""

    def _connect(self) -> Any:
        return own_socket(super()._connect())  # type: ignore[no-untyped-call]


class NativeTlsConnection(SSLConnection):
    """One over TLS, which needs the process's own sockets."""

    def _connect(self) -> Any:
        if has_patched_select():
            raise PatchedTls
        return super()._connect()  # type: ignore[no-untyped-call]


_NATIVE: Final[dict[type[Any], type[Any]]] = {
    Connection: NativeConnection,
    UnixDomainSocketConnection: NativeUnixConnection,
    SSLConnection: NativeTlsConnection,
}


class Address:
    """Where the server is and how to log in there."""

    def __init__(self, url: str | None) -> None:
        self.url = url or redisurl.DEFAULT
        self.masked = mask_url(self.url)
        self._facts: dict[str, Any] = parse_url(redisurl.client_url(self.url))  # type: ignore[no-untyped-call]
        self._class = _NATIVE[self._facts.pop("connection_class", Connection)]

    def dial(self, seconds: float) -> Any:
        """Return a connection, logged in within ``seconds``. Raises ``Broken``."""
        # RESP2 on purpose: one shape of answers on every server, and errors that don't depend on what HELLO may do.
        connection = self._class(
            **self._facts,
            protocol=2,
            parser_class=PunctualParser,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            driver_info=None,
        )
        connection._parser.wait_until(time.monotonic() + seconds)
        try:
            connection.connect()
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            silent = isinstance(error, exceptions.TimeoutError) and isinstance(connection, SSLConnection)
            raise Broken(SilentTls() if silent else error) from error
        return connection
