"""Plugs pulled on each broker, with real processes and real servers: nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from houses import PATIENCE, House, ProxiedHouse, ServedHouse
from projects import NOTING, Project, eventually

pytestmark = pytest.mark.timeout(150)

JOBS = (
    NOTING
    + """
@boost("QUEUE", concurrency=16)
def job(number):
    note(f"start {number} {os.getpid()} {time.monotonic()}")
    while not os.path.exists("go"):
        time.sleep(0.01)
    note(f"end {number} {os.getpid()}")

@boost("QUEUE-quick", concurrency=16)
def quick(number):
    note(f"ran {number}")

@boost("QUEUE-fork", concurrency=1)
def fork():
    import subprocess
    child = os.fork()
    if child == 0:
        time.sleep(120)
        os._exit(0)
    note(f"child {child}")
"""
)
PUSH = """
    import sys; sys.path.insert(0, ".")
    from jobs import job, fork
    {what}
"""
PUSHING = """
import sys, time; sys.path.insert(0, ".")
from jobs import quick
from boost_core.errors import BoostError
for number in range({count}):
    while True:
        try:
            quick.push(number)
            break
        except BoostError as error:
            time.sleep(0.05)
    print(number, flush=True)
    time.sleep(0.002)
"""


def home(project: Project, house: House) -> Path:
    """Write the task file, with the broker set in the environment; return its path."""
    project.environ["BOOST_BROKER"] = house.address
    return project.write("jobs.py", JOBS.replace("QUEUE", f"faults-{os.getpid()}-{project.folder.name}"))


def started(project: Project, pid: int) -> list[float]:
    """Return when a process has started each of its jobs."""
    lines = [line.split() for line in project.notes()]
    return [float(line[3]) for line in lines if line[0] == "start" and int(line[2]) == pid]


def test_a_killed_worker_is_taken_over_within_the_bound(project: Project, house: House) -> None:
    """Sixteen jobs of a worker killed with -9, whose forked child lives on, run elsewhere, each once more; none is lost."""
    path = home(project, house)
    first = project.worker(path)
    project.python(PUSH.format(what="fork.push()"))
    child = int(eventually(lambda: [line for line in project.notes() if line.startswith("child")])[0].split()[1])
    project.python(PUSH.format(what="job.push_many((n,) for n in range(16))"))
    eventually(lambda: len(started(project, first.pid)) == 16)
    second = project.worker(path)
    eventually(lambda: "queues" in project.log(second))
    bound = house.spec.limits.takeover
    assert bound is not None

    try:
        killed = time.monotonic()
        first.kill()
        first.wait()
        eventually(lambda: len(started(project, second.pid)) == 16, bound + PATIENCE)
        project.write("go", "")
        eventually(lambda: sum(line.startswith("end") for line in project.notes()) == 16)
    finally:
        os.kill(child, signal.SIGKILL)
    second.send_signal(signal.SIGTERM)

    assert second.wait(30) == 0, project.log(second)
    assert max(started(project, second.pid)) - killed <= bound
    starts = Counter(line.split()[1] for line in project.notes() if line.startswith("start"))
    assert starts == {str(number): 2 for number in range(16)}


def test_a_servers_death_loses_nothing_that_was_acknowledged(project: Project, own_house: ServedHouse) -> None:
    """Killed with -9 under load and started again: every push that returned is run, by workers that went on by themselves."""
    path = home(project, own_house)
    worker = project.worker(path)
    eventually(lambda: "queues" in project.log(worker))
    pushing = project.start(project.write("pushing.py", PUSHING.format(count=600)))
    eventually(lambda: project.log(pushing).count("\n") > 150, 60)

    own_house.server.kill()
    own_house.server.start()

    assert pushing.wait(90) == 0, project.log(pushing)
    missing = set(range(600))
    eventually(lambda: not (missing - {int(line.split()[1]) for line in project.notes()}), 60)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, project.log(worker)


def test_cut_connections_lose_nothing(project: Project, proxied_house: ProxiedHouse) -> None:
    """All connections of worker and publisher are reset in the middle, twice; every job is run."""
    path = home(project, proxied_house)
    worker = project.worker(path)
    eventually(lambda: "queues" in project.log(worker))
    pushing = project.start(project.write("pushing.py", PUSHING.format(count=400)))

    for count in (80, 200):
        eventually(lambda count=count: project.log(pushing).count("\n") > count, 60)
        proxied_house.proxy.cut()

    assert pushing.wait(90) == 0, project.log(pushing)
    everything = set(range(400))
    eventually(lambda: {int(line.split()[1]) for line in project.notes()} == everything, 60)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, project.log(worker)


def test_sigterm_drains(project: Project, house: House) -> None:
    """Running jobs end and are acknowledged, waiting ones stay for the next worker, each is run once."""
    path = home(project, house)
    worker = project.worker(path, "--concurrency", "2")
    project.python(PUSH.format(what="job.push_many((n,) for n in range(6))"))
    eventually(lambda: len(started(project, worker.pid)) == 2)

    worker.send_signal(signal.SIGTERM)
    eventually(lambda: "draining" in project.log(worker))
    project.write("go", "")

    assert worker.wait(40) == 0, project.log(worker)
    assert len(started(project, worker.pid)) == 2
    second = project.worker(path)
    eventually(lambda: len(started(project, second.pid)) == 4, 40)
    eventually(lambda: sum(line.startswith("end") for line in project.notes()) == 6)
    second.send_signal(signal.SIGTERM)
    assert second.wait(40) == 0, project.log(second)
    assert Counter(line.split()[1] for line in project.notes() if line.startswith("start")) == {
        str(number): 1 for number in range(6)
    }
