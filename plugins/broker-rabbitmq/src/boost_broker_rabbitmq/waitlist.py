"""Messages that came from the server before their time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping

from boost_core.plugin import Delivery

Entry = tuple[float, int, Delivery]


class Waitlist:
    """Holds deliveries until their time (seconds since the epoch). Used under its subscription's lock."""

    def __init__(self) -> None:
        self._queues: dict[str, list[Entry]] = {}
        self._numbers = itertools.count()

    def add(self, time: float, delivery: Delivery) -> None:
        """Hold a delivery until then."""
        heapq.heappush(self._queues.setdefault(delivery.queue, []), (time, next(self._numbers), delivery))

    def due(self, want: Mapping[str, int], now: float) -> list[Delivery]:
        """Remove and return up to ``want[queue]`` deliveries a queue whose time has come."""
        found: list[Delivery] = []
        for queue, count in want.items():
            heap = self._queues.get(queue, [])
            for _ in range(count):
                if not heap or heap[0][0] > now:
                    break
                found.append(heapq.heappop(heap)[2])
        return found

    def next_due(self, queues: Iterable[str]) -> float | None:
        """Return when the time of the next delivery of some queues comes."""
        return min((heap[0][0] for queue in queues if (heap := self._queues.get(queue))), default=None)

    def drop(self, queue: str | None = None) -> list[Delivery]:
        """Remove and return all deliveries, or those of one queue."""
        queues = list(self._queues) if queue is None else [queue]
        return [entry[2] for name in queues for entry in self._queues.pop(name, [])]

    def count(self, queue: str) -> int:
        """Return how many deliveries of a queue are held."""
        return len(self._queues.get(queue, ()))
