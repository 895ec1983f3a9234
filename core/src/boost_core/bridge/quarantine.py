"""Messages that already killed two workers: each runs alone, so that no innocent neighbour is counted with it."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from boost_core.bridge.verdict import RELEASED
from boost_core.native import Lock
from boost_core.types import Run

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump

log = logging.getLogger("boost.worker")

ALONE_SECONDS: Final = 1.0
"""A suspect that isn't alone so soon goes back, for a worker with nothing to do."""
TRIES: Final = 3
"""Where none has that, it runs in company: a neighbour that dies with it once has nothing to fear."""


class Quarantine:
    """Suspects wait here until all else is settled; nothing is fetched meanwhile. FETCH thread, but for ``forget``."""

    def __init__(self, pump: Pump, admit: Callable[[Sequence[Run]], None]) -> None:
        self._pump, self._admit = pump, admit
        self._lock = Lock()
        self._waiting: deque[tuple[Run, float]] = deque()  # with the end of their patience (monotonic)
        self._running: Run | None = None
        self._tries: Counter[str] = Counter()

    @property
    def busy(self) -> bool:
        """True while a suspect waits or runs."""
        return self._running is not None or bool(self._waiting)

    def add(self, run: Run) -> None:
        """Let a suspect wait until it is alone; in company if it has been sent away before."""
        self._tries[run.message.id] += 1
        if self._tries[run.message.id] > TRIES:
            log.warning("job %s runs in company: no worker is free to run it alone", run.message.id)
            self._admit([run])
            return
        run.queued = float("inf")
        with self._lock:
            self._waiting.append((run, self._pump.clock.monotonic() + ALONE_SECONDS))

    def advance(self, now: float) -> float | None:
        """Start the suspect if it is alone; let further ones, and one out of patience, go back.

        Return when (monotonic) to look again.
        """
        start, gone, patience = self._chosen(now)
        for run in gone:
            if run.claim():
                self._pump.report(run, RELEASED)
        if start is not None:
            log.warning("job %s runs alone: two workers died while they held it", start.message.id)
            self._admit([start])
        return patience

    def _chosen(self, now: float) -> tuple[Run | None, list[Run], float | None]:
        """Return the run that may start, those that go back, and how long the one that waits is patient."""
        with self._lock:
            gone = [self._waiting.pop()[0] for _ in range(len(self._waiting) - 1)]
            if self._running is not None or not self._waiting:
                return None, gone, None
            run, patience = self._waiting[0]
            if len(self._pump.held) == 1 + len(gone):
                self._waiting.popleft()
                self._running = run
                return run, gone, None
            if now < patience:
                return None, gone, patience
            self._waiting.popleft()
            self._pump.lanes[run.delivery.queue].not_before = now + ALONE_SECONDS
            return None, [*gone, run], None

    def forget(self, runs: Sequence[Run]) -> None:
        """Take note of settled runs; the fetch thread may go on. SETTLE thread."""
        if not self.busy:
            return
        with self._lock:
            if self._running is not None and self._running in runs:
                self._tries.pop(self._running.message.id, None)
                self._running = None
            self._waiting = deque(pair for pair in self._waiting if pair[0].token in self._pump.held)
        self._pump.wake()
