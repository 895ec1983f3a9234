"""A clock for tests: it stands still until it is told to move."""

from __future__ import annotations

import threading
from collections.abc import Callable


class FakeClock:
    """Both of a machine's clocks, moved by hand.

    Whatever waits for a moment of this clock ``subscribe``s, so that ``advance`` wakes it. Timeouts of
    blocking calls are not this clock's: they go by real time, and a test never hangs on a clock that stands.
    """

    def __init__(self, time: float = 1_800_000_000.0, monotonic: float = 1_000.0) -> None:
        """Start at ``time`` seconds since the epoch and ``monotonic`` seconds."""
        self._time = time
        self._monotonic = monotonic
        self._on_advance: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""
        return self._monotonic

    def time(self) -> float:
        """Return seconds since the epoch."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Move both clocks on, then call all subscribers. Raises ``ValueError`` for a negative number of seconds."""
        if seconds < 0:
            message = f"a clock doesn't go back: advance({seconds})"
            raise ValueError(message)
        with self._lock:
            self._monotonic += seconds
            self._time += seconds
            subscribers = tuple(self._on_advance)
        for notify in subscribers:
            notify()

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call ``notify()`` after each advance, in the thread that advances."""
        with self._lock:
            self._on_advance.append(notify)
