"""Stamps messages with the moment they expire, and refuses them once it has passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from boost_core.plugin import (
    START,
    Admission,
    BadOption,
    Clock,
    Control,
    ControlContext,
    Drop,
    End,
    Gate,
    Message,
    Run,
)

_MICROSECONDS: Final = 1_000_000


class Expiry(Control):
    """Serves ``max_age``. The publisher's clock says when a message expires, the worker's when that is."""

    def __init__(self, context: ControlContext) -> None:
        super().__init__(context)
        self._gate = ExpiryGate(context.clock)

    def stamp(self, message: Message, values: Mapping[str, Any]) -> None:
        """Set ``message.expires_at``. Raises ``BadOption`` for a message that would expire before its delay ends."""
        max_age = values["max_age"]
        if max_age is None:
            return
        message.expires_at = message.at + int(max_age * _MICROSECONDS)
        if message.not_before is not None and message.not_before >= message.expires_at:
            delay = (message.not_before - message.at) / _MICROSECONDS
            problem = f"task {message.task!r}: with delay={delay:g} and max_age={max_age:g} it would never run."
            raise BadOption(problem, "Give a max_age beyond the delay.")

    def gate(self, task: Any) -> Gate:
        """Return the one gate of all tasks."""
        return self._gate


class ExpiryGate(Gate):
    """Lets everything start but what has expired; holds nothing and keeps nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        """Return START for each run, or the end of those whose time is over: ``Drop("expired")``."""
        admissions: list[Admission] = [START] * len(runs)
        mortal = [index for index, run in enumerate(runs) if run.message.expires_at is not None]
        if mortal:
            now = int(self._clock.time() * _MICROSECONDS)
            for index in mortal:
                expires_at = runs[index].message.expires_at
                if expires_at is not None and expires_at <= now:
                    admissions[index] = End(Drop("expired"))
        return admissions
