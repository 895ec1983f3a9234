"""Where a process waits: a connection subscribed to the keys that it awaits, and a pipe for itself."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from boost_core.plugin.native import poll
from redis import exceptions

_CHUNK: Final = 500
_DRAIN_BYTES: Final = 4096


class Listener:
    """Follows keys. All from one thread, but ``wake`` and ``cut``. Raises what the client does."""

    def __init__(self, dial: Callable[[], Any], prefix: str, timeout: float) -> None:
        """``dial`` returns a connection that is connected; a key's channel is its name behind ``prefix``."""
        self._dial = dial
        self._prefix = prefix
        self._timeout = timeout
        self._connection: Any = None
        self._followed: set[str] = set()
        self._told: set[str] = set()
        self._handed: set[str] = set()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def follow(self, keys: Iterable[str]) -> list[str]:
        """Follow these keys and no others; return those to look at now: new ones, and those that were handed over."""
        wanted = set(keys)
        self._connect()
        try:
            self._tell(self._followed - wanted, wanted - self._followed)
        except BaseException:
            self.cut()
            raise
        look = (wanted - self._followed) | (wanted & self._handed)
        self._followed, self._handed = wanted, set()
        return [*look]

    def hand_over(self, keys: Iterable[str]) -> None:
        """Note that somebody has the values of these keys: who follows them again wants those that are there then."""
        self._handed.update(keys)

    def wait(self, seconds: float) -> set[str]:
        """Return the keys that were put meanwhile, waiting for any so long; none when woken, which may be before."""
        try:
            polling = poll()  # select.select can't take descriptors over 1023
            polling.register(self._connection._sock, select.POLLIN)
            polling.register(self._reader, select.POLLIN)
            if not self._told and not self._connection.can_read(0):
                polling.poll(max(0.0, seconds) * 1000)
            with suppress(BlockingIOError):
                while len(os.read(self._reader, _DRAIN_BYTES)) == _DRAIN_BYTES:
                    pass
            while self._connection.can_read(0):
                self._read()
        except (exceptions.RedisError, OSError, AttributeError, TypeError) as error:  # the latter where it was cut
            self.cut()
            raise exceptions.ConnectionError(str(error)) from error
        told, self._told = self._told & self._followed, set()
        return told

    def wake(self) -> None:
        """Let ``wait`` return now, or at its next call. Never blocks."""
        with suppress(BlockingIOError, OSError):  # full of bytes that wake just as well, or closed
            os.write(self._writer, b"!")

    def cut(self) -> None:
        """Close the connection; the next ``follow`` dials anew and follows everything."""
        connection, self._connection = self._connection, None
        self._followed.clear()
        if connection is not None:
            connection.disconnect()

    def close(self) -> None:
        """Close everything. Not while ``wait`` blocks."""
        self.cut()
        self._close_pipe()

    def after_fork(self) -> None:
        """In a forked child: close the descriptors, and nothing that the server would hear of."""
        sock = self._connection and self._connection._sock
        if sock is not None:
            os.close(sock.detach())
        self._close_pipe()

    def _connect(self) -> None:
        if self._connection is not None:
            try:
                while self._connection.can_read(0):
                    self._read()
            except (exceptions.RedisError, OSError):
                self.cut()
        if self._connection is None:
            self._connection = self._dial()

    def _tell(self, gone: set[str], new: set[str]) -> None:
        """Unsubscribe and subscribe in one round trip; with nothing to tell, see that the server still answers."""
        commands = [*_commands("UNSUBSCRIBE", self._prefix, gone), *_commands("SUBSCRIBE", self._prefix, new)]
        self._connection.send_packed_command(self._connection.pack_commands(commands or [("PING",)]))
        answers = len(gone) + len(new) or 1
        deadline = time.monotonic() + self._timeout
        while answers:
            if time.monotonic() > deadline:
                raise exceptions.TimeoutError("what is followed isn't confirmed in time")
            answers -= self._read() != b"message"

    def _read(self) -> bytes:
        """Read one thing that was said; note the key if it was put. Return what it is."""
        said: bytes
        said, channel, *_ = self._connection.read_response()
        if said == b"message":
            self._told.add(channel.decode()[len(self._prefix) :])
        return said

    def _close_pipe(self) -> None:
        reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)


def _commands(name: str, prefix: str, keys: set[str]) -> list[tuple[str, ...]]:
    listed = [f"{prefix}{key}" for key in keys]
    return [(name, *listed[start : start + _CHUNK]) for start in range(0, len(listed), _CHUNK)]
