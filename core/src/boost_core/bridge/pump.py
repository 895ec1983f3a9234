"""Serves one broker for one worker: what its fetch, settle and keeper threads share."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from boost_core.bridge.envelope import CodecOf
from boost_core.bridge.fetcher import Fetcher
from boost_core.bridge.keeper import Keeper
from boost_core.bridge.lane import Lane
from boost_core.bridge.link import Link
from boost_core.bridge.quarantine import Quarantine
from boost_core.bridge.settler import STOPPING, Settler
from boost_core.bridge.verdict import RELEASED
from boost_core.contracts.broker import SyncBroker, SyncSubscription
from boost_core.contracts.capability import Capability
from boost_core.contracts.codec import Codec
from boost_core.contracts.pool import CancelAnswer
from boost_core.errors import ConnectionLost
from boost_core.native import Event, Lock, Thread
from boost_core.plan.compile import TaskPlan
from boost_core.types import Cancelled, Clock, Delivery, Frame, QueueSpec, Run, TimedOut

log = logging.getLogger("boost.worker")

LOST_SECONDS: Final = 1.0
"""How long the threads of a lost connection are waited for at the end: one may be dialling."""


class Pump:
    """Moves batches between a broker and the pools of its lanes.

    The ``Fetcher`` brings messages in, the pools' outcomes come back through ``report`` into the ``Settler``, the
    ``Keeper`` renews what is held; each is a thread. Nothing here is done per message that can be done per batch.
    """

    def __init__(
        self,
        broker: SyncBroker,
        lanes: Sequence[Lane],
        plans: Mapping[str, TaskPlan],
        queues: Sequence[QueueSpec],
        codec_of: CodecOf,
        clock: Clock,
        quarantine: Quarantine,
    ) -> None:
        self.broker, self.spec, self.clock = broker, broker.spec, clock
        self.lease: float | None = getattr(broker.options, "lease", None) or self.spec.limits.lease
        self.lanes = {lane.queue: lane for lane in lanes}
        self.io = Lock()  # a delivery is never settled while it is being extended
        self.held: dict[int, Run] = {}
        self.idle = Event()
        self.idle.set()
        self.plans = plans
        self.quarantine = quarantine
        self.draining = False
        self.link = Link(self.spec.name)
        self.fetcher = Fetcher(self, codec_of)
        self.settler = Settler(self)
        self.keeper = Keeper(self)
        self.report = self.settler.report
        self.subscription: SyncSubscription
        self._queues = queues
        self._codec_of = codec_of
        self._leased = Capability.LEASES in self.spec.capabilities
        self._threads: list[Thread] = []

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Declare the queues and subscribe; no thread is started yet."""
        self.broker.declare(self._queues)
        credit = {lane.queue: lane.credit for lane in self.lanes.values()}
        work = [queue for queue in self._queues if queue.name in self.lanes]
        self.subscription = self.broker.subscribe(work, credit, self.lose)

    def start(self) -> None:
        """Start the three threads."""
        for name, serve in (("fetch", self.fetcher.serve), ("settle", self.settler.serve), ("keep", self.keeper.serve)):
            thread = Thread(target=serve, name=f"boost-{name}-{self.spec.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def drain(self) -> None:
        """Fetch no more. Running jobs go on. Returns at once; any thread."""
        self.draining = True
        self.wake()

    def quiesce(self, timeout: float) -> bool:
        """After ``drain``: give back what hasn't started, wait for the rest; return whether all is settled."""
        deadline = time.monotonic() + timeout
        if self._threads:
            self.fetcher.dry.wait(max(1.0, timeout))
        self.release(self.held_runs())
        while self.held and time.monotonic() < deadline:
            self.idle.clear()
            if self.held:
                self.idle.wait(min(0.05, max(0.0, deadline - time.monotonic())))
        return not self.held

    def release(self, runs: Sequence[Run]) -> None:
        """Give those of ``runs`` back to the broker that haven't started, uncounted. Any thread."""
        for run in runs:
            if run.claim():
                self.report(run, RELEASED)

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
        """Settle what was reported, then close the subscription. Call after ``drain``.

        The threads get ``timeout`` seconds together; where there is no connection one, for nothing can be settled.
        """
        self.draining = True
        self.fetcher.stop()
        self.settler.stop()
        self.keeper.stop()
        deadline = time.monotonic() + (min(timeout, LOST_SECONDS) if self.link.down else timeout)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.subscription.close()

    # --- what the settle and keeper threads ask -----------------------------------------------------

    def held_runs(self) -> list[Run]:
        """Return all unsettled runs; thread-safe."""
        return list(self.held.values())

    def give_back(self, runs: Sequence[Run]) -> None:
        """Count reported runs, submit what waited for their slots, and let the fetch thread go on."""
        self.quarantine.end(runs)
        by_lane: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            by_lane[run.delivery.queue].append(run)
        for queue, its in by_lane.items():
            lane = self.lanes[queue]
            timed = [run.finished - run.started for run in its if run.finished]
            ready = lane.back(its, sum(timed), len(timed))
            if ready:
                lane.pool.submit(ready)
            wanted = self.fetcher.wanted
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
        self.quarantine.forget(runs)
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
        runs = [run for run in self.held_runs() if id(run.delivery) in gone and not run.fenced]
        if not runs:
            return
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
        self.fetcher.wake()

    def disconnected(self, error: ConnectionLost) -> None:
        """Let the fetch thread dial again; settling and keeping wait for it. Any thread."""
        self.link.lost(error)
        self.wake()

    def reconnected(self) -> None:
        """Go on with what waited. FETCH thread."""
        self.link.restored()
        self.keeper.hurry()
        self.settler.resume()
