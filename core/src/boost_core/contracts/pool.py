"""The contract of concurrency modes: a pool runs calls, and reports each outcome once."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from boost_core.contracts.specs import World
from boost_core.types import Outcome, Run, RunnerCall

Report = Callable[[Sequence[tuple[Run, Outcome]]], None]
"""Takes outcomes, one or many at once. Thread-safe.

The first outcome of a run wins; later ones are counted and dropped."""


class CancelAnswer(enum.Enum):
    """What could be done about a run that was asked to end."""

    BEFORE_START = "cancelled before start"
    REQUESTED = "cancel requested"
    KILLED = "killed"
    CANNOT = "cannot cancel"


class Pool:
    """Runs calls in one concurrency mode. Core makes one a process and kind; tasks of that kind share it."""

    world: ClassVar[World]

    def __init__(self, options: Any, size: int) -> None:
        """Take the plugin's frozen options and ``size``, how many calls may run at once. Starts nothing."""
        self.options = options
        self.size = size

    def open(self, run: RunnerCall, report: Report) -> None:
        """Start. ``run(run)`` returns the Outcome and never raises; in LOOP it is awaited."""
        raise NotImplementedError

    def submit(self, runs: Sequence[Run]) -> None:
        """Take runs over, in order. Thread-safe, never blocks, wakes the pool once a batch."""
        raise NotImplementedError

    def free(self) -> int:
        """Return how many more calls could start at once; below 0 by as many as wait. Thread-safe."""
        raise NotImplementedError

    def cancel(self, run: Run) -> CancelAnswer:
        """Ask a run to end (``run.cancel_reason`` is set already). Thread-safe, returns at once."""
        raise NotImplementedError

    def abandon(self, run: Run) -> None:
        """Give the run's slot up and go on without it; its late outcome is dropped by core. Thread-safe."""
        raise NotImplementedError

    def close(self, timeout: float) -> Sequence[Run]:
        """Stop starting runs, wait up to ``timeout`` seconds for the running ones; return what didn't finish."""
        raise NotImplementedError
