"""Waits for results: one thread a store, for all jobs that are awaited there."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from boost_core.app.services import Services
from boost_core.contracts.store import Store
from boost_core.errors import BoostError
from boost_core.forks import on_fork
from boost_core.native import Lock, Thread, sleep

if TYPE_CHECKING:
    from boost_core.plan.compile import TaskPlan

log = logging.getLogger("boost.results")

_WAIT: Final = 5.0
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.2, 10.0

Callback = Callable[[bytes], None]


class ResultWaiters:
    """The waiters of an app, one a store."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._by_store: dict[Any, ResultWaiter] = {}

    def of(self, task: TaskPlan) -> ResultWaiter:
        """Return the waiter of the store that has a task's results."""
        chosen = self._services.store_choice(task)
        waiter = self._by_store.get(chosen)
        if waiter is None:
            made = ResultWaiter(functools.partial(self._services.store, task))
            waiter = self._by_store.setdefault(chosen, made)
        return waiter


class ResultWaiter:
    """One thread that waits for all awaited results of a store together, on the store's own notice."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self.after_fork()
        on_fork(self)

    def after_fork(self) -> None:
        """Await nothing, without a thread, as a forked child does."""
        self._awaited: dict[str, list[Callback]] = {}
        self._lock = Lock()
        self._thread: Thread | None = None

    def add(self, key: str, callback: Callback) -> None:
        """Have ``callback(value)`` called, from the waiter's thread, once the key exists."""
        store = self._store()
        with self._lock:
            self._awaited.setdefault(key, []).append(callback)
            if self._thread is None:
                self._thread = Thread(self._serve, name="boost-results")
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
                for key, value in self._store().wait(keys, _WAIT).items():
                    self._tell(key, value)
                backoff = _FIRST_BACKOFF
            except Exception as error:  # whoever waits has a time-out of their own
                if not isinstance(error, BoostError):
                    log.exception("waiting for results failed; the store is asked again in %.1f s", backoff)
                sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)

    def _tell(self, key: str, value: bytes) -> None:
        with self._lock:
            callbacks = self._awaited.pop(key, [])
        for callback in callbacks:
            callback(value)
