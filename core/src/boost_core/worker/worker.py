"""One worker: resolves its tasks, opens brokers, pools and pumps, and stops without losing anything."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from boost_core.app.publish import queue_facts
from boost_core.app.services import queue_specs
from boost_core.bridge.lane import Lane
from boost_core.bridge.pump import Pump
from boost_core.bridge.quarantine import Quarantine
from boost_core.bridge.slots import Slots
from boost_core.contracts.capability import Capability
from boost_core.contracts.pool import Pool
from boost_core.errors import BadOption
from boost_core.native import Thread
from boost_core.options import convert_option
from boost_core.plan.compile import TaskPlan, add_runner, dispatch
from boost_core.plan.task_options import CoreOptions
from boost_core.settings import AppOptions
from boost_core.types import Outcome, Run

if TYPE_CHECKING:
    from boost_core.app.app import App
    from boost_core.app.task import Task

log = logging.getLogger("boost.worker")

CANCEL_SECONDS: Final = 5.0
"""How long runs that were asked to end by somebody in a hurry are waited for."""

LAST_SECONDS: Final = 1.0
"""The same at the end of a drain that took its whole time: whoever asked for it has set a limit beyond it."""

POOL_SECONDS: Final = 0.5
"""How long threads are waited for that have nothing to do any more."""


class Worker:
    """Works on tasks of one app in this process.

    ``queues`` limits it to some queues; ``pool`` and ``concurrency`` override the tasks'; ``drain_timeout``
    (seconds) is how long ``stop`` waits for running jobs. ``with worker:`` or ``async with worker:`` starts and
    stops it.
    """

    def __init__(
        self,
        app: App,
        tasks: Sequence[Task[..., Any]],
        *,
        queues: Sequence[str] = (),
        pool: str | None = None,
        concurrency: int | None = None,
        drain_timeout: Any = None,
    ) -> None:
        self.app = app
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.tasks: dict[str, Task[..., Any]] = {}
        given = _checked(AppOptions, "drain_timeout", drain_timeout)
        self.drain_timeout: float = app.settings.get("drain_timeout") if given is None else given
        self._queues = tuple(queues)
        self._overrides = {} if pool is None else {"pool": pool}
        self._cap: int | None = _checked(CoreOptions, "concurrency", concurrency)
        self._pools: dict[str, Pool] = {}
        self._slots: dict[str, Slots] = {}  # by task
        self._pumps: dict[Any, Pump] = {}
        self._retiring: dict[Pump, Thread] = {}
        self._past: Counter[str] = Counter()  # what retired pumps have counted
        self._quarantine = Quarantine(lambda: self._all_pumps)
        self._plans: dict[str, TaskPlan] = {}
        self._lock = threading.RLock()
        self._started = False
        self._select(tasks)

    def _select(self, tasks: Sequence[Task[..., Any]]) -> None:
        known = {task.queue for task in tasks}
        for queue in self._queues:
            if queue not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise BadOption(f"no task of this target uses the queue {queue!r}.", f"Its queues: {listed}")
        for task in tasks:
            if not self._queues or task.queue in self._queues:
                self.tasks[task.name] = task

    # --- starting ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Resolve, connect, subscribe and begin to fetch. Raises whatever is wrong, with nothing left open."""
        with self._lock:
            self.app.registry.worker_starting(self)
            try:
                self._plans = {name: self._plan(task) for name, task in self.tasks.items()}
                self._check_queues()
                self._open(self._plans.values())
            except BaseException:
                self._close_all(0.0)
                raise
            self._started = True
        try:
            self.app.registry.worker_ready(self)
        except BaseException:
            self.stop()
            raise
        log.info("%s", self.describe())

    def add(self, task: Task[..., Any]) -> None:
        """Work on one more task. Its broker's pump is replaced; what the old one holds ends there."""
        with self._lock:
            if self._started:
                self._add_plan(task)
            self.tasks[task.name] = task

    def _add_plan(self, task: Task[..., Any]) -> None:
        plan = self._plan(task)
        self._plans[task.name] = plan
        try:
            self._check_queues()
            self._open([p for p in self._plans.values() if _broker_key(p) == _broker_key(plan)])
        except BaseException:
            del self._plans[task.name]  # it would keep all later ones from being added
            raise

    def _plan(self, task: Task[..., Any]) -> TaskPlan:
        plan = self.app.resolve(task, self._overrides)
        add_runner(plan)
        return plan

    def _check_queues(self) -> None:
        """All tasks of a queue use one pool kind; some gates want their queue for themselves."""
        by_queue: dict[Any, list[TaskPlan]] = defaultdict(list)
        for plan in self._plans.values():
            by_queue[(_broker_key(plan), plan.queue)].append(plan)
        for plans in by_queue.values():
            first = plans[0]
            for plan in plans[1:]:
                if plan.pool.name != first.pool.name:
                    raise BadOption(
                        f"tasks {first.name!r} ({first.pool.name}) and {plan.name!r} ({plan.pool.name}) share the "
                        f"queue {plan.queue!r}, but not a pool.",
                        "Give them one pool, or a queue each.",
                    )

    def _open(self, plans: Any) -> None:
        by_broker: dict[Any, list[TaskPlan]] = defaultdict(list)
        for plan in plans:
            by_broker[_broker_key(plan)].append(plan)
        self._grow_pools()
        for key, its in by_broker.items():
            pump = self._pump(its)
            self._open_stores(its)
            pump.open()
            old = self._pumps.get(key)
            self._pumps[key] = pump
            pump.start()
            if old is not None:
                self._retire(old)

    def _open_stores(self, plans: Sequence[TaskPlan]) -> None:
        """Open what jobs couldn't end without: one whose result can't be kept would run again and again."""
        for plan in plans:
            if plan.needs_store(plan.values):
                self.app.services.store(plan)

    def _grow_pools(self) -> None:
        """One pool a kind, as large as its tasks together want, under the worker's cap."""
        sizes: Counter[str] = Counter()
        for plan in self._plans.values():
            sizes[plan.pool.name] += plan.concurrency
        for plan in self._plans.values():
            size = sizes[plan.pool.name] if self._cap is None else min(self._cap, sizes[plan.pool.name])
            if plan.pool.maximum is not None:
                size = min(size, plan.pool.maximum)
            pool = self._pools.get(plan.pool.name)
            if pool is None:
                pool = self._pools[plan.pool.name] = self.app.registry.load(plan.pool)(plan.pool_options, size)
                pool.open(dispatch, _report)
            self._resize(pool, size)
            if plan.name not in self._slots:
                self._slots[plan.name] = Slots(pool, min(plan.concurrency, size))

    def _resize(self, pool: Pool, size: int) -> None:
        """Let a pool grow; first, what its mailbox holds of a task that filled it alone goes back to the broker."""
        shared = {name for name, slots in self._slots.items() if slots.pool is pool and slots.share(size)}
        for pump in self._all_pumps:
            pump.release([run for run in pump.held_runs() if run.handed_over and run.task.name in shared])
        pool.size = size

    def _pump(self, plans: Sequence[TaskPlan]) -> Pump:
        app, first = self.app, plans[0]
        broker = app.services.broker(first.broker, first.broker_options)
        by_queue: dict[str, list[TaskPlan]] = defaultdict(list)
        for plan in plans:
            by_queue[plan.queue].append(plan)
        limits = first.broker.limits
        lanes = [Lane(queue, its, self._slots, limits.max_batch) for queue, its in by_queue.items()]
        queues = [spec for queue, its in by_queue.items() for spec in queue_specs(queue, **_facts(its))]
        return Pump(broker, lanes, self._plans, queues, app.services.codec, app.clock, self._quarantine)

    def _retire(self, pump: Pump) -> None:
        """Let a replaced pump end what it holds, beside the new one."""

        def end() -> None:
            while not pump.quiesce(1.0):
                pass
            pump.close(CANCEL_SECONDS)
            del self._retiring[pump]
            self._past.update(pump.settler.counts)

        pump.drain()
        self._retiring[pump] = Thread(end, name="boost-retire")
        self._retiring[pump].start()

    @property
    def _all_pumps(self) -> list[Pump]:
        return [*self._pumps.values(), *self._retiring]

    # --- what it is doing ----------------------------------------------------------------------------

    def describe(self) -> str:
        """Return one line: version, broker and where it lives, queues, pools."""
        from boost_core import __version__

        brokers = ", ".join(sorted({f"{pump.spec.name} ({pump.broker.where()})" for pump in self._pumps.values()}))
        queues = ", ".join(sorted(queue for pump in self._pumps.values() for queue in pump.lanes))
        pools = ", ".join(f"{name} x {pool.size}" for name, pool in self._pools.items())
        return f"boost {__version__} worker {self.name} | broker {brokers} | queues {queues} | {pools}"

    @property
    def counts(self) -> Counter[str]:
        """How many jobs ended here, by kind: done, retried, requeued, dead, dropped, released, stopped, lost, late."""
        total: Counter[str] = Counter(self._past)
        for pump in self._all_pumps:
            total.update(pump.settler.counts)
        return total

    @property
    def running(self) -> int:
        """How many messages are here in any state."""
        return sum(len(pump.held) for pump in self._all_pumps)

    def is_idle(self) -> bool:
        """Return whether nothing is here, and no queue has anything ready or running anywhere."""
        if self.running:
            return False
        for pump in self._pumps.values():
            if Capability.DEPTH not in pump.spec.capabilities:
                continue
            for queue in pump.lanes:
                depth = pump.broker.depth(queue)
                if depth.ready or depth.running:
                    return False
        return not self.running

    # --- stopping ------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Fetch no more; running jobs go on. Returns at once; call ``stop`` to end."""
        for pump in list(self._pumps.values()):
            pump.drain()

    def stop(self, timeout: float | None = None) -> int:
        """Drain, wait up to ``timeout`` seconds (None: ``drain_timeout``) for running jobs, then end all.

        Jobs still running then are asked to end. Returns how many messages go back, uncounted: theirs, and those of
        jobs that ended and couldn't be settled.
        """
        with self._lock:
            if not self._started:
                return 0
            self._started = False
            try:
                self.app.registry.worker_draining(self)
            finally:
                left = self._end(self.drain_timeout if timeout is None else timeout)
            self.app.registry.worker_stopped(self)
        return left

    def _end(self, timeout: float) -> int:
        """Drain, settle and close everything; return how many messages go back."""
        self.drain()
        handed_back = self._finish(timeout)
        self._close_all(CANCEL_SECONDS)
        unsettled = sum(pump.settler.unsettled for pump in self._all_pumps)
        self._say_goodbye(handed_back, unsettled)
        return handed_back + unsettled

    def _say_goodbye(self, handed_back: int, unsettled: int) -> None:
        counts = [f"{count} {name}" for name, count in sorted(self.counts.items())]
        left = [(handed_back, "handed back"), (unsettled, "ended but not settled, to run again")]
        counts += [f"{count} {name}" for count, name in left if count]
        log.info("boost worker %s stopped: %s", self.name, ", ".join(counts) or "no jobs")

    def hurry(self) -> None:
        """Cut a drain short: ask running jobs to end now. Any thread."""
        self.drain_timeout = 0.0
        for pump in self._all_pumps:
            pump.cancel_running()

    def _finish(self, timeout: float) -> int:
        """Wait for running jobs, then ask them to end, then give their messages back; return how many went back."""
        deadline = time.monotonic() + timeout
        pumps = self._all_pumps
        while pumps and time.monotonic() < deadline:
            pumps = [pump for pump in pumps if not pump.quiesce(min(0.2, max(0.0, deadline - time.monotonic())))]
            if self.drain_timeout == 0.0:
                break
        hurried = self.drain_timeout == 0.0  # whoever is in a hurry has asked them to end, and said that it waits
        deadline = time.monotonic() + (CANCEL_SECONDS if hurried else LAST_SECONDS)
        for pump in pumps:
            pump.quiesce(0.0)
            pump.cancel_running()
        handed_back = 0
        for pump in pumps:
            if not pump.quiesce(max(0.0, deadline - time.monotonic())):
                handed_back += pump.hand_back()
                pump.quiesce(LAST_SECONDS)
        return handed_back + sum(pump.settler.counts["stopped"] for pump in self._all_pumps)

    def _close_all(self, timeout: float) -> None:
        for pump in self._pumps.values():
            pump.close(timeout)
        for thread in list(self._retiring.values()):
            thread.join(timeout)
        for pool in self._pools.values():
            pool.close(POOL_SECONDS)
        self._pools, self._slots = {}, {}

    # --- with --------------------------------------------------------------------------------------

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Worker:
        import asyncio

        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        import asyncio

        await asyncio.to_thread(self.stop)


def _checked(options: type, name: str, value: Any) -> Any:
    """Return what was given for an option as that option takes it; None stays."""
    field = attrs.fields_dict(attrs.resolve_types(options))[name]
    return None if value is None else convert_option("a worker", field, value)


def _report(ended: Sequence[tuple[Run, Outcome]]) -> None:
    """Give outcomes to the pumps that carry their runs; most come from one."""
    hosts = {run.host for run, _ in ended}
    for host in hosts:
        its = ended if len(hosts) == 1 else [pair for pair in ended if pair[0].host is host]
        host.settler.report_all(its)


def _broker_key(plan: TaskPlan) -> Any:
    return (plan.broker, plan.broker_options)


def _facts(plans: Sequence[TaskPlan]) -> Mapping[str, Any]:
    """Lay what a queue's tasks say of it together."""
    facts = [queue_facts(plan) for plan in plans]
    timeouts = [fact["longest_timeout"] for fact in facts]
    origins = {fact["origin"] for fact in facts}
    longest = None if None in timeouts else max(timeouts)
    return {**facts[0], "longest_timeout": longest, "origin": origins.pop() if len(origins) == 1 else None}
