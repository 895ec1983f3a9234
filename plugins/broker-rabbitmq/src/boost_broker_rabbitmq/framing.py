"""Frames made of methods and messages, and the other way round."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack, unpack_from
from typing import Any, Final

from amqp import spec
from amqp.exceptions import UnexpectedFrame

from boost_broker_rabbitmq.wire import Frame, Wire

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
_END: Final = b"\xce"
_AROUND: Final = 8  # bytes of a frame beside its payload

Write = Callable[[int, int, tuple[int, int], bytes, Any], None]
"""Sends a method with its message, if it has one: kind, channel, method, arguments, message."""


def outbox(connection: Any, wire: Wire) -> Write:
    """Return what sends for a connection. Unlike py-amqp's own it needs no lock, which gevent would tie to a thread."""

    def write(kind: int, channel: int, method: tuple[int, int], arguments: bytes, message: Any) -> None:
        payload = pack(">HH", *method) + (arguments or b"") if kind == METHOD else b""
        parts = [_framed(kind, channel, payload)]
        if message is not None:
            body = message.body
            header = pack(">HHQ", method[0], 0, len(body)) + message._serialize_properties()
            parts.append(_framed(HEADER, channel, header))
            most = connection.frame_max - _AROUND
            parts.extend(_framed(BODY, channel, body[start : start + most]) for start in range(0, len(body), most))
        connection.bytes_sent += 1
        wire.write(b"".join(parts))

    return write


def _framed(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b%b" % (pack(">BHI", kind, channel, len(payload)), payload, _END)


class _Content:
    """A message that is arriving in frames."""

    __slots__ = ("arguments", "header", "kind", "missing", "parts")

    def __init__(self, kind: tuple[int, int], arguments: bytes) -> None:
        self.kind, self.arguments = kind, arguments
        self.header = b""
        self.missing = 0
        self.parts: list[bytes] = []

    def take_header(self, payload: bytes) -> None:
        self.header = payload
        (self.missing,) = unpack_from(">Q", payload, 4)

    def take_body(self, payload: bytes) -> None:
        self.parts.append(payload)
        self.missing -= len(payload)


class Inbox:
    """Makes methods and messages of frames. Unlike py-amqp's own it doesn't read the properties of messages.

    Those are foreign bytes: what can't be read of them must not cost the connection.
    """

    def __init__(self, connection: Any, dispatch: Callable[..., None]) -> None:
        self._connection = connection
        self._dispatch = dispatch
        self._arriving: dict[int, _Content] = {}

    def __call__(self, frame: Frame) -> bool:
        """Take a frame; return whether it completed a method or message."""
        kind, number, payload = frame
        self._connection.bytes_recv += 1
        if kind == HEARTBEAT:
            return False
        if kind == METHOD:
            return self._take_method(number, payload)
        content = self._arriving.get(number)
        if content is None:
            raise UnexpectedFrame(f"a frame of kind {kind} came before its method")
        if kind == HEADER:
            content.take_header(payload)
        else:
            content.take_body(payload)
        if content.missing > 0:
            return False
        del self._arriving[number]
        self._hand_over(number, content)
        return True

    def _take_method(self, number: int, payload: bytes) -> bool:
        method: tuple[int, int] = unpack_from(">HH", payload)
        if method in (spec.Basic.Deliver, spec.Basic.Return):
            self._arriving[number] = _Content(method, payload)
            return False
        self._dispatch(number, method, payload, None)
        return True

    def _hand_over(self, number: int, content: _Content) -> None:
        channel = self._connection.channels.get(number)
        if channel is None or channel.is_closing:
            return  # the server has it back as soon as the channel is closed
        take = channel.on_delivery if content.kind == spec.Basic.Deliver else channel.on_return
        if take is not None:
            take(content.arguments, content.header, b"".join(content.parts))
