"""One task file, without a broker in it, on every broker: chosen by BOOST_BROKER, by --broker, by a URL."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from boost_core.plugin import Capability
from houses import House
from projects import NOTING, Project, eventually

pytestmark = pytest.mark.timeout(120)

TASKS = (
    NOTING
    + """
@boost("QUEUE-add", results=True)
def add(a, b):
    return a + b

@boost("QUEUE-flaky", results=True, retries=2)
def flaky():
    if current.attempt < 3:
        raise ValueError("not yet")
    return current.attempt

@boost("QUEUE-slow", results=True, retries=1, retry_delay=1)
def slow():
    if current.attempt < 2:
        raise ValueError("later")
    return current.attempt

@boost("QUEUE-bad", results=True, retries=0)
def bad():
    raise RuntimeError("never")

@boost("QUEUE-once", results=True)
def once(number):
    note(f"once {number}")
    return [number, current.id]

@boost("QUEUE-ranked", concurrency=1)
def ranked(number):
    note(f"ranked {number}")
"""
)
PUSH = """
import json, sys, time; sys.path.insert(0, ".")
from tasks import add, bad, flaky, once, slow
from boost_core.errors import JobFailed
outcome = {}
jobs = add.push_many((n, 1) for n in range(50))
begun = time.monotonic()
waits = {"flaky": flaky.push(), "slow": slow.push(), "late": add.options(delay=1).push(20, 22)}
failing = bad.push()
named = [once.options(job_id="the-one").push(7) for _ in range(2)]
outcome["sums"] = [job.get(timeout=60) for job in jobs]
outcome |= {name: job.get(timeout=60) for name, job in waits.items()}
outcome["waited"] = time.monotonic() - begun >= 0.9
try:
    failing.get(timeout=60)
except JobFailed as failed:
    outcome["bad"] = [failed.state, failed.reason, failed.error_type, failed.error_message]
outcome["once"] = [job.get(timeout=60) for job in named] + once.push(8).get(timeout=60)[:1]
outcome["dead"] = bad.depth().dead
print(json.dumps(outcome))
"""


RANK = """
    import sys; sys.path.insert(0, ".")
    from tasks import ranked
    for number in (0, 2, 1):
        ranked.options(priority=number).push(number)
"""
REFUSED = """
    import sys; sys.path.insert(0, ".")
    from boost_core.errors import UnsupportedCapability
    from tasks import ranked
    try:
        ranked.options(priority=2).push(2)
    except UnsupportedCapability as error:
        print(error.capability)
"""


def home(project: Project, house: House) -> Path:
    """Write the task file, with the broker set in the environment; return its path."""
    project.environ["BOOST_BROKER"] = house.address
    return project.write("tasks.py", TASKS.replace("QUEUE", f"switch-{os.getpid()}-{project.folder.name}"))


@pytest.mark.parametrize("how", ["environment", "command line"])
def test_the_same_file_gives_the_same_on_every_broker(project: Project, house: House, how: str) -> None:
    """Results, retries at once and later, delays, failures and dead letters are the same wherever it runs.

    What is pushed twice under one id runs once where the broker has ``dedup``, and twice elsewhere.
    """
    path = home(project, house)
    if how == "environment":
        worker = project.worker(path)
    else:
        environ = dict(project.environ)
        project.environ["BOOST_BROKER"] = "memory"
        project.environ["BOOST_STORE"] = "sqlite"
        worker = project.worker(path, "--broker", house.address)
        project.environ = {**environ, "BOOST_STORE": "sqlite"}
    eventually(lambda: "queues" in project.log(worker))

    runs = Counter({"once 7": 1 if Capability.DEDUP in house.spec.capabilities else 2, "once 8": 1})

    outcome = json.loads(project.python(PUSH))
    eventually(lambda: Counter(project.notes()) >= runs)
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0, project.log(worker)
    assert outcome == {
        "sums": list(range(1, 51)),
        "flaky": 3,
        "slow": 2,
        "late": 42,
        "waited": True,
        "bad": ["failed", "failed", "RuntimeError", "never"],
        "once": [[7, "the-one"], [7, "the-one"], 8],
        "dead": 1,
    }
    assert Counter(project.notes()) == runs


def test_a_higher_priority_runs_first(project: Project, house: House) -> None:
    """Of what waits for one slot, where the broker has priorities; elsewhere asking for one is refused."""
    path = home(project, house)
    if Capability.PRIORITY not in house.spec.capabilities:
        assert project.python(REFUSED).strip() == "priority"
        return
    project.python(RANK)

    worker = project.worker(path)
    eventually(lambda: len(project.notes()) == 3)
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0, project.log(worker)
    assert project.notes() == ["ranked 2", "ranked 1", "ranked 0"]
