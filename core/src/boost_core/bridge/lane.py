"""One queue of a worker: its tasks, its slots, and how many more messages it may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from boost_core.contracts.pool import Pool
from boost_core.native import Lock
from boost_core.plan.compile import TaskPlan
from boost_core.types import Run

PREFETCH_SECONDS: Final = 0.05
"""Messages are taken ahead of free slots for at most so much measured work."""

MOST_AHEAD: Final = 256
"""Nor more than so many: what lives longer makes Python's garbage collector dear (a third of all time at 1,000)."""

CREDIT_BEYOND_SLOTS: Final = 512
"""How many messages beyond what may run are held at most: waiting, or ended and about to be acknowledged."""


class _Slots:
    """One task's share of a lane: what may run at once, what runs, and what waits for a slot."""

    __slots__ = ("backlog", "in_pool", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_pool = 0
        self.backlog: deque[Run] = deque()


class Lane:
    """Counts what a queue's messages are doing here. Taken per batch by the fetch and settle threads, hence the lock.

    A message is *taken* when fetched, *in the pool* when submitted, *back* when its outcome was reported, and
    *settled* when the broker was told.
    """

    def __init__(self, queue: str, plans: Sequence[TaskPlan], pool: Pool, max_batch: int) -> None:
        self.queue = queue
        self.pool = pool
        self.plans = tuple(plans)
        self._slots = {plan.name: _Slots(min(plan.concurrency, pool.size)) for plan in plans}
        self.limit = min(pool.size, sum(slots.limit for slots in self._slots.values()))
        self.credit = self.limit + CREDIT_BEYOND_SLOTS
        self.rated = any(gate.paces for plan in plans for gate in plan.gates)
        self.not_before = 0.0
        self.backoff = 0.0
        self.gone = False
        self.bad_in_a_row = 0
        self.held = 0
        self._max_prefetch = min(max_batch, MOST_AHEAD)
        self._average: float | None = None
        self._taken = 0
        self._back = 0
        self._settled = 0
        self._lock = Lock()
        # One task that may fill the whole pool needs no counting: the pool's own mailbox is its backlog.
        self._direct = len(plans) == 1 and self.limit >= pool.size

    def adopts(self, plan: TaskPlan) -> bool:
        """Return whether a task can run here: its own lane, or a message left here before its queue changed."""
        if plan.name in self._slots:
            return True
        with self._lock:
            if plan.name not in self._slots and plan.pool.name == self.plans[0].pool.name:
                self._slots[plan.name] = _Slots(min(plan.concurrency, self.pool.size))
            return plan.name in self._slots

    def room(self) -> int:
        """Return how many messages may be fetched now; 0 while enough are here, so that fetches come in batches."""
        with self._lock:
            in_flight = self._taken - self._back
            ahead = self._prefetch()
            free = min(self.limit - in_flight, self.pool.free())
            if free <= 0 and free + ahead < (self.limit + ahead) // 2:
                return 0
            return max(0, min(free + ahead, self.credit - (self._taken - self._settled)))

    def _prefetch(self) -> int:
        if self._average is None or self.rated or self._average > PREFETCH_SECONDS:
            return 0
        return min(self._max_prefetch, int(PREFETCH_SECONDS * self.limit / max(self._average, 1e-6)))

    def take(self, count: int) -> None:
        """Count messages that were fetched."""
        with self._lock:
            self._taken += count

    def start(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Return those of ``runs`` that go to the pool now; the others wait here for a slot of their task."""
        if self._direct:
            return runs
        with self._lock:
            for run in runs:
                self._slots[run.task.name].backlog.append(run)
            return self._ready()

    def back(self, runs: Iterable[Run], seconds: float, count: int) -> Sequence[Run]:
        """Count reported runs (``count`` took ``seconds`` in all); return what goes to the pool in their place."""
        with self._lock:
            if count:
                self._measure(seconds / count)
            for run in runs:
                self._back += 1
                slots = None if self._direct else self._slots.get(run.task.name)
                if slots is not None and run.handed_over:
                    slots.in_pool -= 1
            return () if self._direct else self._ready()

    def _ready(self) -> list[Run]:
        ready: list[Run] = []
        for slots in self._slots.values():
            while slots.backlog and slots.in_pool < slots.limit:
                run = slots.backlog.popleft()
                if run.claimed:  # taken back while it waited here
                    continue
                run.handed_over = True
                slots.in_pool += 1
                ready.append(run)
        return ready

    def _measure(self, seconds: float) -> None:
        """Follow slower runs at once and faster ones gradually, so that long jobs stop the prefetch."""
        average = self._average
        self._average = seconds if average is None or seconds > average else average * 0.8 + seconds * 0.2

    def settle(self, count: int) -> None:
        """Count deliveries that the broker was told of, or that are no longer ours."""
        with self._lock:
            self._settled += count

    @property
    def unsettled(self) -> int:
        """How many messages are here in any state."""
        return self._taken - self._settled
