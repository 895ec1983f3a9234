"""The bytes of one connection: a socket that never waits beyond a deadline, with TLS where wanted.

Sockets of the interpreter's own are used, non-blocking, so that a connection may be used by any thread, one at a time,
also where gevent has patched the process. Its own poll and resolver leave a loop behind in each thread that uses them,
and corrupt memory when that ends: so waiting and resolving are native too.
"""

from __future__ import annotations

import _socket
import contextlib
import math
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final

import attrs
from boost_core.plugin.native import poll

CHUNK: Final = 256 * 1024
_HEADER: Final = Struct(">BHI")
_FRAME_KINDS: Final = frozenset((1, 2, 3, 8))
_FRAME_END: Final = 0xCE
_LARGEST_FRAME: Final = 1 << 28
_LONGEST_WAIT: Final = 3600.0
_KEEPALIVE: Final = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

Frame = tuple[int, int, bytes]
"""Kind, channel and payload, as AMQP cuts a connection into frames."""


@attrs.define(eq=False)
class NoAmqp(OSError):
    """What answers doesn't speak AMQP 0-9-1; ``head`` is how its answer begins."""

    head: bytes

    def __str__(self) -> str:
        return f"the answer {self.head!r} isn't AMQP 0-9-1"


def ready(reading: Sequence[int], writing: Sequence[int], seconds: float) -> list[int]:
    """Return which descriptors can be read or written, waiting up to ``seconds`` for one."""
    waiting = poll()
    for descriptor in reading:
        waiting.register(descriptor, select.POLLIN)
    for descriptor in writing:
        waiting.register(descriptor, select.POLLOUT)
    return [descriptor for descriptor, _ in waiting.poll(math.ceil(min(max(seconds, 0.0), _LONGEST_WAIT) * 1000))]


