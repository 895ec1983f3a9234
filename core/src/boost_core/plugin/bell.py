"""Wakes waiting processes within a millisecond, at no cost while nobody waits.

A folder beside the shared file holds one byte a seat in ``marks`` (mapped into memory) and a FIFO a
seat. Who is about to wait marks its seat; who has news clears the marks it finds and writes a byte
into their FIFOs. A mark is cleared before its FIFO is written, so that a waiter that marks itself
again meanwhile is woken once too often rather than not at all.

Mark while holding the lock that news are written under: then a writer either was there before, and
its news were seen, or comes later, and sees the mark. Look again now and then all the same: a
writer killed between its commit and ``ring`` wakes nobody.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import select
from pathlib import Path
from typing import Final

from boost_core.native import RLock, poll
from boost_core.plugin.locks import try_flock

log = logging.getLogger("boost.bell")

SEATS: Final = 1024
"""How many may wait at one folder at the same time."""

_MARK: Final = b"\x01"
_DRAIN_BYTES: Final = 4096
_LONGEST_WAIT: Final = 3600.0  # poll takes milliseconds in a C int


class Bell:
    """The bell of one shared file. One object a process; ``ring`` and ``seat`` from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks: mmap.mmap | None = None

    def open(self) -> None:
        """Make the folder (mode 0700) if need be, and map the marks; idempotent. Raises ``OSError``."""
        if self._marks is not None:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self._folder / "marks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size < SEATS:  # written, not truncated to size: a hole on a full disk would be a SIGBUS
                os.pwrite(descriptor, bytes(SEATS - size), size)
            self._marks = mmap.mmap(descriptor, SEATS)
        finally:
            os.close(descriptor)

    def ring(self) -> None:
        """Wake all that wait. Never blocks and never raises: waiters look again by themselves."""
        marks = self._marks
        if marks is None:
            return
        number = marks.find(_MARK)
        while number >= 0:
            marks[number] = 0
            try:
                _strike(self._folder / f"{number}.bell")
            except OSError as error:
                log.debug("seat %d of %s was not woken: %s", number, self._folder, error)
            number = marks.find(_MARK, number + 1)

    def seat(self) -> Seat:
        """Return a free seat, this process's until it is closed or the process dies. Raises ``OSError``."""
        if self._marks is None:
            message = "the bell is not open"
            raise OSError(message)
        for number in range(SEATS):
            lock = try_flock(self._folder / f"{number}.lock")
            if lock is not None:
                return Seat(self._marks, number, lock, self._folder / f"{number}.bell")
        message = f"all {SEATS} seats of {self._folder} are taken"
        raise OSError(message)

    def close(self) -> None:
        """Ring no more; seats stay good until they are closed themselves. Idempotent."""
        self._marks = None  # the mapping ends with its last seat


class Seat:
    """A place to wait at. ``mark`` and ``wait`` from one thread, the rest from any."""

    def __init__(self, marks: mmap.mmap, number: int, lock: int, bell: Path) -> None:
        self._marks = marks
        self._number = number
        self._guard = RLock()  # re-entrant, because a signal handler may call `wake`
        if not bell.exists():
            os.mkfifo(bell, 0o600)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._reader = os.open(bell, os.O_RDONLY | flags)
        self._writer = os.open(bell, os.O_WRONLY | flags)
        self._lock = lock
        self._poll = poll()  # select.select can't take descriptors over 1023
        self._poll.register(self._reader, select.POLLIN)
        self.unmark()
        self._empty()

    def mark(self) -> None:
        """Ask to be woken by the next ``ring``."""
        self._marks[self._number] = 1

    def unmark(self) -> None:
        """Ask no longer."""
        self._marks[self._number] = 0

    def wait(self, seconds: float) -> bool:
        """Return True when rung or woken, which may have happened before the call; else False.

        That takes ``seconds``, an hour at most.
        """
        if self._reader < 0 or not self._poll.poll(min(max(0.0, seconds), _LONGEST_WAIT) * 1000):
            return False
        self._empty()
        return True

    def wake(self) -> None:
        """Let ``wait`` return now, or at its next call. Never blocks."""
        with self._guard:
            if self._writer >= 0:
                _write(self._writer)

    def close(self) -> None:
        """Give the seat up; idempotent. Not while ``wait`` blocks: ``wake`` it before."""
        with self._guard:
            if self._reader >= 0:
                self.unmark()
                self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: close the descriptors, so that the seat ends with the parent."""
        descriptors = (self._reader, self._writer, self._lock)
        self._reader = self._writer = self._lock = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _empty(self) -> None:
        try:
            while len(os.read(self._reader, _DRAIN_BYTES)) == _DRAIN_BYTES:
                pass
        except BlockingIOError:
            pass  # it is empty


def _strike(bell: Path) -> None:
    descriptor = os.open(bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _write(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):  # full of bytes that wake just as well
        os.write(descriptor, b"!")
