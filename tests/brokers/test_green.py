"""A process that gevent has patched works on brokers: their threads stay native, and a computing hub doesn't stop them."""

from __future__ import annotations

import os
import signal
import time

import pytest
from houses import House
from projects import NOTING, Project, eventually

pytestmark = pytest.mark.timeout(120)

POOL = '''
from collections import deque
from collections.abc import Sequence

import gevent

from boost_core.plugin import CancelAnswer, Pool, PoolSpec, World, hookimpl


class GreenPool(Pool):
    """As small as a pool of greenlets can be: one signal to the hub a batch."""

    world = World.GREEN

    def open(self, run, report):
        self._run, self._report = run, report
        self._box, self._busy = deque(), 0
        self._signal = gevent.get_hub().loop.async_()
        self._signal.start(self._spawn)

    def submit(self, runs):
        self._box.extend(runs)
        self._signal.send()

    def _spawn(self):
        while self._box:
            run = self._box.popleft()
            if run.claim():
                self._busy += 1
                gevent.spawn(self._work, run)

    def _work(self, run):
        outcome = self._run(run)
        self._busy -= 1
        self._report([(run, outcome)])

    def free(self):
        return self.size - self._busy - len(self._box)

    def cancel(self, run):
        return CancelAnswer.BEFORE_START if run.claim() else CancelAnswer.CANNOT

    def abandon(self, run):
        pass

    def close(self, timeout):
        self._signal.stop()
        return ()


@hookimpl
def boost_pools():
    return [PoolSpec(name="green", factory="green_pool:GreenPool", world=World.GREEN, concurrency=50)]
'''
WORK = """
from gevent import monkey

monkey.patch_all()
import os, sys, threading, time

import gevent

from boost_core import boost, current

NOTES = os.environ["NOTES"]

def note(text):
    with open(NOTES, "a") as file:
        file.write(f"{text}\\n")

@boost("QUEUE", pool="green", retries=1)
def job(number):
    if number == 0:
        note("computes")
        while not os.path.exists("enough"):  # the hub computes: no greenlet runs meanwhile
            pass
    gevent.sleep(0.01)
    if number == 1 and current.attempt == 1:
        raise ValueError("again")
    note(f"ran {number} {os.getpid()}")

if __name__ == "__main__":
    worker = job.app.worker()
    worker.start()
    note("ready")
    stop = gevent.event.Event()
    gevent.signal_handler(15, stop.set)
    stop.wait()
    gevent.get_hub().threadpool.apply(worker.stop)
    note("stopped")
"""
OTHER = (
    NOTING
    + """
@boost("QUEUE")
def job(number):
    note(f"ran {number} {os.getpid()}")
"""
)
PUSH = """
from boost_core import App
app = App("pushing")
for number in range(FROM, TO):
    app.send("QUEUE", [number])
"""
SOON = {
    "sqlite": {"LEASE": "2s"},
    "redis": {"LEASE": "2s"},
    "redis-stream": {"LEASE": "2s"},
    "rabbitmq": {"HEARTBEAT": "1s"},  # of which two may be missing
    "kafka": {"SESSION_TIMEOUT": "2s", "HANDOVER": "60s"},  # so that it keeps a running job from who joins its group
    "nats": {"LEASE": "2s"},
}
"""The options by which each broker takes a worker that says nothing for dead after two seconds."""

TAKEN_OVER_SECONDS = 7.0
"""When another worker has such a worker's job at the latest, on any broker."""


def home(project: Project, house: House) -> str:
    """Write what a patched process and others need; return the queue."""
    project.write("green_pool.py", POOL)
    project.write("acme_green-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme-green\nVersion: 1.0\n")
    project.write("acme_green-1.0.dist-info/entry_points.txt", "[boost.pools]\ngreen = green_pool\n")
    project.environ |= {"BOOST_BROKER": house.address, "PYTHONPATH": str(project.folder), "BOOST_STORE": "memory"}
    queue = f"green-{os.getpid()}-{project.folder.name}"
    project.write("work.py", WORK.replace("QUEUE", queue))
    project.write("other.py", OTHER.replace("QUEUE", queue))
    return queue


def push(project: Project, queue: str, start: int, end: int) -> None:
    """Push jobs from a process of their own."""
    project.python(PUSH.replace("QUEUE", queue).replace("FROM", str(start)).replace("TO", str(end)))


def ran(project: Project) -> list[int]:
    """Return the numbers of the jobs that ran."""
    return [int(line.split()[1]) for line in project.notes() if line.startswith("ran")]


def test_a_patched_process_consumes(project: Project, house: House) -> None:
    """Two hundred jobs pushed elsewhere run on greenlets; the drain ends all."""
    queue = home(project, house)
    project.write("enough", "")
    worker = project.start("work.py")
    eventually(lambda: "ready" in project.notes(), 30)

    push(project, queue, 0, 200)
    eventually(lambda: len(ran(project)) == 200, 60)
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0, project.log(worker)
    assert sorted(ran(project)) == list(range(200))
    assert "stopped" in project.notes()


def test_a_computing_hub_keeps_its_job(project: Project, house: House) -> None:
    """Its job isn't taken for a dead worker's, however long it computes; then all else runs too, each job once."""
    queue = home(project, house)
    name = house.broker.upper().replace("-", "_")
    project.environ |= {f"BOOST_BROKER_{name}__{option}": value for option, value in SOON[house.broker].items()}
    computing = project.start("work.py")
    eventually(lambda: "ready" in project.notes(), 30)
    push(project, queue, 0, 1)
    eventually(lambda: "computes" in project.notes())
    begun = time.monotonic()
    other = project.worker("other.py")
    eventually(lambda: "queues" in project.log(other))

    push(project, queue, 1, 30)
    eventually(lambda: time.monotonic() > begun + TAKEN_OVER_SECONDS)
    project.write("enough", "")
    eventually(lambda: len(ran(project)) >= 30)
    for worker in (other, computing):
        worker.send_signal(signal.SIGTERM)

    assert (other.wait(30), computing.wait(30)) == (0, 0), project.log(computing)
    assert sorted(ran(project)) == list(range(30))
    assert f"ran 0 {computing.pid}" in project.notes()
