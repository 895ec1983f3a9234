"""Policies: the order they decide in, and what their verdict leads to."""

from __future__ import annotations

import pytest
from boost_core import App
from boost_core.errors import JobFailed
from boost_core.plugin import Ack, Control, Dead, Ended, Next, Policy, PolicyStage
from letters import dead_letters, eventually
from plugged import control, plug


def test_policies_decide_in_the_order_of_their_stages(app: App) -> None:
    """RETRY decides before CIRCUIT and that before RESULT; each sees the verdict so far and may set another."""
    seen: list[tuple[str, str]] = []

    class Noting(Policy):
        def __init__(self, stage: PolicyStage) -> None:
            self.stage = stage

        def decide(self, ended: Ended) -> None:
            seen.append((self.stage.name, type(ended.verdict).__name__))
            if self.stage is PolicyStage.CIRCUIT:
                ended.verdict = Dead("circuit open")

    stages = (PolicyStage.RESULT, PolicyStage.CIRCUIT, PolicyStage.RETRY)
    facts = {PolicyStage.RETRY: {"before": ("retry",)}}
    brought = []
    for stage in stages:
        made = type("Ruled", (Control,), {"policy": lambda _self, _task, one=Noting(stage): one})
        brought.append(control(f"n-{stage.name.lower()}", made, policy=stage, **facts.get(stage, {})))
    plug(app, *brought)

    @app.boost("failing", retries=5)
    def failing() -> None:
        raise RuntimeError

    failing.push()
    with app.worker():
        (letter,) = eventually(lambda: dead_letters(failing))

    assert seen == [("RETRY", "Dead"), ("CIRCUIT", "Next"), ("RESULT", "Dead")]
    assert (letter.reason, letter.attempt) == ("circuit open", 1)


@pytest.mark.parametrize(
    ("verdict", "runs", "reason"),
    [
        (Ack(), 1, None),
        (Dead("said so"), 1, "said so"),
        (Next(0.0), 3, "failed"),
        (Next(0.0, counted=False), 4, "failed"),
    ],
)
def test_a_policys_verdict_decides_what_comes_next(
    app: App, verdict: Ack | Dead | Next, runs: int, reason: str | None
) -> None:
    """Ack ends a job, Dead makes a letter of its reason, Next runs it again: counted as an attempt or not."""
    ran: list[int] = []

    class Deciding(Policy):
        def decide(self, ended: Ended) -> None:
            if len(ran) == 1:
                ended.verdict = verdict

    deciding = Deciding()
    made = type("Ruled", (Control,), {"policy": lambda _self, _task: deciding})
    plug(app, control("ruled", made, policy=PolicyStage.CIRCUIT))

    @app.boost("failing", retries=2, results=True)
    def failing() -> None:
        ran.append(1)
        raise RuntimeError("broken")

    job = failing.push()
    with app.worker() as worker:
        with pytest.raises(JobFailed):
            job.get(timeout=10)
        eventually(worker.is_idle)

    assert len(ran) == runs
    assert [letter.reason for letter in dead_letters(failing)] == ([reason] if reason else [])


def test_a_policy_writes_each_outcome_once_before_its_ack(app: App) -> None:
    """Commit gets the outcomes of all tasks that share the policy, each exactly once, before its ack."""
    batches: list[list[int]] = []
    unacked: list[int] = []

    class Committing(Policy):
        def commit(self, ended: list[Ended]) -> None:
            batches.append([end.run.task.binder.decode(end.run.message)[0][0] for end in ended])
            unacked.append(one.depth().running + two.depth().running)

    committing = Committing()
    made = type("Ruled", (Control,), {"policy": lambda _self, _task: committing})
    plug(app, control("ruled", made, policy=PolicyStage.RESULT))

    def identity(number: int) -> int:
        return number

    one, two = app.boost("one", pool="solo")(identity), app.boost("two", pool="solo")(identity)
    app.push_many((one, two)[number % 2].call(number) for number in range(300))
    with app.worker() as worker:
        eventually(worker.is_idle)

    assert sorted(number for batch in batches for number in batch) == list(range(300))
    assert all(held >= len(batch) for held, batch in zip(unacked, batches, strict=True))
