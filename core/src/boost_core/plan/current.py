"""``current``: what a running task may ask about itself."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final

from boost_core.errors import BoostError, JobCancelled, JobTimeout
from boost_core.types import Run, TimedOut

RUNNING: Final[ContextVar[Run]] = ContextVar("boost_run")


class _JobLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry the job: ``job_id``, ``task``, ``queue`` and ``attempt``."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class Current:
    """The job that runs here. Outside of a job every attribute raises ``BoostError``."""

    @property
    def _run(self) -> Run:
        try:
            return RUNNING.get()
        except LookupError:
            message = "`current` was asked outside of a running job; it is known only inside a task that a worker runs."
            raise BoostError(message) from None

    def __bool__(self) -> bool:
        return RUNNING.get(None) is not None

    @property
    def id(self) -> str:
        """The job's id."""
        return self._run.message.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._run.message.task

    @property
    def queue(self) -> str:
        """The queue's name."""
        return str(self._run.task.queue)

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._run.message.attempt

    @property
    def deadline(self) -> float | None:
        """When the time-out ends the run, in monotonic seconds; None without one."""
        return self._run.deadline

    def remaining(self) -> float | None:
        """Return the seconds left until the deadline, not below 0; None without a time-out."""
        run = self._run
        return None if run.deadline is None else max(0.0, run.deadline - run.clock.monotonic())

    @property
    def cancelled(self) -> bool:
        """True once the run should end: its time is up, it was cancelled, or its message was lost."""
        run = self._run
        return run.cancel_reason is not None or run.fenced

    def check(self) -> None:
        """Return if the run may go on; else raise ``JobTimeout`` or ``JobCancelled``, to be let through."""
        run = self._run
        reason = run.cancel_reason
        if isinstance(reason, TimedOut):
            raise JobTimeout(reason.timeout)
        if reason is not None or run.fenced:
            raise JobCancelled(reason.reason if reason else "the message was lost to another worker")

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named after the task whose records carry job id, task, queue and attempt."""
        facts = {"job_id": self.id, "task": self.task, "queue": self.queue, "attempt": self.attempt}
        return _JobLog(logging.getLogger(f"boost.task.{self.task}"), facts)


current: Final = Current()
"""The job that runs in this thread or coroutine; false where none does."""
