"""What was fetched, up to the pool: decoded, let through the gates, held or refused."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from boost_core.bridge.envelope import CodecOf, Opener
from boost_core.bridge.lane import Lane
from boost_core.bridge.stray import Stray
from boost_core.bridge.verdict import RELEASED, BadBody, UnknownTask
from boost_core.contracts.control import Admission as Answer
from boost_core.contracts.control import End, Hold, Start
from boost_core.errors import DecodeError
from boost_core.types import Delivery, Requeue, Run, WorkerLost

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump

log = logging.getLogger("boost.worker")

LONGEST_HOLD: Final = 1.0
MOST_HELD: Final = 16
DEADLY: Final = 3
BAD_IN_A_ROW: Final = 10


class Admission:
    """Takes batches of deliveries in. FETCH thread."""

    def __init__(self, pump: Pump, codec_of: CodecOf) -> None:
        self._pump = pump
        self._open_body = Opener(codec_of).open
        self._levels = pump.spec.limits.priorities
        self._tokens = itertools.count(1)
        self._waiting: list[tuple[float, int, Run]] = []  # held by gates: when, token, run

    @property
    def next_due(self) -> float | None:
        """When (monotonic) the first held message passes the gates again."""
        return self._waiting[0][0] if self._waiting else None

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Decode, admit and submit a batch."""
        pump = self._pump
        now = pump.clock.monotonic()
        batches: dict[tuple[str, str], list[Run]] = {}
        pump.idle.clear()
        for queue, count in Counter([delivery.queue for delivery in deliveries]).items():
            pump.lanes[queue].take(count)
        for delivery in deliveries:
            delivery.held_since = now
            run = self._opened(delivery, now)
            pump.held[run.token] = run
            stray = type(run.task) is Stray
            if stray or delivery.deaths:
                self._take_special(run, stray=stray)
            else:
                batches.setdefault((run.task.name, delivery.queue), []).append(run)
        for runs in batches.values():
            self.admit(runs)

    def _opened(self, delivery: Delivery, now: float) -> Run:
        try:
            message = self._open_body(delivery.body)
            if message.priority and not 0 <= message.priority < self._levels:  # its next attempt could not be stored
                raise DecodeError(f"its priority {message.priority} is outside 0 to {self._levels - 1}")
            plan = self._pump.plans.get(message.task)
            if message.options and plan is not None:
                message.options = plan.read_own(message.options)
        except DecodeError as error:
            return Stray.run_of(BadBody(error), delivery, next(self._tokens), self._pump)
        except Exception as error:  # a codec's own bug: one message's end, not its neighbours'
            problem = f"the codec can't read the body: {type(error).__name__}: {error}"
            return Stray.run_of(BadBody(DecodeError(problem)), delivery, next(self._tokens), self._pump)
        lane = self._pump.lanes[delivery.queue]
        lane.bad_in_a_row = 0
        if plan is None or not lane.adopts(plan):
            return Stray.run_of(UnknownTask(), delivery, next(self._tokens), self._pump, message)
        return Run(plan, message, delivery, next(self._tokens), self._pump.clock, self._pump, now)

    def _take_special(self, run: Run, *, stray: bool) -> None:
        """Deal with what isn't simply run: strays, and messages whose workers died."""
        deaths = run.delivery.deaths
        if stray:
            self._take_stray(run)
        elif deaths >= DEADLY:
            run.claim()
            self._pump.report(run, WorkerLost(deaths))
        elif deaths == DEADLY - 1:
            self._pump.quarantine.add(run)
        else:
            self.admit([run])

    def _take_stray(self, run: Run) -> None:
        run.claim()
        outcome: Any = run.task.outcome
        lane = self._pump.lanes[run.delivery.queue]
        if isinstance(outcome, BadBody):
            lane.bad_in_a_row += 1
            if lane.bad_in_a_row > BAD_IN_A_ROW:
                lane.not_before = self._pump.clock.monotonic() + 1.0
                log.error("%d unreadable messages in a row on %s: taking one a second", lane.bad_in_a_row, lane.queue)
        else:
            log.warning("queue %s: no task named %r is declared here; its message waits", lane.queue, run.message.task)
        self._pump.report(run, outcome)

    # --- admission ----------------------------------------------------------------------------------

    def admit(self, runs: Sequence[Run]) -> None:
        """Pass runs of one task through its gates; submit those that all let start."""
        lane = self._pump.lanes[runs[0].delivery.queue]
        passed: Sequence[Run] = runs
        for number, gate in enumerate(runs[0].task.gates):
            try:
                admissions = gate.admit(passed)
            except Exception as error:
                log.exception("a gate of task %s failed; its queue backs off", runs[0].task.name)
                self._refuse_all(passed, number, lane, error)
                return
            passed = self._sort(passed, admissions, number)
            if not passed:
                return
        lane.backoff = 0.0
        ready = lane.start(passed)
        if ready:
            lane.pool.submit(ready)

    def _sort(self, runs: Sequence[Run], admissions: Sequence[Answer], number: int) -> list[Run]:
        """Return the runs that a gate lets start; deal with the others."""
        passed: list[Run] = []
        for run, admission in zip(runs, admissions, strict=True):
            if type(admission) is Start:
                passed.append(run)
            elif type(admission) is Hold:
                self._hold(run, admission.until)
            elif run.claim():
                for gate in run.task.gates[:number]:
                    gate.undo([run])
                outcome: Any = admission.outcome if isinstance(admission, End) else RELEASED
                self._pump.report(run, outcome)
        return passed

    def _hold(self, run: Run, until: float) -> None:
        lane = self._pump.lanes[run.delivery.queue]
        wait = until - self._pump.clock.monotonic()
        if wait > LONGEST_HOLD or lane.held >= MOST_HELD:
            if run.claim():
                self._pump.report(run, Requeue(max(wait, 0.0)))
            return
        lane.held += 1
        run.queued = until
        heapq.heappush(self._waiting, (until, run.token, run))

    def start_due(self, now: float) -> None:
        """Pass the held messages that are due by ``now`` (monotonic) through all gates again."""
        while self._waiting and self._waiting[0][0] <= now:
            run = heapq.heappop(self._waiting)[2]
            self._pump.lanes[run.delivery.queue].held -= 1
            run.queued = now
            if not run.settled:
                self.admit([run])

    def _refuse_all(self, runs: Sequence[Run], number: int, lane: Lane, error: Exception) -> None:
        lane.back_off(self._pump.clock.monotonic())
        for gate in runs[0].task.gates[:number]:
            gate.undo(runs)
        log.warning("%d messages of %s go back: %s", len(runs), lane.queue, error)
        for run in runs:
            if run.claim():
                self._pump.report(run, RELEASED)
