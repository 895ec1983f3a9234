"""Run a command on a broker, its real server started for it: ``python tools/with_broker.py BROKER COMMAND...``.

The command finds the broker's URL in BOOST_BROKER. The server runs in a folder of its own and is gone afterwards; one
that isn't installed is installed before. Brokers without a server (sqlite, memory) and URLs are handed on as they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from launcher import LauncherError, install, start

SERVERS: Final[Mapping[str, str]] = {
    "kafka": "kafka",
    "nats": "nats",
    "rabbitmq": "rabbitmq",
    "redis": "redis",
    "redis-stream": "redis",
    "valkey": "valkey",
}
"""Which server a broker needs; valkey is one for the broker redis."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    broker, *command = arguments
    server = SERVERS.get(broker)
    if server is None:
        return run(command, broker)
    try:
        install(server)
        with tempfile.TemporaryDirectory(prefix="boost-server-") as folder, start(server, Path(folder)) as running:
            return run(command, address(broker, running.url))
    except LauncherError as error:
        print(f"{broker}: {error}", file=sys.stderr)
        return 1


def address(broker: str, url: str) -> str:
    """Return a server's URL as the broker is named by it: two brokers may live on one kind of server."""
    return f"{broker}://{url.partition('://')[2]}" if broker == "redis-stream" else url


def run(command: Sequence[str], broker: str) -> int:
    """Run the command with this broker."""
    return subprocess.run(command, env={**os.environ, "BOOST_BROKER": broker}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
