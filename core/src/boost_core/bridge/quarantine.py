"""Messages that already killed two workers: each runs alone, so that no innocent neighbour is counted with it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from boost_core.bridge.verdict import RELEASED
from boost_core.types import Run

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump

log = logging.getLogger("boost.worker")


class Quarantine:
    """Suspects wait here until all else is settled; nothing is fetched meanwhile. FETCH thread, but for ``forget``."""

    def __init__(self, pump: Pump, admit: Callable[[Sequence[Run]], None]) -> None:
        self._pump, self._admit = pump, admit
        self._waiting: deque[Run] = deque()
        self._running: Run | None = None

    @property
    def busy(self) -> bool:
        """True while a suspect waits or runs."""
        return self._running is not None or bool(self._waiting)

    def add(self, run: Run) -> None:
        """Let a suspect wait for as long as its neighbours take."""
        run.queued = float("inf")
        self._waiting.append(run)

    def advance(self) -> None:
        """Start the suspect once it is alone; further ones go back, for other workers."""
        while len(self._waiting) > 1:
            run = self._waiting.pop()
            if run.claim():
                self._pump.report(run, RELEASED)
        if self._running is None and len(self._pump.held) == 1:
            self._running = self._waiting.popleft()
            log.warning("job %s runs alone: two workers died while they held it", self._running.message.id)
            self._admit([self._running])

    def forget(self, runs: Sequence[Run]) -> None:
        """Take note of settled runs; the fetch thread may go on. SETTLE thread."""
        if not self.busy:
            return
        if self._running in runs:
            self._running = None
        self._waiting = deque(run for run in self._waiting if run.token in self._pump.held)
        self._pump.wake()
