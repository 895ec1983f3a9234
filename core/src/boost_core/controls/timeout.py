"""Control ``timeout``: a run has so many seconds; after that it is asked to end, then given up on."""

from __future__ import annotations

from typing import Any

import attrs

from boost_core.contracts.control import Control
from boost_core.options import duration, option
from boost_core.types import Outcome, Run, RunnerCall


def _positive(value: float | None) -> str | None:
    return None if value is None or value > 0 else "it must be more than 0 seconds"


@attrs.frozen(kw_only=True)
class TimeoutOptions:
    """Task options of ``timeout``."""

    timeout: float | None = option(
        None, help="Seconds a run may take from its start.", convert=duration, check=_positive, message=True
    )
    timeout_grace: float = option(
        5.0, help="Seconds between asking a run to end and giving it up.", convert=duration, message=True
    )


class TimeoutControl(Control):
    """Watches each run that has a time-out.

    At the deadline a coroutine is cancelled, and ``current.cancelled`` and ``current.check()`` tell a thread;
    after the grace the run is abandoned: reported as timed out, its slot replaced, its late outcome refused.
    A thread is never killed: Python can't do that without breaking what it holds.
    """

    def wrap(self, task: Any, nxt: RunnerCall) -> RunnerCall:
        if not task.overridden and task.values["timeout"] is None:
            return nxt
        watch, forget = self.context.deadlines.watch, self.context.deadlines.forget

        def call(run: Run) -> Outcome:
            seconds = run.setting("timeout")
            if seconds is None:
                return nxt(run)  # type: ignore[no-any-return]
            watch(run, seconds)
            try:
                return nxt(run)  # type: ignore[no-any-return]
            finally:
                forget(run)

        return call

    def wrap_async(self, task: Any, nxt: RunnerCall) -> RunnerCall:
        if not task.overridden and task.values["timeout"] is None:
            return nxt
        watch, forget = self.context.deadlines.watch, self.context.deadlines.forget

        async def call(run: Run) -> Outcome:
            seconds = run.setting("timeout")
            if seconds is None:
                return await nxt(run)  # type: ignore[no-any-return]
            watch(run, seconds)
            try:
                return await nxt(run)  # type: ignore[no-any-return]
            finally:
                forget(run)

        return call
