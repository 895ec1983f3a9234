"""One queue of a worker: its tasks, and how many more messages it may take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from boost_core.bridge.slots import Slots
from boost_core.native import Lock
from boost_core.plan.compile import TaskPlan
from boost_core.types import Run

PREFETCH_SECONDS: Final = 0.05
"""Messages are taken ahead of free slots for at most so much measured work."""

MOST_AHEAD: Final = 256
"""Nor more than so many: what lives longer makes Python's garbage collector dear (a third of all time at 1,000)."""

CREDIT_BEYOND_SLOTS: Final = 512
"""How many messages beyond what may run are held at most: waiting, or ended and about to be acknowledged."""

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 30.0


def longer(backoff: float) -> float:
    """Return the back-off after one of so many seconds."""
    return min(max(FIRST_BACKOFF, backoff * 2), LONGEST_BACKOFF)


class Lane:
    """Counts what a queue's messages are doing here. Taken per batch by the fetch and settle threads, hence the lock.

    A message is *taken* when fetched, *in the pool* when submitted, *back* when its outcome was reported, and
    *settled* when the broker was told.
    """

    def __init__(self, queue: str, plans: Sequence[TaskPlan], slots: Mapping[str, Slots], max_batch: int) -> None:
        self.queue = queue
        self.plans = tuple(plans)
        self.pool = slots[plans[0].name].pool
        self._slots = slots  # of all tasks of the worker
        self.limit = min(self.pool.size, sum(slots[plan.name].limit for plan in plans))
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

    def adopts(self, plan: TaskPlan) -> bool:
        """Return whether a task can run here: its own lane, or a message left here before its queue changed."""
        slots = self._slots.get(plan.name)
        return slots is not None and slots.pool is self.pool

    def back_off(self, now: float) -> None:
        """Take nothing for a while, longer each time until messages pass the gates again."""
        self.backoff = longer(self.backoff)
        self.not_before = now + self.backoff

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
        """Return those of ``runs``, all of one task, that go to the pool now; the others wait for a slot."""
        return self._slots[runs[0].task.name].start(runs)

    def back(self, runs: Sequence[Run], seconds: float, count: int) -> Sequence[Run]:
        """Count reported runs (``count`` took ``seconds`` in all); return what goes to the pool in their place."""
        with self._lock:
            if count:
                self._measure(seconds / count)
            self._back += len(runs)
        by_task: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            by_task[run.task.name].append(run)
        ready: list[Run] = []
        for name, its in by_task.items():
            if name in self._slots:  # a stray's may be anything
                ready += self._slots[name].back(its)
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
