"""Loopback ports that stay a server's own while it is down."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
_LOWEST: Final = 10_000


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, below those that the kernel gives to outgoing connections.

    A client that calls a dead server again and again would otherwise be given the server's own port one day, reach
    itself, and keep the server from coming back.
    """
    ports: list[int] = []
    choice = list(range(_LOWEST, _first_ephemeral()))
    while len(ports) < count:
        port = random.SystemRandom().choice(choice)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def is_served(port: int) -> bool:
    """Return whether somebody listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _first_ephemeral() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