class Wire:
    """What ``amqp.Connection`` calls a transport. Used by one thread at a time, but for ``cut``.

    ``until`` (monotonic) is when any waiting ends with ``TimeoutError``. While ``corked``, what is written waits for
    ``flush``, so that a batch goes out at once. ``torn`` says that a flush went out in part: nothing can follow.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.host, self.port = host, port
        self.until = math.inf
        self.connected = False
        self.corked = False
        self.torn = False
        self.pending = 0
        self._context = context
        self._socket: _socket.socket | None = None
        self._tls: _Tls | None = None
        self._in, self._at = bytearray(), 0
        self._out: list[bytes] = []

    # --- life --------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect to the first address of the host that accepts, shake hands, and say what is spoken."""
        error: OSError | None = None
        for family, kind, protocol, _, address in _socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            try:
                self._socket = _dial(family, kind, protocol, address, self._left())
                break
            except OSError as failed:
                error = failed
        if self._socket is None:
            raise error or ConnectionRefusedError(f"{self.host} has no address")
        if self._context is not None:
            self._tls = _Tls(self._context, self.host)
            self._shake_hands(self._tls)
        self.connected = True
        self.write(b"AMQP\x00\x00\x09\x01")

    def _shake_hands(self, tls: _Tls) -> None:
        done = False
        while not done:
            done = tls.shake_hands()
            self._send(tls.outgoing.read())
            if not done:
                self._wait(reading=True)  # nothing is written yet
                tls.incoming.write(self._receive() or b"")

    def close(self) -> None:
        """Close at once, whatever was sent or not; idempotent."""
        self.connected = False
        closing, self._socket = self._socket, None
        if closing is not None:
            with contextlib.suppress(OSError):
                closing.shutdown(socket.SHUT_RDWR)
            closing.close()

    def cut(self) -> None:
        """End the connection under whoever uses it, who finds it closed; any thread."""
        used = self._socket
        if used is not None:
            with contextlib.suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """In a forked child: let go of the descriptor; the connection goes on in the parent."""
        self.connected = False
        left, self._socket = self._socket, None
        if left is not None:
            os.close(left.detach())

    def fileno(self) -> int:
        """Return the descriptor. Raises ``OSError`` when closed."""
        return self._open().fileno()

    def _open(self) -> _socket.socket:
        if self._socket is None:
            raise ConnectionResetError("the connection is closed")
        return self._socket

    # --- what amqp.Connection calls -----------------------------------------------------------------

    @contextlib.contextmanager
    def having_timeout(self, seconds: float | None) -> Iterator[None]:
        """Wait ``seconds`` at most, within ``until``."""
        before = self.until
        if seconds is not None:
            self.until = min(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.until = before

    def read_frame(self, *_: Any) -> Frame:
        """Return the next frame, waiting for it."""
        while (frame := self.next_frame()) is None:
            if not self.fill():
                self._wait(reading=True)
        return frame

    def write(self, data: bytes) -> None:
        """Send data, or keep it while corked."""
        self._out.append(data)
        self.pending += len(data)
        if not self.corked:
            self.flush()

    # --- reading and writing --------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what was written while corked."""
        if not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        self.pending = 0
        self._send(self._tls.encrypted(data) if self._tls else data)

    def next_frame(self) -> Frame | None:
        """Return a frame that has been received whole, if there is one. Raises ``NoAmqp`` for anything else."""
        here = len(self._in) - self._at
        if here < _HEADER.size:
            self._check_start(here)
            return None
        kind, channel, size = _HEADER.unpack_from(self._in, self._at)
        if kind not in _FRAME_KINDS or size > _LARGEST_FRAME:
            raise NoAmqp(bytes(self._in[self._at : self._at + 24]))
        start = self._at + _HEADER.size
        end = start + size
        if len(self._in) <= end:
            return None
        if self._in[end] != _FRAME_END:
            raise NoAmqp(bytes(self._in[self._at : self._at + 24]))
        payload = bytes(memoryview(self._in)[start:end])
        self._at = end + 1
        return kind, channel, payload

    def _check_start(self, here: int) -> None:
        """Notice short answers of strangers, such as a TLS alert, without waiting for more of them."""
        if here and self._in[self._at] not in _FRAME_KINDS:
            raise NoAmqp(bytes(self._in[self._at :]))

    def fill(self) -> bool:
        """Take in what has arrived, without waiting; return whether anything had. Raises ``OSError`` at the end."""
        data = self._receive()
        if data is None:
            return False
        if self._at:
            del self._in[: self._at]
            self._at = 0
        self._in += self._tls.decrypted(data) if self._tls else data
        return True

    def _receive(self) -> bytes | None:
        try:
            data = self._open().recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return None
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[self._open().send(left) :]
                except (BlockingIOError, InterruptedError):
                    self._wait(reading=False)
        except OSError:
            self.torn = True
            raise

    def _wait(self, *, reading: bool) -> None:
        if reading:
            self.flush()  # or the answer to what is corked would never come
        descriptor = self.fileno()
        sides = ([descriptor], []) if reading else ([], [descriptor])
        if not ready(*sides, self._left()):
            raise TimeoutError("the server didn't answer in time")

    def _left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server didn't answer in time")
        return left


def _dial(family: int, kind: int, protocol: int, address: Any, seconds: float) -> _socket.socket:
    dialled = _socket.socket(family, kind, protocol)
    try:
        os.set_inheritable(dialled.fileno(), False)
        dialled.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            dialled.connect(address)
        if not ready([], [dialled.fileno()], seconds):
            raise TimeoutError("the server didn't answer in time")
        number = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                dialled.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except BaseException:
        dialled.close()
        raise
    return dialled


class _Tls:
    """TLS without a socket: bytes in, bytes out."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)

    def shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is done."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def encrypted(self, data: bytes) -> bytes:
        """Return what to send for ``data``."""
        self._object.write(data)
        return self.outgoing.read()

    def decrypted(self, data: bytes) -> bytes:
        """Return what the server said by ``data`` and what came before."""
        self.incoming.write(data)
        parts: list[bytes] = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self._object.read(CHUNK):
                parts.append(part)
        return b"".join(parts)
