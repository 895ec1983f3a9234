"""The watch over running deadlines: asks a run to end at its deadline, gives it up after the grace."""

from __future__ import annotations

from boost_core.native import Condition, Thread
from boost_core.types import Clock, Run, TimedOut


class DeadlineWatch:
    """One thread a process, started by the first run that has a time-out.

    Watching and forgetting is a dict operation each; the thread looks at what runs (at most the
    pools' sizes) when the nearest deadline is due, so that a time-out of an hour leaves nothing behind.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[Run, float] = {}
        self._nearest = float("inf")
        self._changed = Condition()
        self._thread: Thread | None = None

    def watch(self, run: Run, seconds: float) -> None:
        """Start the clock of ``run``: it has ``seconds`` from now."""
        due = self._clock.monotonic() + seconds
        run.deadline = due
        self._due[run] = due
        if due < self._nearest:
            with self._changed:
                self._nearest = min(self._nearest, due)
                self._ensure_thread()
                self._changed.notify()

    def forget(self, run: Run) -> None:
        """Stop watching; the call came back."""
        self._due.pop(run, None)

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(self._serve, name="boost-deadlines")
            self._thread.start()

    def _serve(self) -> None:
        while True:
            self.step()
            with self._changed:
                self._nearest = float("inf")  # first, so that a watch() beside us sees it and waits for the lock
                self._nearest = min(self._due.copy().values(), default=float("inf"))
                wait = self._nearest - self._clock.monotonic()
                if wait > 0:
                    self._changed.wait(min(wait, 3600.0))

    def step(self) -> None:
        """Deal with every deadline that has passed by now."""
        now = self._clock.monotonic()
        for run, due in self._due.copy().items():
            if due <= now:
                self._pass(run, now)

    def _pass(self, run: Run, now: float) -> None:
        if run.cancel_reason is None:
            run.cancel_reason = TimedOut(run.setting("timeout"))
            run.host.cancel(run)
            if run in self._due:
                self._due[run] = now + run.setting("timeout_grace")
        elif self._due.pop(run, None) is not None:
            run.host.abandon(run)
