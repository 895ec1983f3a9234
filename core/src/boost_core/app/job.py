"""A pushed job: its id, and its result when there is one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from boost_core.controls.result import ResultRecord, decode_record, result_key
from boost_core.errors import JobFailed, ResultsOff, ResultTimeout

if TYPE_CHECKING:
    import asyncio

    from boost_core.app.task import Task
    from boost_core.app.waiter import ResultWaiter, ResultWaiters

R = TypeVar("R")

_LOOK_AGAIN: Final = 1.0


class Job(msgspec.Struct, Generic[R], eq=False, gc=False):
    """A job that the broker has stored. ``get`` and ``await`` give its result where the task stores results."""

    # Not tracked by the garbage collector: the jobs of a large push_many would slow down each of its rounds.

    id: str
    task: Task[..., R]
    results: bool

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.task.name!r}>"

    def get(self, timeout: float | None = None) -> R:
        """Return what the function returned, waiting up to ``timeout`` seconds (None: as long as it takes).

        Raises ``ResultsOff`` at once where no result is stored, ``ResultTimeout``, and ``JobFailed`` where
        the job ended without a value.
        """
        arrived = threading.Event()
        box: list[bytes] = []

        def take(value: bytes) -> None:
            box.append(value)
            arrived.set()

        key, waiter = self._key(), self._waiter
        waiter.add(key, take)
        if not _wait(arrived, timeout):
            waiter.remove(key, take)
            raise ResultTimeout(self.id, timeout or 0.0)
        return self._value(box[0])

    def __await__(self) -> Generator[Any, None, R]:
        return self._wait().__await__()

    async def _wait(self) -> R:
        import asyncio

        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[bytes] = loop.create_future()

        def take(value: bytes) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_arrive, arrived, value)

        def add() -> None:
            waiter.add(key, take)
            if given_up:  # meanwhile, and taken out before it was in
                waiter.remove(key, take)

        key, waiter, given_up = self._key(), self._waiter, False
        try:
            await asyncio.to_thread(add)  # opening the store may take a while
            return self._value(await arrived)
        finally:
            given_up = True
            waiter.remove(key, take)

    def ready(self) -> bool:
        """Return whether the result is there. Raises ``ResultsOff`` where none is stored."""
        return bool(self.task.app.services.store(self.task.plan).get([self._key()]))

    @property
    def _waiter(self) -> ResultWaiter:
        waiters: ResultWaiters = self.task.app.waiters
        return waiters.of(self.task.plan)

    def _key(self) -> str:
        if not self.results:
            raise ResultsOff(self.task.name)
        return result_key(self.task.app.settings.get("namespace"), self.id)

    def _value(self, data: bytes) -> R:
        record: ResultRecord = decode_record(data)
        if record.state == "done":
            value: R = self.task.plan.binder.decode_value(record.value or b"null")
            return value
        raise JobFailed(
            self.id,
            self.task.name,
            record.state,
            record.reason or record.state,
            record.error_type,
            record.error_message,
            record.traceback,
        )


def _wait(arrived: threading.Event, timeout: float | None) -> bool:
    """Wait as the caller's world does, where a greenlet's event is set by a native thread.

    gevent takes that for a reason to wait only while a time-out runs, and eventlet misses it: so look now and then.
    """
    end = float("inf") if timeout is None else time.monotonic() + timeout
    while not arrived.wait(max(0.0, min(_LOOK_AGAIN, end - time.monotonic()))):
        if time.monotonic() >= end:
            return False
    return True


def _arrive(arrived: asyncio.Future[bytes], value: bytes) -> None:
    if not arrived.done():
        arrived.set_result(value)


def wait_until(condition: Callable[[], bool], timeout: float | None, every: float = 0.05) -> bool:
    """Return True once ``condition()`` holds, False after ``timeout`` seconds; asks each ``every`` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not condition():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        threading.Event().wait(every)
    return True
