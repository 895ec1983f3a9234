"""A pushed job: its id, and its result when there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from boost_core.app.services import Services
from boost_core.controls.result import ResultRecord, decode_record, result_key
from boost_core.errors import BoostError, JobFailed, ResultsOff, ResultTimeout
from boost_core.forks import on_fork

if TYPE_CHECKING:
    import asyncio

    from boost_core.app.task import Task

R = TypeVar("R")

_WAIT: Final = 5.0
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.2, 10.0

Callback = Callable[[bytes], None]


class ResultWaiter:
    """One thread a process that waits for all awaited results together, on the store's own notice."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.after_fork()
        on_fork(self)

    def after_fork(self) -> None:
        """Await nothing, without a thread, as a forked child does."""
        self._awaited: dict[str, list[Callback]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, key: str, callback: Callback) -> None:
        """Have ``callback(value)`` called, from the waiter's thread, once the key exists."""
        store = self._services.store()
        with self._lock:
            self._awaited.setdefault(key, []).append(callback)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="boost-results", daemon=True)
                self._thread.start()
        store.wake()

    def remove(self, key: str, callback: Callback) -> None:
        """Wait no longer."""
        with self._lock:
            callbacks = self._awaited.get(key, [])
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks:
                self._awaited.pop(key, None)

    def _serve(self) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            with self._lock:
                keys = list(self._awaited)
                if not keys:
                    self._thread = None
                    return
            try:
                found = self._services.store().wait(keys, _WAIT)
                backoff = _FIRST_BACKOFF
            except BoostError:  # the store is away: whoever waits has a time-out of their own
                threading.Event().wait(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
                continue
            for key, value in found.items():
                with self._lock:
                    callbacks = self._awaited.pop(key, [])
                for callback in callbacks:
                    callback(value)


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

        key, waiter = self._key(), self.task.app.waiter
        waiter.add(key, take)
        if not arrived.wait(timeout):
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
            loop.call_soon_threadsafe(_arrive, arrived, value)

        key, waiter = self._key(), self.task.app.waiter
        await asyncio.to_thread(waiter.add, key, take)  # opening the store may take a while
        try:
            return self._value(await arrived)
        finally:
            waiter.remove(key, take)

    def ready(self) -> bool:
        """Return whether the result is there. Raises ``ResultsOff`` where none is stored."""
        return bool(self.task.app.services.store().get([self._key()]))

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
