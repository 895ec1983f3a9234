"""The pool ``threads``: long-lived worker threads fed by one C queue."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from boost_core.contracts.pool import CancelAnswer, Pool, Report
from boost_core.contracts.specs import World
from boost_core.native import Empty, Lock, SimpleQueue, Thread
from boost_core.types import Run, RunnerCall

LARGEST_CHUNK: Final = 16
REPORT_SECONDS: Final = 0.001


class _Worker:
    """One thread's slot: how many runs it is ``done`` with, the ``run`` it is in, ``given_up`` once abandoned."""

    __slots__ = ("done", "given_up", "run", "thread")

    def __init__(self) -> None:
        self.done = 0
        self.given_up = False
        self.run: Run | None = None
        self.thread: Thread | None = None


class ThreadPool(Pool):
    """Runs plain functions on up to ``size`` threads, started as they are needed and kept.

    Large batches (they come only of jobs measured to be small) are handed over in chunks: each hop between
    threads costs more than such a job. What a chunk's long job holds up is taken back like any unstarted run.
    A thread can't be killed: one whose run is abandoned is left alone, replaced, and ends when its call
    returns. Threads are daemons, so that such a call doesn't keep a finished process alive.
    """

    world: ClassVar[World] = World.THREADED

    def __init__(self, options: Any, size: int) -> None:
        super().__init__(options, size)
        self._box: SimpleQueue[Sequence[Run] | None] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._lock = Lock()
        self._submitted = 0
        self._left_behind = 0  # runs done by, or given up with, threads that are no longer ours

    def open(self, run: RunnerCall, report: Report) -> None:
        self._run, self._report = run, report

    def submit(self, runs: Sequence[Run]) -> None:
        chunk = min(LARGEST_CHUNK, len(runs) // (2 * self.size) or 1)
        with self._lock:
            self._submitted += len(runs)
        for start in range(0, len(runs), chunk):
            self._box.put(runs[start : start + chunk])
        if len(self._workers) < self.size:
            self._grow()

    def free(self) -> int:
        done = self._left_behind
        for worker in self._workers:
            done += worker.done
        return self.size - self._submitted + done

    def cancel(self, run: Run) -> CancelAnswer:
        return CancelAnswer.BEFORE_START if run.claim() else CancelAnswer.REQUESTED

    def abandon(self, run: Run) -> None:
        with self._lock:
            for worker in self._workers:
                if worker.run is run:
                    worker.given_up = True
                    self._workers.remove(worker)
                    self._left_behind += worker.done + 1
                    break
        self._grow()

    def close(self, timeout: float) -> Sequence[Run]:
        deadline = time.monotonic() + timeout
        unstarted = self._withdraw()
        with self._lock:
            workers = list(self._workers)
        for _ in workers:
            self._box.put(None)
        for worker in workers:
            if worker.thread is not None:
                with contextlib.suppress(RuntimeError):  # a job that closes its own pool can't wait for itself
                    worker.thread.join(max(0.0, deadline - time.monotonic()))
        return unstarted + [worker.run for worker in workers if worker.run is not None]

    def _withdraw(self) -> list[Run]:
        """Take back what waits in the box and nobody has started."""
        runs: list[Run] = []
        while True:
            try:
                chunk = self._box.get_nowait()
            except Empty:
                return runs
            runs.extend(run for run in chunk or () if run.claim())

    def _grow(self) -> None:
        """Start threads for what waits, up to the size. Only ever called when below it."""
        with self._lock:
            idle = sum(1 for worker in self._workers if worker.run is None)
            wanted = min(self._box.qsize() - idle, self.size - len(self._workers))
            for _ in range(wanted):
                worker = _Worker()
                self._workers.append(worker)
                name = f"boost-{type(self).__name__}-{len(self._workers)}"
                worker.thread = Thread(self._work, (worker,), name=name)
                worker.thread.start()

    def _work(self, worker: _Worker) -> None:
        get = self._box.get
        while not worker.given_up:
            chunk = get()
            if chunk is None:
                return
            self._work_off(worker, chunk)

    def _work_off(self, worker: _Worker, chunk: Sequence[Run]) -> None:
        """Run a chunk; report what has ended together, as long as that takes no time to speak of."""
        call, ended, begun = self._run, [], 0.0
        for run in chunk:
            if run.claim():
                worker.run = run
                ended.append((run, call(run)))
                begun = begun or run.started
                if run.finished - begun > REPORT_SECONDS:
                    self._report(ended)
                    ended, begun = [], 0.0
            worker.done += 1
        worker.run = None
        if ended:
            self._report(ended)
