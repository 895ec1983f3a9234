"""What tests do with brokers, as core does it: from blocking code, by batches."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import attrs
import nats
from boost_broker_nats.broker import NatsBroker
from boost_broker_nats.plugin import SPEC, NatsOptions
from boost_core.bridge.portal import PortalBroker
from boost_core.options import build_options
from boost_core.plugin import Frame, QueueSpec


def make_broker(url, **options):
    """Return a broker behind its portal that isn't open."""
    built = build_options("broker 'nats'", NatsOptions, {"url": url, **options})
    inner = NatsBroker(built)
    capabilities, limits = built.effective(SPEC)
    inner.spec = attrs.evolve(SPEC, capabilities=capabilities, limits=limits)
    return PortalBroker(inner)


def subscribe(broker, *names, credit=None):
    """Declare queues and return a subscription to them."""
    queues = [QueueSpec(name=name) for name in names]
    broker.declare(queues)
    return broker.subscribe(queues, credit or {}, lambda _: None)


def push(broker, queue, *bodies, timeout=10.0, **facts):
    """Publish bodies, each as a frame of its own, in one batch; the queue is declared."""
    broker.declare([QueueSpec(name=queue)])
    broker.publish([Frame(f"id-{body}", queue, str(body).encode(), **facts) for body in bodies], timeout)


def take(subscription, count, *queues, seconds=20.0):
    """Return ``count`` deliveries, fetched as they come."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += subscription.fetch(dict.fromkeys(queues, count - len(found)), 1.0)
    assert len(found) == count, f"{len(found)} of {count} came"
    return found


def bodies(deliveries):
    """Return what deliveries carry, as text."""
    return [bytes(delivery.body).decode() for delivery in deliveries]


def until(condition, seconds=20.0):
    """Return what ``condition()`` gives once it is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        threading.Event().wait(0.01)
    raise AssertionError(f"never became true: {condition}")


def raw(url, use):
    """Do something with a connection of nats-py's own, as a stranger would; return what it gives."""

    async def main():
        client = await nats.connect(url)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(main())


def barred(launch, *subjects):
    """Start a server whose user may do all that boost needs, except publishing to these; return its URL."""
    publish = {"allow": ["boost.>", "$JS.API.>", "$JS.ACK.>"], "deny": list(subjects)}
    users = [{"user": "me", "password": "sesame", "permissions": {"publish": publish, "subscribe": ["_INBOX.>"]}}]
    return launch(settings={"authorization": {"users": users}}).url.replace("//", "//me:sesame@")


class Background(threading.Thread):
    """A call in a thread of its own; ``outcome()`` gives what it returned, or raises what it raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._call = lambda: function(*args)
        self._value = self._error = None
        self.start()

    def run(self):
        """Call."""
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def outcome(self, seconds=20.0):
        """Wait for the end."""
        self.join(seconds)
        assert not self.is_alive(), "it never returned"
        if self._error is not None:
            raise self._error
        return self._value


class OldServer(threading.Thread):
    """A port that answers as a server of another version does: its greeting, and a pong to each ping."""

    def __init__(self, greeting):
        super().__init__(daemon=True)
        self._greeting = greeting
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._door.getsockname()[1]}"
        self.start()

    def run(self):
        """Serve one client after another."""
        while True:
            try:
                connection, _ = self._door.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"INFO " + self._greeting + b"\r\n")
                while data := connection.recv(4096):
                    connection.sendall(b"PONG\r\n" * data.count(b"PING"))

    def close(self):
        """Serve no more."""
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
