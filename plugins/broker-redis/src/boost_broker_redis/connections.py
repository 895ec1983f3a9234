"""Connections to one server: dialled when needed, one thread's at a time, each call with a deadline."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Final

import attrs
from boost_core.plugin import mask_url
from boost_core.plugin.native import own_socket
from hiredis import pack_command
from redis import Connection, SSLConnection, UnixDomainSocketConnection, exceptions
from redis.connection import parse_url

from boost_broker_redis.script import Call, Script
from boost_broker_redis.troubles import SilentTls

IDLE_SECONDS: Final = 30.0
"""A connection that nobody used for so long is closed when another is put back."""

_DEFAULT: Final = "redis://localhost:6379/0"
_TRANSPORTS: Final = {
    "redis-stream": "redis",
    "rediss-stream": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
}
_Command = Sequence[Any]


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


class NativeConnection(Connection):
    """A connection that any thread may use, also where gevent has patched the process."""

    def _connect(self) -> Any:
        return own_socket(super()._connect())  # type: ignore[no-untyped-call]


class NativeUnixConnection(UnixDomainSocketConnection):
    """The same over a Unix socket."""

    def _connect(self) -> Any:
        return own_socket(super()._connect())  # type: ignore[no-untyped-call]


_NATIVE: Final = {Connection: NativeConnection, UnixDomainSocketConnection: NativeUnixConnection}


class Address:
    """Where the server is and how to log in there."""

    def __init__(self, url: str | None) -> None:
        self.url = url or _DEFAULT
        self.masked = mask_url(self.url)
        scheme, _, rest = self.url.partition("://")
        url = f"{_TRANSPORTS.get(scheme, scheme)}://{rest}"
        self._facts: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        chosen = self._facts.pop("connection_class", Connection)
        self._class = _NATIVE.get(chosen, chosen)

    def dial(self, seconds: float) -> Any:
        """Return a connection, logged in. Raises ``Broken``."""
        # RESP2 on purpose: one shape of answers on every server, and errors that don't depend on what HELLO may do.
        connection = self._class(
            **self._facts, protocol=2, socket_timeout=seconds, socket_connect_timeout=seconds, driver_info=None
        )
        try:
            connection.connect()
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            silent = isinstance(error, exceptions.TimeoutError) and isinstance(connection, SSLConnection)
            raise Broken(SilentTls() if silent else error) from error
        return connection


class Connections:
    """Connections to one address. Any thread; those that are put back are taken first by the next."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self._idle: list[tuple[float, Any]] = []  # appended to and popped from in single steps, so without a lock
        self._busy: set[Any] = set()

    # --- calls -----------------------------------------------------------------------------------

    def call(self, commands: Sequence[_Command], timeout: float | None = None) -> list[Any]:
        """Send commands in one piece and return their answers, errors of single ones among them. Raises ``Broken``."""
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        connection = self._take(seconds)
        replies: list[Any] = []
        self._busy.add(connection)
        try:
            _send(connection, commands, deadline)
            replies.extend(_answer(connection, deadline) for _ in commands)  # keeps those before one that fails
        except (exceptions.RedisError, OSError, AttributeError) as error:  # the latter where it was cut meanwhile
            connection.disconnect()
            raise Broken(error, replies, sent=True) from error
        finally:
            self._busy.discard(connection)
        self._put_back(connection)
        return replies

    def run(self, script: Script, calls: Sequence[Call], timeout: float | None = None) -> list[Any]:
        """Run a script so many times in one round trip; a second one where the server doesn't know the script yet."""
        replies = self.call([script.by_hash(call) for call in calls], timeout)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if unknown:
            known = self.call([script.whole(calls[i]) for i in unknown], timeout)
            for i, reply in zip(unknown, known, strict=True):
                replies[i] = reply
        return replies

    # --- life ------------------------------------------------------------------------------------

    def _take(self, seconds: float) -> Any:
        while self._idle:
            try:
                connection = self._idle.pop()[1]
            except IndexError:
                break
            try:
                if not connection.can_read(0):  # what is readable was closed by the server meanwhile
                    return connection
            except (exceptions.RedisError, OSError):
                pass
            connection.disconnect()
        return self.address.dial(seconds)

    def _put_back(self, connection: Any) -> None:
        now = time.monotonic()
        self._idle.append((now, connection))
        if self._idle[0][0] < now - IDLE_SECONDS:
            self._idle.pop(0)[1].disconnect()

    def close(self) -> None:
        """Close all that nobody uses."""
        while self._idle:
            self._idle.pop()[1].disconnect()

    def cut(self) -> None:
        """Cut also those in use: their calls end at once."""
        for connection in list(self._busy):
            connection.disconnect()
        self.close()

    def after_fork(self) -> None:
        """In a forked child: close the descriptors, and nothing that the server would hear of."""
        for connection in [*self._busy, *(entry[1] for entry in self._idle)]:
            drop(connection)


def drop(connection: Any) -> None:
    """Close the descriptor of a connection whose parent process goes on with it."""
    sock = connection._sock
    if sock is not None:
        os.close(sock.detach())


def _send(connection: Any, commands: Sequence[_Command], deadline: float) -> None:
    packed = b"".join(map(pack_command, map(tuple, commands)))
    connection._sock.settimeout(max(0.001, deadline - time.monotonic()))
    connection.send_packed_command([packed], check_health=False)


def _answer(connection: Any, deadline: float) -> Any:
    if time.monotonic() > deadline:
        raise exceptions.TimeoutError("the answers didn't come in time")
    try:
        return connection.read_response(disconnect_on_error=False)
    except exceptions.ResponseError as error:
        return error
