"""Runs a server so that nothing of it is left: python -I -S guard.py STARTER COMMAND...

The guard adopts whatever the server leaves behind, Erlang's port mapper for one. When the server ends, or the process
STARTER, it kills all that is left and ends too. The kernel tells it, however they ended. With STARTER 0 the server
outlives whoever started it. Prints the server's process id; the server writes to the guard's standard error.

A script that imports nothing of its package: it runs as long as the server does, and must be small and start fast.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

_DEATH_SIGNAL: Final = 1
_SUBREAPER: Final = 36
_prctl: Final = ctypes.CDLL(None).prctl


def main(starter: int, command: list[str]) -> int:
    """Run the server to its end; return its exit code, negative where a signal ended it."""
    _prctl(_SUBREAPER, 1)
    woken, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(bell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched = [woken]
    if starter:
        watched.append(os.pidfd_open(starter))
        if os.getppid() != starter:
            return 0  # it ended before it was watched
    server = _spawn(command)
    print(server, flush=True)
    os.close(sys.stdout.fileno())
    code = None
    while code is None and woken in select.select(watched, [], [])[0]:
        os.read(woken, 4096)
        code = _reap(server)
    _end_all()
    return code or 0


def _spawn(command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)  # should the guard itself be killed
        signal.set_wakeup_fd(-1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(sys.stderr.fileno(), f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _reap(server: int) -> int | None:
    """Bury every child that has ended; return the server's exit code if it is among them."""
    code = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == server:
                code = os.waitstatus_to_exitcode(ended[1])
    return code


def _end_all() -> None:
    """Kill children until there are none: the children of those that were killed have become ours."""
    with suppress(ChildProcessError):
        while True:
            for child in _children():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> Iterator[int]:
    # Not by pathlib, which takes longer to import than the rest to run.
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdecimal():
            with suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    yield int(entry)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
