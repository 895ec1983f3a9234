"""What a task that joins a running worker leaves as it was."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import attrs
from boost_core import App
from boost_core.plugin import START, Admission, Control, Gate, GateStage, Run
from boost_core.registry.registry import Registry
from letters import eventually
from plugged import control, plug


class Counted:
    """A function that takes note of how many of its calls run at once; ``first`` is what its first call waits for."""

    def __init__(self) -> None:
        self.ended, self.running, self.most = 0, 0, 0
        self.enough, self.first = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        """Run for a millisecond."""
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        if number == 0:
            assert self.first.wait(20)
        threading.Event().wait(0.001)
        with self._lock:
            self.running -= 1
            self.ended += 1
        if self.ended == 100:
            self.enough.set()


def test_what_a_replaced_connection_still_runs_counts(app: App) -> None:
    """A task that joins its broker's other ones doesn't let more of them run than before."""
    counted = Counted()
    narrow = app.boost("narrow", concurrency=1)(counted.run)
    wide = app.boost("wide", results=True)(lambda: "served")
    narrow.push_many((number,) for number in range(3))

    with app.worker(narrow) as worker:
        eventually(lambda: counted.running)
        worker.add(wide)
        assert wide.push().get(timeout=10) == "served"
        eventually(lambda: narrow.depth().running == 2)
        counted.first.set()
        assert narrow.wait_idle(20)

    assert (counted.ended, counted.most) == (3, 1)


def test_what_waits_in_a_pool_doesnt_fill_its_new_slots(app: App) -> None:
    """A task that joins on another broker makes the pool larger, not what the first one may run at once."""
    counted = Counted()
    counted.first.set()
    narrow = app.boost("narrow", concurrency=1)(counted.run)
    other = attrs.evolve(Registry().broker("memory"), name="other")
    wide = app.boost("wide", concurrency=16, results=True, broker=other)(lambda: "served")
    narrow.push_many((number,) for number in range(500))

    with app.worker(narrow) as worker:
        assert counted.enough.wait(10)
        worker.add(wide)
        assert wide.push().get(timeout=10) == "served"
        assert narrow.wait_idle(20)

    assert (counted.ended, counted.most) == (500, 1)


class SlowGate(Gate):
    """Answers the first time only once the message it is asked about was taken back."""

    def __init__(self) -> None:
        self.taken_back = threading.Event()

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        """Let everything start, late."""
        assert self.taken_back.wait(20)
        return [START] * len(runs)

    def undo(self, runs: Sequence[Run]) -> None:
        """Take note of it."""
        self.taken_back.set()


def test_what_a_gate_lets_start_too_late_takes_no_slot(app: App) -> None:
    """A message that went back to the broker while a gate thought about it doesn't count as running ever after."""
    gated = type(
        "Gated", (Control,), {"gate": lambda _self, task, one=SlowGate(): one if task.name == "narrow" else None}
    )
    plug(app, control("slow", gated, gate=GateStage.RATE))
    narrow = app.boost("narrow", concurrency=1, results=True)(lambda: "served")
    other = attrs.evolve(Registry().broker("memory"), name="other")
    wide = app.boost("wide", concurrency=16, results=True, broker=other)(lambda: "served")

    with app.worker(narrow) as worker:
        assert narrow.push().get(timeout=20) == "served"
        worker.add(wide)
        assert wide.push().get(timeout=10) == "served"
        assert narrow.push().get(timeout=10) == "served"
