"""Where a worker waits: a subscribed connection for what other processes say, and a pipe for this one."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import Any, Final

from boost_core.plugin.native import poll
from redis import exceptions

from boost_broker_redis.address import Address, Broken
from boost_broker_redis.connections import drop

_DRAIN_BYTES: Final = 4096


class Listener:
    """Listens on one channel. ``open`` and ``wait`` from one thread, ``wake`` and ``cut`` from any."""

    def __init__(self, address: Address, channel: str, timeout: float) -> None:
        self._address = address
        self._channel = channel
        self._timeout = timeout
        self._connection: Any = None
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def open(self) -> None:
        """Dial, anew if need be, and subscribe. Raises ``Broken``."""
        self.cut()
        connection = self._address.dial(self._timeout)
        try:
            connection.send_command("SUBSCRIBE", self._channel)
            connection.read_response()
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            raise Broken(error) from error
        self._connection = connection

    def wait(self, seconds: float) -> bool:
        """Return whether something was said: once it is, after ``seconds``, or when woken, which may have been before.

        Raises ``Broken`` where the connection is gone.
        """
        connection = self._connection
        sock = connection and connection._sock
        if sock is None:
            raise Broken(exceptions.ConnectionError("the connection is closed"))
        polling = poll()  # select.select can't take descriptors over 1023
        polling.register(sock, select.POLLIN)
        polling.register(self._reader, select.POLLIN)
        try:
            if not connection.can_read(0):
                polling.poll(max(0.0, seconds) * 1000)
            connection._parser.wait_until(time.monotonic() + self._timeout)
            return self._empty(connection)
        except (exceptions.RedisError, OSError, AttributeError) as error:  # the latter where it was cut meanwhile
            connection.disconnect()
            raise Broken(error) from error

    def _empty(self, connection: Any) -> bool:
        with suppress(BlockingIOError):
            while len(os.read(self._reader, _DRAIN_BYTES)) == _DRAIN_BYTES:
                pass
        said = False
        while connection.can_read(0):
            connection.read_response()
            said = True
        return said

    def wake(self) -> None:
        """Let ``wait`` return now, or at its next call. Never blocks."""
        with suppress(BlockingIOError, OSError):  # full of bytes that wake just as well, or closed
            os.write(self._writer, b"!")

    def cut(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.disconnect()

    def close(self) -> None:
        """Close everything; idempotent. Not while ``wait`` blocks."""
        self.cut()
        self._close_pipe()

    def after_fork(self) -> None:
        """In a forked child: close the descriptors, and nothing that the server would hear of."""
        if self._connection is not None:
            drop(self._connection)
        self._close_pipe()

    def _close_pipe(self) -> None:
        reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
