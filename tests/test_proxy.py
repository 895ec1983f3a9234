"""The launcher's proxy: what it does to connections, and how it counts."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Iterator

import pytest
from projects import eventually
from repository import ROOT

sys.path.insert(0, str(ROOT / "tools"))

from launcher import Proxy


class Echo(socketserver.BaseRequestHandler):
    """Says again whatever it hears, and remembers it."""

    heard = b""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.server.heard += data
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    """A server of echoes on a free port."""

    heard = b""
    daemon_threads = True

    @property
    def port(self) -> int:
        return self.server_address[1]


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a server that runs in a thread."""
    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """Yield a proxy of the server."""
    with Proxy(server.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    """Return a client's connection."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def ask(connection: socket.socket, text: bytes) -> bytes:
    """Return the whole echo of a text."""
    connection.sendall(text)
    return read(connection, len(text))


def read(connection: socket.socket, count: int) -> bytes:
    """Return that many bytes."""
    heard = b""
    while len(heard) < count:
        piece = connection.recv(count - len(heard))
        assert piece, f"closed after {heard!r}"
        heard += piece
    return heard


def test_it_forwards_both_ways_and_counts_round_trips(proxy: Proxy) -> None:
    """What is sent without waiting for an answer is one round trip, however long."""
    with connect(proxy) as connection:
        assert ask(connection, b"one") == b"one"
        assert ask(connection, b"two" * 100_000) == b"two" * 100_000
        assert (proxy.opened, proxy.connections) == (1, 1)
        first = proxy.round_trips

        assert ask(connection, b"three") == b"three"

        assert proxy.round_trips == first + 1
        assert proxy.writes >= 3
    eventually(lambda: proxy.connections == 0)


def test_three_calls_are_three_round_trips(proxy: Proxy) -> None:
    """Each answer ends one."""
    with connect(proxy) as connection:
        for text in (b"a", b"b", b"c"):
            ask(connection, text)

    assert (proxy.writes, proxy.round_trips) == (3, 3)


def test_the_end_of_one_side_reaches_the_other(proxy: Proxy) -> None:
    """A client that has said everything still hears the answer."""
    with connect(proxy) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)

        assert read(connection, 10) == b"last words"
        assert connection.recv(1) == b""


def test_a_cut_resets_connections_and_spares_later_ones(proxy: Proxy) -> None:
    """Both ends lose what was open; the next connection works."""
    with connect(proxy) as connection, connect(proxy) as other:
        ask(connection, b"x")
        ask(other, b"x")

        proxy.cut()

        for each in (connection, other):
            with pytest.raises(ConnectionResetError):
                each.recv(1)
    with connect(proxy) as connection:
        assert ask(connection, b"again") == b"again"


def test_a_cut_in_the_middle_lets_so_many_bytes_pass(server: Server, proxy: Proxy) -> None:
    """The server hears the beginning of a batch, and the client that it is alone."""
    with connect(proxy) as connection:
        ask(connection, b"before")

        proxy.cut(after=10)

        connection.sendall(b"0123456789abcdef")
        with pytest.raises(ConnectionResetError):
            while connection.recv(100):
                pass
    eventually(lambda: len(server.heard) >= 16)
    with connect(proxy) as connection:
        assert ask(connection, b"...") == b"..."
    assert server.heard == b"before" + b"0123456789" + b"..."


def test_a_hanging_server_accepts_and_says_nothing(server: Server, proxy: Proxy) -> None:
    """Old and new connections wait, and get everything once it forwards again."""
    with connect(proxy) as old:
        ask(old, b"x")

        proxy.hang()

        with connect(proxy) as new:
            for each in (old, new):
                each.sendall(b"hello")
                each.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    each.recv(1)
                each.settimeout(20)
            assert server.heard == b"x"
            proxy.forward()
            assert [read(each, 5) for each in (old, new)] == [b"hello", b"hello"]


def test_a_hanging_connection_can_be_cut(proxy: Proxy) -> None:
    """Also one that the server never saw."""
    proxy.hang()
    with connect(proxy) as connection:
        eventually(lambda: proxy.connections == 1)

        proxy.cut()

        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_it_refuses_and_accepts_as_told(proxy: Proxy) -> None:
    """While it refuses nothing listens; what is open goes on, and the port stays the same."""
    with connect(proxy) as connection:
        ask(connection, b"x")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert ask(connection, b"still") == b"still"

    proxy.accept()

    with connect(proxy) as connection:
        assert ask(connection, b"again") == b"again"


def test_it_talks_nonsense_on_demand(server: Server, proxy: Proxy) -> None:
    """At once, and in answer to anything, without the server."""
    proxy.talk(b"HTTP/1.1 400\r\n")

    with connect(proxy) as connection:
        assert read(connection, 14) == b"HTTP/1.1 400\r\n"
        connection.sendall(b"PING\r\n")
        assert read(connection, 14) == b"HTTP/1.1 400\r\n"
    assert server.heard == b""
    proxy.forward()
    with connect(proxy) as connection:
        assert ask(connection, b"sense") == b"sense"


def test_without_a_server_connections_end_at_once(server: Server) -> None:
    """The target may be named later: a server that must know its proxy's port can be started in between."""
    with Proxy() as proxy:
        with connect(proxy) as connection:
            assert connection.recv(1) == b""

        proxy.target = server.port

        with connect(proxy) as connection:
            assert ask(connection, b"hello") == b"hello"


def test_closing_ends_everything(server: Server) -> None:
    """Open connections end, the port is free, and a second close does nothing."""
    with Proxy(server.port) as proxy:
        connection = connect(proxy)
        ask(connection, b"x")

    with connection:
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.close()
