"""What a client's own I/O thread has received, until core's FETCH thread asks for it."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from boost_core.native import Condition
from boost_core.types import Delivery


class PushBuffer:
    """For clients that push, or that must be polled by one thread: I/O puts deliveries in, ``fetch`` takes them out.

    Any thread may call any method. Each queue keeps its own order. How much may wait here is for the client to bound:
    by its prefetch, or by pausing.
    """

    def __init__(self) -> None:
        self._queues: defaultdict[str, deque[Delivery]] = defaultdict(deque)
        self._errors: deque[Exception] = deque()
        self._changed = Condition()
        self._woken = False
        self._closed = False

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Add what has arrived, in its order. Also after ``close``, for ``drop`` to give back."""
        with self._changed:
            for delivery in deliveries:
                self._queues[delivery.queue].append(delivery)
            self._changed.notify_all()

    def take(self, want: Mapping[str, int], timeout: float) -> list[Delivery]:
        """Return up to ``want[queue]`` deliveries a queue, as soon as any is there.

        ``[]`` after ``timeout`` seconds, after a ``wake`` that came since the last call, and once closed. Raises what
        ``fail`` was given, each error once, before anything else is handed out.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                if self._errors:
                    raise self._errors.popleft()
                taken = self._take(want)
                left = end - time.monotonic()
                if taken or self._woken or left <= 0:
                    self._woken = False
                    return taken
                self._changed.wait(left)
        return []

    def _take(self, want: Mapping[str, int]) -> list[Delivery]:
        taken: list[Delivery] = []
        for queue, most in want.items():
            waiting = self._queues.get(queue)
            if waiting:
                taken.extend(waiting.popleft() for _ in range(min(most, len(waiting))))
        return taken

    def wake(self) -> None:
        """Have a blocked ``take``, or else the next one, return at once with what it has."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Have ``take`` raise ``error``, a blocked one now. What waits stays: ``drop`` what died with a connection."""
        with self._changed:
            self._errors.append(error)
            self._changed.notify_all()

    def drop(self, matches: Callable[[Delivery], bool] | None = None, queue: str | None = None) -> list[Delivery]:
        """Remove and return what wasn't taken yet: all of it, or of one queue, or of what ``matches`` accepts."""
        dropped: list[Delivery] = []
        with self._changed:
            for name in list(self._queues) if queue is None else [queue]:
                kept: deque[Delivery] = deque()
                for delivery in self._queues.get(name, ()):
                    (dropped if matches is None or matches(delivery) else kept).append(delivery)
                self._queues[name] = kept
        return dropped

    def waiting(self, queue: str | None = None) -> int:
        """Return how many deliveries weren't taken yet, of one queue or of all."""
        with self._changed:
            if queue is not None:
                return len(self._queues.get(queue, ()))
            return sum(map(len, self._queues.values()))

    def close(self) -> None:
        """Hand nothing out any more: ``take`` returns ``[]`` at once. What waits stays for ``drop``."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
