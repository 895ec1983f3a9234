"""Connections to one server: dialled when needed, one thread's at a time, each call with a deadline."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from boost_core.plugin.native import has_patched_select, poll, wait_for_input
from hiredis import pack_command
from redis import exceptions

from boost_broker_redis.address import Address, Broken
from boost_broker_redis.script import Call, script_of
from boost_broker_redis.server import PROBE

IDLE_SECONDS: Final = 10.0
"""A connection that nobody used for so long is closed, by whoever puts another one back or keeps a worker alive."""

PIECE_BYTES: Final = 256 * 1024
"""Commands are sent once they have so many bytes."""

_Command = Sequence[Any]


class Connections:
    """Connections to one address. Any thread; those that are put back are taken first by the next.

    Once one was lost or closed, what is dialled next may be a server that has changed: so it is asked about itself.
    ``look_at`` gets the answers to ``PROBE``, and raises an error of the client where nothing may be sent there.

    ``native`` ones are used by native threads only. Others let greenlets go on while they wait, where there are any.
    """

    def __init__(
        self,
        address: Address,
        layout: str,
        timeout: float,
        look_at: Callable[[Sequence[Any]], None],
        *,
        native: bool = False,
    ) -> None:
        self.address = address
        self._look_at = look_at
        self._ended = self._looked_at = 0  # how many connections have ended, and had when the server was looked at
        self._native = native
        self._layout = layout
        self._timeout = timeout
        self._idle: list[tuple[float, Any]] = []  # appended to and popped from in single steps, so without a lock
        self._busy: set[Any] = set()

    # --- calls -----------------------------------------------------------------------------------

    def call(self, commands: Sequence[_Command], timeout: float | None = None) -> list[Any]:
        """Send commands in one piece and return their answers, errors of single ones among them. Raises ``Broken``."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        connection = self._take(deadline)
        replies = self._asked(connection, commands, deadline)
        self._put_back(connection)
        return replies

    def _asked(self, connection: Any, commands: Sequence[_Command], deadline: float) -> list[Any]:
        replies: list[Any] = []
        self._busy.add(connection)
        try:
            _send(connection, commands, deadline)
            shares = not self._native and has_patched_select()
            parser = connection._parser  # the connection itself would raise the errors of commands
            parser.wait_until(deadline, is_set=not shares)
            if shares:
                wait_for_input(connection._sock.fileno(), max(0.0, deadline - time.monotonic()))
            replies.extend(parser.read_response() for _ in commands)  # keeps those before one that fails
        except (exceptions.RedisError, OSError, AttributeError) as error:  # the latter where it was cut meanwhile
            self._end(connection)
            raise Broken(error, replies, sent=True) from error
        finally:
            self._busy.discard(connection)
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

    def redial(self) -> None:
        """Close those that nobody uses, and dial one. Raises ``Broken``, also where ``look_at`` raises."""
        self.close()
        self._ended += 1
        self._put_back(self._take(time.monotonic() + self._timeout))

    def _take(self, deadline: float) -> Any:
        while self._idle:
            try:
                connection = self._idle.pop()[1]
            except IndexError:
                break
            if not _is_readable(connection):
                return connection
            self._end(connection)  # nothing is awaited, so the server has closed it meanwhile
        ended = self._ended
        connection = self.address.dial(max(0.001, deadline - time.monotonic()))
        if ended != self._looked_at:
            self._prove(connection, deadline)
            self._looked_at = ended
        return connection

    def _prove(self, connection: Any, deadline: float) -> None:
        try:
            self._look_at(self._asked(connection, PROBE, deadline))
        except Broken as error:
            raise Broken(error.cause) from error  # nothing of what is to be done was sent
        except exceptions.RedisError as error:
            self._end(connection)
            raise Broken(error) from error

    def _end(self, connection: Any) -> None:
        self._ended += 1
        connection.disconnect()

    def _put_back(self, connection: Any) -> None:
        self._idle.append((time.monotonic(), connection))
        self.close_idle()

    def close_idle(self) -> None:
        """Close those that nobody used for long."""
        oldest = time.monotonic() - IDLE_SECONDS
        with suppress(IndexError):  # others take them meanwhile
            while self._idle[0][0] < oldest:
                self._end(self._idle.pop(0)[1])

    def close(self) -> None:
        """Close all that nobody uses."""
        while self._idle:
            self._end(self._idle.pop()[1])

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
