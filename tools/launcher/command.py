"""The command: install, start, stop and harm servers that outlive it, one of each name."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from launcher.catalog import NAMES, available, find, install
from launcher.errors import LauncherError
from launcher.home import home, locked
from launcher.server import Server


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code: 1 where something failed, 2 where it was misused."""
    parser = argparse.ArgumentParser(prog="servers", description="Real servers for tests, on loopback.", epilog=_EPILOG)
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; none means all of them")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"no server is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return max(_attempt(_ACTIONS[given.action], name) for name in given.names or NAMES)


def _attempt(action: Callable[[str], str], name: str) -> int:
    try:
        print(f"{name}: {action(name)}", flush=True)
    except LauncherError as error:
        print(f"{name}: {str(error).removeprefix(f'{name}: ')}", file=sys.stderr, flush=True)
        return 1
    return 0


def _install(name: str) -> str:
    if available(name) is None:
        return "there"
    started = time.monotonic()
    install(name)
    return f"installed in {time.monotonic() - started:.0f} s"


def _start(name: str) -> str:
    with locked(name):  # two at once would both find it stopped
        server = _server(name)
        if not server.running:
            server.start(lasting=True)
        elif server.paused:
            server.resume()
    return server.url


def _stop(name: str) -> str:
    _server(name).stop()
    return "stopped"


def _kill(name: str) -> str:
    _server(name).kill()
    return "killed"


def _pause(name: str) -> str:
    _server(name).pause()
    return "paused"


def _resume(name: str) -> str:
    _server(name).resume()
    return "goes on"


def _status(name: str) -> str:
    server = _server(name)
    if server.running:
        state = "paused, " if server.paused else ""
        held = f"{server.memory() / 2**20:.0f} MiB"
        return f"{state}{server.url}, process {server.pid}, {held}, log in {server.log_path}"
    return available(name) or "stopped"


def _server(name: str) -> Server:
    return find(name)(folder=home() / "running" / name)


_ACTIONS: Final[Mapping[str, Callable[[str], str]]] = {
    "install": _install,
    "start": _start,
    "stop": _stop,
    "status": _status,
    "kill": _kill,
    "pause": _pause,
    "resume": _resume,
}
_EPILOG: Final = """Installed servers, and the data of those that run, lie in ~/.cache/boost/servers, or where
BOOST_SERVERS_HOME says. A server is started again on its old data and ports."""
