"""What a task that joins a running worker leaves as it was."""

from __future__ import annotations

import threading

import attrs
import pytest
from boost_core import App
from boost_core.registry.registry import Registry

BROKERS = {"the same broker": None, "another broker": attrs.evolve(Registry().broker("memory"), name="other")}


class Counted:
    """A function that takes note of how many of its calls run at once, and says when enough have ended."""

    def __init__(self, enough: int) -> None:
        self.enough, self.ended = enough, 0
        self.running, self.most = 0, 0
        self.reached = threading.Event()
        self._lock = threading.Lock()

    def run(self, _number: int) -> None:
        """Run for a millisecond."""
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        threading.Event().wait(0.001)
        with self._lock:
            self.running -= 1
            self.ended += 1
        if self.ended == self.enough:
            self.reached.set()


@pytest.mark.parametrize("broker", BROKERS)
def test_concurrency_holds_when_a_task_joins(app: App, broker: str) -> None:
    """Neither what the worker holds already nor what it fetches next runs beside more than its task allows."""
    counted = Counted(enough=100)
    narrow = app.boost("narrow", concurrency=1)(counted.run)
    wide = app.boost("wide", concurrency=16, results=True, broker=BROKERS[broker])(lambda: "served")
    narrow.push_many((number,) for number in range(500))

    with app.worker(narrow) as worker:
        assert counted.reached.wait(10)
        worker.add(wide)
        assert wide.push().get(timeout=10) == "served"
        assert narrow.wait_idle(20)

    assert (counted.ended, counted.most) == (500, 1)
