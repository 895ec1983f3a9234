"""A guard and all that descends from it, as /proc tells: found, signalled, measured, waited for."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_STATE, _PARENT, _STARTED = 0, 1, 19  # fields of /proc/PID/stat, counted after the name


@dataclass(frozen=True)
class Tree:
    """The processes under one guard. Any process may hold one; a pid that has gone to another doesn't deceive it."""

    guard: int
    started: str

    @classmethod
    def of(cls, guard: int) -> Tree:
        """Return the tree under a guard that runs."""
        return cls(guard, _stat(guard)[_STARTED])

    @property
    def alive(self) -> bool:
        """Tell whether the guard still runs."""
        with suppress(OSError):
            stat = _stat(self.guard)
            return stat[_STATE] != "Z" and stat[_STARTED] == self.started
        return False

    @property
    def stopped(self) -> bool:
        """Tell whether its descendants are stopped, as by SIGSTOP."""
        states = []
        for member in self.members():
            with suppress(OSError):
                states.append(_stat(member)[_STATE])
        return bool(states) and set(states) == {"T"}

    def members(self) -> list[int]:
        """Return the descendants that run, or are stopped; the guard isn't one of them."""
        if not self.alive:
            return []
        children = defaultdict(list)
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):  # gone since it was listed
                    stat = _stat(int(entry.name))
                    if stat[_STATE] != "Z":
                        children[int(stat[_PARENT])].append(int(entry.name))
        found = list(children[self.guard])
        for member in found:  # grows while it is read
            found.extend(children[member])
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every descendant."""
        for member in self.members():
            with suppress(ProcessLookupError):
                os.kill(member, number)

    def kill(self, seconds: float = 10) -> None:
        """Kill everything at once, what is born meanwhile included; return when the guard has gone too."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            self.signal(signal.SIGKILL)
            self.wait(0.02)

    def wait(self, seconds: float) -> bool:
        """Return whether the guard, and with it everything, ends in time."""
        try:
            handle = os.pidfd_open(self.guard)
        except ProcessLookupError:
            return True
        try:
            return not self.alive or bool(select.select([handle], [], [], seconds)[0])
        finally:
            os.close(handle)

    def memory(self) -> int:
        """Return the bytes that the descendants hold, shared ones in proportion."""
        return sum(_memory(member) for member in self.members())


def _stat(pid: int) -> list[str]:
    # The name, in brackets, may hold brackets and blanks of its own.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _memory(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
