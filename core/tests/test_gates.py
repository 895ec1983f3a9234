"""Gates: their order, and that each message they let in is settled or undone exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from boost_core import App, current
from boost_core.errors import JobFailed
from boost_core.plugin import (
    START,
    Admission,
    Control,
    Done,
    Drop,
    End,
    Ended,
    Gate,
    GateStage,
    Hold,
    Run,
)
from boost_core.registry.registry import Registry
from letters import eventually
from plugged import control, options_of, plug

Answer = Callable[[Run], Admission]


class NotingGate(Gate):
    """A gate that answers as it is told and notes what it is told: (gate, moment, job)."""

    def __init__(self, name: str, notes: list[tuple[str, str, str]], answer: Answer) -> None:
        self.name, self.notes, self.answer = name, notes, answer

    def _note(self, moment: str, run: Run) -> None:
        self.notes.append((self.name, moment, run.message.id))

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        """Note and return the answer for each run."""
        answers = [self.answer(run) for run in runs]
        for run, answer in zip(runs, answers, strict=True):
            self._note(type(answer).__name__.lower(), run)
        return answers

    def undo(self, runs: Sequence[Run]) -> None:
        """Note it."""
        for run in runs:
            self._note("undo", run)

    def settled(self, ended: Sequence[Ended]) -> None:
        """Note it."""
        for end in ended:
            self._note("settled", end.run)


def gate(name: str, make: Callable[[Any], Gate | None], stage: GateStage = GateStage.RATE, **facts: Any) -> Any:
    """Return a control that brings one gate, for all tasks together unless ``make(task)`` says otherwise."""
    made = type("Gated", (Control,), {"gate": lambda _self, task: make(task)})
    return control(name, made, gate=stage, **facts)


def always(_run: Run) -> Admission:
    """Let everything start."""
    return START


def once(first: Callable[[Run], Admission]) -> Answer:
    """Answer ``first`` for the first time a job comes, then START."""
    seen: set[str] = set()

    def answer(run: Run) -> Admission:
        if run.message.id in seen:
            return START
        seen.add(run.message.id)
        return first(run)

    return answer


def briefly(run: Run) -> Admission:
    """Hold for a moment."""
    return Hold(run.clock.monotonic() + 0.01)


def of(name: str, notes: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return one gate's moments."""
    return [moment for gate_name, moment, _ in notes if gate_name == name]


