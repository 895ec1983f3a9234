"""Short conversations with a server, to learn whether it answers."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from launcher.ports import HOST


def connect(port: int, ca: Path | None = None, seconds: float = 2) -> socket.socket:
    """Return a connection to a loopback port, by TLS where an authority is given; ``OSError`` where there is none."""
    connection = socket.create_connection((HOST, port), seconds)
    if ca is None:
        return connection
    try:
        return ssl.create_default_context(cafile=str(ca)).wrap_socket(connection, server_hostname=HOST)
    except BaseException:
        connection.close()
        raise


def ask(port: int, question: bytes, ca: Path | None = None) -> bytes:
    """Return the beginning of what a server answers; empty where it doesn't."""
    try:
        with connect(port, ca) as connection:
            connection.sendall(question)
            return connection.recv(4096)
    except OSError:
        return b""
