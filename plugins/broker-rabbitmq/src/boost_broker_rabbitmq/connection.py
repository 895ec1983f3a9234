"""A connection and its channels: py-amqp's, with what it leaves out."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import amqp
import attrs
from amqp import spec
from amqp.exceptions import ChannelError, NotFound, error_for_code

from boost_broker_rabbitmq.address import Address
from boost_broker_rabbitmq.framing import Inbox, outbox
from boost_broker_rabbitmq.wire import Wire

NACK: Final = (60, 120)  # py-amqp has no name for what only RabbitMQ has

OnContent = Callable[[bytes, bytes, bytes], None]
"""Takes a message from the server: the arguments of its method, its content header, its body."""


_NO_SUCH: Final = "NOT_FOUND - no "
"""How the server's text begins where there is no such thing; its code says the same of a queue that is out of reach."""

OLDEST: Final = (3, 10)
"""The first version that has all that delays and times to live rest on."""


@attrs.define(eq=False)
class TooOld(Exception):
    """The server is something else than RabbitMQ, or of a version before ``OLDEST``."""

    product: str
    version: str


class OutOfReach(ChannelError):  # type: ignore[misc]
    """A queue is there and can't be used, as long as its node is down."""


def version_of(properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Return a server's version from its properties, such as (3, 10, 8); () where it has none."""
    return tuple(int(number) for number in re.findall(r"\d+", str(properties.get("version", "")))[:3])


class Channel(amqp.Channel):  # type: ignore[misc]
    """A channel that is closed once the server closes it.

    ``on_delivery`` takes what consumers get, ``on_return`` what no queue took, ``on_end`` the error that the server
    closed the channel with; without ``on_end`` it is raised.
    """

    on_delivery: OnContent | None = None
    on_return: OnContent | None = None
    on_end: Callable[[ChannelError], None] | None = None

    def _on_close(self, code: int, text: str, class_id: int, method_id: int) -> None:
        self.send_method(spec.Channel.CloseOk)
        self.collect()
        error = error_for_code(code, text, (class_id, method_id), ChannelError)
        if isinstance(error, NotFound) and not text.startswith(_NO_SUCH):
            error = OutOfReach(text, (class_id, method_id), reply_code=code)
        if self.on_end is None:
            raise error
        self.on_end(error)

    def nack(self, tag: int, *, multiple: bool = False) -> None:
        """Give a message back, or all up to it."""
        self.send_method(NACK, "Lbb", (tag, multiple, True))


class Connection(amqp.Connection):  # type: ignore[misc]
    """A connection over a ``Wire``, so that each wait has its deadline: ``wire.until``.

    ``blocked`` is why the server takes no messages at the moment; None where it does.
    """

    _METHODS: Final = {
        **amqp.Connection._METHODS,
        spec.Connection.Blocked: spec.method(spec.Connection.Blocked, "s"),
    }

    def __init__(self, wire: Wire, address: Address, *, purpose: str, heartbeat: float) -> None:
        self.wire = wire
        self.blocked: str | None = None
        super().__init__(
            host=f"{wire.host}:{wire.port}",
            userid=address.user,
            password=address.password,
            login_method="PLAIN",
            virtual_host=address.vhost,
            heartbeat=int(heartbeat),
            frame_handler=Inbox,
            frame_writer=outbox,
            client_properties={
                "product": "boost",
                "connection_name": f"boost {purpose} {platform.node()}/{os.getpid()}",
            },
        )

    def Transport(self, *_: Any, **__: Any) -> Wire:  # noqa: N802 - py-amqp's name
        """Return what the bytes go over."""
        return self.wire

    def _on_start(self, major: int, minor: int, properties: Mapping[str, Any], *rest: Any) -> None:
        if version_of(properties) < OLDEST:
            raise TooOld(str(properties.get("product", "a server")), str(properties.get("version", "of no version")))
        super()._on_start(major, minor, properties, *rest)

    def _on_blocked(self, reason: str) -> None:
        self.blocked = reason or "an alarm"

    def _on_unblocked(self) -> None:
        self.blocked = None

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version, such as (3, 10, 8)."""
        return version_of(self.server_properties)

    def new_channel(self) -> Channel:
        """Return another open channel, which leaves bodies as they are."""
        channel = Channel(self, auto_decode=False)
        channel.open()
        return channel

    def read_all(self) -> bool:
        """Deal with all that has arrived, without waiting; return whether anything had."""
        any_came = self.wire.fill()
        while (frame := self.wire.next_frame()) is not None:
            self.on_inbound_frame(frame)
        return any_came

    def end(self, seconds: float) -> None:
        """Say goodbye, waiting ``seconds`` at most for the server's; then close. Never raises."""
        self.wire.until = time.monotonic() + seconds
        try:
            if self.connected and not self.wire.torn and self.blocked is None:
                self.close()
        except (OSError, amqp.AMQPError, AttributeError):
            pass  # it is as good as closed; py-amqp stumbles over what it has let go of itself
        finally:
            self.wire.close()
