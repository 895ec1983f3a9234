"""Threads beside an event loop, for plain functions that run there by ``sync="thread"``."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final

from boost_core.forks import on_fork

_IDLE_SECONDS: Final = 10.0


class SideThreads:
    """As many threads as calls run at once: the pool decides how many start, and each starts at once.

    A call can't be killed. One whose run was given up, by a time-out say, keeps its thread until it returns; the next
    call gets another one, instead of waiting for it with its clock running. Threads are daemons, so that such a call
    doesn't keep a finished process alive, and end after a while without work.
    """

    def __init__(self) -> None:
        self.after_fork()
        on_fork(self)

    def after_fork(self) -> None:
        """Have no threads, as a forked child does."""
        self._box: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what ``function(*args)`` does, run in a thread and in this task's context. It must not raise."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        context = copy_context()

        def work() -> None:
            value = context.run(function, *args)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_end, ended, value)

        self._run(work)
        return await ended

    def _run(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._box.put(work)
            if self._idle:
                self._idle -= 1
                return
        threading.Thread(target=self._serve, name="boost-side", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                work = self._box.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._idle:  # else one was promised to a call that is about to come
                        self._idle -= 1
                        return
                continue
            work()
            with self._lock:
                self._idle += 1


def _end(ended: asyncio.Future[Any], value: Any) -> None:
    if not ended.done():
        ended.set_result(value)


side_threads: Final = SideThreads()
"""The side threads of this process."""
