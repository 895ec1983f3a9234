"""What a thread of core's tells whoever waits for it, so that the greenlets of who waits go on meanwhile."""

from __future__ import annotations

import os

from boost_core.native import Event, Lock, has_greenlets, wait_for_input


class Notice:
    """Given once, by a native thread; awaited once, by any thread or greenlet."""

    def __init__(self) -> None:
        self._given = Event()
        self._lock = Lock()
        self._writer: int | None = None

    def give(self) -> None:
        """Let who waits go on. Any thread; never blocks."""
        self._given.set()
        with self._lock:
            if self._writer is not None:
                os.write(self._writer, b"!")

    def wait(self, timeout: float) -> bool:
        """Return True once it is given, False after ``timeout`` seconds."""
        return self._wait_beside_greenlets(timeout) if has_greenlets() else self._given.wait(timeout)

    def _wait_beside_greenlets(self, timeout: float) -> bool:
        """Wait for a descriptor: the one thing that another thread can do to both gevent and eventlet."""
        reader, writer = os.pipe()
        with self._lock:
            self._writer = writer
        try:
            if not self._given.is_set():
                wait_for_input(reader, timeout)
            return self._given.is_set()
        finally:
            with self._lock:
                self._writer = None
            os.close(reader)
            os.close(writer)
