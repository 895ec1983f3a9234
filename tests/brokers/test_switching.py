"""One task file, without a broker in it, on every broker: chosen by BOOST_BROKER, by --broker, by a URL."""

from __future__ import annotations

import json
import os
import signal

import pytest
from houses import House
from projects import Project, eventually

pytestmark = pytest.mark.timeout(120)

TASKS = """
import os
from boost_core import boost, current

@boost("{queue}-add", results=True)
def add(a, b):
    return a + b

@boost("{queue}-flaky", results=True, retries=2)
def flaky():
    if current.attempt < 3:
        raise ValueError("not yet")
    return current.attempt

@boost("{queue}-slow", results=True, retries=1, retry_delay=1)
def slow():
    if current.attempt < 2:
        raise ValueError("later")
    return current.attempt

@boost("{queue}-bad", results=True, retries=0)
def bad():
    raise RuntimeError("never")

@boost("{queue}-once", results=True)
def once(number):
    return [number, current.id]
"""
PUSH = """
import json, sys, time; sys.path.insert(0, ".")
from tasks import add, bad, flaky, once, slow
from boost_core.errors import JobFailed
outcome = {}
jobs = add.push_many((n, 1) for n in range(50))
begun = time.monotonic()
waits = {"flaky": flaky.push(), "slow": slow.push(), "late": add.options(delay=1).push(20, 22)}
failing = bad.push()
named = once.options(job_id="the-one").push(7)
outcome["sums"] = [job.get(timeout=60) for job in jobs]
outcome |= {name: job.get(timeout=60) for name, job in waits.items()}
outcome["waited"] = time.monotonic() - begun >= 0.9
try:
    failing.get(timeout=60)
except JobFailed as failed:
    outcome["bad"] = [failed.state, failed.reason, failed.error_type, failed.error_message]
outcome["once"] = named.get(timeout=60)
outcome["dead"] = bad.depth().dead
print(json.dumps(outcome))
"""


@pytest.mark.parametrize("how", ["environment", "command line"])
def test_the_same_file_gives_the_same_on_every_broker(project: Project, house: House, how: str) -> None:
    """Results, retries at once and later, delays, failures and dead letters are the same wherever it runs."""
    path = project.write("tasks.py", TASKS.format(queue=f"switch-{os.getpid()}-{project.folder.name}"))
    project.environ["BOOST_BROKER"] = house.address
    if how == "environment":
        worker = project.worker(path)
    else:
        environ = dict(project.environ)
        project.environ["BOOST_BROKER"] = "memory"
        project.environ["BOOST_STORE"] = "sqlite"
        worker = project.worker(path, "--broker", house.address)
        project.environ = {**environ, "BOOST_STORE": "sqlite"}
    eventually(lambda: "queues" in project.log(worker))

    outcome = json.loads(project.python(PUSH))
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0, project.log(worker)
    assert outcome == {
        "sums": list(range(1, 51)),
        "flaky": 3,
        "slow": 2,
        "late": 42,
        "waited": True,
        "bad": ["failed", "failed", "RuntimeError", "never"],
        "once": [7, "the-one"],
        "dead": 1,
    }
