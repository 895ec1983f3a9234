"""The fetch thread: how much may come, fetching it, and dialling again when the connection was lost."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from boost_core.bridge.admission import BAD_IN_A_ROW, Admission
from boost_core.bridge.envelope import CodecOf
from boost_core.bridge.lane import Lane, longer
from boost_core.contracts.control import Gate
from boost_core.errors import ConnectionLost, QueueGone
from boost_core.native import Event

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump

log = logging.getLogger("boost.worker")

FETCH_SECONDS: Final = 5.0
SHUT_SECONDS: Final = 1.0
"""A queue that nothing was wanted of for so long is shut off at the broker."""
FIRST_REDIAL, LONGEST_REDIAL = 0.1, 2.0


class Fetcher:
    """Asks gates and lanes how much may come, fetches it and hands it to the ``Admission``."""

    def __init__(self, pump: Pump, codec_of: CodecOf) -> None:
        self._pump = pump
        self.admission = Admission(pump, codec_of)
        self.dry = Event()  # set once nothing more comes, in a drain
        self.wanted: Mapping[str, int] | None = None  # what a blocked fetch waits for
        self.fetching = False  # what is coming isn't held yet
        self._kick = Event()
        self._stopped = False
        self._backoff = 0.0
        self._absent: dict[str, float] = {}  # since when nothing is wanted of a queue
        self._shut: set[str] = set()

    # --- any thread ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the thread look again at what it may ask for."""
        self._kick.set()
        if self.wanted:
            self._pump.subscription.wake()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped = True
        self.wake()

    # --- fetch thread -----------------------------------------------------------------------------

    def serve(self) -> None:
        """Fetch until a drain, redial whenever needed, until stopped."""
        while not self._stopped:
            if self._pump.draining:
                self.dry.set()
            if self._pump.link.down:
                self._redial()
            elif self._pump.draining:
                self._kick.wait(FETCH_SECONDS)
                self._kick.clear()
            else:
                self._fetch()
        self.dry.set()

    def _fetch(self) -> None:
        pump = self._pump
        try:
            self.fetch_once(FETCH_SECONDS)
            self._backoff = 0.0
        except ConnectionLost as error:
            pump.disconnected(error)
        except QueueGone as error:
            log.error("%s It is served no longer.", error)
            pump.lanes[error.queue].gone = True
        except Exception as error:
            self._backoff = longer(self._backoff)
            log.warning(
                "fetching from broker %s failed, next try in %g s: %s: %s",
                *(pump.spec.name, self._backoff, type(error).__name__, error),
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
            self._kick.wait(self._backoff)

    def _redial(self) -> None:
        self._kick.clear()
        try:
            self._pump.subscription.reconnect()
        except Exception as error:
            self._backoff = min(max(FIRST_REDIAL, self._backoff * 2), LONGEST_REDIAL)
            log.debug("broker %s can't be reached yet: %s", self._pump.spec.name, error)
            self._kick.wait(self._backoff * random.uniform(0.5, 1.0))
        else:
            self._backoff = 0.0
            self._absent.clear()
            self._shut.clear()
            self._pump.reconnected()

    def fetch_once(self, timeout: float) -> int:
        """Fetch and submit one batch, waiting up to ``timeout`` seconds; return how many came."""
        pump = self._pump
        self._kick.clear()
        now = pump.clock.monotonic()
        self.admission.start_due(now)
        want, until = self._demand(now)
        until = _earlier(until, self._shut_absent(want, now))
        wait = timeout if until is None else max(0.0, min(timeout, until - now))
        self.wanted, self.fetching = want, bool(want)  # before the kick is looked at: whoever kicks sees it
        try:
            if not want or pump.draining or self._kick.is_set():
                if wait and not pump.draining:
                    self._kick.wait(wait)
                return 0
            return self._take_in(want, wait)
        finally:
            self.wanted, self.fetching = None, False

    def _take_in(self, want: Mapping[str, int], wait: float) -> int:
        deliveries = self._pump.subscription.fetch(want, wait)
        self.wanted = None
        if deliveries:
            self.admission.take(deliveries)
        return len(deliveries)

    def _demand(self, now: float) -> tuple[dict[str, int], float | None]:
        """Return how many each queue may bring, and when (monotonic) to ask again at the latest."""
        until = self.admission.next_due
        quarantine = self._pump.quarantine
        if quarantine.busy:
            return {}, _earlier(until, quarantine.advance(self._pump, now))
        want: dict[str, int] = {}
        for lane in self._pump.lanes.values():
            room, later = self._lane_demand(lane, now)
            if room:
                want[lane.queue] = room
            until = _earlier(until, later)
        return want, until

    def _lane_demand(self, lane: Lane, now: float) -> tuple[int, float | None]:
        if lane.gone:
            return 0, None
        if lane.not_before > now:
            return 0, lane.not_before
        room = lane.room()
        if lane.bad_in_a_row > BAD_IN_A_ROW:
            return min(room, 1), None
        if len(lane.plans) != 1:
            return room, None  # gates that pace by demand have their queue for themselves
        try:
            return _gate_demand(lane.plans[0].gates, room)
        except Exception:
            lane.back_off(now)
            log.exception("a gate of task %s failed; its queue backs off", lane.plans[0].name)
            return 0, lane.not_before

    def _shut_absent(self, want: Mapping[str, int], now: float) -> float | None:
        """Shut off the queues that nothing was wanted of for a while; return when (monotonic) the next one is due."""
        for queue in self._pump.lanes:
            if queue in want:
                self._absent.pop(queue, None)
                self._shut.discard(queue)
            elif queue not in self._shut:
                self._absent.setdefault(queue, now)
        due = [queue for queue, since in self._absent.items() if now - since >= SHUT_SECONDS]
        if due:
            self._pump.subscription.shut(due)
            self._shut.update(due)
            for queue in due:
                del self._absent[queue]
        return min(self._absent.values()) + SHUT_SECONDS if self._absent else None


def _gate_demand(gates: Sequence[Gate], room: int) -> tuple[int, float | None]:
    until: float | None = None
    for gate in gates:
        if room:
            room, later = gate.demand(room)
            until = later if until is None else until
    return room, until


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
