"""A loopback port in front of a server's: cuts connections, hangs, talks nonsense, and counts what goes over it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from launcher.ports import HOST, free_ports

_CHUNK: Final = 65536
_RESET: Final = struct.pack("ii", 1, 0)


class _Link:
    """A client's connection, and the one to the server on its behalf."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.answered = True  # so that the first thing a client says begins a round trip
        self.writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Reset the client's connection. The server's is closed: what has been passed on so far arrives."""
        with suppress(OSError):
            self.writers[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writers[0].transport.abort()
        self.task.cancel()

    def abort(self) -> None:
        """Drop both connections."""
        for writer in self.writers:
            writer.transport.abort()
        self.task.cancel()


class Proxy:
    """Stands at ``port`` for the server at ``target``, which may be set later. Any thread may call its methods.

    ``connections`` are open now, ``opened`` were so far; ``writes`` are pieces that clients have sent, ``round_trips``
    those of them that followed an answer, or were the first: a pipeline is one.
    """

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.port = free_ports(1)[0]
        self.opened = 0
        self.writes = 0
        self.round_trips = 0
        self._links: set[_Link] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._nonsense: bytes | None = None
        self._left: int | None = None
        self._door: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.accept()

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._links)

    def forward(self) -> None:
        """Be the server again, for old and new connections; what was held back goes on."""

        async def forward() -> None:
            self._nonsense = None
            self._open.set()

        self._call(forward)

    def hang(self) -> None:
        """Accept connections, and bytes, and pass nothing on in either direction."""

        async def hang() -> None:
            self._open.clear()

        self._call(hang)

    def cut(self, *, after: int = 0) -> None:
        """Reset all connections: at once, or when clients have sent that many bytes more, which still pass."""

        async def cut() -> None:
            self._left = after or None
            if not after:
                self._cut_all()

        self._call(cut)

    def refuse(self) -> None:
        """Refuse new connections, as if nothing listened; those that are open stay."""

        async def refuse() -> None:
            if self._door is not None:
                self._door.close()
                self._door = None

        self._call(refuse)

    def accept(self) -> None:
        """Accept connections again after ``refuse``."""

        async def accept() -> None:
            if self._door is None:
                self._door = await asyncio.start_server(self._serve, HOST, self.port)

        self._call(accept)

    def talk(self, nonsense: bytes) -> None:
        """Say this to new connections, and again to whatever they say, instead of what the server would."""

        async def talk() -> None:
            self._nonsense = nonsense

        self._call(talk)

    def close(self) -> None:
        """End all connections and the proxy."""

        async def end() -> None:
            for link in self._links:
                link.abort()
            await asyncio.gather(*(link.task for link in self._links))

        if not self._loop.is_closed():
            self.refuse()
            self._call(end)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, action: Callable[[], Awaitable[None]]) -> None:
        async def called() -> None:
            await action()

        asyncio.run_coroutine_threadsafe(called(), self._loop).result()

    def _cut_all(self) -> None:
        for link in self._links:
            link.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task)
        link.writers.append(writer)
        self._links.add(link)
        self.opened += 1
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._open.wait()
                await (self._connect(link, reader, writer) if self._nonsense is None else self._talk(reader, writer))
        finally:
            self._links.discard(link)
            for each in link.writers:
                each.close()

    async def _connect(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, self.target)
        link.writers.append(server_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._send(link, reader, server_writer))
                both.create_task(self._answer(link, server_reader, writer))
        except* OSError:
            pass  # one end is gone, and now the other

    async def _send(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._open.wait()
            self.writes += 1
            self.round_trips += link.answered
            link.answered = False
            rest = None if self._left is None else self._left - len(data)
            writer.write(data if rest is None or rest >= 0 else data[:rest])
            await writer.drain()
            self._left = rest
            if rest is not None and rest <= 0:
                self._left = None
                self._cut_all()
        writer.write_eof()

    async def _answer(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._open.wait()
            link.answered = True
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonsense = self._nonsense or b""
        writer.write(nonsense)
        while await reader.read(_CHUNK):
            writer.write(nonsense)
            await writer.drain()