def imbalances(notes: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return every breach of the rule: let in (start, hold) is followed by exactly one undo or settled, nothing else is."""
    inside: set[tuple[str, str]] = set()
    found: list[str] = []
    for gate_name, moment, job in notes:
        place = (gate_name, job)
        if moment in ("start", "hold"):
            inside.add(place)
        elif moment in ("undo", "settled"):
            if place not in inside:
                found.append(f"{gate_name}: {moment} of {job}, which is not let in")
            inside.discard(place)
    return found + [f"{gate_name}: nothing more heard of {job}" for gate_name, job in inside]


# --- the life of a message ---------------------------------------------------------------------------


def test_gates_are_asked_in_the_order_of_their_stages(app: App) -> None:
    """From EXPIRE to RATE, inside a stage by before= and after=; each sees only what the one before let start."""
    notes: list[tuple[str, str, str]] = []
    stages = list(GateStage)
    brought = [
        gate(stage.name.lower().replace("_", "-"), lambda _task, s=stage: NotingGate(s.name, notes, always), stage)
        for stage in reversed(stages)
    ]
    first = gate("z-first", lambda _task: NotingGate("FIRST", notes, always), GateStage.RATE, before=("rate",))
    last = gate("a-last", lambda _task: NotingGate("LAST", notes, always), GateStage.RATE, after=("rate",))
    plug(app, *brought, first, last)

    @app.boost("job", results=True)
    def job() -> None: ...

    with app.worker():
        job.push().get(timeout=10)

    order = [*(stage.name for stage in stages if stage is not GateStage.RATE), "FIRST", "RATE", "LAST"]
    assert [name for name, moment, _ in notes if moment == "start"] == order


def test_a_gate_hears_how_a_job_ended_before_its_ack(app: App) -> None:
    """Settled comes once with outcome and verdict of each attempt, while the broker still holds the delivery."""
    ends: list[Any] = []

    class Watching(NotingGate):
        def settled(self, ended: Sequence[Ended]) -> None:
            for end in ended:
                ends.append((end.run.attempt, type(end.outcome).__name__, type(end.verdict).__name__))
                ends.append(job.depth().running)

    plug(app, gate("watching", lambda _task: Watching("watching", [], always)))

    @app.boost("job", results=True, retries=1)
    def job() -> None:
        if current.attempt == 1:
            raise RuntimeError

    with app.worker():
        job.push().get(timeout=10)

    assert ends == [(1, "Failed", "Next"), 1, (2, "Done", "Ack"), 1]


def test_a_held_message_passes_all_gates_again(app: App) -> None:
    """Hold keeps a message here and undoes nothing; when due it is asked about by every gate from the first."""
    notes: list[tuple[str, str, str]] = []
    plug(
        app,
        gate("first", lambda _task: NotingGate("first", notes, always), GateStage.DEDUP),
        gate("holding", lambda _task: NotingGate("holding", notes, once(briefly)), GateStage.RATE),
    )

    @app.boost("job", results=True)
    def job() -> int:
        return current.attempt

    with app.worker():
        assert job.push().get(timeout=10) == 1

    assert of("first", notes) == ["start", "start", "settled"]
    assert of("holding", notes) == ["hold", "start", "settled"]


def test_a_gate_may_end_a_job(app: App) -> None:
    """End(outcome) is settled like any outcome: a dropped job's reason, or a value, reaches the waiter."""

    def answer(run: Run) -> Admission:
        return End(Drop("seen before")) if run.setting("drop") else End(Done({"kept": [1]}))

    plug(app, gate("ending", lambda _task: NotingGate("ending", [], answer), options=options_of(drop=(bool, False))))
    ran: list[int] = []

    @app.boost("job", results=True)
    def job():
        ran.append(1)

    with app.worker() as worker:
        valued, dropped = job.push(), job.options(drop=True).push()
        assert valued.get(timeout=10) == {"kept": [1]}
        with pytest.raises(JobFailed) as caught:
            dropped.get(timeout=10)
        eventually(worker.is_idle)

    assert (caught.value.state, caught.value.reason) == ("dropped", "seen before")
    assert ran == []


def test_what_waits_at_the_stop_is_undone(app: App) -> None:
    """Messages held by a gate, or let start but not started, go back at a stop, and their gates undo them once."""
    notes: list[tuple[str, str, str]] = []
    started, go_on = threading.Event(), threading.Event()

    def answer(run: Run) -> Admission:
        return Hold(run.clock.monotonic() + 0.9) if run.setting("hold") else START

    plug(
        app,
        gate("first", lambda _task: NotingGate("first", notes, always), GateStage.DEDUP),
        gate(
            "second",
            lambda _task: NotingGate("second", notes, answer),
            GateStage.RATE,
            options=options_of(hold=(bool, False)),
        ),
    )

    @app.boost("job", concurrency=2)
    def job() -> None:
        started.set()
        assert go_on.wait(10)

    worker = app.worker()
    worker.start()
    job.push()
    assert started.wait(10)
    held = job.options(hold=True).push()
    eventually(lambda: ("second", "hold", held.id) in notes)
    worker.drain()
    go_on.set()
    worker.stop()

    assert imbalances(notes) == []
    assert [moment for _, moment, job_id in notes if job_id == held.id] == ["start", "hold", "undo", "undo"]
    assert job.depth().ready == 1


# --- demand and keep -----------------------------------------------------------------------------------


def test_no_demand_keeps_messages_in_the_broker(app: App) -> None:
    """While a gate's demand is 0 nothing of its queue is fetched; other queues go on; from its moment on it is fetched."""
    open_at: list[float] = []
    asked: list[int] = []

    class Closed(NotingGate):
        def demand(self, want: int) -> tuple[int, float | None]:
            asked.append(want)
            now = app.clock.monotonic()
            if not open_at or now < open_at[0]:
                return 0, open_at[0] if open_at else now + 0.01
            return 1, None

    most: list[int] = []

    class Counting(Closed):
        def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
            most.append(len(runs))
            return super().admit(runs)

    plug(app, gate("rate", lambda task: Counting("rate", [], always) if task.name == "shut" else None))

    @app.boost("shut", results=True)
    def shut(number: int) -> int:
        return number

    @app.boost("open", results=True)
    def opened() -> str:
        return "ran"

    jobs = shut.push_many((number,) for number in range(3))
    with app.worker():
        assert opened.push().get(timeout=10) == "ran"
        eventually(lambda: len(asked) > 2)
        assert (shut.depth().ready, shut.depth().running) == (3, 0)
        open_at.append(app.clock.monotonic() + 0.01)
        assert [job.get(timeout=10) for job in jobs] == [0, 1, 2]

    assert most == [1, 1, 1]
    assert min(asked) >= 1


def test_keep_is_called_for_what_runs() -> None:
    """While jobs run, their gates are told every third of the lease to renew what they hold, for all jobs together."""
    memory = Registry().broker("memory")
    broker = attrs.evolve(memory, limits=attrs.evolve(memory.limits, lease=0.03))
    app = App("leased", broker=broker, store="memory")
    kept: list[list[str]] = []
    enough = threading.Event()

    class Keeping(NotingGate):
        def keep(self, runs: Sequence[Run]) -> None:
            kept.append(sorted(run.message.id for run in runs))
            if len(runs) == 2:
                enough.set()

    plug(app, gate("keeping", lambda _task, one=Keeping("keeping", [], always): one))

    def work() -> None:
        assert enough.wait(10)

    jobs = [app.boost(name, results=True)(work).push() for name in ("one", "two")]
    with app.worker():
        for pushed in jobs:
            pushed.get(timeout=10)
    app.close()

    assert sorted(pushed.id for pushed in jobs) in kept


class SpeechlessGate(Gate):
    """A gate that can't say how much it wants."""

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        """Let all start."""
        return [START] * len(runs)

    def demand(self, want: int) -> tuple[int, float | None]:
        """Fail."""
        raise ZeroDivisionError


def test_a_gate_that_cant_say_what_it_wants_stops_its_own_queue_only(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """Other queues of the broker are served; the log names the task."""
    plug(app, gate("broken", lambda task: SpeechlessGate() if task.name == "stopped" else None))
    stopped = app.boost("stopped")(lambda: None)
    served = app.boost("served", results=True)(lambda: "served")
    stopped.push()

    with app.worker():
        assert served.push().get(timeout=10) == "served"

    assert stopped.depth().ready == 1
    assert "a gate of task stopped failed; its queue backs off" in caplog.messages


class CarefulGate(Gate):
    """A gate that takes note of whom it was asked to keep."""

    def __init__(self) -> None:
        self.kept: set[str] = set()

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        """Let all start."""
        return [START] * len(runs)

    def keep(self, runs: Sequence[Run]) -> None:
        """Note them."""
        self.kept.update(run.message.id for run in runs)


class CarelessGate(CarefulGate):
    """A gate that fails to keep anything."""

    def keep(self, runs: Sequence[Run]) -> None:
        """Fail."""
        raise ZeroDivisionError


def test_a_gate_that_cant_keep_leaves_the_others_theirs(caplog: pytest.LogCaptureFixture) -> None:
    """Each is asked whatever became of those before it."""
    memory = Registry().broker("memory")
    app = App("keep", broker=attrs.evolve(memory, limits=attrs.evolve(memory.limits, lease=0.1)), store="memory")
    careful, go = CarefulGate(), threading.Event()
    plug(app, gate("careless", lambda _: CarelessGate(), GateStage.DEDUP), gate("careful", lambda _: careful))
    job = app.boost("job")(lambda: go.wait(20)).push()

    with app.worker():
        eventually(lambda: careful.kept == {job.id})
        go.set()

    assert "a gate failed to keep what it gave 1 jobs" in caplog.messages
    app.close()
