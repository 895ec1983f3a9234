"""A process that gevent has patched works on brokers: their threads stay native, and a computing hub doesn't stop them."""

from __future__ import annotations

import os
import signal

import pytest
from houses import House
from projects import Project, eventually

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
        end = time.monotonic() + 3
        while time.monotonic() < end:  # the hub computes: no greenlet runs meanwhile
            pass
    gevent.sleep(0.01)
    if number == 1 and current.attempt == 1:
        raise ValueError("again")
    note(f"ran {number}")

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
PUSH = """
import sys; sys.path.insert(0, ".")
from boost_core import App
App("pushing").send  # noqa
app = App("pushing")
for number in range(200):
    app.send("QUEUE", [number])
"""


def test_a_patched_process_consumes(project: Project, house: House) -> None:
    """Two hundred jobs pushed elsewhere run on greenlets, one of which keeps the hub for seconds; the drain ends all."""
    queue = f"green-{os.getpid()}-{project.folder.name}"
    project.write("green_pool.py", POOL)
    project.write("acme_green-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme-green\nVersion: 1.0\n")
    project.write("acme_green-1.0.dist-info/entry_points.txt", "[boost.pools]\ngreen = green_pool\n")
    project.environ |= {"BOOST_BROKER": house.address, "PYTHONPATH": str(project.folder), "BOOST_STORE": "memory"}
    worker = project.start(project.write("work.py", WORK.replace("QUEUE", queue)))
    eventually(lambda: "ready" in project.notes(), 30)

    project.python(PUSH.replace("QUEUE", queue))
    eventually(lambda: sum(line.startswith("ran") for line in project.notes()) == 200, 60)
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0, project.log(worker)
    ran = [int(line.split()[1]) for line in project.notes() if line.startswith("ran")]
    assert sorted(ran) == list(range(200))
    assert "stopped" in project.notes()
