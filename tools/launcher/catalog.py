"""The servers by their names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from launcher.errors import LauncherError, Unavailable
from launcher.home import locked
from launcher.kafka import Kafka
from launcher.nats import Nats
from launcher.rabbitmq import RabbitMQ
from launcher.redis import Redis, Valkey
from launcher.server import Server

_KINDS: Final[Mapping[str, type[Server]]] = {kind.NAME: kind for kind in (Redis, Valkey, RabbitMQ, Kafka, Nats)}
NAMES: Final = tuple(_KINDS)


def find(name: str) -> type[Server]:
    """Return the kind of that name."""
    if name not in _KINDS:
        raise LauncherError(f"no server is called {name!r}; there are {', '.join(NAMES)}")
    return _KINDS[name]


def available(name: str) -> str | None:
    """Return why a server can't be started here, with the remedy; None where it can."""
    if sys.platform != "linux":
        return f"servers are started on Linux only, this is {sys.platform}"
    return find(name).missing()


def install(name: str) -> None:
    """Install a server where it is missing; raise ``Unavailable`` where that can't be."""
    if available(name) is None:
        return
    with locked("install"):
        if available(name) is not None:  # unless another process was faster
            find(name).install()
    if reason := available(name):
        raise Unavailable(reason)


def start(name: str, folder: Path, **variant: Any) -> Server:
    """Return a server of that name that answers, in a folder of its own; ``variant`` is what its class takes."""
    return find(name)(folder=folder, **variant).start()
