"""Connections to one server: dialled when needed, one thread's at a time, each call with a deadline."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from boost_core.plugin.native import has_patched_select, poll, wait_for_input
from hiredis import pack_command
from redis import exceptions

from boost_broker_redis.address import Address, Broken, set_deadline
from boost_broker_redis.script import Call, script_of

IDLE_SECONDS: Final = 10.0
"""A connection that nobody used for so long is closed, by whoever puts another one back or keeps a worker alive."""

PIECE_BYTES: Final = 256 * 1024
"""Commands are sent once they have so many bytes."""

_Command = Sequence[Any]


class Connections:
    """Connections to one address. Any thread; those that are put back are taken first by the next.

    ``native`` ones are used by native threads only. Others let greenlets go on while they wait, where there are any.
    """

    def __init__(self, address: Address, layout: str, timeout: float, *, native: bool = False) -> None:
        self.address = address
        self._native = native
        self._layout = layout
        self._timeout = timeout
        self._idle: list[tuple[float, Any]] = []  # appended to and popped from in single steps, so without a lock
        self._busy: set[Any] = set()

    # --- calls -----------------------------------------------------------------------------------

    def call(self, commands: Sequence[_Command], timeout: float | None = None) -> list[Any]:
        """Send commands in one piece and return their answers, errors of single ones among them. Raises ``Broken``."""
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        connection = self._take(seconds)
        replies: list[Any] = []
        self._busy.add(connection)
        try:
            _send(connection, commands, deadline)
            shares = not self._native and has_patched_select()
            set_deadline(connection, deadline, is_set=not shares)
            if shares:
                wait_for_input(connection._sock.fileno(), max(0.0, deadline - time.monotonic()))
            replies.extend(_answer(connection) for _ in commands)  # keeps those before one that fails
        except (exceptions.RedisError, OSError, AttributeError) as error:  # the latter where it was cut meanwhile
            connection.disconnect()
            raise Broken(error, replies, sent=True) from error
        finally:
            self._busy.discard(connection)
        self._put_back(connection)
        return replies

    def run(self, calls: Sequence[Call], timeout: float | None = None) -> list[Any]:
        """Run operations in one round trip; by the same deadline a second one for unknown scripts."""
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        scripts = [script_of(self._layout, call.operation) for call in calls]
        replies = self.call([script.by_hash(call) for script, call in zip(scripts, calls, strict=True)], seconds)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if unknown:
            left = max(0.001, deadline - time.monotonic())
            known = self.call([scripts[i].whole(calls[i]) for i in unknown], left)
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
            if not _is_readable(connection):
                return connection
            connection.disconnect()  # nothing is awaited, so the server has closed it meanwhile
        return self.address.dial(seconds)

    def _put_back(self, connection: Any) -> None:
        self._idle.append((time.monotonic(), connection))
        self.close_idle()

    def close_idle(self) -> None:
        """Close those that nobody used for long."""
        oldest = time.monotonic() - IDLE_SECONDS
        with suppress(IndexError):  # others take them meanwhile
            while self._idle[0][0] < oldest:
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


def _is_readable(connection: Any) -> bool:
    polling = poll()
    polling.register(connection._sock.fileno(), select.POLLIN)
    return bool(polling.poll(0))


def _send(connection: Any, commands: Sequence[_Command], deadline: float) -> None:
    """Send commands in few pieces: small ones go out together, large ones aren't copied once more."""
    packed: list[bytes] = []
    size = 0
    for number, command in enumerate(commands, 1):
        packed.append(pack_command(tuple(command)))
        size += len(packed[-1])
        if number == len(commands) or size > PIECE_BYTES:
            connection._sock.settimeout(max(0.001, deadline - time.monotonic()))
            connection.send_packed_command([b"".join(packed)], check_health=False)
            packed, size = [], 0


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response(disconnect_on_error=False)
    except exceptions.ResponseError as error:
        return error
