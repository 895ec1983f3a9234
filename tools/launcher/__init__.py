"""Real servers for tests: installed by package name, on loopback with data of their own, gone when their starter is.

    from launcher import available, start

    if (reason := available("redis")) is None:
        with start("redis", folder, users={"me": "secret"}) as server:
            ... server.url, server.port, server.log()
            server.kill()
            server.start()  # again: the same ports, the same data

Only the standard library is used, and Linux: owning a whole tree of processes takes its /proc, subreapers and pidfds.
"""

from launcher.catalog import NAMES, available, install, start
from launcher.errors import LauncherError, StartFailed, Unavailable
from launcher.kafka import Kafka
from launcher.nats import Nats
from launcher.ports import free_ports
from launcher.proxy import Proxy
from launcher.rabbitmq import RabbitMQ
from launcher.redis import Redis, Valkey
from launcher.server import Server

__all__ = [
    "NAMES",
    "Kafka",
    "LauncherError",
    "Nats",
    "Proxy",
    "RabbitMQ",
    "Redis",
    "Server",
    "StartFailed",
    "Unavailable",
    "Valkey",
    "available",
    "free_ports",
    "install",
    "start",
]
