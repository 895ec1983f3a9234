"""The pool ``asyncio``: each job a Task, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

from boost_core.contracts.pool import CancelAnswer, Pool, Report
from boost_core.contracts.specs import World
from boost_core.types import Failed, Outcome, Run, RunnerCall

log = logging.getLogger("boost.pool")


class AsyncioPool(Pool):
    """Runs coroutine functions, ``size`` at once. Batches come in by one ``call_soon_threadsafe`` each.

    Each job is a Task (2.2 µs): real cancellation, a real ``current_task()``, a context of its own.
    A loop that is blocked by its own code can't hurt leases: they are kept by other threads.
    """

    world: ClassVar[World] = World.LOOP

    def __init__(self, options: Any, size: int) -> None:
        super().__init__(options, size)
        self._mailbox: deque[Run] = deque()
        self._tasks: dict[Run, asyncio.Task[None]] = {}
        self._begun: list[Run] = []  # in this turn of the loop
        self._outcomes: list[tuple[Run, Outcome]] = []
        self._running = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._closed = False
        self._over = False

    def open(self, run: RunnerCall, report: Report) -> None:
        self._run, self._report = run, report
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="boost-asyncio", daemon=True)
        self._thread.start()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        while not self._over:
            log.error("a job stopped the event loop of the pool that it shares with others; it is started again")
            loop.run_forever()

    def submit(self, runs: Sequence[Run]) -> None:
        self._mailbox.extend(runs)
        self._call_soon(self._take_in)

    def free(self) -> int:
        return self.size - self._running - len(self._mailbox)

    def _call_soon(self, callback: Any, *args: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    # --- in the loop -----------------------------------------------------------------------------

    def _take_in(self) -> None:
        self._start()
        self._watch()

    def _start(self) -> None:
        """Start what waits, as far as there are slots. ``_watch`` follows, once a turn of the loop."""
        mailbox, loop, tasks = self._mailbox, self._loop, self._tasks
        assert loop is not None
        while mailbox and self._running < self.size and not self._closed:
            run = mailbox.popleft()
            if run.claim():
                self._running += 1
                tasks[run] = asyncio.Task(self._job(run), loop=loop)  # create_task takes half as long again
                self._begun.append(run)

    def _watch(self) -> None:
        """Have those that were started looked at, behind the first step of each."""
        if self._begun:
            begun, self._begun = self._begun, []
            asyncio.get_running_loop().call_soon(self._look_after, begun)

    def _look_after(self, begun: Sequence[Run]) -> None:
        """Report those that were cancelled, by whomever, before their first step: they never entered the runner."""
        tasks = self._tasks
        lost = [run for run in begun if run in tasks and tasks[run].done()]
        for run in lost:
            self._leave(run)
        if lost:
            self._watch()
            self._report([(run, _cancelled(run, asyncio.CancelledError())) for run in lost])

    async def _job(self, run: Run) -> None:
        try:
            outcome = await self._run(run)
        except asyncio.CancelledError as error:  # of a control: the function's own are dealt with there
            outcome = _cancelled(run, error)
        self._leave(run)
        if not self._outcomes:  # what ends in the same turn of the loop is reported together
            asyncio.get_running_loop().call_soon(self._report_all)
        self._outcomes.append((run, outcome))

    def _report_all(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        self._watch()
        self._report(outcomes)

    def _leave(self, run: Run) -> None:
        if self._tasks.pop(run, None) is not None:
            self._running -= 1
        if self._mailbox:
            self._start()

    def _cancel_task(self, run: Run) -> None:
        task = self._tasks.get(run)
        if task is not None:
            task.cancel()

    def _give_up(self, run: Run) -> None:
        self._cancel_task(run)
        self._leave(run)
        self._watch()

    # --- from other threads ------------------------------------------------------------------------

    def cancel(self, run: Run) -> CancelAnswer:
        if run.claim():
            return CancelAnswer.BEFORE_START
        self._call_soon(self._cancel_task, run)
        return CancelAnswer.REQUESTED

    def abandon(self, run: Run) -> None:
        self._call_soon(self._give_up, run)

    def close(self, timeout: float) -> Sequence[Run]:
        if self._loop is None or self._thread is None:
            return ()
        self._closed = True
        unstarted = [run for run in list(self._mailbox) if run.claim()]
        unfinished: list[Run] = []
        ending = asyncio.run_coroutine_threadsafe(self._finish(timeout, unfinished), self._loop)
        try:
            ending.result(timeout + 5.0)
        except TimeoutError:
            unfinished = list(self._tasks)  # a loop blocked by a job's own code
        self._over = True
        self._call_soon(self._loop.stop)
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._loop.close()
        return [*unstarted, *unfinished]

    async def _finish(self, seconds: float, unfinished: list[Run]) -> None:
        loop = asyncio.get_running_loop()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=seconds)
        unfinished.extend(self._tasks)
        late = list(self._tasks.values())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor(*([1.0] if _executor_takes_seconds() else []))


def _cancelled(run: Run, error: asyncio.CancelledError) -> Outcome:
    """Return what was asked for; somebody else's cancellation is a failure like any other."""
    return run.cancel_reason or Failed(error)


def _executor_takes_seconds() -> bool:
    import sys

    return sys.version_info >= (3, 12)
