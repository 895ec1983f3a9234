"""Serves one broker for one worker: the fetch thread, and what it shares with the settle and keeper threads."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from boost_core.bridge.envelope import CodecOf, Opener
from boost_core.bridge.keeper import Keeper
from boost_core.bridge.lane import Lane
from boost_core.bridge.settler import STOPPING, Settler
from boost_core.bridge.stray import Stray
from boost_core.bridge.verdict import RELEASED, BadBody, UnknownTask
from boost_core.contracts.broker import SyncBroker, SyncSubscription
from boost_core.contracts.capability import Capability
from boost_core.contracts.codec import Codec
from boost_core.contracts.control import Admission, End, Hold, Start
from boost_core.contracts.pool import CancelAnswer
from boost_core.errors import DecodeError
from boost_core.plan.compile import TaskPlan
from boost_core.types import (
    Cancelled,
    Clock,
    Delivery,
    Frame,
    QueueSpec,
    Requeue,
    Run,
    TimedOut,
    WorkerLost,
)

log = logging.getLogger("boost.worker")

FETCH_SECONDS: Final = 5.0
LONGEST_HOLD: Final = 1.0
MOST_HELD: Final = 16
DEADLY: Final = 3
BAD_IN_A_ROW: Final = 10
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 30.0


class Pump:
    """Moves batches between a broker and the pools of its lanes.

    The FETCH thread asks gates and lanes how much may come, fetches, admits and submits. Outcomes come
    back through ``report`` into the ``Settler``; the ``Keeper`` renews what is held. Nothing here is
    done per message that can be done per batch.
    """

    def __init__(
        self,
        broker: SyncBroker,
        lanes: Sequence[Lane],
        plans: Mapping[str, TaskPlan],
        queues: Sequence[QueueSpec],
        codec_of: CodecOf,
        clock: Clock,
    ) -> None:
        self.broker, self.spec, self.clock = broker, broker.spec, clock
        self.lease: float | None = getattr(broker.options, "lease", None) or self.spec.limits.lease
        self.lanes = {lane.queue: lane for lane in lanes}
        self.io = threading.Lock()  # a delivery is never settled while it is being extended
        self.held: dict[int, Run] = {}
        self.idle = threading.Event()
        self.idle.set()
        self.settler = Settler(self)
        self.keeper = Keeper(self)
        self.report = self.settler.report
        self.subscription: SyncSubscription
        self._plans = plans
        self._queues = queues
        self._codec_of = codec_of
        self._open_body = Opener(codec_of).open
        self._leased = Capability.LEASES in self.spec.capabilities
        self._tokens = itertools.count(1)
        self._waiting: list[tuple[float, int, Run]] = []  # held by gates: when, token, run
        self._alone: deque[Run] = deque()
        self._solitary: Run | None = None
        self._wanted: Mapping[str, int] | None = None  # what a blocked fetch waits for
        self._kick = threading.Event()
        self._draining = False
        self._backoff = 0.0
        self._threads: list[threading.Thread] = []

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Declare the queues and subscribe; no thread is started yet."""
        self.broker.declare(self._queues)
        credit = {lane.queue: lane.credit for lane in self.lanes.values()}
        work = [queue for queue in self._queues if queue.name in self.lanes]
        self.subscription = self.broker.subscribe(work, credit, self.lose)

    def start(self) -> None:
        """Start the three threads."""
        for name, serve in (("fetch", self._serve), ("settle", self.settler.serve), ("keep", self.keeper.serve)):
            thread = threading.Thread(target=serve, name=f"boost-{name}-{self.spec.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def drain(self) -> None:
        """Fetch no more. Running jobs go on. Returns at once; any thread."""
        self._draining = True
        self.wake()

    def quiesce(self, timeout: float) -> bool:
        """After ``drain``: give back what hasn't started, wait for the rest; return whether all is settled."""
        deadline = time.monotonic() + timeout
        if self._threads:
            self._threads[0].join(max(1.0, timeout))
        for run in self.held_runs():
            if run.claim():
                self.report(run, RELEASED)
        while self.held and time.monotonic() < deadline:
            self.idle.clear()
            if self.held:
                self.idle.wait(min(0.05, max(0.0, deadline - time.monotonic())))
        return not self.held

    def hand_back(self) -> int:
        """Give back what still runs, uncounted; its late outcomes are refused. Return how many."""
        runs = [run for run in self.held_runs() if not run.settled]
        for run in runs:
            self.report(run, RELEASED)
        return len(runs)

    def cancel_running(self) -> None:
        """Ask what still runs to end, because the worker is stopping."""
        for run in self.held_runs():
            if run.cancel_reason is None:
                run.cancel_reason = STOPPING
                self.cancel(run)

    def close(self, timeout: float) -> None:
        """Settle what was reported, then close the subscription. Call after ``drain``."""
        self._draining = True
        self.wake()
        self.settler.stop()
        self.keeper.stop()
        for thread in self._threads:
            thread.join(timeout)
        self.subscription.close()

    # --- what the settle and keeper threads ask -----------------------------------------------------

    def held_runs(self) -> list[Run]:
        """Return all unsettled runs; thread-safe."""
        return list(self.held.values())

    def give_back(self, runs: Sequence[Run]) -> None:
        """Count reported runs, submit what waited for their slots, and let the fetch thread go on."""
        by_lane: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            by_lane[run.delivery.queue].append(run)
        for queue, its in by_lane.items():
            lane = self.lanes[queue]
            timed = [run.finished - run.started for run in its if run.finished]
            ready = lane.back(its, sum(timed), len(timed))
            if ready:
                lane.pool.submit(ready)
            wanted = self._wanted
            if wanted is not None and queue not in wanted and lane.room():
                self.wake()

    def forget(self, runs: Sequence[Run]) -> None:
        """Count runs as settled."""
        by_lane: dict[str, int] = defaultdict(int)
        for run in runs:
            self.held.pop(run.token, None)
            by_lane[run.delivery.queue] += 1
        for queue, count in by_lane.items():
            self.lanes[queue].settle(count)
        if self._solitary is not None or self._alone:
            self._leave_alone(runs)
        if not self.held:
            self.idle.set()

    def overdue(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs whose deliveries were not renewed within the lease."""
        if not self._leased or self.lease is None:
            return []
        oldest = self.clock.monotonic() - self.lease
        return [run for run in runs if run.delivery.held_since < oldest]

    def extend(self, runs: Sequence[Run]) -> None:
        """Renew the leases of ``runs``; fence those that are no longer ours."""
        deliveries = [run.delivery for run in runs]
        with self.io:
            asked = self.clock.monotonic()
            lost = self.subscription.extend(deliveries)
        for delivery in deliveries:
            delivery.held_since = asked
        if lost:
            self.lose(lost)

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        """Drop or fence the runs of deliveries that are somebody else's by now. Any thread."""
        gone = set(map(id, deliveries))
        runs = [run for run in self.held_runs() if id(run.delivery) in gone]
        log.warning("%d messages of broker %s were lost to other workers", len(runs), self.spec.name)
        for run in runs:
            run.fenced = True
            if run.claim():
                self.report(run, RELEASED)
            else:
                self.cancel(run)

    def cancel(self, run: Run) -> CancelAnswer:
        """Ask the pool to end a run; ``run.cancel_reason`` says why."""
        answer = self.lanes[run.delivery.queue].pool.cancel(run)
        if answer is CancelAnswer.BEFORE_START:
            self.report(run, run.cancel_reason or Cancelled())
        return answer

    def abandon(self, run: Run) -> None:
        """Give a run up whose time is over: its slot is replaced, its late outcome refused."""
        log.warning("job %s of %s is abandoned: it went on after its time-out", run.message.id, run.message.task)
        self.lanes[run.delivery.queue].pool.abandon(run)
        self.report(run, run.cancel_reason or TimedOut(0.0))

    def codec_for(self, run: Run) -> tuple[Codec, str]:
        """Return the codec, and its tag, that a run's next frame is written with."""
        tag = run.task.codec_name
        return self._codec_of(tag), tag

    def dead_queue(self, queue: str) -> str:
        """Return the name of a queue's dead letters."""
        return f"{queue}.dead"

    def publish(self, frames: Sequence[Frame]) -> None:
        """Publish next attempts and dead letters, where the broker can't replace."""
        self.broker.publish(frames, getattr(self.broker.options, "timeout", 10.0))

    def wake(self) -> None:
        """Let the fetch thread look again at what it may ask for."""
        self._kick.set()
        if self._wanted:
            self.subscription.wake()

    # --- fetch thread -----------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._draining:
            try:
                self.fetch_once(FETCH_SECONDS)
                self._backoff = 0.0
            except Exception as error:
                self._backoff = min(max(FIRST_BACKOFF, self._backoff * 2), LONGEST_BACKOFF)
                log.warning(
                    "fetching from broker %s failed, next try in %g s: %s: %s",
                    *(self.spec.name, self._backoff, type(error).__name__, error),
                    exc_info=log.isEnabledFor(logging.DEBUG),
                )
                self._kick.wait(self._backoff)

    def fetch_once(self, timeout: float) -> int:
        """Fetch and submit one batch, waiting up to ``timeout`` seconds; return how many came."""
        self._kick.clear()
        now = self.clock.monotonic()
        self._start_due(now)
        want, until = self._demand(now)
        wait = timeout if until is None else max(0.0, min(timeout, until - now))
        self._wanted = want
        try:
            if not want or self._draining:
                if wait and not self._draining:
                    self._kick.wait(wait)
                return 0
            deliveries = self.subscription.fetch(want, wait)
        finally:
            self._wanted = None
        if deliveries:
            self._take(deliveries)
        return len(deliveries)

    def _demand(self, now: float) -> tuple[dict[str, int], float | None]:
        """Return how many each queue may bring, and when (monotonic) to ask again at the latest."""
        until = self._waiting[0][0] if self._waiting else None
        if self._solitary is not None or self._alone:
            self._start_solitary()
            return {}, until
        want: dict[str, int] = {}
        for lane in self.lanes.values():
            room, later = self._lane_demand(lane, now)
            if room:
                want[lane.queue] = room
            if later is not None:
                until = later if until is None else min(until, later)
        return want, until

    def _lane_demand(self, lane: Lane, now: float) -> tuple[int, float | None]:
        if lane.not_before > now:
            return 0, lane.not_before
        room = lane.room()
        if lane.bad_in_a_row > BAD_IN_A_ROW:
            return min(room, 1), None
        if len(lane.plans) != 1:
            return room, None  # gates that pace by demand have their queue for themselves
        until: float | None = None
        for gate in lane.plans[0].gates:
            if room:
                room, later = gate.demand(room)
                until = later if until is None else until
        return room, until

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        """Decode, admit and submit a batch."""
        now = self.clock.monotonic()
        batches: dict[tuple[str, str], list[Run]] = {}
        self.idle.clear()
        for queue, count in Counter([delivery.queue for delivery in deliveries]).items():
            self.lanes[queue].take(count)
        for delivery in deliveries:
            delivery.held_since = now
            run = self._open(delivery, now)
            self.held[run.token] = run
            stray = type(run.task) is Stray
            if stray or delivery.deaths:
                self._take_special(run, stray=stray)
            else:
                batches.setdefault((run.task.name, delivery.queue), []).append(run)
        for runs in batches.values():
            self._admit(runs)

    def _open(self, delivery: Delivery, now: float) -> Run:
        try:
            message = self._open_body(delivery.body)
        except DecodeError as error:
            return Stray.run_of(BadBody(error), delivery, next(self._tokens), self)
        lane = self.lanes[delivery.queue]
        lane.bad_in_a_row = 0
        plan = self._plans.get(message.task)
        if plan is None or not lane.adopts(plan):
            return Stray.run_of(UnknownTask(), delivery, next(self._tokens), self, message)
        return Run(plan, message, delivery, next(self._tokens), self.clock, self, now)

    def _take_special(self, run: Run, *, stray: bool) -> None:
        """Deal with what isn't simply run: strays, and messages whose workers died."""
        deaths = run.delivery.deaths
        if stray:
            self._take_stray(run)
        elif deaths >= DEADLY:
            run.claim()
            self.report(run, WorkerLost(deaths))
        elif deaths == DEADLY - 1:
            run.queued = float("inf")  # it waits here for as long as its neighbours take
            self._alone.append(run)
        else:
            self._admit([run])

    def _take_stray(self, run: Run) -> None:
        run.claim()
        outcome: Any = run.task.outcome
        lane = self.lanes[run.delivery.queue]
        if isinstance(outcome, BadBody):
            lane.bad_in_a_row += 1
            if lane.bad_in_a_row > BAD_IN_A_ROW:
                lane.not_before = self.clock.monotonic() + 1.0
                log.error("%d unreadable messages in a row on %s: taking one a second", lane.bad_in_a_row, lane.queue)
        else:
            log.warning("queue %s: no task named %r is declared here; its message waits", lane.queue, run.message.task)
        self.report(run, outcome)

    # --- admission ----------------------------------------------------------------------------------

    def _admit(self, runs: Sequence[Run]) -> None:
        """Pass runs of one task through its gates; submit those that all let start."""
        lane = self.lanes[runs[0].delivery.queue]
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
        ready = lane.start(passed)
        if ready:
            lane.pool.submit(ready)

    def _sort(self, runs: Sequence[Run], admissions: Sequence[Admission], number: int) -> list[Run]:
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
                self.report(run, outcome)
        return passed

    def _hold(self, run: Run, until: float) -> None:
        lane = self.lanes[run.delivery.queue]
        wait = until - self.clock.monotonic()
        if wait > LONGEST_HOLD or lane.held >= MOST_HELD:
            if run.claim():
                self.report(run, Requeue(max(wait, 0.0)))
            return
        lane.held += 1
        run.queued = until
        heapq.heappush(self._waiting, (until, run.token, run))

    def _start_due(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            run = heapq.heappop(self._waiting)[2]
            self.lanes[run.delivery.queue].held -= 1
            run.queued = now
            if not run.settled:
                self._admit([run])

    def _refuse_all(self, runs: Sequence[Run], number: int, lane: Lane, error: Exception) -> None:
        self._backoff = min(max(FIRST_BACKOFF, self._backoff * 2), LONGEST_BACKOFF)
        lane.not_before = self.clock.monotonic() + self._backoff
        for gate in runs[0].task.gates[:number]:
            gate.undo(runs)
        log.warning("%d messages of %s go back: %s", len(runs), lane.queue, error)
        for run in runs:
            if run.claim():
                self.report(run, RELEASED)

    # --- messages that already killed two workers -----------------------------------------------------

    def _start_solitary(self) -> None:
        """Run a suspect with nothing else held, so that no innocent one is counted if it kills again."""
        while len(self._alone) > 1:
            run = self._alone.pop()
            if run.claim():
                self.report(run, RELEASED)
        if self._solitary is None and len(self.held) == 1:
            self._solitary = self._alone.popleft()
            log.warning("job %s runs alone: two workers died while they held it", self._solitary.message.id)
            self._admit([self._solitary])

    def _leave_alone(self, runs: Sequence[Run]) -> None:
        if self._solitary in runs:
            self._solitary = None
        self._alone = deque(run for run in self._alone if run.token in self.held)
        self.wake()
