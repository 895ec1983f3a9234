"""Messages that already killed two workers: each runs alone, so that no innocent neighbour is counted with it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

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
    """Holds one suspect a worker until all else there is settled; until it ended nothing is fetched from any broker.

    A second one isn't kept here while a suspect runs: it would be counted as dead with it, and that for the third time.
    ``pumps`` returns all of the worker.
    """

    def __init__(self, pumps: Callable[[], Iterable[Pump]]) -> None:
        self._pumps = pumps
        self._lock = Lock()
        self._here: set[Run] = set()  # the one whose turn it is, and others on their way back
        self._turn: Run | None = None
        self._patience = 0.0  # its end (monotonic)
        self._started = False
        self._alone = False
        self._tries: Counter[str] = Counter()

    @property
    def busy(self) -> bool:
        """True while a suspect waits, or runs alone."""
        return self._turn is not None and (self._alone or not self._started)

    def add(self, run: Run) -> None:
        """Let a suspect wait until it may run; send it back if another one is here. FETCH thread of its pump."""
        now = run.clock.monotonic()
        with self._lock:
            self._here.add(run)
            first = self._turn is None
            if first:
                self._turn, self._started, self._alone = run, False, False
                self._patience = now + ALONE_SECONDS
                run.queued = float("inf")
        if not first and not self.busy:  # the other one runs in company
            self._send_back(run, now + ALONE_SECONDS)
        elif not first:
            run.host.release([run])
        self._wake()

    def advance(self, pump: Pump, now: float) -> float | None:
        """Start the suspect if it may run, or send it back out of patience; return when (monotonic) to look again.

        FETCH thread of any pump; only the suspect's own one starts it.
        """
        with self._lock:
            run = self._turn
            if run is None or self._started:
                return None
            its_own = run.host is pump
            alone = its_own and self._is_alone()
            company = its_own and not alone and self._tries[run.message.id] >= TRIES and len(self._here) == 1
            if not alone and not company and now < self._patience:
                return self._patience
            self._started, self._alone = alone or company, alone
            if not self._started:
                self._turn = None
                self._tries[run.message.id] += 1
        if alone:
            log.warning("job %s runs alone: two workers died while they held it", run.message.id)
            self._start(run, now)
        elif company:
            log.warning("job %s runs in company: no worker is free to run it alone", run.message.id)
            self._start(run, now)
        else:
            self._send_back(run, now + ALONE_SECONDS)
        return None

    def _is_alone(self) -> bool:
        pumps = list(self._pumps())
        return sum(len(pump.held) for pump in pumps) == 1 and not any(pump.fetcher.fetching for pump in pumps)

    def _start(self, run: Run, now: float) -> None:
        run.queued = now
        run.host.fetcher.admission.admit([run])

    def _send_back(self, run: Run, until: float) -> None:
        """Give a suspect back, and leave its queue until it may be elsewhere: it would come again at once."""
        run.host.lanes[run.delivery.queue].not_before = until
        run.host.release([run])

    def end(self, runs: Sequence[Run]) -> None:
        """Take note of reported runs; fetch threads go on, however long settling takes. SETTLE thread of any pump."""
        if self._turn is None:
            return
        with self._lock:
            if self._turn not in runs:
                return
            self._turn = None
        self._wake()

    def forget(self, runs: Sequence[Run]) -> None:
        """Take note of settled runs: what waits to be alone may be so now. SETTLE thread of any pump."""
        if not self._here:
            return
        with self._lock:
            for run in self._here.intersection(runs):
                self._here.remove(run)
                if run.started:
                    del self._tries[run.message.id]
        self._wake()

    def _wake(self) -> None:
        for pump in self._pumps():
            pump.wake()
