"""Control ``retry``: how often a failed job runs again, and when."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import attrs

from boost_core.contracts.capability import Capability
from boost_core.contracts.control import Control, ControlContext, Policy
from boost_core.errors import ControlError, DecodeError
from boost_core.options import duration, option
from boost_core.types import Dead, Done, Ended, Failed, Killed, Next, Retry, TimedOut


def _exceptions(value: Any) -> tuple[type[BaseException], ...]:
    classes = value if isinstance(value, (tuple, list, set, frozenset)) else (value,)
    for item in classes:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            message = f"{item!r} is no exception class"
            raise ValueError(message)
    return tuple(classes)


def _delays(value: Any) -> float | tuple[float, float]:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:  # noqa: PLR2004 - first and longest
            message = "give one delay, or a pair: the first and the longest delay of an exponential back-off"
            raise ValueError(message)
        first, longest = duration(value[0]), duration(value[1])
        if first is None or longest is None or not 0 < first <= longest:
            message = "a back-off is a pair (first, longest) with 0 < first <= longest"
            raise ValueError(message)
        return first, longest
    seconds = duration(value)
    if seconds is None:
        message = "a retry delay is a number of seconds, or a pair (first, longest)"
        raise ValueError(message)
    return seconds


def _count(value: int) -> str | None:
    return None if value >= 0 else "it must be 0 (no retry) or more"


@attrs.frozen(kw_only=True)
class RetryOptions:
    """Task options of ``retry``."""

    retries: int = option(3, help="Runs after the first one that fails; 0 means none.", check=_count, message=True)
    retry_delay: Any = option(
        0.0,
        help="Seconds before a retry (0: at once), or a pair (first, longest): exponential back-off with jitter.",
        convert=_delays,
    )
    retry_on: tuple[type[BaseException], ...] = option(
        (Exception,), help="Exception classes that are retried; others are dead letters at once.", convert=_exceptions
    )
    give_up_on: tuple[type[BaseException], ...] = option(
        (), help="Exception classes that are never retried.", convert=_exceptions
    )


class RetryControl(Control):
    """Sends failed, timed-out and killed runs round again, the wait held in the broker and not in a worker."""

    def __init__(self, context: ControlContext) -> None:
        super().__init__(context)
        self._policy = _RetryPolicy()

    def needs(self, values: Mapping[str, Any]) -> Mapping[Capability, str]:
        delay = values["retry_delay"]
        return {Capability.DELAY: f"retry_delay={delay}"} if delay and values["retries"] else {}

    def policy(self, task: Any) -> Policy:
        return self._policy


class _RetryPolicy(Policy):
    def decide(self, ended: Ended) -> None:
        outcome = ended.outcome
        if type(outcome) is Done:
            return
        if isinstance(outcome, Retry):
            self._again(ended, outcome.delay)
        elif isinstance(outcome, (TimedOut, Killed)) or (isinstance(outcome, Failed) and self._retried(ended, outcome)):
            self._again(ended, None)

    def _retried(self, ended: Ended, outcome: Failed) -> bool:
        values = ended.run.task.values
        if outcome.final or isinstance(outcome.error, values["give_up_on"]):
            return False
        return isinstance(outcome.error, values["retry_on"]) and not isinstance(outcome.error, _OWN_BUGS)

    def _again(self, ended: Ended, delay: float | None) -> None:
        run = ended.run
        if run.attempt > run.setting("retries"):
            ended.verdict = Dead("failed" if not isinstance(ended.outcome, TimedOut) else "timed_out")
        else:
            ended.verdict = Next(backoff(run.setting("retry_delay"), run.attempt) if delay is None else delay)


_OWN_BUGS = (ControlError, DecodeError)
"""A control's bug and a bad payload don't get better by repetition; a broker or store that is away does."""


def backoff(delay: float | tuple[float, float], attempt: int) -> float:
    """Return the wait before the attempt after ``attempt``, in seconds.

    A pair (first, longest) doubles from first up to longest, and a random part of the upper half is
    taken off ("equal jitter", M. Brooker, "Exponential Backoff And Jitter", AWS, 2015).
    """
    if not isinstance(delay, tuple):
        return delay
    first, longest = delay
    full: float = min(longest, first * 2 ** min(attempt - 1, 60))
    return random.uniform(full / 2, full)
