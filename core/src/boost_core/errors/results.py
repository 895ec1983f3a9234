"""Errors of results, and what ends a job from inside."""

from __future__ import annotations

from typing import ClassVar

import attrs

from boost_core.errors.base import BoostError


@attrs.define(eq=False)
class ResultsOff(BoostError):
    """``job.get()`` on a task that stores no results."""

    code: ClassVar[str] = "results-off"

    task: str

    def __str__(self) -> str:
        return (
            f"task {self.task!r} stores no results, so job.get() would never return.\n"
            f"  Turn them on: @boost(results=True)"
        )


@attrs.define(eq=False)
class ResultTimeout(BoostError, TimeoutError):
    """No result came within the time given."""

    code: ClassVar[str] = "result-timeout"

    job_id: str
    timeout: float

    def __str__(self) -> str:
        return f"job {self.job_id} has no result after {self.timeout:g} s."


@attrs.define(eq=False)
class JobFailed(BoostError):
    """The job ended without a value: ``state`` is failed, dead, dropped, timed_out or cancelled."""

    code: ClassVar[str] = "job-failed"

    job_id: str
    task: str
    state: str
    reason: str
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None

    def __str__(self) -> str:
        text = f"job {self.job_id} of task {self.task!r} ended {self.state}: {self.reason}"
        if self.error_type:
            text += f"\n  {self.error_type}: {self.error_message}"
        return text


@attrs.define(eq=False)
class JobTimeout(BoostError):
    """Raised by ``current.check()`` in a task whose time is up."""

    code: ClassVar[str] = "job-timeout"

    timeout: float

    def __str__(self) -> str:
        return f"the job's time-out of {self.timeout:g} s has passed."


class JobCancelled(BoostError):
    """Raised by ``current.check()`` in a task that was cancelled."""

    code: ClassVar[str] = "job-cancelled"
