"""The keeper thread: renews what is held, takes back what waits too long, notices what was lost."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from boost_core.contracts.capability import Capability
from boost_core.contracts.control import Gate
from boost_core.errors import ConnectionLost
from boost_core.native import Event
from boost_core.types import Run

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump

log = logging.getLogger("boost.worker")

UNSTARTED_SECONDS: Final = 1.0
"""What hasn't started so long after its fetch goes back to the broker, for a worker with a free slot."""

_TICK: Final = 0.5


class Keeper:
    """Renews every third of the lease, and looks twice a second whether something waits too long for a slot."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self.lease = pump.lease
        self._leased = Capability.LEASES in pump.spec.capabilities
        self._period = (self.lease or 10.0) / 3
        self._stop = Event()
        self._renewed = pump.clock.monotonic()

    def serve(self) -> None:
        """Keep until stopped. A failed renewal is repeated at the next tick; the lease bears two of them."""
        while not self._stop.wait(min(_TICK, self._period)):
            try:
                self.step()
            except ConnectionLost as error:
                self._pump.disconnected(error)
            except Exception as error:
                log.warning("keeping for broker %s failed: %s: %s", self._pump.spec.name, type(error).__name__, error)

    def stop(self) -> None:
        """End the thread at once."""
        self._stop.set()

    def hurry(self) -> None:
        """Renew everything at the next tick: there is a new connection."""
        self._renewed = float("-inf")

    def step(self) -> None:
        """Do what is due now."""
        now = self._pump.clock.monotonic()
        runs = self._pump.held_runs()
        try:
            if now - self._renewed >= self._period * 0.99:
                self._renew(runs, now)
        finally:
            self._pump.release([run for run in runs if not run.started and now - run.queued >= UNSTARTED_SECONDS])

    def _renew(self, runs: Sequence[Run], now: float) -> None:
        if self._leased and not self._pump.link.down:
            self._pump.extend([run for run in runs if not run.fenced])
        self._renewed = now
        _keep_gates(runs)


def _keep_gates(runs: Sequence[Run]) -> None:
    gates: dict[Gate, list[Run]] = defaultdict(list)
    for run in runs:
        for gate in run.task.gates:
            if type(gate).keep is not Gate.keep:
                gates[gate].append(run)
    for gate, its in gates.items():
        try:
            gate.keep(its)
        except Exception:
            log.exception("a gate failed to keep what it gave %d jobs", len(its))
