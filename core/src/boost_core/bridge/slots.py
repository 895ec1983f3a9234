"""One task's share of a pool: what may run at once, what is in the pool, and what waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from boost_core.contracts.pool import Pool
from boost_core.native import Lock
from boost_core.types import Run


class Slots:
    """Counts a task's runs in a worker, whichever lane brings them. Several threads call it per batch, hence the lock.

    A task that may fill its whole pool waits in the pool's own mailbox; all others wait here.
    """

    def __init__(self, pool: Pool, limit: int) -> None:
        self.pool = pool
        self.limit = limit
        self._whole = limit >= pool.size
        self._in_pool = 0
        self._backlog: deque[Run] = deque()
        self._lock = Lock()

    def start(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Return those of ``runs`` that go to the pool now; the others wait for a slot."""
        with self._lock:
            self._backlog.extend(runs)
            return self._ready()

    def back(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Count those of ``runs`` that have left the pool; return what goes there in their place.

        Whoever claims a run reports it afterwards: one that isn't handed over here never will be.
        """
        with self._lock:
            left = sum(run.handed_over for run in runs)
            self._in_pool -= left
            return self._ready() if left else ()

    def share(self, size: int) -> bool:
        """Take note that the pool is about to have ``size`` slots; return whether its mailbox may hold too many."""
        with self._lock:
            whole, self._whole = self._whole, self.limit >= size
            return whole and not self._whole

    def _ready(self) -> list[Run]:
        ready: list[Run] = []
        backlog = self._backlog
        while backlog and (self._whole or self._in_pool < self.limit):
            run = backlog.popleft()
            if run.claimed:  # taken back while it waited here, or for a gate
                continue
            run.handed_over = True
            self._in_pool += 1
            ready.append(run)
        return ready
