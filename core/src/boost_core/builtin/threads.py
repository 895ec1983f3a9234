"""The pool ``threads``: long-lived worker threads fed by one C queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from boost_core.contracts.pool import CancelAnswer, Pool, Report
from boost_core.contracts.specs import World
from boost_core.types import Run, RunnerCall


class _Worker:
    """One thread's slot: ``busy`` while it runs a call, ``run`` which one, ``given_up`` once abandoned."""

    __slots__ = ("busy", "given_up", "run", "thread")

    def __init__(self) -> None:
        self.busy = 0
        self.given_up = False
        self.run: Run | None = None
        self.thread: threading.Thread | None = None


class ThreadPool(Pool):
    """Runs plain functions on up to ``size`` threads, started as they are needed and kept.

    A ``SimpleQueue`` hop a run costs 0.3 µs; a future a run would cost 15. A thread can't be
    killed: one whose run is abandoned is left alone, replaced, and ends when its call returns.
    Threads are daemons, so that such a call doesn't keep a finished process alive.
    """

    world: ClassVar[World] = World.THREADED

    def __init__(self, options: Any, size: int) -> None:
        super().__init__(options, size)
        self._box: SimpleQueue[Run | None] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False
        self._abandoned = 0

    def open(self, run: RunnerCall, report: Report) -> None:
        self._run, self._report = run, report

    def submit(self, runs: Sequence[Run]) -> None:
        put = self._box.put
        for run in runs:
            put(run)
        if len(self._workers) < self.size:
            self._grow()

    def free(self) -> int:
        busy = 0
        for worker in self._workers:
            busy += worker.busy
        return self.size - busy - self._box.qsize()

    def cancel(self, run: Run) -> CancelAnswer:
        return CancelAnswer.BEFORE_START if run.claim() else CancelAnswer.REQUESTED

    def abandon(self, run: Run) -> None:
        with self._lock:
            for worker in self._workers:
                if worker.run is run:
                    worker.given_up = True
                    self._workers.remove(worker)
                    self._abandoned += 1
                    break
        self._grow()

    @property
    def abandoned(self) -> int:
        """How many threads were given up on so far."""
        return self._abandoned

    def close(self, timeout: float) -> Sequence[Run]:
        deadline = time.monotonic() + timeout
        self._closed = True
        unstarted = self._withdraw()
        with self._lock:
            workers = list(self._workers)
        for _ in workers:
            self._box.put(None)
        for worker in workers:
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, deadline - time.monotonic()))
        return unstarted + [worker.run for worker in workers if worker.run is not None]

    def _withdraw(self) -> list[Run]:
        """Take back what waits in the box and nobody has started."""
        runs: list[Run] = []
        while True:
            try:
                run = self._box.get_nowait()
            except Empty:
                return runs
            if run is not None and run.claim():
                runs.append(run)

    def _grow(self) -> None:
        """Start threads for what waits, up to the size. Only ever called when below it."""
        with self._lock:
            idle = sum(1 for worker in self._workers if not worker.busy)
            wanted = min(self._box.qsize() - idle, self.size - len(self._workers))
            for _ in range(wanted):
                worker = _Worker()
                self._workers.append(worker)
                name = f"boost-{type(self).__name__}-{len(self._workers)}"
                worker.thread = threading.Thread(target=self._work, args=(worker,), name=name, daemon=True)
                worker.thread.start()

    def _work(self, worker: _Worker) -> None:
        get, call, report = self._box.get, self._run, self._report
        while not worker.given_up:
            run = get()
            if run is None:
                return
            worker.busy = 1
            if run.claim():
                worker.run = run
                report(run, call(run))
                worker.run = None
            worker.busy = 0
